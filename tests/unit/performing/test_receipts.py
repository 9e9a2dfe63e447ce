"""Receipts: what a crash may repeat, by safety; each protection with the control that shows the harm."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.unit.performing.world import (
    CODEC,
    GROUP,
    HOUR_MS,
    INBOX,
    RECEIPTS,
    REQUESTS,
    Hands,
    World,
    finish,
    play,
    settle,
)

from headwater.contracts.messages import (
    Answered,
    Ask,
    Failed,
    InDoubt,
    Intent,
    Reply,
    ReplyTo,
    Result,
)
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.effector import Done
from headwater.core.messages import Meta
from headwater.errors import NotDone, SettingsError, TransientError
from headwater.log.port import Claim
from headwater.runtime import receipts as subject
from headwater.runtime.answering import Item
from headwater.runtime.lanes import Bounds
from headwater.runtime.noting import Lease, Noting
from headwater.runtime.receipts import Known

CAREFUL = [("write", "card-1"), ("irreversible", ""), ("irreversible", "card-1")]
LEASE_S = 11.1
"""A lease and the clocks' difference, and a little."""


async def die(world: World, loop: Any, instance: str = "b") -> Any:
    """Have a process die where it is, and another take its partitions over; return the other's loop."""
    world.log.evict(world.workers[-1])
    for task in [*loop._tasks]:
        task.cancel()
    await asyncio.sleep(0)
    return world.performing(instance)


def now(append: Any) -> None:
    """Append at once: the log in memory never waits."""
    with pytest.raises(StopIteration):
        append.send(None)


def answer(begun: Intent) -> Draft:
    """Return the note of an answer to a call, by the attempt that began it."""
    reply = Reply(
        run=begun.run, number=begun.number, attempt=begun.attempt, outcome=Answered(value=b"late")
    )
    value = CODEC.encode(Result(offset=0, reply=reply))
    return Draft(topic=RECEIPTS, key=b"late/result", value=value, partition=0)


def asked(number: int, *, offset: int, undone: tuple[str, ...] = (), own: str = "m") -> Item:
    """Return a request of the run `r`."""
    ask = Ask(
        run="r",
        number=number,
        name="block",
        arguments=b"",
        safety="write",
        order_key="",
        not_after_ms=0,
        reply_to=ReplyTo(topic=INBOX, partition=0, run="r", number=number),
        undone=undone,
    )
    place = Partition(REQUESTS, 0)
    record = Record(partition=place, offset=offset, time_ms=0, key=b"k", value=b"", headers=())
    return Item(Claim(place, 1), record, Meta(id=own, tenant="t1"), ask)


def kinds(world: World) -> list[str]:
    """Return which receipts were written, in order."""
    return [type(receipt).__name__ for receipt in world.receipts()]


@pytest.mark.parametrize(
    ("safety", "order_key", "noted"),
    [
        ("read", "", []),
        ("read", "card-1", []),
        ("paid", "", ["Result"]),
        ("write", "", ["Result"]),
        ("write", "card-1", ["Intent", "Result"]),
        ("irreversible", "", ["Intent", "Result"]),
    ],
)
def test_a_call_is_noted_as_its_safety_asks(safety: str, order_key: str, noted: list[str]) -> None:
    """Nothing, the answer, or the beginning and the answer."""

    @play
    async def scene() -> None:
        world = World()
        loop = world.performing()
        await world.ask(safety=safety, order_key=order_key)
        await finish(loop)
        assert kinds(world) == noted
        assert world.outcomes() == {0: Answered(value=b"0")}
        assert world.marked() == 1
        await loop.close()

    scene()


@play
async def test_an_answer_is_noted_before_it_is_sent():
    """Nobody hears of an answer that a crash could have bought again."""
    world = World()
    loop = world.performing()
    written = []
    append = world.log.append

    async def watched(draft):
        written.append(draft.topic)
        return await append(draft)

    world.log.append = watched
    await world.ask(safety="paid")
    await finish(loop)
    assert written == [REQUESTS, RECEIPTS, INBOX]
    (receipt,) = world.receipts()
    assert receipt == Result(offset=0, reply=world.replies()[0])


@pytest.mark.parametrize("safety", ["paid", "write", "irreversible"])
@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_noted_answer_is_never_bought_again(safety: str, control: bool) -> None:
    """A process that dies between the note and the reply has its answer sent, with the same attempt.

    The control takes the note away, and the call is made again, or is in doubt.
    """

    @play
    async def scene() -> None:
        world = World()
        loop = world.performing()
        append = world.log.append

        async def dead(draft: Draft) -> Any:
            if draft.topic == INBOX:
                await asyncio.Event().wait()
            if control and draft.topic == RECEIPTS:
                return None
            return await append(draft)

        world.log.append = dead
        await world.ask(safety=safety)
        await settle(loop)
        world.log.append = append
        noted = [receipt for receipt in world.receipts() if isinstance(receipt, Result)]
        heir = await die(world, loop)
        await finish(heir)
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        if not control:
            assert world.hands.began == [0]
            assert world.replies() == [noted[0].reply]
        elif safety == "irreversible":
            assert isinstance(world.outcomes()[0], InDoubt)
        else:
            assert world.hands.began == [0, 0]
        assert world.marked() == 1
        await heir.close()

    scene()


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_call_of_another_run_of_the_same_id_is_made(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A task that is published again after its window is a run of the same id, and counts from one.

    The control takes any answer to a call of that name, and a write is told to have been made that
    nobody made.
    """
    if control:
        monkeypatch.setattr(subject, "_answers", lambda *_: True)

    @play
    async def scene() -> None:
        world = World()
        loop = world.performing()
        append = world.log.append

        async def dead(draft: Draft) -> Any:
            if draft.topic == INBOX:
                await asyncio.Event().wait()
            return await append(draft)

        world.log.append = dead
        await world.ask(number=0, safety="write")
        await settle(loop)
        world.log.append = append
        heir = await die(world, loop)
        await finish(heir)
        assert world.hands.began == [0]
        await world.ask(number=0, safety="write", arguments=b"another")
        await finish(heir)
        assert world.hands.began == ([0] if control else [0, 0])
        assert len({reply.attempt for reply in world.replies()}) == (1 if control else 2)
        await heir.close()

    scene()


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_call_that_the_run_before_began_stops_none(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is in doubt, and the other was never begun. The control has them be one call."""
    if control:
        monkeypatch.setattr(subject, "life_of", lambda own: "")

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(number=0, safety="irreversible", id="first/1")
        await settle(loop)
        (intent,) = world.receipts()
        heir = await die(world, loop)
        world.hands.gates.clear()
        await world.ask(number=0, safety="irreversible", id="second/2", arguments=b"another")
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        told = [type(reply.outcome) for reply in world.replies() if reply.attempt != intent.attempt]
        assert told == ([] if control else [Answered])
        assert world.hands.began == ([0] if control else [0, 0])
        await heir.close()

    scene()


@pytest.mark.parametrize("safety", ["paid", "irreversible"])
@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_compaction_takes_no_note_of_one_run_for_another_of_its_id(
    safety: str, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both answers are noted, and neither is sent. The control notes them under the call's name alone.

    What is paid for is asked of once more then, and what is irreversible is made again.
    """
    if control:
        real = Noting._seal

        def seal(self: Noting, item: Item, receipt: Intent | Result, kind: str) -> Draft:
            draft = real(self, item, receipt, kind)
            return dataclasses.replace(draft, key=f"{item.call_id}/{kind}".encode())

        monkeypatch.setattr(Noting, "_seal", seal)

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        append = world.log.append

        async def dead(draft: Draft) -> Any:
            if draft.topic == INBOX:
                await asyncio.Event().wait()
            return await append(draft)

        world.log.append = dead
        await world.ask(number=0, safety=safety, id="first/1")
        await settle(loop)
        gate = world.hands.gates.pop(0)
        await world.ask(number=0, safety=safety, id="second/2", arguments=b"another")
        await settle(loop)
        gate.set()
        await settle(loop)
        world.log.append = append
        noted = {one.reply.attempt for one in world.receipts() if isinstance(one, Result)}
        assert len(noted) == 2
        world.log.compact(RECEIPTS)
        heir = await die(world, loop)
        await finish(heir)
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        assert world.hands.began == ([0, 0, 0] if control else [0, 0])
        assert ({reply.attempt for reply in world.replies()} == noted) is not control
        await heir.close()

    scene()


def by_life_alone(item: Item, life: str, noted: Result) -> bool:
    """Let only the lives say whether a noted answer is one to a call that is to be made once more."""
    return life == subject.life_of(item.meta.id)


@pytest.mark.parametrize(("first", "again"), [("old", "again/77"), ("old/77", "again")])
@pytest.mark.parametrize("attempt", ["named", "another", "control"])
def test_a_call_that_other_code_asked_for_first_is_not_made_once_more_if_it_was_answered(
    first: str, again: str, attempt: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only one of the two requests says which life it is of: the attempt that a person named tells.

    By an attempt that nobody named it may be an answer to the run before. The control goes by lives
    alone, and what is irreversible is made a second time.
    """
    if attempt == "control":
        monkeypatch.setattr(subject, "_answers", by_life_alone)
    sent = attempt == "named"

    @play
    async def scene() -> None:
        world = World()
        begun, heir = await inherit(world, {"safety": "irreversible", "id": first})
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        assert isinstance(world.outcomes()[0], InDoubt)
        noted = dataclasses.replace(begun, attempt="x") if attempt == "another" else begun
        cause = (("ce_causationid", first.encode()),)
        await world.log.append(dataclasses.replace(answer(noted), headers=cause))
        await world.ask(number=0, safety="irreversible", id=again, undone=(begun.attempt,))
        await finish(heir)
        assert world.hands.began == ([0] if sent else [0, 0])
        assert world.outcomes()[0] == Answered(value=b"late" if sent else b"0")
        await heir.close()

    scene()


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_call_that_is_to_be_made_once_more_is_not_answered_by_the_run_before(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any answer to such a call counts, whichever request it was to, but not one to another call."""
    if control:
        monkeypatch.setattr(subject, "life_of", lambda own: "")
    known = Known(5, frozenset(), 0, Partition(RECEIPTS, 0))
    reply = Reply(run="r", number=1, attempt="a", outcome=Answered(value=b"of the run before"))
    known.note(Result(offset=5, reply=reply), "first/1")
    assert known.answer(asked(1, offset=6, undone=("b",), own="again/1")) == reply
    found = known.answer(asked(1, offset=7, undone=("b",), own="second/2"))
    assert found == (reply if control else None)


@pytest.mark.parametrize(("safety", "order_key"), CAREFUL)
def test_a_call_begins_after_its_intent_is_in_the_log(safety: str, order_key: str) -> None:
    """Whoever takes over can see that it may have happened."""

    @play
    async def scene() -> None:
        async def look(call: Any, ask: Any, attempt: Any) -> Done:
            seen.append((kinds(world), attempt.id))
            return Done(value=b"x")

        seen: list[Any] = []
        world = World(Hands(look))
        loop = world.performing()
        await world.ask(safety=safety, order_key=order_key)
        await finish(loop)
        intent = world.receipts()[0]
        assert seen == [(["Intent"], intent.attempt)]
        assert intent.holder == "a"
        assert intent.until_ms - intent.begun_ms == Lease().lease_ms
        assert world.replies()[0].attempt == intent.attempt
        await loop.close()

    scene()


@play
async def test_intents_share_a_transaction_and_carry_how_far_we_are():
    """All that wait are written at once, with the offset and the done-set of their partition."""
    world = World()
    world.hands.hold(0)
    loop = world.performing(bounds=Bounds(mark_ms_min=3_600_000))
    work = []
    intend = world.workers[0].intend
    world.workers[0].intend = lambda of: (work.append(of), intend(of))[1]
    await world.ask()
    await world.ask()
    await settle(loop)
    for _ in range(3):
        await world.ask(safety="irreversible")
    await settle(loop)
    ((one,),) = work
    assert len(one.drafts) == 3
    assert one.next_offset == 0
    offset, text = world.log.committed(GROUP, Partition(REQUESTS, 0))
    assert (offset, text) == (0, one.metadata)
    assert text
    await loop.drain(0)


@play
async def test_a_process_that_lost_its_partition_begins_nothing_careful():
    """The transaction is refused to whoever was deposed: it neither notes nor begins the call."""
    world = World()
    loop = world.performing()
    await settle(loop)
    await world.ask(safety="irreversible")
    worker, intend = world.workers[0], world.workers[0].intend

    def deposed(work):
        world.log.evict(worker)
        return intend(work)

    worker.intend = deposed
    await settle(loop, rounds=1)
    assert world.hands.began == []
    assert world.receipts() == []
    worker.intend = intend
    await finish(loop)
    assert world.hands.began == [0]
    await loop.close()


@play
async def test_an_intent_of_unknown_fate_puts_nothing_in_doubt():
    """The process that would have begun the call knows that it did not."""
    world = World()
    loop = world.performing()
    await settle(loop)
    await world.ask(safety="irreversible")
    worker, intend = world.workers[0], world.workers[0].intend

    def landed(work):
        intend(work)
        worker._unknown()
        return frozenset()

    worker.intend = landed
    await settle(loop, rounds=1)
    assert world.hands.began == []
    worker.intend = intend
    await finish(loop)
    assert world.hands.began == [0]
    assert world.outcomes() == {0: Answered(value=b"0")}
    assert kinds(world) == ["Intent", "Intent", "Result"]
    await loop.close()


@play
async def test_a_process_that_stood_still_since_its_intent_begins_nothing():
    """Its lease is over, so another may have begun the call: it notes anew, or finds it is not its own."""
    world = World()
    loop = world.performing()
    await settle(loop)
    await world.ask(safety="irreversible")
    worker, intend = world.workers[0], world.workers[0].intend

    def frozen(work):
        worker.intend = intend
        held = intend(work)
        asyncio.get_running_loop()._now_s += 60
        return held

    worker.intend = frozen
    await finish(loop)
    assert world.hands.began == [0]
    first, second, _ = world.receipts()
    assert second.begun_ms - first.begun_ms >= 60_000
    assert world.replies()[0].attempt == second.attempt
    await loop.close()


@pytest.mark.parametrize(("safety", "order_key"), CAREFUL)
def test_an_heir_waits_for_the_lease(safety: str, order_key: str) -> None:
    """A write is then made again with the same key; what is irreversible is in doubt, never repeated."""

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety=safety, order_key=order_key)
        await settle(loop)
        begun_ms = world.receipts()[0].begun_ms
        heir = await die(world, loop)
        world.hands.gates.clear()
        await settle(heir)
        assert heir.busy == 0
        assert heir.next_ms() == begun_ms + 11_001
        await asyncio.sleep(LEASE_S - 1)
        await finish(heir)
        assert world.hands.began == [0]
        assert world.replies() == []
        await asyncio.sleep(1)
        await finish(heir)
        if safety == "write":
            assert world.hands.began == [0, 0]
            assert world.outcomes() == {0: Answered(value=b"0")}
        else:
            assert world.hands.began == [0]
            assert world.outcomes() == {0: InDoubt(since_ms=begun_ms)}
        assert world.marked() == 1
        await heir.close()

    scene()


@pytest.mark.parametrize("undone", [True, False], ids=["", "control"])
def test_what_a_person_says_did_not_happen_stops_nothing(
    undone: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A call in doubt is made again by their word: the note of the attempt they named is let be.

    The log says once that nobody knows, before they said it. The control leaves their word out, and the
    call stays in doubt.
    """

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(number=0, safety="irreversible")
        await settle(loop)
        (intent,) = world.receipts()
        heir = await die(world, loop)
        world.hands.gates.clear()
        said = (intent.attempt,) if undone else ()
        await world.ask(number=0, safety="irreversible", undone=said)
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        first, second = sorted(world.replies(), key=lambda reply: reply.attempt != intent.attempt)
        assert first.outcome == InDoubt(since_ms=intent.begun_ms)
        assert isinstance(second.outcome, Answered if undone else InDoubt)
        assert world.hands.began == ([0, 0] if undone else [0])
        assert caplog.text.count("nobody knows whether") == (1 if undone else 2)
        await heir.close()

    scene()


class Books(Hands):
    """Hands whose books can be looked into, once they are open."""

    open = False

    async def verify(self, call: Any, ask: Any, attempt: Any) -> Any:
        if not self.open:
            return InDoubt(since_ms=0)
        return Done(value=b"in the books") if len(self.began) > 1 else None


async def nothing(*_: Any) -> None:
    return None


def test_both_requests_of_a_call_in_doubt_make_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first comes again and is found not to have happened; the person said so too: made once.

    Whoever makes it second looks into the books once more, after the first is done. Receipts are not
    read on meanwhile, as where nobody else can write any: they would have the answer by themselves.
    """
    monkeypatch.setattr(Noting, "_answered", nothing)

    @play
    async def scene() -> None:
        world = World(Books())
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(number=0, safety="irreversible")
        await settle(loop)
        (intent,) = world.receipts()
        heir = await die(world, loop)
        world.hands.gates.clear()
        await world.ask(number=0, safety="irreversible", undone=(intent.attempt,))
        world.hands.open = True
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        assert world.hands.began == [0, 0], "by the one that died, and once more"
        assert {reply.outcome.value for reply in world.replies()} == {b"0", b"in the books"}
        await heir.close()

    scene()


@pytest.mark.parametrize("off", ["_once_more", "_alone"])
def test_without_looking_once_more_alone_it_is_made_twice(
    monkeypatch: pytest.MonkeyPatch, off: str
) -> None:
    """The controls."""

    @contextlib.asynccontextmanager
    async def beside(self: Noting, call_id: str) -> AsyncIterator[None]:
        yield

    monkeypatch.setattr(Noting, off, nothing if off == "_once_more" else beside)
    with pytest.raises(AssertionError, match="by the one that died"):
        test_both_requests_of_a_call_in_doubt_make_it_once(monkeypatch)


@play
async def test_a_lease_is_renewed_while_the_call_goes_on():
    """Two minutes in a lease of ten seconds; the heir waits for all of them, and repeats nothing."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="irreversible")
    for _ in range(120):
        await settle(loop, rounds=1)
        await asyncio.sleep(1)
    leases = [receipt.until_ms for receipt in world.receipts()]
    assert len(leases) > 20
    assert leases[-1] > world.now_ms()
    assert len({receipt.attempt for receipt in world.receipts()}) == 1
    world.hands.gates[0].set()
    await finish(loop)
    assert world.outcomes() == {0: Answered(value=b"0")}
    count = len(world.receipts())
    await asyncio.sleep(60)
    await finish(loop)
    assert len(world.receipts()) == count
    await loop.close()


@play
async def test_a_lease_that_cannot_be_renewed_now_is_renewed_later(caplog):
    """The log is away for a moment: the call goes on, and one line a minute says so, however many try."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="irreversible")
    await settle(loop)
    world.faults.away = True
    for lines in (1, 2):
        for _ in range(10):
            await asyncio.sleep(4)
            await settle(loop)
        assert caplog.text.count("are not renewed") == lines
    world.faults.away = False
    await asyncio.sleep(4)
    await settle(loop)
    assert len(world.receipts()) == 2
    await loop.drain(0)


@play
async def test_an_answer_noted_elsewhere_ends_the_wait():
    """Who lost the partition may still answer until its lease ends; the heir sends that answer."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="irreversible")
    await settle(loop)
    world.log.evict(world.workers[0])
    heir = world.performing("b")
    await settle(heir)
    world.hands.gates[0].set()
    await settle(loop, rounds=2)
    await finish(heir)
    assert world.hands.began == [0]
    assert {reply.outcome.value for reply in world.replies()} == {b"0"}
    assert len({reply.attempt for reply in world.replies()}) == 1
    assert world.marked() == 1
    await heir.close()


async def inherit(world: World, *asks: dict[str, str]) -> tuple[Intent, Any]:
    """Have calls begun by a process that dies; return the first one's note, and the heir."""
    world.hands.hold(*range(len(asks)))
    loop = world.performing()
    for ask in asks:
        await world.ask(**ask)
    await settle(loop)
    begun, *others = world.receipts()
    assert len(others) == len(asks) - 1
    heir = await die(world, loop)
    world.hands.gates.clear()
    return begun, heir


@play
async def test_an_answer_that_is_noted_before_the_heir_notes_its_own_try_counts():
    """Between the look at the lease and the heir's own note, whoever stood still may have answered."""
    world = World()
    begun, heir = await inherit(world, {"safety": "write", "order_key": "card-1"})
    late = answer(begun)
    worker = world.workers[-1]
    intend = worker.intend

    def intend_late(work):
        now(world.log.append(late))
        return intend(work)

    worker.intend = intend_late
    await asyncio.sleep(LEASE_S)
    await finish(heir)
    assert world.hands.began == [0]
    assert world.outcomes() == {0: Answered(value=b"late")}
    assert world.marked() == 1
    await heir.close()


async def stand_still(world: World, heir: Any, begun: Intent, stood_ms: int) -> None:
    """Have an heir stand still once it has read its own note; the call's answer is noted meanwhile."""
    look = heir._noting.look

    def thawed() -> None:
        if any(one.holder != begun.holder for one in world.receipts()):
            heir._noting.look = look
            now(world.log.append(answer(begun)))
            asyncio.get_running_loop()._now_s += stood_ms / 1000
        look()

    await asyncio.sleep(LEASE_S)
    await settle(heir, rounds=1)
    heir._noting.look = thawed


@pytest.mark.parametrize(
    ("lease", "began"), [(Lease(), [0]), (Lease(blind_ms=60_000), [0, 0])], ids=["sound", "control"]
)
@pytest.mark.parametrize(("safety", "order_key"), CAREFUL)
def test_who_stood_still_after_its_own_note_reads_on_before_it_makes_a_call_again(
    safety: str, order_key: str, lease: Lease, began: list[int]
) -> None:
    """Whoever began the call answered it meanwhile; the control hands it over, and it is made twice."""

    class Unsure(Hands):
        async def verify(self, call: Any, ask: Any, attempt: Any) -> None:
            """Say that it has not happened: the one who stands still has yet to do it."""

    @play
    async def scene() -> None:
        world = World(Unsure(), lease=lease)
        begun, heir = await inherit(world, {"safety": safety, "order_key": order_key})
        await stand_still(world, heir, begun, 3_000)
        await finish(heir)
        assert world.hands.began == began
        assert world.outcomes() == {0: Answered(value=b"late" if began == [0] else b"0")}
        await heir.close()

    scene()


@pytest.mark.parametrize(("stood_ms", "more"), [(0, 0), (900, 0), (1_100, 1), (3_000, 1)])
def test_the_log_is_asked_for_its_end_only_by_who_stood_still(
    monkeypatch: pytest.MonkeyPatch, stood_ms: int, more: int
) -> None:
    """One question, for all calls that wait in the partition; in the normal case none."""

    @play
    async def scene() -> None:
        world = World()
        asks = [{"safety": "write", "order_key": f"card-{card}"} for card in range(2)]
        begun, heir = await inherit(world, *asks)
        anew, asked = subject.Receipts._anew, []

        def counted(*given: Any) -> Any:
            asked.append(given)
            return anew(*given)

        monkeypatch.setattr(subject.Receipts, "_anew", counted)
        await stand_still(world, heir, begun, stood_ms)
        await finish(heir)
        assert len(asked) == more
        assert sorted(world.hands.began) == ([0, 1, 1] if more else [0, 0, 1, 1])
        await heir.close()

    scene()


@play
async def test_an_answer_behind_an_open_transaction_is_waited_for():
    """Nobody sees beyond it, so whoever stood still hands nothing over until it has ended."""
    world = World()
    begun, heir = await inherit(world, {"safety": "write", "order_key": "card-1"})
    opened: list[Any] = []
    append = world.log.append

    def behind(draft: Draft) -> Any:
        opened.append(world.log.hold([dataclasses.replace(draft, key=b"another")]))
        world.log.append = append
        return append(draft)

    await stand_still(world, heir, begun, 3_000)
    world.log.append = behind
    await settle(heir)
    assert world.hands.began == [0]
    assert heir.busy == 1
    opened[0].abort()
    await finish(heir)
    assert world.hands.began == [0]
    assert world.outcomes() == {0: Answered(value=b"late")}
    await heir.close()


@pytest.mark.parametrize(("told", "began"), [(True, [0]), (False, [0, 0])])
def test_who_is_told_to_end_hands_over_nothing_that_it_cannot_read_on_for(
    told: bool, began: list[int]
) -> None:
    """A process that ends reads no receipts any more, and leaves the call to the next owner."""

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety="write", order_key="card-1")
        await settle(loop)
        heir = await die(world, loop)
        world.hands.gates.clear()
        await asyncio.sleep(LEASE_S)
        await settle(heir, rounds=1)
        (known,) = heir._noting.known.values()
        known.lost = told
        await settle(heir)
        assert world.hands.began == began
        assert not heir._noting._held
        await heir.close()

    scene()


@pytest.mark.parametrize(
    ("verified", "outcome", "begun"),
    [
        (Done(value=b"paid"), Answered(value=b"paid"), [0]),
        (None, Answered(value=b"0"), [0, 0]),
        (InDoubt(since_ms=0), InDoubt, [0]),
        (ValueError("no such account"), InDoubt, [0]),
        (TransientError("away"), InDoubt, [0]),
        (SystemExit(1), InDoubt, [0]),
        (asyncio.CancelledError(), InDoubt, [0]),
    ],
)
def test_verify_is_asked_before_a_person_is(verified: Any, outcome: Any, begun: list[int]) -> None:
    """It happened: its answer. It did not: it is made. Nobody knows: in doubt."""

    class Careful(Hands):
        async def verify(self, call: Any, ask: Any, attempt: Any) -> Any:
            if isinstance(verified, BaseException):
                raise verified
            return verified

    @play
    async def scene() -> None:
        world = World(Careful())
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety="irreversible")
        await settle(loop)
        heir = await die(world, loop)
        world.hands.gates.clear()
        await settle(heir)
        await asyncio.sleep(LEASE_S)
        await finish(heir)
        found = world.outcomes()[0]
        assert found == outcome if not isinstance(outcome, type) else isinstance(found, outcome)
        assert world.hands.began == begun
        await heir.close()

    scene()


@pytest.mark.parametrize(
    ("error", "outcome", "tries"),
    [
        (NotDone("refused"), Answered(value=b"ok"), 2),
        (TransientError("the line broke"), InDoubt, 1),
        (ValueError("?"), InDoubt, 1),
    ],
)
def test_only_not_done_permits_a_repeat(error: Exception, outcome: Any, tries: int) -> None:
    """Whatever else an irreversible tool raises, it may have acted: it is not tried again."""

    @play
    async def scene() -> None:
        async def once(call: Any, ask: Any, attempt: Any) -> Done:
            if attempt.number == 1:
                raise error
            return Done(value=b"ok")

        world = World(Hands(once))
        loop = world.performing()
        await world.ask(safety="irreversible")
        await finish(loop)
        found = world.outcomes()[0]
        assert found == outcome if not isinstance(outcome, type) else isinstance(found, outcome)
        assert len(world.hands.began) == tries
        await loop.close()

    scene()


@pytest.mark.parametrize("lost", [True, False])
def test_a_call_whose_lease_ran_out_between_two_tries_is_not_simply_tried_again(lost: bool) -> None:
    """Another may have made it since: who stood still notes it anew, or finds that it is not its own."""

    class Careful(Hands):
        async def verify(self, call: Any, ask: Any, attempt: Any) -> None:
            return None

    @play
    async def scene() -> None:
        tries = [NotDone("later", retry_after_s=30)]

        async def busy_once(call: Any, ask: Any, attempt: Any) -> Done:
            if tries:
                raise tries.pop()
            return Done(value=attempt.id.encode())

        world = World(Careful(busy_once))
        frozen = world.performing()
        await world.ask(safety="irreversible")
        await settle(frozen)
        assert world.sleeps == [30]
        heirs = []
        if lost:
            world.log.evict(world.workers[0])
            heirs = [world.performing("b")]
            await settle(*heirs)
        await asyncio.sleep(LEASE_S)
        await settle(*heirs)
        await asyncio.sleep(31 - LEASE_S)
        await finish(*heirs, frozen)
        assert world.hands.began == [0, 0]
        (reply,) = world.replies()
        noted = [one.attempt for one in world.receipts() if isinstance(one, Intent)]
        assert len(noted) == 2
        assert reply.outcome == Answered(value=noted[1].encode())
        for one in (*heirs, frozen):
            await one.close()

    scene()


@play
async def test_an_irreversible_call_that_did_not_happen_after_all_is_a_failure():
    """`verify` says so, and the agent may decide to call again."""

    class Careful(Hands):
        async def verify(self, call, ask, attempt):
            return None

    async def broken(call, ask, attempt):
        raise ValueError("the line broke")

    world = World(Careful(broken))
    loop = world.performing()
    await world.ask(safety="irreversible")
    await finish(loop)
    assert world.outcomes()[0] == Failed(error="ValueError", detail="the line broke")
    assert kinds(world) == ["Intent", "Result"]
    await loop.close()


@play
async def test_a_write_whose_time_is_over_is_not_said_to_be_undone():
    """An heir that comes too late to repeat a write says that it had begun."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="write", order_key="k", not_after_ms=world.now_ms() + 5_000)
    await settle(loop)
    heir = await die(world, loop)
    await settle(heir)
    await asyncio.sleep(LEASE_S)
    await finish(heir)
    failed = world.outcomes()[0]
    assert failed.error == "ToolTimeout"
    assert "was begun by a" in failed.detail
    assert "not undone" in failed.detail
    await heir.close()


@play
async def test_a_call_whose_time_is_over_is_not_noted():
    """It is not begun, so nobody need doubt it."""
    world = World()
    loop = world.performing()
    await world.ask(safety="irreversible", not_after_ms=world.now_ms() - 1)
    await finish(loop)
    assert kinds(world) == ["Result"]
    assert world.outcomes()[0].error == "DeadlineExceeded"
    await loop.close()


@play
async def test_what_is_done_beyond_the_offset_is_not_begun_again():
    """A successor takes the done-set from beside the offset; the one still open it begins again."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    for _ in range(5):
        await world.ask()
    await settle(loop)
    assert world.marked() == 0
    heir = await die(world, loop)
    world.hands.gates.clear()
    world.hands.began.clear()
    await finish(heir)
    assert world.hands.began == [0]
    assert world.marked() == 5
    await heir.close()


@play
async def test_an_unreadable_done_set_is_ignored_and_said(caplog):
    """The offset counts; what was done beyond it is begun again."""
    world = World()
    for _ in range(3):
        await world.ask()
    worker = world.log.work([REQUESTS], group=GROUP, instance="z")
    (claim,) = worker.poll(records_max=1, wait_ms=0).gained
    worker.mark(claim, 1, "someone else's")
    worker.close(leave=True)
    loop = world.performing()
    await finish(loop)
    assert world.hands.began == [1, 2]
    assert "cannot be read" in caplog.text
    await loop.close()


@play
async def test_a_short_drain_keeps_the_partitions_and_a_long_one_hands_them_over():
    """Calls go on under their leases while others have the partitions: nothing twice, nothing in doubt."""
    world = World()
    world.hands.hold(0, 1)
    loop = world.performing()
    await world.ask(safety="read")
    await world.ask(safety="irreversible")
    await settle(loop)
    draining = asyncio.create_task(loop.drain(600))
    await asyncio.sleep(1)
    assert loop.claims
    heir = world.performing("b")
    for _ in range(200):
        await heir.step()
        await asyncio.sleep(1)
    assert not loop.claims
    assert heir.claims
    await world.ask(number=2)
    await settle(heir)
    assert world.outcomes() == {2: Answered(value=b"2")}
    assert world.hands.began == [0, 1, 2]
    for gate in world.hands.gates.values():
        gate.set()
    await draining
    await finish(heir)
    assert world.hands.began == [0, 1, 2]
    assert {reply.number: reply.outcome for reply in world.replies()} == {
        n: Answered(value=b"%d" % n) for n in range(3)
    }
    assert world.marked() == 3
    await loop.close()
    await heir.close()


@pytest.mark.parametrize("safety", ["read", "paid", "write", "irreversible"])
def test_a_call_handed_over_while_its_answer_is_on_its_way_keeps_its_heir_waiting_for_nothing(
    safety: str,
) -> None:
    """Its lease ends with it, so that the heir marks it; it is not made again."""

    @play
    async def scene() -> None:
        world = World()
        loop = world.performing()
        await settle(loop)
        send, arrives = loop._send, asyncio.Event()

        async def slowly(item: Any, reply: Any) -> Any:
            await arrives.wait()
            return await send(item, reply)

        loop._send = slowly  # type: ignore[method-assign] # the log takes its time
        await world.ask(safety=safety)
        await settle(loop)
        await loop._part(loop.claims)
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        await settle(heir)
        arrives.set()
        for _ in range(40):
            await settle(loop, heir, rounds=1)
            await asyncio.sleep(1)
        assert world.hands.began == [0]
        assert not heir.waiting
        assert world.marked() == 1
        await loop.close()
        await heir.close()

    scene()


@play
async def test_a_call_that_is_to_be_tried_again_is_so_under_its_lease_while_others_have_the_partition():
    """Its heir waits for it: left alone it would be in doubt, though its process knows what it did."""
    tries = [NotDone("too many", retry_after_s=30)]

    async def busy_once(call, ask, attempt):
        if tries:
            raise tries.pop()
        return Done(value=b"paid")

    world = World(Hands(busy_once))
    loop = world.performing()
    await world.ask(safety="irreversible")
    await settle(loop)
    assert world.sleeps == [30]
    draining = asyncio.create_task(loop.drain(600))
    await asyncio.sleep(1)
    heir = world.performing("b")
    for _ in range(60):
        await heir.step()
        await asyncio.sleep(1)
    assert heir.claims
    await draining
    await finish(heir)
    assert world.hands.began == [0, 0]
    assert world.outcomes() == {0: Answered(value=b"paid")}
    assert world.marked() == 1
    await loop.close()
    await heir.close()


@pytest.mark.parametrize("goes", [True, False])
@pytest.mark.parametrize("safety", ["read", "paid", "write"])
def test_nothing_begins_unnoted_between_the_notes_and_the_loss(safety: str, goes: bool) -> None:
    """What was noted is what the heir waits for; a call that a slot is free for only then is the heir's."""

    @play
    async def scene() -> None:
        world = World(bounds=Bounds(calls_max=1, mark_ms_min=0))
        world.hands.hold(0, 1)
        loop = world.performing()
        await world.ask(safety=safety)
        await world.ask(safety=safety)
        await settle(loop)
        await loop._part(loop.claims)
        world.hands.gates[0].set()
        for _ in range(50):  # the consumer's thread settles marks meanwhile
            await asyncio.sleep(0)
        heirs = []
        if goes:
            world.log.evict(world.workers[0])
            heirs = [world.performing("b")]
        await settle(*heirs)
        world.hands.gates[1].set()
        await finish(*heirs, loop)
        assert world.hands.began == [0, 1]
        assert world.outcomes() == {0: Answered(value=b"0"), 1: Answered(value=b"1")}
        for one in (*heirs, loop):
            await one.close()

    scene()


def test_what_was_answered_since_the_last_mark_is_marked_before_a_partition_goes() -> None:
    """A read leaves no receipt, so that its heir knows of it by the mark alone."""

    async def scene() -> None:
        world = World(bounds=Bounds(mark_ms_min=HOUR_MS))
        world.hands.hold(0)
        loop = world.performing()
        await settle(loop)
        await world.ask(safety="read")
        await world.ask(safety="read")
        await settle(loop)
        assert [*world.outcomes()] == [1]
        await asyncio.to_thread(loop._claiming._part, loop.claims)  # as the consumer's thread does
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        await settle(heir)
        world.hands.gates[0].set()
        await settle(loop, heir)
        assert world.hands.began == [0, 1]
        assert world.outcomes() == {0: Answered(value=b"0"), 1: Answered(value=b"1")}
        await loop.close()
        await heir.close()

    asyncio.run(scene())


@pytest.mark.parametrize(("safety", "waits"), [("read", False), ("irreversible", True)])
def test_a_call_that_is_cut_off_frees_its_lease_if_it_may_be_repeated(
    safety: str, waits: bool
) -> None:
    """The next owner makes a read at once; what is irreversible has its lease run out, in case."""

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety=safety)
        await settle(loop)
        await loop.drain(1)
        await loop.close(leave=True)
        world.hands.gates.clear()
        heir = world.performing("b")
        await finish(heir)
        assert (world.outcomes() == {}) == waits
        assert bool(heir.next_ms()) == waits
        await heir.drain(0)

    scene()


@play
async def test_who_waits_for_a_lease_leaves_the_call_to_the_next():
    """A process that stops does not begin what it was not yet allowed to begin."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="irreversible")
    await settle(loop)
    heir = await die(world, loop)
    await settle(heir)
    await heir.drain(60)
    assert world.hands.began == [0]
    assert world.replies() == []
    await heir.close()


def test_an_answer_counts_whatever_the_order() -> None:
    """RESULT over INTENT; the first of two answers; the later of two intents; no zombie's renewal."""
    reply = Reply(run="r", number=1, attempt="a", outcome=Answered(value=b""))
    late = dataclasses.replace(reply, attempt="zombie")
    first = Intent(run="r", number=1, offset=5, attempt="a", begun_ms=1, until_ms=10)
    heirs = dataclasses.replace(first, attempt="b", begun_ms=12, until_ms=22)
    renewed = dataclasses.replace(first, until_ms=30)
    known = Known(5, frozenset(), 0, Partition(RECEIPTS, 0))
    for receipt in (first, heirs, renewed):
        known.note(receipt, "m")
    assert known.intent(asked(1, offset=5)) == heirs
    for receipt in (Result(offset=5, reply=reply), Result(offset=5, reply=late), renewed):
        known.note(receipt, "m")
    assert known.answer(asked(1, offset=5)) == reply
    assert known.answer(asked(1, offset=6)) is None
    assert known.answer(asked(1, offset=6, undone=("a",))) == reply


def test_receipts_of_what_is_done_take_no_memory() -> None:
    """Only receipts of open requests are kept, however many others there are."""
    known = Known(5, frozenset({6}), 0, Partition(RECEIPTS, 0))
    for offset in (4, 6):
        known.note(
            Intent(run="r", number=offset, offset=offset, attempt="a", begun_ms=1, until_ms=10), "m"
        )
        assert known.intent(asked(offset, offset=offset)) is None


@play
async def test_receipts_are_read_from_the_first_open_request_on():
    """What is older cannot be of a request that is open."""
    world = World()
    loop = world.performing()
    for _ in range(3):
        await world.ask(safety="write")
        await finish(loop)
        await asyncio.sleep(200)
    world.hands.hold(3)
    await world.ask(safety="irreversible")
    await settle(loop)
    starts = []
    read = world.log.read

    def watched(places):
        starts.extend(start for place, start in places.items() if place.topic == RECEIPTS)
        return read(places)

    world.log.read = watched
    heir = await die(world, loop)
    await settle(heir)
    world.log.read = read
    assert starts == [3]
    await heir.drain(0)


@play
async def test_a_receipt_of_a_later_version_stops_the_start(monkeypatch):
    """Guessing what it says could buy an answer again."""
    world = World()
    foreign = b"\xc3\x01" + bytes(8) + b"?"
    await world.log.append(Draft(topic=RECEIPTS, key=b"k", value=foreign, partition=0))
    await world.ask()
    loop = world.performing()
    with pytest.raises(SettingsError, match="a later version"):
        await finish(loop)


@play
async def test_what_is_no_receipt_is_passed_over(caplog):
    """Damage in the topic is said, and blocks nothing."""
    world = World()
    await world.log.append(Draft(topic=RECEIPTS, key=b"k", value=b"?", partition=0))
    stray = CODEC.encode(await world.ask())
    await world.log.append(Draft(topic=RECEIPTS, key=b"k2", value=stray, partition=0))
    loop = world.performing()
    await finish(loop)
    assert world.outcomes() == {0: Answered(value=b"0")}
    assert "no receipt" in caplog.text
    await loop.close()


@play
async def test_others_receipts_are_read_only_while_someone_may_write_them():
    """Once what was open at the gain is done, nobody reads the topic any more."""
    world = World()
    await world.ask()
    loop = world.performing()
    await finish(loop)
    (known,) = loop._noting.known.values()
    assert known.reader is not None
    await asyncio.sleep(subject.SETTLED_MS / 1000 + 1)
    await finish(loop)
    assert known.reader is None
    await loop.close()


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
@pytest.mark.parametrize(("safety", "order_key"), CAREFUL)
def test_an_heir_whose_requests_come_late_waits_for_who_is_still_at_them(
    safety: str, order_key: str, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has the lease renews it; the control counts the backlog's time from the gain.

    A broker is away, or what was noted takes long to read: the first request comes later than a
    backlog may pause. Nobody had read the renewals by then, and the call was made beside itself.
    """

    class Unsure(Hands):
        async def verify(self, call: Any, ask: Any, attempt: Any) -> None:
            """Say that it has not happened: whoever makes it is still at it."""

    if control:
        monkeypatch.setattr(
            Known,
            "settled",
            lambda known, now_ms: (
                not known._inherited and now_ms - known._gained_ms > subject.SETTLED_MS
            ),
        )

    @play
    async def scene() -> None:
        async def pass_by(seconds: int) -> None:
            for _ in range(seconds):
                await settle(heir, rounds=1)
                for item, renewal in loop._noting.renewals().items():
                    await world.log.append(loop._noting.draft(item, renewal))
                await asyncio.sleep(1)

        world = World(Unsure())
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety=safety, order_key=order_key)
        await settle(loop)
        heir = world.performing("b")
        world.log.evict(world.workers[0])
        worker = world.workers[-1]
        poll = worker.poll
        worker.poll = lambda *, records_max, wait_ms: poll(records_max=0, wait_ms=wait_ms)
        await pass_by(subject.SETTLED_MS // 1_000 + 10)
        worker.poll = poll
        await pass_by(30)
        assert world.hands.began == ([0, 0] if control else [0])
        world.hands.gates[0].set()
        await finish(loop, heir)
        assert world.outcomes() == {0: Answered(value=b"0")}
        await heir.close()
        await loop.close()

    scene()
