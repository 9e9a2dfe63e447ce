"""Intake: the table of what is taken over and what is refused, row by row."""

from __future__ import annotations

import pydantic
import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import shape_of
from headwater.contracts.messages import Admit, Header
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Turn
from headwater.core.envelope import rfc3339
from headwater.core.messages import Address, Meta, Position, task_id
from headwater.core.state import Rows
from headwater.errors import PoisonError
from headwater.intake.decider import Door, Intake, as_foreign

TOPIC = "hw.cmd.triage.v1"
TRACE = b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"


class Claim(pydantic.BaseModel):
    text: str
    amount: int = 0


CLAIM = shape_of(Claim)
VALUE = CLAIM.encode(Claim(text="hello"))


def take(
    *,
    value=VALUE,
    headers=(("ce_tenantid", b"t1"),),
    key=None,
    tenants=None,
    actors=False,
    sample=False,
):
    """Return what intake sends for one record; raises what it refuses."""
    schemas = Schemas()
    schemas.add(CLAIM.schema)
    door = Door(agent="triage", input=CLAIM, tenants=tenants, actors=actors)
    decider = Intake(
        {TOPIC: door},
        schemas=schemas,
        admission=lambda tenant: Address("hw.inbox.admission.v1", tenant, 3),
        sample=lambda trace: sample,
    )
    record = Record(
        partition=Partition(TOPIC, 1), offset=7, time_ms=1, key=key, value=value, headers=headers
    )
    meta, message = as_foreign(record)
    assert message is record
    turn = Turn(Rows(), at=Position("id", TOPIC, 1, 7), meta=meta, now_ms=1)
    decider.react(turn, message)
    (sent,) = turn.sent
    return sent


def refused(**record):
    with pytest.raises(PoisonError) as caught:
        take(**record)
    return caught.value.code


def test_task_is_stamped_and_carried_whole():
    """Type, tenant and origin are ours; the record itself travels byte for byte."""
    headers = (("ce_tenantid", b"t1"), ("ce_id", b"e1"), ("ce_source", b"bank"), ("x", b"\xff"))
    sent = take(headers=headers, key=b"k")
    assert isinstance(sent.message, Admit)
    assert sent.message.task_id == task_id("t1", "triage", "bank", "e1")
    assert sent.to == Address("hw.inbox.admission.v1", "t1", 3)
    assert (sent.meta.tenant, sent.meta.correlation_id) == ("t1", "e1")
    task = sent.message.task
    assert (task.topic, task.partition, task.offset, task.key) == (TOPIC, 1, 7, b"k")
    assert task.value == VALUE
    assert task.headers == tuple(Header(name=n, value=v) for n, v in headers)


def test_absent_ids_are_taken_from_the_place_of_the_record():
    """No `ce_id`: the topic's id, partition and offset; no `ce_source`: the agent's name."""
    for headers in (
        (("ce_tenantid", b"t1"),),
        (("ce_tenantid", b"t1"), ("ce_id", b""), ("ce_source", None)),
    ):
        sent = take(headers=headers)
        assert sent.message.task_id == task_id("t1", "triage", "triage", "id/1/7")


def test_digest_is_of_the_datum_not_of_its_bytes():
    """The same claim in another framing is the same claim."""
    other = CLAIM.encode(Claim(text="hello", amount=0))
    assert take(value=other).message.digest == take().message.digest
    changed = CLAIM.encode(Claim(text="hello", amount=1))
    assert take(value=changed).message.digest != take().message.digest


@pytest.mark.parametrize(
    ("record", "code"),
    [
        ({"value": None}, "tombstone"),
        ({"value": b""}, "tombstone"),
        ({"value": b"\xc3\x01" + b"x" * 600_000}, "too-large"),
        ({"value": b"rubbish"}, "wrong-magic"),
        ({"value": b"\xc3\x01" + b"\0" * 8}, "unknown-schema"),
        ({"value": b"\0\0\0\0\x07x"}, "unknown-schema"),
        ({"value": VALUE[:-1]}, "undecodable"),
        ({"value": VALUE + b"x"}, "undecodable"),
        ({"key": b"k" * 1025}, "too-large"),
        ({"headers": tuple(("h", b"") for _ in range(65))}, "too-large"),
        ({"headers": (("ce_tenantid", b"t1"), ("h", b"x" * 16_384))}, "too-large"),
        ({"headers": (("ce_tenantid", b"a"), ("ce_tenantid", b"b"))}, "ambiguous-header"),
        ({"headers": (("ce_tenantid", b"t"), ("ce_id", b"i" * 257))}, "invalid-header"),
        ({"headers": (("ce_tenantid", b"t"), ("ce_id", b"a\nb"))}, "invalid-header"),
        ({"headers": (("ce_tenantid", b"t"), ("ce_source", b"\xff"))}, "invalid-header"),
        ({"headers": ()}, "missing-tenant"),
        ({"headers": (), "tenants": ("a", "b")}, "missing-tenant"),
        ({"headers": (("ce_tenantid", b"UPPER"),)}, "invalid-header"),
        ({"headers": (("ce_tenantid", b"t" * 65),)}, "invalid-header"),
        ({"headers": (("ce_tenantid", b"c"),), "tenants": ("a", "b")}, "foreign-tenant"),
        ({"headers": (("ce_tenantid", b"t"), ("ce_deadline", b"soon"))}, "invalid-header"),
    ],
)
def test_what_breaks_a_rule_is_refused_with_its_class(record, code):
    """Each refusal has a class that operators filter by."""
    assert refused(**record) == code


@pytest.mark.parametrize(
    "deadline",
    [
        b"2026-01-01T00:00:00",  # no offset
        b"2026-13-01T00:00:00Z",
        b"2026-W01-1T00:00:00Z",
        b"20260101T000000Z",
        b"9999-12-31T23:59:59-12:00",  # a year that cannot be written in UTC
        b"9999-12-31T23:59:59.999999Z",  # rounds up to such a year
        b"0001-01-01T00:00:00+23:00",
        b"1969-12-31T23:59:59Z",
    ],
)
def test_deadline_that_could_not_be_written_again_is_refused(deadline):
    """Every consequence repeats the deadline: one that cannot be written would stop the process."""
    headers = (("ce_tenantid", b"t"), ("ce_deadline", deadline))
    assert refused(headers=headers) == "invalid-header"


@pytest.mark.parametrize(
    ("deadline", "again"),
    [
        (b"1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000Z"),
        (b"2026-01-01t02:00:00.5+02:00", "2026-01-01T00:00:00.500Z"),
        (b"9999-12-31T23:59:59Z", "9999-12-31T23:59:59.000Z"),
    ],
)
def test_deadline_that_is_taken_can_be_written_again(deadline, again):
    """What intake takes, the envelope seals."""
    sent = take(headers=(("ce_tenantid", b"t"), ("ce_deadline", deadline)))
    assert rfc3339(sent.meta.deadline_ms) == again


def test_same_header_twice_with_one_value_is_no_contradiction():
    """Only two values for one name are ambiguous; foreign headers may repeat as they like."""
    headers = (("ce_tenantid", b"t"), ("ce_tenantid", b"t"), ("x", b"1"), ("x", b"2"))
    assert take(headers=headers).meta.tenant == "t"


def test_only_tenant_of_a_topic_need_not_be_named():
    """A topic that declares one tenant means it."""
    assert take(headers=(), tenants=("solo",)).meta.tenant == "solo"
    assert take(tenants=("t1", "t2")).meta.tenant == "t1"


def test_actor_is_believed_only_where_the_topic_says_so():
    """`ce_actorid` from a producer who may not name actors is dropped."""
    headers = (("ce_tenantid", b"t"), ("ce_actorid", b"ana"))
    assert take(headers=headers).meta.actor == ""
    assert take(headers=headers, actors=True).meta.actor == "ana"


def test_allow_listed_headers_are_carried_and_ours_cannot_be_forged():
    """`ce_subject ce_time tracestate baggage` travel; `ce_runid`, `ce_type` and the rest do not."""
    headers = (
        ("ce_tenantid", b"t"), ("ce_subject", b"s"), ("baggage", b"k=v"), ("ce_type", b"evil"),
        ("ce_runid", b"evil"), ("ce_causationid", b"evil"), ("ce_deadline", b"2026-01-01T00:00:00Z"),
    )  # fmt: skip
    sent = take(headers=headers)
    assert sent.meta.carried == (
        Header(name="ce_subject", value=b"s"),
        Header(name="baggage", value=b"k=v"),
    )
    assert sent.meta.deadline_ms == 1_767_225_600_000
    assert sent.headers == ()


def test_trace_goes_on_or_begins():
    """A readable context is kept; an unreadable one gives a fresh trace, derived from the record's place."""
    kept = take(headers=(("ce_tenantid", b"t"), ("traceparent", TRACE))).meta.traceparent
    assert kept[:35] == TRACE[:35]
    for bad in (b"nonsense", b"00-" + b"0" * 32 + b"-" + b"b" * 16 + b"-01"):
        fresh = take(headers=(("ce_tenantid", b"t"), ("traceparent", bad))).meta.traceparent
        assert fresh == take().meta.traceparent
        assert fresh.endswith(b"-00")
    assert take(sample=True).meta.traceparent.endswith(b"-01")


def test_nothing_is_open_or_kept_at_intake():
    """A refusal closes nothing; a lost partition forgets nothing."""
    decider = Intake(
        {}, schemas=Schemas(), admission=lambda t: Address("a", t), sample=lambda t: False
    )
    turn = Turn(Rows(), at=Position("id", TOPIC, 1, 7), meta=Meta(id="", tenant=""), now_ms=1)
    record = Record(partition=Partition(TOPIC, 1), offset=7, time_ms=1, key=None, value=b"")
    decider.refused(turn, record, record, PoisonError("x", "y"))
    decider.forget(Partition(TOPIC, 1))
    assert turn.sent == []
