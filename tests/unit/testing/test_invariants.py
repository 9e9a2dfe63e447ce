"""The invariants' checkers: silent over what is sound, and each speaks up over what is not."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import pytest

import headwater
from headwater.admission.rows import Slot
from headwater.contracts.messages import (
    Admit,
    Answered,
    Ask,
    BlobRef,
    Control,
    Failed,
    Intent,
    Reply,
    Result,
    RunEvent,
    RunFailed,
    Spent,
    Start,
)
from headwater.contracts.records import Partition, Record
from headwater.core.blobs import ref_of
from headwater.core.execution import Answer
from headwater.core.keys import row_key
from headwater.runs.rows import Entry, Held
from headwater.testing import App, Scripted
from headwater.testing.invariants import (
    CHECKERS,
    RULES,
    Act,
    Book,
    Death,
    Gauge,
    Story,
    Told,
    violations,
)

Tamper = Callable[[Book], Book]


class World:
    """An app whose tools tell what they did."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        self.test: App | None = None
        app = self.app = headwater.App("desk")
        small = self.small = app.model("small", "test:small")

        def acted(call: headwater.Call[Any], name: str, safety: str) -> None:
            assert self.test is not None
            self.acts.append(
                Act(
                    key=call.idempotency_key,
                    name=name,
                    safety=safety,
                    holder="local",
                    at_ms=self.test.now_ms,
                    attempt=call.attempt,
                )
            )

        @app.tool(effect="write", service="bank", order_key="card")
        async def block(call: headwater.Call[Any], card: str) -> str:
            acted(call, "block", "write")
            return f"{card} is blocked"

        @app.tool(effect="irreversible", service="bank")
        async def pay(call: headwater.Call[Any], cents: int) -> str:
            acted(call, "pay", "irreversible")
            return f"{cents} paid"

        @app.agent
        async def clerk(ctx: headwater.Context, case: str) -> str:
            return f"{case} {await block(case)}"

        @app.agent
        async def desk(ctx: headwater.Context, question: str) -> str:
            words = await small(question)
            paid = await pay(len(question))
            opinion = await clerk(question)
            if question == "fail":
                raise ValueError("nobody can answer")
            said = await ctx.receive("go") if question == "ask" else ""
            return f"{words} {paid} {opinion} {said}"

        self.desk = desk

    async def book(self) -> Book:
        """Run some tasks and return what was written."""
        async with App(self.app, models={self.small: Scripted(["yes"] * 9)}) as test:
            self.test = test
            runs = [await test.start(self.desk, text) for text in ("plain", "fail", "ask")]
            await test.start(self.desk, "plain", id="test-1")
            await test.publish(self.desk, b"no avro")
            await test.settle()
            await test.signal(runs[2], "go", "gone")
            log, platform = test.log, test.platform
            offsets = {
                (group, place): log.offset(group, place) or 0
                for group, topics in platform.layout.groups().items()
                for topic in topics
                for place in (Partition(topic, n) for n in range(log.partitions(topic)))
            }
            return Book(
                records=[record for topic in log.topics() for record in test.records(topic)],
                codec=platform.codec,
                namespace=platform.names.namespace,
                acts=self.acts,
                offsets=offsets,
                agents=self.app.agents,
            )


@pytest.fixture(scope="module")
def book() -> Book:
    """What a sound world wrote, and the stories that it tells."""
    book = asyncio.run(World().book())
    told = {run: story_of(book, run) for run in book.outcomes}
    return dataclasses.replace(book, stories=lambda run, *_: [told[run]])


def story_of(book: Book, run: str) -> Story:
    """Return what a run came to as what it has to come to."""
    last = book.outcomes[run][-1]
    status = last.header("ce_type").rpartition(".")[2]
    failed = isinstance(last.message, RunFailed)
    calls = {}
    for made in (made for entry in book.entries[run] for made in entry.calls):
        asked = book.asks[f"{run}/{made.number}"][0].message
        calls[made.number] = Told(
            kind=made.kind,
            name=made.name,
            arguments=asked.task.value if isinstance(asked, Start) else asked.arguments,
            digest=made.digest,
            outcome=book.replies[f"{run}/{made.number}"][0].message.outcome,
        )
    return Story(
        status=status,
        value=b"" if failed else last.record.value or b"",
        error=last.message.error if failed else "",
        calls=calls,
    )


def with_records(book: Book, records: Iterable[Record]) -> Book:
    return dataclasses.replace(book, records=[*records])


def without(book: Book, gone: Callable[[Any], bool], *, count: int = 1) -> Book:
    """Drop the first records whose message is such."""
    left = count
    kept = []
    for record in book.records:
        if left and record.value and gone(_message(book, record)):
            left -= 1
            continue
        kept.append(record)
    assert not left, "nothing was there to be dropped"
    return with_records(book, kept)


def again(book: Book, which: Callable[[Any], bool]) -> Book:
    """Have the first record whose message is such twice, the second time at the end."""
    records = [*book.records]
    found = next(r for r in records if r.value and which(_message(book, r)))
    return with_records(book, [*records, dataclasses.replace(found, offset=10_000)])


def instead(book: Book, change: Callable[[Any], Any]) -> Book:
    """Put another message in the place of the first that `change` changes."""
    records, done = [], False
    for record in book.records:
        message = _message(book, record) if record.value else None
        other = None if message is None or done else change(message)
        if other is not None:
            done = True
        value = record.value if other is None else book.codec.encode(other)
        records.append(dataclasses.replace(record, value=value))
    assert done, "nothing was there to be changed"
    return with_records(book, records)


def _message(book: Book, record: Record) -> Any:
    try:
        return book.codec.decode(record.value or b"")
    except headwater.PoisonError:
        return None


def is_a(kind: type, **fields: Any) -> Callable[[Any], bool]:
    return lambda m: isinstance(m, kind) and all(getattr(m, k) == v for k, v in fields.items())


def slot_left(book: Book) -> Book:
    run = next(iter(book.outcomes))
    extra = Record(
        partition=Partition(f"{book.namespace}.state.admission.v1", 0),
        offset=10_000,
        time_ms=0,
        key=row_key("Slot", ("default", run)),
        value=book.codec.encode(Slot(tenant="default", slot=run)),
    )
    return with_records(book, [*book.records, extra])


def second_outcome(book: Book) -> Book:
    record = next(iter(book.outcomes.values()))[0].record
    return with_records(book, [*book.records, dataclasses.replace(record, offset=10_000)])


def other_result(book: Book) -> Book:
    """Publish other bytes than the journal leads to."""
    completed = next(
        reads[0].record
        for run, reads in book.outcomes.items()
        if run.startswith("desk.") and reads[0].header("ce_type") == "desk.completed"
    )
    value = (completed.value or b"")[:-1] + b"?"
    return with_records(
        book,
        [dataclasses.replace(r, value=value) if r is completed else r for r in book.records],
    )


def other_calls(book: Book) -> Book:
    def change(message: Any) -> Any:
        if isinstance(message, Entry) and message.calls:
            call = dataclasses.replace(message.calls[0], name="another")
            return dataclasses.replace(message, calls=(call,))
        return None

    return instead(book, change)


def other_arguments(book: Book) -> Book:
    return instead(
        book, lambda m: dataclasses.replace(m, arguments=b"x") if isinstance(m, Ask) else None
    )


def another_call(book: Book) -> Book:
    """Have a request more, which no run without faults sends."""
    return with_records(
        book,
        [*book.records, *instead(book, _renumbered).records],
    )


def _renumbered(message: Any) -> Any:
    return dataclasses.replace(message, number=9) if isinstance(message, Ask) else None


def call_more(book: Book) -> Book:
    def change(message: Any) -> Any:
        if isinstance(message, Entry) and message.calls:
            more = dataclasses.replace(message.calls[0], number=9)
            return dataclasses.replace(message, calls=(*message.calls, more))
        return None

    return instead(book, change)


def denied_call(book: Book) -> Book:
    def change(message: Any) -> Any:
        if isinstance(message, Entry) and message.calls:
            denied = Failed(error="Denied", detail="")
            call = dataclasses.replace(message.calls[0], denied=denied)
            return dataclasses.replace(message, calls=(call,))
        return None

    return instead(book, change)


def another_answer(outcome: Any) -> Tamper:
    """Deliver another answer to a tool's call than it gave."""

    def change(message: Any) -> Any:
        answer = message.delivery if isinstance(message, Entry) else None
        if isinstance(answer, Answer) and answer.number == 2:
            return dataclasses.replace(
                message, delivery=dataclasses.replace(answer, outcome=outcome)
            )
        return None

    return lambda book: instead(book, change)


def other_error(book: Book) -> Book:
    return instead(
        book, lambda m: dataclasses.replace(m, error="KeyError") if is_failed(m) else None
    )


def is_failed(message: Any) -> bool:
    return isinstance(message, RunFailed)


def other_status(book: Book) -> Book:
    """Publish a failure as a cancellation."""
    records = []
    for record in book.records:
        headers = tuple(
            (name, value.replace(b".failed", b".cancelled") if name == "ce_type" else value)
            for name, value in record.headers
        )
        records.append(dataclasses.replace(record, headers=headers))
    return with_records(book, records)


def held_left(book: Book) -> Book:
    entry = next(iter(book.entries.values()))[0]
    reply = Reply(run=entry.run, number=9, attempt="", outcome=Failed(error="x", detail="y"))
    extra = Record(
        partition=Partition(f"{book.namespace}.state.runs.desk.v1", 0),
        offset=10_000,
        time_ms=0,
        key=row_key("Held", ("desk.0.gone", 0)),
        value=book.codec.encode(Held(run="desk.0.gone", seq=0, message=reply)),
    )
    return with_records(book, [*book.records, extra])


def acts(book: Book, change: Callable[[list[Act]], list[Act]]) -> Book:
    return dataclasses.replace(book, acts=change([*book.acts]))


def paid(book: Book) -> Act:
    return next(act for act in book.acts if act.safety == "irreversible")


def blocked(book: Book) -> Act:
    return next(act for act in book.acts if act.safety == "write")


def swapped(book: Book) -> Book:
    """Have an inbox give two answers of one run in another order than the run took them."""
    run, reads = next(
        (run, replies)
        for run, came in book.inboxes.items()
        if len(replies := [r for r in came if isinstance(r.message, Reply)]) > 1
    )
    one, two = reads[0].record, reads[1].record
    swap = {
        id(one): dataclasses.replace(one, offset=two.offset),
        id(two): dataclasses.replace(two, offset=one.offset),
    }
    assert run
    return with_records(book, [swap.get(id(r), r) for r in book.records])


def unanswered(book: Book) -> Book:
    """Drop an answer that a journal has."""
    run, number = next(
        (run, entry.delivery.number)
        for run, entries in book.entries.items()
        for entry in entries
        if isinstance(entry.delivery, Answer)
    )
    return without(book, is_a(Reply, run=run, number=number))


def overdrawn(book: Book) -> Book:
    def change(message: Any) -> Any:
        if isinstance(message, RunEvent) and any(n.state == "asked" for n in message.calls):
            return dataclasses.replace(message, usd_nano=2_000_000_000)
        return None

    return instead(book, change)


def charged_twice(book: Book) -> Book:
    def change(message: Any) -> Any:
        if isinstance(message, RunEvent) and message.status == "completed":
            return dataclasses.replace(message, tokens=message.tokens * 2 + 1)
        return None

    return instead(book, change)


def untold(book: Book) -> Book:
    """Have a child tell of nothing that it spent."""

    def change(message: Any) -> Any:
        if isinstance(message, Reply) and message.spent is not None:
            return dataclasses.replace(message, spent=Spent())
        return None

    return instead(book, change)


def killer(book: Book) -> Book:
    return dataclasses.replace(book, killers=frozenset({next(iter(book.life))}))


CONTROLS: list[tuple[int, str, Tamper]] = [
    (1, "neither went on", lambda b: without(b, is_a(Admit))),
    (1, "is still", lambda b: without(b, is_a(RunEvent, status="completed", parent=""))),
    (1, "is still open", slot_left),
    (1, "went on 2 times", lambda b: again(b, is_a(Admit))),
    (2, "published", second_outcome),
    (2, "its life tells", lambda b: without(b, is_a(RunEvent, status="failed"))),
    (3, "was committed 2 times", lambda b: again(b, is_a(Ask))),
    (3, "which nobody can read", lambda b: without(b, is_a(Admit))),
    (4, "was sent 2 times", lambda b: again(b, is_a(Ask))),
    (4, "never sent", lambda b: without(b, is_a(Ask))),
    (4, "took turn 1 2 times", lambda b: again(b, is_a(Entry, seq=1))),
    (5, "in turn", swapped),
    (5, "in turn", unanswered),
    (6, "before that was noted", lambda b: without(b, is_a(Intent))),
    (
        6,
        "had taken it over",
        lambda b: instead(
            b, lambda m: dataclasses.replace(m, holder="x") if isinstance(m, Intent) else None
        ),
    ),
    (7, "records are left", lambda b: dataclasses.replace(b, offsets=dict.fromkeys(b.offsets, 0))),
    (7, "has not ended", lambda b: dataclasses.replace(b, unfinished=[Partition("x", 0)])),
    (7, "undelivered", held_left),
    (8, "cannot be taken back", lambda b: acts(b, lambda a: [*a, paid(b)])),
    (8, "made 2 times around 0 deaths", lambda b: acts(b, lambda a: [*a, blocked(b)])),
    (
        8,
        "after its answer was noted",
        lambda b: acts(
            b, lambda a: [*a, dataclasses.replace(blocked(b), at_ms=blocked(b).at_ms + 9)]
        ),
    ),
    (9, "no killer is of its key", lambda b: killer(without(b, is_a(RunEvent, status="failed")))),
    (9, "not kept aside", killer),
    (10, "another result", other_result),
    (10, "does not replay", other_calls),
    (
        11,
        "its bound is 2",
        lambda b: dataclasses.replace(b, gauges=[Gauge(name="lanes", most=3, bound=2)]),
    ),
    (12, "beyond its limit", overdrawn),
    (12, "was charged", charged_twice),
    (12, "told its parent", untold),
    (13, "came to", other_result),
    (13, "failed: KeyError, and without faults: ValueError", other_error),
    (13, "is cancelled, and without faults failed", other_status),
    (13, "never sent call", lambda b: without(b, is_a(Ask))),
    (13, "b'x', and without faults as", other_arguments),
    (13, "sent call 9, which is not", another_call),
    (13, "another, and without faults as", other_calls),
    (13, "noted call 9", call_more),
    (13, "as denied", denied_call),
    (13, "for an answer to call 2", another_answer(Answered(value=b"other"))),
    (13, "for an answer to call 2", another_answer(Failed(error="Lost", detail=""))),
]


def test_a_sound_world_violates_nothing(book: Book) -> None:
    """A checker that speaks up over what is sound would be switched off."""
    assert violations(book) == []
    assert len(book.acts) == 6
    assert len(book.outcomes) == 6
    assert len(book.entries) == 6


@pytest.mark.parametrize(
    ("number", "words", "tamper"), CONTROLS, ids=[f"{n}-{words}" for n, words, _ in CONTROLS]
)
def test_each_invariant_is_missed_where_it_does_not_hold(
    book: Book, number: int, words: str, tamper: Tamper
) -> None:
    """A checker that a broken world passes shows nothing."""
    found = violations(tamper(book), {number})
    assert any(words in violation.what for violation in found), found


def test_every_invariant_has_a_control_and_a_rule() -> None:
    """Thirteen are promised."""
    assert {number for number, _, _ in CONTROLS} == {*CHECKERS} == {*range(1, 14)}
    assert all(RULES.values())


def test_one_repeat_a_death_is_allowed_and_no_more(book: Book) -> None:
    """A call without a durable answer may be made again after a death, once."""
    unnoted = without(book, is_a(Result), count=len(book.results))
    once = blocked(book)
    death = Death(who="x", at_ms=once.at_ms)
    twice = dataclasses.replace(unnoted, acts=[*book.acts, once], deaths=[death])
    assert violations(twice, {8}) == []
    thrice = dataclasses.replace(twice, acts=[*book.acts, once, once])
    assert [v.number for v in violations(thrice, {8})] == [8]


def test_a_call_that_its_run_leaves_is_not_sent_by_that(book: Book) -> None:
    """It is told of once more, when nobody waits for it; its bill may have passed a limit before."""

    def change(message: Any) -> Any:
        if isinstance(message, RunEvent) and any(n.state == "asked" for n in message.calls):
            left = tuple(dataclasses.replace(note, detail="left") for note in message.calls)
            return dataclasses.replace(message, usd_nano=2_000_000_000, calls=left)
        return None

    assert violations(instead(book, change), {12}) == []


@pytest.mark.parametrize(
    ("more", "violated"),
    [
        ([("held", 1), ("failed", 1)], []),
        ([("held", 1), ("failed", 2)], [2]),
        ([("started", 1), ("failed", 1)], [2]),
    ],
    ids=["told again while its resume waits", "resumed", "another of its id"],
)
def test_a_failure_is_one_however_often_it_is_told(
    book: Book, more: list[tuple[Any, int]], violated: list[int]
) -> None:
    """Who speaks to a failed run is told once more how it did; another attempt or run of the id ends anew."""
    record = next(
        r for r in book.records if r.value and is_a(RunEvent, status="failed")(_message(book, r))
    )
    failed = _message(book, record)
    told = [dataclasses.replace(failed, status=status, attempt=n) for status, n in more]
    later = [
        dataclasses.replace(record, offset=10_000 + n, value=book.codec.encode(event))
        for n, event in enumerate(told)
    ]
    found = violations(with_records(book, [*book.records, *later]), {2})
    assert [violation.number for violation in found] == violated


def test_what_a_process_that_stood_still_does_late_is_nobodys_promise(book: Book) -> None:
    """Between the last check and the socket no machine can help."""
    late = dataclasses.replace(paid(book), late=True)
    assert violations(dataclasses.replace(book, acts=[*book.acts, late])) == []


@pytest.mark.parametrize(
    ("taken_ms", "began_ms", "found"),
    [(-1, 1_000, []), (-1, 1_001, [8]), (1, 1_000, [8])],
    ids=["just before", "long before", "after"],
)
def test_who_took_a_call_over_just_before_it_was_noted_may_make_it(
    book: Book, taken_ms: int, began_ms: int, found: list[int]
) -> None:
    """It saw no answer up to its own note, nor a second before it began."""
    act = next(act for act in book.acts if act.key in book.intents and act.safety == "write")
    noted_ms = min(read.record.time_ms for read in (*book.results[act.key], *book.replies[act.key]))
    intent = book.intents[act.key][0]
    others = dataclasses.replace(intent.message, holder="heir", attempt="x")
    record = dataclasses.replace(
        intent.record,
        value=book.codec.encode(others),
        offset=10_000,
        time_ms=noted_ms + taken_ms,
    )
    heirs = dataclasses.replace(
        act, holder="heir", at_ms=noted_ms + began_ms, began_ms=noted_ms + began_ms
    )
    taken = dataclasses.replace(
        with_records(book, [*book.records, record]),
        acts=[*book.acts, heirs],
        deaths=[Death(who=act.holder, at_ms=act.at_ms)],
        blind_ms=1_000,
    )
    assert [violation.number for violation in violations(taken, {8})] == found


@pytest.mark.parametrize(("after_ms", "found"), [(1_000, []), (1_001, [8])])
def test_an_answer_that_was_noted_just_before_is_unseen_where_nothing_is_noted_beforehand(
    book: Book, after_ms: int, found: list[int]
) -> None:
    """Whoever froze and thawed may answer as its heir begins."""
    key, ask = next(
        (key, read.record)
        for key, reads in book.asks.items()
        for read in reads
        if isinstance(read.message, Ask) and read.message.safety == "paid"
    )
    noted_ms = min(read.record.time_ms for read in (*book.results[key], *book.replies[key]))
    acts = [
        Act(key=key, name="model", safety="paid", holder=holder, at_ms=at_ms)
        for holder, at_ms in (("former", ask.time_ms), ("heir", noted_ms + after_ms))
    ]
    death = Death(who="former", at_ms=ask.time_ms)
    again = dataclasses.replace(book, acts=[*book.acts, *acts], deaths=[death], blind_ms=1_000)
    assert [violation.number for violation in violations(again, {8})] == found


def test_acts_count_by_when_they_were_not_by_when_they_were_written_down(book: Book) -> None:
    """A process that stands still between the two writes its act down after its heir's."""
    act = blocked(book)
    former = dataclasses.replace(act, at_ms=act.at_ms - 1_000)
    death = Death(who="x", at_ms=act.at_ms)
    late = dataclasses.replace(book, acts=[*book.acts, former], deaths=[death])
    assert violations(late, {8}) == []


def test_who_began_a_call_before_it_was_taken_over_may_act_after_that(book: Book) -> None:
    """It was handed to the code that acts while it was still this process's; who begins later pays."""
    act = next(act for act in book.acts if act.key in book.intents and act.holder)
    intent = book.intents[act.key][0]
    others = dataclasses.replace(intent.message, holder="other", begun_ms=act.at_ms, attempt="x")
    taken_ms = act.at_ms + 10_000
    record = dataclasses.replace(
        intent.record, value=book.codec.encode(others), offset=10_000, time_ms=taken_ms
    )
    taken = with_records(book, [*book.records, record])

    def acting(began_ms: int) -> list[str]:
        late = dataclasses.replace(act, at_ms=taken_ms + 10_000, began_ms=began_ms)
        acts = [late if one is act else one for one in book.acts]
        return [v.what for v in violations(dataclasses.replace(taken, acts=acts), {6})]

    assert acting(act.at_ms) == []
    assert "other had taken it over" in acting(taken_ms + 9_000)[0]


def test_an_unrested_world_may_have_work_left(book: Book) -> None:
    """While faults go on, what is not done yet is no loss."""
    early = dataclasses.replace(
        without(book, is_a(RunEvent, status="completed", parent="")),
        rested=False,
        offsets=dict.fromkeys(book.offsets, 0),
    )
    assert violations(early, {1, 7}) == []


def test_a_run_that_a_person_stopped_is_compared_with_nothing(book: Book) -> None:
    """What it comes to depends on when they did."""
    run = next(run for run in book.outcomes if run.startswith("desk."))
    cancel = Control(target=run, verb="cancel", reason="")
    start = book.starts[run][0].record
    said = dataclasses.replace(start, offset=10_000, value=book.codec.encode(cancel))
    wrong = other_error(other_result(book))
    assert violations(wrong, {13})
    stopped = [
        dataclasses.replace(
            said, key=name.encode(), partition=book.starts[name][0].record.partition, offset=n
        )
        for n, name in enumerate(book.outcomes, 10_000)
    ]
    assert violations(with_records(wrong, [*wrong.records, *stopped]), {13}) == []


def test_a_run_may_come_to_any_of_its_stories(book: Book) -> None:
    """Which version of the code began it, nobody knows beforehand."""
    other = Story(status="cancelled", calls={})

    def stories(*of: Any) -> list[Story]:
        return [other, *book.stories(*of)]

    assert violations(dataclasses.replace(book, stories=stories), {13}) == []
    alone = dataclasses.replace(book, stories=lambda *_: [other])
    assert len(violations(alone, {13})) == len(book.outcomes)


def test_a_value_by_reference_is_compared_by_its_name(book: Book) -> None:
    """A blob's name is that of its content."""

    def by_reference(message: Any) -> Any:
        if isinstance(message, Ask) and message.safety == "write":
            return dataclasses.replace(message, arguments=ref_of(message.arguments))
        return None

    def by_another(message: Any) -> Any:
        if isinstance(message, Ask) and message.safety == "write":
            return dataclasses.replace(message, arguments=BlobRef(name="other", size=1))
        return None

    assert violations(instead(book, by_reference), {13}) == []
    assert violations(instead(book, by_another), {13})
