"""All that a run remembers can be taken elsewhere, and its next turn leads to the same there."""

from __future__ import annotations

import asyncio
import pickle
from typing import Any

from headwater.contracts.messages import Answered, Reply, Wake
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Meta, Position
from headwater.runs.rows import Entry, OpenCall, Opened, Run
from headwater.runs.visit import remembered
from headwater.runtime.table import Table

from .world import INBOX, World, call


async def sleeper(session: Any) -> bytes:
    await asyncio.sleep(60)
    return await call(session, "read-a")


async def asker(session: Any) -> bytes:
    return await call(session, "read-a")


def elsewhere(world: World, message: Any) -> list[Any]:
    """Take the next turn of the world's run in another process's stead; return what it sends."""
    rows = pickle.loads(pickle.dumps(remembered(world.rows, world.run)))  # noqa: S301 - our own
    at = Position("topic-id", INBOX, 0, world.offset + 1)
    meta = Meta(id=f"m{world.offset + 1}", tenant=world.tenant, correlation_id="c1")
    turn = Turn(Table(rows), at=at, meta=meta, now_ms=world.now_ms)
    world._decider().react(turn, message)
    return [sent.message for sent in turn.sent]


def test_an_answer_leads_to_the_same_elsewhere() -> None:
    """Its journal and its open call are there."""
    world = World(asker)
    world.start()
    reply = Reply(run=world.run, number=1, attempt="a1", outcome=Answered(value=b"ok"))
    there = elsewhere(world, reply)
    world.sent.clear()
    world.take(reply)
    assert there == [sent.message for sent in world.sent]
    assert there


def test_a_run_that_sleeps_has_its_timer_elsewhere() -> None:
    """A turn may be a timer's."""
    world = World(sleeper)
    world.start()
    kinds = {type(row) for row in remembered(world.rows, world.run)}
    assert kinds == {Opened, Run, Entry, Timer}
    [timer] = world.rows.scan(Timer)
    world.now_ms = timer.due_ms
    there = elsewhere(world, Wake(name=timer.name, due_ms=timer.due_ms))
    world.sent.clear()
    world.wake()
    assert there == [sent.message for sent in world.sent]
    assert there


def test_only_the_run_is_remembered() -> None:
    """Others' rows stay where they are."""
    world = World(asker)
    world.start()
    assert remembered(world.rows, "worker.0.another") == []
    kinds = {type(row) for row in remembered(world.rows, world.run)}
    assert kinds == {Opened, Run, Entry, OpenCall, Timer}


def test_a_turn_of_many_deliveries_says_at_each_that_it_goes_on() -> None:
    """A replay and a drain are many deliveries, and none of them is an endless loop."""
    said: list[int] = []
    world = World(asker, going_on=lambda: said.append(1))
    world.start()
    assert said == []
    world.control("pause")
    world.answer(1)
    world.control("resume")
    world.crash()
    world.drain()
    assert len(said) == 2
    assert world.statuses()[-1] == "completed"
