"""Timers: given out once, when due, for as long as their row stands."""

from __future__ import annotations

from headwater.core.decider import Timer
from headwater.core.messages import Meta
from headwater.runtime.timers import Timers

META = Meta(id="i", tenant="t")


def timer(name: str, due_ms: int) -> Timer:
    return Timer(name=(name,), due_ms=due_ms, meta=META)


def written(*rows: Timer, dropped: tuple[Timer, ...] = ()):
    return [(Timer, row.key, row) for row in rows] + [(Timer, row.key, None) for row in dropped]


def test_due_timers_come_earliest_first_and_once():
    """A timer that was given out is not given out again while its wake is under way."""
    timers = Timers([timer("b", 20), timer("a", 10), timer("c", 30)])
    assert [row.name for row in timers.due(20, at_most=9)] == [("a",), ("b",)]
    assert list(timers.due(20, at_most=9)) == []
    assert timers.next_ms() == 30


def test_at_most_so_many_are_given_out():
    """A flood of timers is answered in batches."""
    timers = Timers([timer(str(n), n) for n in range(5)])
    assert len(list(timers.due(99, at_most=3))) == 3
    assert len(list(timers.due(99, at_most=3))) == 2


def test_row_that_went_or_moved_is_not_due():
    """The heap only suggests; the row decides."""
    timers = Timers([timer("a", 10), timer("b", 10)])
    timers.applied(written(timer("a", 50), dropped=(timer("b", 10),)))
    timers.applied([(str, ("x",), None)])
    assert list(timers.due(20, at_most=9)) == []
    assert timers.next_ms() == 50
    assert len(timers) == 1
    timers.applied(written(dropped=(timer("a", 50),)))
    assert timers.next_ms() is None


def test_early_wake_is_armed_again():
    """A wake appended before its time makes no turn; the timer is given out once more, later."""
    timers = Timers([timer("a", 10)])
    assert len(list(timers.due(10, at_most=9))) == 1
    assert timers.next_ms() is None
    timers.rearm(("a",), at_ms=15)
    timers.rearm(("gone",), at_ms=15)
    assert list(timers.due(14, at_most=9)) == []
    assert len(list(timers.due(15, at_most=9))) == 1
