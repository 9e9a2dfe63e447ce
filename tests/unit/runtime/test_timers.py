"""Timers: given out once, when due, for as long as their row stands."""

from __future__ import annotations

from concurrent.futures import Future

import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.core.decider import Timer
from headwater.core.keys import row_key
from headwater.core.messages import Meta
from headwater.core.state import Layer
from headwater.runtime.table import Restore
from headwater.runtime.timers import Heap, Timers, armed

META = Meta(id="i", tenant="t")
CODEC = Codec(Schemas(), (Timer,))


def timer(name: str, due_ms: int) -> Timer:
    return Timer(name=(name,), due_ms=due_ms, meta=META)


class Bench:
    """A table, as restored or as written, and its timers."""

    def __init__(self, *rows: Timer, restored: bool = False, read: bool = True):
        self.restore = Restore(CODEC)
        self.restore.add(
            [row_key("Timer", row.key) for row in rows if restored],
            [CODEC.encode(row) for row in rows if restored],
        )
        self.table = self.restore.table()
        self.armed: Future[Heap] = Future()
        self.timers = Timers(self.table, self.armed)
        if read:
            self.read()
        if not restored:
            self.write(*rows)

    def read(self):
        """Read when the restored ones are due, as the thread does that restored them."""
        self.armed.set_result(armed(self.restore.dues()))

    def write(self, *rows: Timer, dropped: tuple[Timer, ...] = ()):
        """Commit some rows."""
        layer = Layer(self.table)
        for row in rows:
            layer.put(row)
        for row in dropped:
            layer.drop(row)
        self.table.apply(layer)
        self.timers.applied([*layer.written(), (str, ("x",), None)])

    def due(self, now_ms: int, at_most: int = 9) -> list[str]:
        """Return the names of those that are given out."""
        return [str(row.name[0]) for row in self.timers.due(now_ms, at_most=at_most)]


def test_due_timers_come_earliest_first_and_once():
    """A timer that was given out is not given out again while its wake is under way."""
    for restored in (False, True):
        bench = Bench(timer("b", 20), timer("a", 10), timer("c", 30), restored=restored)
        assert bench.due(20) == ["a", "b"]
        assert bench.due(20) == []
        assert bench.timers.next_ms() == 30


def test_at_most_so_many_are_given_out():
    """A flood of timers is answered in batches."""
    bench = Bench(*(timer(str(n), n) for n in range(5)))
    assert len(bench.due(99, at_most=3)) == 3
    assert len(bench.due(99, at_most=3)) == 2


def test_row_that_went_or_moved_is_not_due():
    """The heap only suggests; the row decides."""
    for restored in (False, True):
        bench = Bench(timer("a", 10), timer("b", 10), restored=restored)
        bench.write(timer("a", 50), dropped=(timer("b", 10),))
        assert bench.due(20) == []
        assert bench.timers.next_ms() == 50
        assert bench.due(50) == ["a"]
        bench.write(dropped=(timer("a", 50),))
        assert bench.timers.next_ms() is None


def test_a_restored_timer_that_is_due_sooner_now_is_given_out_then():
    """What was read of it when it was restored does not hold it back."""
    bench = Bench(timer("a", 90), restored=True)
    bench.write(timer("a", 10))
    assert bench.due(20) == ["a"]
    assert bench.due(90) == []


def test_early_wake_is_armed_again():
    """A wake appended before its time makes no turn; the timer is given out once more, later."""
    bench = Bench(timer("a", 10))
    assert bench.due(10) == ["a"]
    assert bench.timers.next_ms() is None
    bench.timers.rearm(("a",), at_ms=15)
    bench.timers.rearm(("gone",), at_ms=15)
    assert bench.due(14) == []
    assert bench.due(15) == ["a"]


def test_what_was_given_out_for_nothing_is_given_out_again():
    """Wakes that were taken back with their batch are appended later; those of dropped rows are not."""
    bench = Bench(timer("a", 10), timer("b", 20), timer("c", 90))
    assert bench.due(20) == ["a", "b"]
    bench.timers.again()
    assert bench.due(20) == ["a", "b"]
    layer = Layer(bench.table)
    layer.drop(timer("b", 20))
    bench.table.apply(layer)
    bench.timers.again()
    assert bench.due(90) == ["a", "c"]


def test_timers_that_are_still_being_read_come_first_all_the_same():
    """A partition goes on before that is done; what it arms meanwhile waits for those due sooner."""
    bench = Bench(timer("a", 10), timer("b", 20), timer("gone", 5), restored=True, read=False)
    bench.write(timer("d", 20), timer("c", 15), dropped=(timer("gone", 5),))
    bench.timers.rearm(("b",), at_ms=30)
    assert bench.due(99) == []
    assert bench.timers.next_ms() is None
    bench.read()
    assert bench.timers.next_ms() == 10
    assert bench.due(99) == ["a", "c", "b", "d"]
    assert bench.due(99) == []


def test_timers_that_could_not_be_read_stop_the_loop():
    """A partition without its timers would wait for ever."""
    bench = Bench(timer("a", 10), restored=True, read=False)
    bench.armed.set_exception(RuntimeError("a bug"))
    with pytest.raises(RuntimeError, match="a bug"):
        bench.timers.next_ms()
