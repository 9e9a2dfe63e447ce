"""Envelopes: headers of what is sent, and what is read back."""

from __future__ import annotations

import json

import pytest

from headwater.contracts.messages import Drain, Header
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Encoded, Sent, Turn
from headwater.core.envelope import VALUE_BYTES_MAX, Envelope, milliseconds, rfc3339
from headwater.core.messages import Address, Meta, Position, RunId
from headwater.core.state import Rows
from headwater.errors import PoisonError


class Json:
    """A codec of its own, to test headers alone."""

    def encode(self, value):
        return json.dumps(value.run).encode()

    def decode(self, data):
        return Drain(run=json.loads(data))


ENVELOPE = Envelope(Json(), source="tests")
META = Meta(
    id="i", tenant="t", correlation_id="c", causation_id="b", actor="ana", traceparent=b"tp",
    deadline_ms=1_700_000_000_123, carried=(Header(name="baggage", value=b"k=v"),),
)  # fmt: skip


def record_of(draft, **changes):
    fields = {"key": draft.key, "value": draft.value, "headers": draft.headers, **changes}
    return Record(partition=Partition(draft.topic, 0), offset=0, time_ms=0, **fields)


def test_meta_and_message_survive_the_wire():
    """What is sealed is opened the same."""
    draft = ENVELOPE.seal(Sent(message=Drain(run="r"), to=Address("topic", "key", 3), meta=META))
    assert (draft.topic, draft.key, draft.partition) == ("topic", b"key", 3)
    assert dict(draft.headers)["ce_type"] == b"headwater.drain"
    assert dict(draft.headers)["ce_source"] == b"tests"
    assert ENVELOPE.open(record_of(draft)) == (META, Drain(run="r"))


def test_bare_meta_writes_no_empty_headers():
    """What nobody said is not said."""
    sent = Sent(
        message=Encoded(type="x", value=b"v"), to=Address("t", "k"), meta=Meta(id="i", tenant="t")
    )
    names = [name for name, _ in ENVELOPE.seal(sent).headers]
    assert "traceparent" not in names
    assert "ce_actorid" not in names
    typed = Sent(message=Encoded(type="x", value=Drain(run="r")), to=Address("t", "k"), meta=META)
    assert ENVELOPE.seal(typed).value == b'"r"'


def test_too_large_a_value_is_refused_before_it_is_sent():
    """Outputs are sized first; the message says what to do."""
    sent = Sent(
        message=Encoded(type="x", value=b"v" * (VALUE_BYTES_MAX + 1)),
        to=Address("t", "k"),
        meta=META,
    )
    with pytest.raises(PoisonError, match="a reference") as caught:
        ENVELOPE.seal(sent)
    assert caught.value.code == "too-large"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"value": None}, "tombstone"),
        ({"headers": (("ce_deadline", b"yesterday"),)}, "invalid-header"),
        ({"headers": (("ce_deadline", b"2026-01-01T00:00:00"),)}, "invalid-header"),
        ({"headers": (("ce_id", b"\xff"),)}, "invalid-header"),
    ],
)
def test_unreadable_records_are_poison(changes, code):
    """A record that is no message of ours is refused with its class named."""
    draft = ENVELOPE.seal(Sent(message=Drain(run="r"), to=Address("t", "k"), meta=META))
    with pytest.raises(PoisonError) as caught:
        ENVELOPE.open(record_of(draft, **changes))
    assert caught.value.code == code


def test_times_read_back():
    """RFC 3339, to the millisecond, with an offset."""
    assert milliseconds(rfc3339(1_700_000_000_123)) == 1_700_000_000_123
    assert milliseconds("2026-01-01T01:00:00+01:00") == milliseconds("2026-01-01T00:00:00Z")


def test_consequences_have_ids_derived_from_the_turn():
    """The same turn, taken again, sends the same ids; a recreated topic does not."""

    def sends(topic_id: str) -> list[str]:
        turn = Turn(Rows(), at=Position(topic_id, "t", 0, 7), meta=META, now_ms=0)
        return [turn.send(Drain(run="r"), Address("t", "k")) for _ in range(2)]

    assert sends("a") == sends("a")
    assert len({*sends("a"), *sends("b")}) == 4


def test_sampled_trace_goes_on_from_this_turns_span():
    """Only a sampled trace pays for span ids; any other context is passed on as it is."""
    sampled = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"
    for traceparent, same in ((sampled, False), (sampled[:-1] + b"0", True), (b"", True)):
        turn = Turn(
            Rows(),
            at=Position("i", "t", 0, 7),
            meta=Meta(id="i", tenant="t", traceparent=traceparent),
            now_ms=0,
        )
        turn.send(Drain(run="r"), Address("t", "k"))
        (sent,) = turn.sent
        assert (sent.meta.traceparent == traceparent) is same
        assert sent.meta.traceparent[:35] == traceparent[:35]


def test_run_ids_carry_their_address():
    """A run id reads back; anything else is none."""
    assert RunId.parse("a.3.t") == RunId("a", 3, "t")
    for text in ("a.3", "a.x.t", ".3.t", "a.3.", "a.b.3.t", "a.-1.t"):
        assert RunId.parse(text) is None


def test_a_message_that_has_no_business_here_is_refused():
    """Whoever may write into an inbox may err; the loop that reads it must not stop for that."""
    draft = ENVELOPE.seal(Sent(message=Drain(run="r"), to=Address("topic", "key", 3), meta=META))
    with pytest.raises(PoisonError, match="a Drain has no business"):
        Envelope(Json(), source="tests", takes=(Header,)).open(record_of(draft))
    assert Envelope(Json(), source="tests", takes=(Drain,)).open(record_of(draft))


def test_an_actor_without_a_trace_has_no_traceparent() -> None:
    """What a message does not have leaves no header."""
    meta, to = Meta(id="i", tenant="t", actor="ana"), Address("hw.inbox.desk.v1", "r", 0)
    draft = ENVELOPE.seal(Sent(message=Drain(run="r"), to=to, meta=meta))
    assert "ce_actorid" in dict(draft.headers)
    assert "traceparent" not in dict(draft.headers)
