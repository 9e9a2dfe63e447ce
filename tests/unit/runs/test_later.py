"""Runs that a later version took last, and failed runs whose time is up."""

from __future__ import annotations

import pytest

from headwater.contracts.messages import Ask, Drain, RunEvent, Wake
from headwater.core.decider import Timer
from headwater.core.versions import Versions
from headwater.runs.later import LOOK_MS
from headwater.runs.retention import BUCKET_MS, KEEP_MS
from headwater.runs.rows import Ahead, Entry, Held, Opened, Retained, Run

from .world import World, call


async def two_calls(session):
    first = await call(session, "read-a")
    return first + await call(session, "read-b")


async def fail(session):
    await call(session, "read-a")
    raise ValueError("no")


class Fleet:
    """Versions that a test can change."""

    def __init__(self) -> None:
        self.now = Versions()

    def __call__(self) -> Versions:
        return self.now


class Rolling(World):
    """A world whose workers are now of one version, now of another."""

    def __init__(self, function, **options):
        self.version = "2.0"
        self.fleet = Fleet()
        super().__init__(function, versions=self.fleet, **options)

    def move(self, version):
        """Have a worker of another version take the partition up."""
        self.version = version
        self.crash()

    def look(self):
        """Let the timer of a version come due."""
        (timer,) = [one for one in self.rows.scan(Timer) if one.name[0] == "later"]
        self.now_ms = max(self.now_ms, timer.due_ms)
        self.take(Wake(name=timer.name, due_ms=timer.due_ms))


def of(world, kind):
    return list(world.rows.scan(kind))


def ahead():
    """Return a run that version 2.0 began, at a worker of 1.0, which was given an answer."""
    world = Rolling(two_calls)
    world.start()
    world.move("1.0")
    world.answer(1, b"A")
    return world


def test_older_worker_holds_what_a_later_one_took():
    """It keeps the message, says why, and calls nothing; the run is neither failed nor quarantined."""
    world = ahead()
    (run,) = of(world, Run)
    assert (run.state, run.held, run.version) == ("open", 1, "2.0")
    assert world.messages(RunEvent)[-1].status == "held"
    assert world.messages(RunEvent)[-1].reason == (
        "version 2.0 of the app took it last, and this worker has 1.0"
    )
    assert [ask.name for ask in world.messages(Ask)] == ["read-a"]
    world.look()
    assert not world.messages(Drain)
    assert of(world, Ahead)
    assert of(world, Held)


def test_without_the_hold_the_older_worker_takes_it():
    """The control: where any version may take any, the older code goes on with the run."""
    world = Rolling(two_calls)
    world.fleet.now = Versions(lately=frozenset())
    world.start()
    world.move("1.0")
    world.answer(1, b"A")
    assert [ask.name for ask in world.messages(Ask)] == ["read-a", "read-b"]


@pytest.mark.parametrize("way", ["moved", "withdrawn", "gone", "later still"])
def test_what_was_held_goes_on_once_somebody_may_take_it(way):
    """A worker that fits, an operator's word, or that nobody has the version any more."""
    world = ahead()
    if way == "moved":
        world.move("2.0")
    elif way == "later still":
        world.move("2.1")
    elif way == "withdrawn":
        world.fleet.now = Versions(withdrawn=frozenset({"2.0"}))
    else:
        world.fleet.now = Versions(lately=frozenset({"1.0"}))
    world.look()
    world.drain()
    assert [ask.name for ask in world.messages(Ask)] == ["read-a", "read-b"]
    assert of(world, Run)[0].version == world.version
    world.answer(2, b"B")
    assert world.outcomes() == [("worker.completed", b"AB")]
    assert len(world.rows) == 0


def test_later_messages_queue_behind_until_then():
    """Order holds per run, also where the fitting worker has the partition before the run is drained."""
    world = ahead()
    world.control("cancel")
    world.move("2.0")
    world.answer(7)
    assert of(world, Run)[0].held == 3
    world.look()
    world.drain()
    assert world.statuses()[-1] == "cancelled"
    assert [entry.state for entry in of(world, Run)] == []


def test_drain_that_meets_an_older_worker_again_waits_again():
    """Between the drain and its turn the partition may move back; the run is held once more."""
    world = ahead()
    world.move("2.0")
    world.look()
    assert not of(world, Ahead)
    world.move("1.0")
    world.drain()
    assert of(world, Ahead)
    world.move("2.0")
    world.look()
    world.drain()
    assert [ask.name for ask in world.messages(Ask)] == ["read-a", "read-b"]


def test_paused_run_waits_for_both():
    """A resume at an older worker does not deliver to code that does not know the run."""
    world = Rolling(two_calls)
    world.start()
    world.control("pause")
    world.move("1.0")
    world.answer(1, b"A")
    assert not of(world, Ahead)
    world.control("resume")
    world.drain()
    assert of(world, Ahead)
    assert [ask.name for ask in world.messages(Ask)] == ["read-a"]


def test_many_are_let_go_in_turns():
    """A turn lets go of a bounded number; the timer comes again at once for the others."""
    world = Rolling(two_calls, drain_max=2)
    runs = [f"worker.0.task{number}" for number in range(5)]
    for run in runs:
        world.run = run
        world.start()
    world.move("1.0")
    for run in runs:
        world.run = run
        world.answer(1)
    assert len([one for one in of(world, Timer) if one.name[0] == "later"]) == 1
    world.move("2.0")
    went = []
    while of(world, Ahead):
        world.look()
        went.append(len(world.messages(Drain)))
    assert went == [2, 4, 5]
    for drain in world.messages(Drain):
        world.take(drain)
    assert len(world.messages(Ask)) == 10


def test_run_that_ended_meanwhile_is_forgotten():
    """Its rows are gone, and nothing is sent to it."""
    world = ahead()
    world.rows.discard(Run, (world.run,))
    world.rows.discard(Opened, (world.run,))
    world.move("2.0")
    world.look()
    assert not world.messages(Drain)
    assert not of(world, Ahead)


def failed_at(world, run):
    world.run = run
    world.start()
    world.answer(1)


def expire(world):
    """Let the next hour of failed runs come due."""
    timer = min(
        (one for one in world.rows.scan(Timer) if one.name[0] == "retention"),
        key=lambda one: one.due_ms,
    )
    world.now_ms = max(world.now_ms, timer.due_ms)
    world.take(Wake(name=timer.name, due_ms=timer.due_ms))


def test_failed_runs_go_after_their_time_hour_by_hour():
    """One timer an hour and not one a run; each is told of."""
    world = World(fail)
    began_ms = world.now_ms
    for number in range(3):
        failed_at(world, f"worker.0.task{number}")
    timers = [one for one in of(world, Timer) if one.name[0] == "retention"]
    assert len(timers) == 1
    assert 0 <= timers[0].due_ms - (began_ms + KEEP_MS) <= BUCKET_MS
    expire(world)
    assert len(world.rows) == 0
    gone = world.messages(RunEvent)[-3:]
    assert [event.status for event in gone] == ["discarded"] * 3
    assert {event.reason for event in gone} == {"it failed longer ago than failed runs are kept"}


def test_failed_run_is_there_until_then():
    """The control: the hour before, its journal can still be resumed."""
    world = World(fail, failed_ms_max=3 * BUCKET_MS)
    failed_at(world, "worker.0.one")
    world.now_ms += 2 * BUCKET_MS
    failed_at(world, "worker.0.two")
    expire(world)
    assert {entry.run for entry in of(world, Entry)} == {"worker.0.two"}


def test_long_hour_goes_in_turns():
    """A turn drops a bounded number of runs."""
    world = World(fail, drain_max=2)
    for number in range(5):
        failed_at(world, f"worker.0.task{number}")
    left = []
    while of(world, Retained):
        expire(world)
        left.append(len(of(world, Run)))
    assert left == [3, 1, 0]


def test_discarded_run_leaves_the_others_their_hour():
    """Its place goes, the timer stays while anybody else is kept."""
    world = World(fail)
    failed_at(world, "worker.0.one")
    failed_at(world, "worker.0.two")
    world.control("discard")
    assert [row.run for row in of(world, Retained)] == ["worker.0.one"]
    assert [one.name[0] for one in of(world, Timer)] == ["retention"]
    expire(world)
    assert len(world.rows) == 0


def test_wait_is_short():
    """A roll holds nothing much longer than it takes a partition to move."""
    assert LOOK_MS <= 2_000
