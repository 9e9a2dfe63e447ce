"""What the end of a run tells of its cost: no call that may yet be billed is left out."""

from __future__ import annotations

import asyncio

import pytest

from headwater.contracts.messages import Closed, Limits, Reply, ReplyTo, Spent, Start, Usage
from headwater.durable.running import Session
from headwater.runs import life

from .test_cuts import granted
from .test_people import Careful, Petitioned
from .world import World, call

BOSS = ReplyTo(topic="hw.inbox.boss.v1", partition=3, run="boss.3.t", number=8)
USED = Usage(model="m", input_tokens=20, output_tokens=10, usd_nano=500)
DEAR = Usage(model="m", input_tokens=100, output_tokens=1, usd_nano=500)


class Leaving:
    """Ends with calls that nobody waits for, in one of three ways."""

    def __init__(self, how: str = "completed") -> None:
        self.how = how

    async def __call__(self, session: Session) -> bytes:
        await call(session, "read-first")
        session.ask("model", "small", b"")
        session.ask("tool", "read-second", b"")
        await session.receive("go")
        if self.how == "failed":
            raise ValueError
        return b"done"


def ended(leaving: Leaving, **more: object) -> World:
    """Return a world whose run has ended, with calls open."""
    world = World(leaving, limits=Limits(usd_nano=None, tokens=None))
    world.start(**more)
    world.answer(1)
    if leaving.how == "cancelled":
        world.control("cancel")
    else:
        world.control("signal", "go")
    return world


def told(world: World) -> list[Spent | None]:
    """Return what was told of the run's cost, to whomever."""
    return [said.spent for said in [*world.messages(Reply), *world.messages(Closed)]]


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
@pytest.mark.parametrize("to", [BOSS, None], ids=["child", "root"])
def test_a_call_that_is_open_as_its_run_ends_is_charged_as_reserved(how, to):
    """Its bill comes to nobody, so it is counted as high as it may be."""
    world = ended(Leaving(how), reply_to=to)
    assert told(world) == [Spent(steps=3, tokens=100, usd_nano=1_000_000)]
    world.answer(2, usage=USED)
    assert len(told(world)) == 1, "what it came to changes nothing of that"


def test_the_bill_of_an_open_call_would_be_told_to_nobody_without_it(monkeypatch):
    """Control: a run that tells what was settled leaves out what it may yet cost."""
    monkeypatch.setattr(life, "bill", lambda visit: visit.run.spent)
    assert told(ended(Leaving(), reply_to=BOSS)) == [Spent(steps=1)]


def test_parent_passes_no_limit_with_children_that_leave_calls_behind():
    """What a child may still be billed stays out of what its parent may spend."""

    async def parent(session: Session) -> bytes:
        for number in range(9):
            try:
                await call(session, "child", "agent", limits=Limits(usd_nano=1_000_000))
            except RuntimeError as error:
                return f"{number} {error}".encode()
        return b"all"

    world = World(parent, limits=Limits(usd_nano=2_500_000))
    world.start()
    child = ended(Leaving(), reply_to=BOSS)
    (bill,) = told(child)
    for number in (1, 2):
        assert world.messages(Start)[-1].limits.usd_nano == 1_000_000
        world.answer(number, spent=bill)
    assert world.messages(Start)[-1].limits.usd_nano == 250_000, "half of what is left"


@pytest.mark.parametrize(("used", "more"), [(USED, Spent()), (DEAR, Spent(tokens=1))])
def test_a_run_that_is_resumed_tells_only_what_it_cost_beyond_what_was_told(used, more):
    """The answer is settled as what it is where the run goes on to take it."""
    broken = True

    async def waits(session: Session) -> bytes:
        words = asyncio.ensure_future(call(session, "small", "model"))
        await call(session)
        if broken:
            raise ValueError
        return await words

    world = World(waits)
    world.start()
    world.answer(1)
    assert told(world) == [Spent(steps=2, tokens=100, usd_nano=1_000_000)]
    world.answer(2, usage=used)
    broken = False
    granted(world)
    assert [status for status, _ in world.outcomes()] == ["worker.failed", "worker.completed"]
    assert told(world)[1] == more


def test_what_was_told_twice_is_told_no_third_time():
    """A second failure for less than was told before takes nothing back, and counts nothing again."""
    world = ended(leaving := Leaving("failed"))
    world.answer(2, usage=USED)
    world.answer(3)
    granted(world)
    assert told(world)[1:] == [Spent()]
    leaving.how = "completed"
    granted(world)
    assert told(world)[1:] == [Spent(), Spent()]


def test_what_was_told_counts_though_it_came_to_less():
    """What an attempt costs is told once it goes beyond all that was told, not beyond the last bill."""
    broken = True

    async def waits(session: Session) -> bytes:
        words = asyncio.ensure_future(call(session, "small", "model"))
        await call(session)
        if broken:
            raise ValueError
        await words
        await session.receive("go")
        if broken:
            raise ValueError
        return await call(session, "small", "model")

    world = World(waits)
    world.start()
    world.answer(1)
    broken = False
    granted(world)
    world.answer(2, usage=USED)
    broken = True
    world.control("signal", "go")
    broken = False
    granted(world)
    world.answer(3, usage=USED)
    assert [status for status, _ in world.outcomes()][2:] == ["worker.completed"]
    assert told(world) == [Spent(steps=2, tokens=100, usd_nano=1_000_000), Spent(), Spent(steps=1)]


def test_a_failed_run_that_is_dropped_tells_what_its_children_may_have_spent():
    """Nobody waits for their bills any more."""

    async def parent(session: Session) -> bytes:
        session.ask("agent", "child", b"", options={"limits": Limits(steps=7, usd_nano=5)})
        await call(session)
        raise ValueError

    world = World(parent)
    world.start()
    world.answer(2)
    assert told(world) == []
    world.control("discard")
    assert told(world) == [Spent(steps=9, usd_nano=5)]


@pytest.mark.parametrize("sent", [True, False])
def test_a_call_that_waits_for_a_person_costs_what_was_sent(sent):
    """One in doubt was made; one that was never approved was not."""

    async def asks(session: Session) -> bytes:
        session.ask("tool", "irreversible-pay" if sent else "write-pay", b"")
        await session.receive("go")
        return b""

    world = Petitioned(asks, judge=None if sent else Careful())
    world.start()
    if sent:
        world.in_doubt()
    assert world.row.asking == 1
    world.control("signal", "go")
    assert told(world) == [Spent(steps=1 if sent else 0)]
