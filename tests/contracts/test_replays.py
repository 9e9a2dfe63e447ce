"""What is sent again of a kept record, and which records an operator means."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.contracts import quarantine
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.contracts.replays import Anew, Skipped, back, original, outrun
from headwater.contracts.wanted import Wanted, place_of
from headwater.errors import PoisonError, ProcessKillerError

_CMD = Partition("hw.cmd.triage.v1", 2)
_KEPT = Partition("hw.quarantine.cmd.triage.v1", 0)


def record(*headers: tuple[str, bytes | None], value: bytes | None = b"v") -> Record:
    return Record(partition=_CMD, offset=41, time_ms=5, key=b"k", value=value, headers=headers)


def kept(draft: Draft, offset: int = 7) -> Record:
    return Record(
        partition=_KEPT,
        offset=offset,
        time_ms=9,
        key=draft.key,
        value=draft.value,
        headers=draft.headers,
    )


def refused(*headers: tuple[str, bytes | None], value: bytes | None = b"v") -> Record:
    error = PoisonError("wrong-magic", "no Avro of ours")
    return kept(quarantine.keep(record(*headers, value=value), error, group="hw.intake"))


def letter(*headers: tuple[str, bytes | None], writes: str = "") -> Record:
    return kept(
        quarantine.letter(
            record(*headers),
            "hw.dlq.triage.v1",
            group="hw.runs.triage",
            code="ValueError",
            kind="ValueError",
            message="bad luck",
            more=(("run", "triage.2.x"), ("tenant", "t1"), ("attempt", "2"), ("writes", writes)),
            deliveries=2,
        )
    )


def sent(of: Record, identity: str = "") -> Draft:
    draft = back(
        of,
        quarantine.reason(of),
        replay="r1",
        topic=_CMD.topic,
        partition=2,
        identity=identity,
    )
    assert isinstance(draft, Draft)
    return draft


def again(of: Record, topic: str = _CMD.topic, **more: bool) -> Draft | Skipped:
    return Anew(replay="r1", topic=topic, **more)(of)


def test_a_record_goes_back_as_it_came() -> None:
    """Key, value and headers, whatever those are; marks behind them."""
    own: Headers = (("ce_id", b"1"), ("odd", None), ("odd", b"\xff"), ("__dlq.errors.topic", b"?"))
    draft = sent(refused(*own))
    assert (draft.key, draft.value, draft.partition) == (b"k", b"v", 2)
    assert draft.headers[: len(own)] == own
    assert dict(draft.headers[len(own) :]) == {
        "__dlq.errors.delivery.count": b"1",
        "__dlq.errors.message": b"no Avro of ours",
        "error.type": b"wrong-magic",
        "__replay.id": b"r1",
        "__replay.of": b"hw.quarantine.cmd.triage.v1:0@7",
    }


def test_marks_are_replaced_when_a_record_comes_back_again() -> None:
    """The count goes on; everything else of them is there once."""
    first = sent(refused(("ce_id", b"1")))
    second = kept(
        quarantine.keep(
            Record(
                partition=_CMD, offset=50, time_ms=6, key=b"k", value=b"v", headers=first.headers
            ),
            PoisonError("other", "still bad"),
            group="hw.intake",
        ),
        offset=8,
    )
    draft = sent(second)
    names = [name for name, _ in draft.headers]
    assert len(names) == len(set(names))
    assert dict(draft.headers)["__dlq.errors.delivery.count"] == b"2"


def test_marks_are_replaced_where_a_record_comes_back_from_a_foreign_topic_too() -> None:
    """Others keep them among the headers that the record had."""
    first = sent(refused(("ce_id", b"1")))
    theirs: Headers = (("__connect.errors.topic", b"t"), ("__connect.errors.offset", b"3"))
    draft = sent(record(*first.headers, *theirs))
    names = [name for name, _ in draft.headers]
    assert len(names) == len(set(names))
    assert not [name for name in names if name.startswith("__connect")]


@pytest.mark.parametrize("given", [(), (("ce_id", None),), (("ce_id", b""),)])
def test_a_record_without_an_id_gets_that_of_its_first_place(given: Headers) -> None:
    """An empty one counts as absent, and must not stand beside another: that would be refused."""
    draft = sent(refused(*given), identity="topic-id/2/41")
    assert [value for name, value in draft.headers if name == "ce_id"] == [b"topic-id/2/41"]
    assert sent(refused(("ce_id", b"mine")), identity="x").headers[0] == ("ce_id", b"mine")


def test_what_was_kept_by_its_digest_cannot_go_back() -> None:
    """There is nothing to send."""
    large = refused(value=b"x" * (quarantine.RECORD_BYTES_MAX + 1))
    why = quarantine.reason(large)
    made = back(large, why, replay="r", topic="t", partition=None, identity="")
    assert isinstance(made, Skipped)
    assert isinstance(again(large), Skipped)
    assert sent(refused(value=None)).value is None, "a tombstone goes back as one"
    elsewhere = kept(Draft(topic="t", headers=((quarantine.BLOB, b"blob"),)))
    made = again(elsewhere)
    assert isinstance(made, Skipped)
    assert made.kind == "by reference"


def test_a_childs_task_in_the_store_of_blobs_is_not_published() -> None:
    """Its letter has no value; sent again it would be a tombstone that intake refuses."""
    named = dataclasses.replace(letter((quarantine.BLOB, b"hwb1l-0")), value=None)
    skipped = again(named)
    assert isinstance(skipped, Skipped)
    assert skipped.kind == "by reference"
    assert isinstance(again(dataclasses.replace(letter(), value=None)), Draft)


def test_a_dead_letter_becomes_a_new_task() -> None:
    """An identity of its own, no deadline, its tenant named, its partition kept."""
    draft = again(letter(("ce_id", b"1"), ("ce_deadline", b"2020-01-01T00:00:00Z"), ("x", b"y")))
    assert isinstance(draft, Draft)
    assert draft.headers[:3] == (("x", b"y"), ("ce_tenantid", b"t1"), ("ce_id", b"triage.2.x/r1"))
    assert draft.partition == 2
    assert dict(draft.headers)["__dlq.errors.delivery.count"] == b"2"
    named = again(letter(("ce_tenantid", b"t1")))
    assert isinstance(named, Draft)
    assert [name for name, _ in named.headers].count("ce_tenantid") == 1
    other = again(letter(), "hw.cmd.other.v1")
    assert isinstance(other, Draft)
    assert other.partition is None
    bare = again(kept(Draft(topic="t", value=b"v", headers=(("ce_id", b"1"), ("x", b"y")))))
    assert isinstance(bare, Draft)
    assert bare.headers[:2] == (("x", b"y"), ("ce_id", b"hw.quarantine.cmd.triage.v1:0@7/r1"))


@pytest.mark.parametrize("given", [(), (("ce_tenantid", None),), (("ce_tenantid", b""),)])
def test_a_dead_letter_whose_task_named_no_tenant_is_its_runs(given: Headers) -> None:
    """An empty one counts as absent, and must not stand beside another: that would be refused."""
    draft = again(letter(*given))
    assert isinstance(draft, Draft)
    assert [value for name, value in draft.headers if name == "ce_tenantid"] == [b"t1"]


def test_one_maker_serves_a_whole_topic() -> None:
    """Each letter has the mark of its own place."""
    maker = Anew(replay="r1", topic=_CMD.topic)
    first = letter()
    made = [maker(first), maker(dataclasses.replace(first, offset=8))]
    places = [dict(of.headers)["__replay.of"] for of in made if isinstance(of, Draft)]
    assert places == [b"hw.quarantine.cmd.triage.v1:0@7", b"hw.quarantine.cmd.triage.v1:0@8"]


def test_a_dead_letter_that_had_changed_the_world_needs_a_yes() -> None:
    """It is skipped, and says what it would repeat."""
    made = again(letter(writes="2 tool pay"))
    assert made == Skipped(kind="writes", why="it would repeat writes: 2 tool pay")
    assert isinstance(again(letter(writes="2 tool pay"), repeat_writes=True), Draft)


_FOREIGN: dict[str, Headers] = {
    "connect": (
        ("__connect.errors.topic", b"orders"),
        ("__connect.errors.partition", b"3"),
        ("__connect.errors.offset", b"41"),
        ("__connect.errors.connector.name", b"sink"),
        ("__connect.errors.exception.class.name", b"Boom"),
        ("__connect.errors.exception.message", b"it broke"),
    ),
    "streams": (
        ("__streams.errors.topic", b"orders"),
        ("__streams.errors.partition", b"3"),
        ("__streams.errors.offset", b"41"),
        ("__streams.errors.exception", b"Boom"),
        ("__streams.errors.message", b"it broke"),
        ("__streams.errors.stacktrace", b"at"),
    ),
    "spring": (
        ("kafka_dlt-original-topic", b"orders"),
        ("kafka_dlt-original-partition", (3).to_bytes(4, "big")),
        ("kafka_dlt-original-offset", (41).to_bytes(8, "big")),
        ("kafka_dlt-original-consumer-group", b"sink"),
        ("kafka_dlt-exception-fqcn", b"Boom"),
        ("kafka_dlt-exception-message", b"it broke"),
        ("retry_topic-attempts", (4).to_bytes(4, "big")),
    ),
}


@pytest.mark.parametrize("family", [*_FOREIGN])
def test_foreign_dead_letters_are_read(family: str) -> None:
    """Connect and Streams write text, Spring big-endian numbers; what they added goes."""
    own = (("mine", b"1"), *_FOREIGN[family])
    why = quarantine.reason(record(*own))
    assert (why.source, why.offset) == (Partition("orders", 3), 41)
    assert (why.code, why.message) == ("Boom", "it broke")
    assert why.deliveries == (4 if family == "spring" else -1)
    assert why.group == ("" if family == "streams" else "sink")
    names = {name for name, _ in original(record(*own))}
    assert names <= {"mine", "retry_topic-attempts"}


def test_ours_count_where_a_foreign_family_is_there_too() -> None:
    """What a dead letter of others became here is ours, whatever it was before."""
    why = quarantine.reason(refused(*_FOREIGN["spring"]))
    assert why.source == _CMD
    assert (
        sent(refused(*_FOREIGN["spring"])).headers[: len(_FOREIGN["spring"])]
        == (_FOREIGN["spring"])
    )


@pytest.mark.parametrize(
    ("value", "number"),
    [(b"41", 41), (b"1234", 1234), ((1234).to_bytes(4, "big"), 1234), (b"\xff" * 4, -1), (b"", -1),
     (None, -1), (b"abc", -1)],
)  # fmt: skip
def test_foreign_numbers_are_text_or_big_endian(value: bytes | None, number: int) -> None:
    """Four digits are text; four bytes that are none are a number of Java's."""
    headers = (("kafka_dlt-original-topic", b"t"), ("kafka_dlt-original-offset", value))
    assert quarantine.reason(record(*headers)).offset == number


def test_a_filter_takes_what_it_names() -> None:
    """By place, run, topic, tenant, class and time; an empty one takes everything."""
    of, why = letter(), quarantine.reason(letter())
    assert Wanted().everything
    assert Wanted().takes(of, why)
    for wanted in (
        Wanted(places=frozenset({(_KEPT, 7)})),
        Wanted(runs=frozenset({"triage.2.x"})),
        Wanted(places=frozenset({(_KEPT, 1)}), runs=frozenset({"triage.2.x"})),
        Wanted(source=_CMD.topic, tenant="t1", error="ValueError", since_ms=9),
    ):
        assert wanted.takes(of, why), wanted
        assert not wanted.everything
    for wanted in (
        Wanted(places=frozenset({(_KEPT, 8)})),
        Wanted(runs=frozenset({"other"})),
        Wanted(source="x"),
        Wanted(tenant="t2"),
        Wanted(error="x"),
        Wanted(since_ms=10),
    ):
        assert not wanted.takes(of, why), wanted


def test_an_id_of_nothing_means_no_record() -> None:
    """Most kept records name no run; an empty name, of a shell's variable that was not set, is not theirs."""
    of = record(("__dlq.errors.topic", b"ns.cmd.triage.v1"))
    why = quarantine.reason(of)
    assert why.run == ""
    assert not Wanted(runs=frozenset({""})).takes(of, why)


def test_a_filter_knows_where_to_look() -> None:
    """Places of one topic bound what is read; a run's letter can be anywhere."""
    wanted = Wanted(places=frozenset({(_KEPT, 7), (_KEPT, 9), (_CMD, 1)}))
    mine = wanted.within(_KEPT.topic)
    assert mine is not None
    assert mine.span() == (7, 9)
    assert wanted.within("other") is None
    anywhere = Wanted(places=frozenset({(_KEPT, 7)}), runs=frozenset({"r"}))
    assert anywhere.span() is None
    within = anywhere.within("other")
    assert within is not None
    assert within.runs == {"r"}
    assert Wanted().span() is None


@pytest.mark.parametrize("text", ["", "x", "a:b@1", "a:1@", "a b:1@2", "triage.2.x"])
def test_only_ids_name_places(text: str) -> None:
    """Anything else may be a run's."""
    assert place_of(text) is None
    assert place_of("hw.dlq.a.v1:0@7") == (Partition("hw.dlq.a.v1", 0), 7)


@pytest.mark.parametrize(
    ("kind", "status", "skipped"),
    [
        ("req", "waiting", "nobody waits"),
        ("inbox", "failed", "its run has it"),
        ("inbox", "waiting", "its run went on"),
        ("inbox", "quarantined", None),
        ("inbox", "", None),
        ("cmd", "waiting", None),
    ],
)
def test_a_killer_of_processes_is_skipped_where_nobody_waits_for_it(
    kind: str, status: str, skipped: str | None
) -> None:
    """What was refused for another reason killed nobody, and is sent back whatever its run does."""
    of = dataclasses.replace(record(), partition=Partition(f"hw.{kind}.triage.v1", 0))
    for error, kept_back in ((ProcessKillerError("of it"), skipped), (PoisonError("x", "y"), None)):
        why = quarantine.reason(kept(quarantine.keep(of, error, group="hw.runs.triage")))
        found = outrun(why, "triage.2.x", status)
        assert (found and found.kind) == kept_back
