"""What a run may still spend: what its function is told, and that a replay tells it the same."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from headwater.contracts.messages import Limits, Usage
from headwater.core.judge import AskPerson
from headwater.errors import NonDeterminismError
from headwater.runs.rows import Entry, Held, Run

from .world import World, call

USED = Usage(model="m", input_tokens=20, output_tokens=10, usd_nano=500)
SEEN: list[Limits | None] = []


@pytest.fixture(autouse=True)
def _nothing_seen() -> None:
    SEEN.clear()


async def spends(session):
    SEEN.append(session.left())
    one = call(session, "small", "model")
    two = call(session, "read-a")
    await asyncio.gather(one, two)
    SEEN.append(session.left())
    await call(session, "read-b")
    return b"done"


def test_what_is_open_is_taken_off_and_what_is_answered_is_settled() -> None:
    """`limits - reserved - spent`, as the turn began; time by the run's own clock."""
    world = World(spends, limits=Limits(steps=9, tokens=200, usd_nano=None, wall_ms=60_000))
    world.start()
    assert [Limits(steps=9, tokens=200, usd_nano=None, wall_ms=60_000)] == SEEN
    world.now_ms += 1_500
    world.answer(1, usage=USED)
    world.answer(2)
    assert SEEN[1] == Limits(steps=7, tokens=170, usd_nano=None, wall_ms=58_500)


def test_replay_is_told_what_the_turn_was_told() -> None:
    """It is journaled where it is read, and nowhere else: later spending changes nothing of it."""
    world = World(spends, limits=Limits(steps=9, tokens=200, usd_nano=None))
    world.start()
    world.answer(1, usage=USED)
    world.answer(2)
    told = [*SEEN]
    assert [entry.left for entry in world.rows.scan(Entry)] == [told[0], None, told[1]]
    SEEN.clear()
    world.crash()
    world.answer(3)
    assert told == SEEN


def test_control_a_journal_without_it_is_replayed_otherwise() -> None:
    """Were it not journaled, code that goes by it would ask for something else in a replay."""

    async def frugal(session):
        await call(session, "small", "model")
        left = session.left()
        name = "read-much" if left is None or left.tokens > 180 else "read-little"
        await call(session, name)
        return b""

    for kept in (True, False):
        world = World(frugal, limits=Limits(tokens=200))
        world.start()
        world.answer(1, usage=USED)
        if not kept:
            for entry in [*world.rows.scan(Entry)]:
                world.rows.set(Entry, entry.key, dataclasses.replace(entry, left=None))
        world.crash()
        world.answer(2)
        run = next(world.rows.scan(Run), None)
        assert (run is None) is kept
        assert kept or run.reason.startswith(NonDeterminismError.__name__)
        assert kept or [*world.rows.scan(Held)]


def test_a_turn_is_told_once() -> None:
    """Asked again in the same turn it says the same, also after a call was refused in between."""

    async def asks_again(session):
        SEEN.append(session.left())
        with pytest.raises(RuntimeError):
            await asyncio.gather(call(session, "read-a"), call(session, "read-b"))
        SEEN.append(session.left())
        return b""

    world = World(asks_again, limits=Limits(steps=1))
    world.start()
    assert SEEN[0] is SEEN[1]


def test_in_cleanup_steps_are_those_of_cleaning_up() -> None:
    """A cancelled run has its own small budget of steps."""

    async def cleans(session):
        try:
            await session.receive("go")
        except asyncio.CancelledError:
            SEEN.append(session.left())
            await call(session, "write-undo")
            SEEN.append(session.left())
            raise

    world = World(cleans, limits=Limits(steps=50, cleanup_steps=2, wall_ms=None))
    world.start()
    world.control("cancel")
    world.answer(1)
    assert [(left.steps, left.cleanup_steps, left.wall_ms) for left in SEEN] == [
        (2, 2, None),
        (1, 1, None),
    ]


def test_time_that_a_person_takes_is_not_the_runs() -> None:
    """The wall clock stands while anybody is asked."""

    class Asks:
        version = "1"

        def judge(self, asked, meta):
            return AskPerson(words="may it?")

    async def waits(session):
        asking = asyncio.create_task(call(session, "write-a"))
        await session.receive("look")
        SEEN.append(session.left())
        await asking
        return b""

    world = World(waits, judge=Asks(), limits=Limits(wall_ms=60_000))
    world.start()
    world.now_ms += 30_000
    world.control("signal", "look")
    assert SEEN[0].wall_ms == 60_000


def test_nothing_is_known_outside_a_turn_or_as_it_is_unwound() -> None:
    """Between turns nobody may ask; `finally` of a dropped execution is told nothing."""
    sessions = []

    async def keeps(session):
        sessions.append(session)
        try:
            await session.receive("go")
        finally:
            SEEN.append(session.left())

    world = World(keeps)
    world.start()
    with pytest.raises(RuntimeError, match="outside the run's own turn"):
        sessions[0].left()
    world.crash()
    assert SEEN == [None]
