"""Timers: a heap of when rows are due, fed as rows are applied; the clock only suggests, the log decides."""

from __future__ import annotations

import concurrent.futures
import heapq
from collections.abc import Iterable, Iterator

from headwater.core.decider import Timer
from headwater.core.keys import key_of
from headwater.core.messages import Key
from headwater.core.state import Row
from headwater.runtime.table import Table

Heap = list[tuple[int, int, Key | bytes]]
"""When timers may be due, a number that no other has, and their keys: of restored ones as in the log."""


def armed(dues: Iterable[tuple[int, bytes]]) -> Heap:
    """Return restored timers as a heap, by when they are due."""
    heap: Heap = [(at_ms, n, key) for n, (at_ms, key) in enumerate(dues)]
    heapq.heapify(heap)
    return heap


class Timers:
    """The timers of one owned partition.

    The heap only suggests: what the table has counts. A timer that is due is given out once; the
    mark goes when the row goes or changes, when the wake turns out to have come early (`rearm`),
    when what it was given out for came to nothing (`again`), or with the whole object when the claim
    is lost.

    Args:
        table: The partition's rows.
        restored: Those of them that were restored. Until they are known none is given out, for one
            of them may be the first.
    """

    __slots__ = ("_armed", "_given", "_heap", "_restored", "_table")

    def __init__(self, table: Table, restored: concurrent.futures.Future[Heap]) -> None:
        self._table = table
        self._restored: concurrent.futures.Future[Heap] | None = restored
        self._given: set[Key] = set()
        self._heap: Heap = []
        self._armed = 0

    def applied(self, written: Iterable[tuple[type, Key, Row | None]]) -> None:
        """Follow the timer rows that a commit wrote and that the table has taken over."""
        for kind, key, row in written:
            if kind is Timer:
                self._given.discard(key)
                if row is not None:
                    assert isinstance(row, Timer)
                    self._arm(key, row.due_ms)

    def due(self, now_ms: int, *, at_most: int) -> Iterator[Timer]:
        """Give out the timers due by `now_ms`, earliest first, each once."""
        while at_most > 0 and (first := self._first()) is not None and first[0] <= now_ms:
            _, row = first
            heapq.heappop(self._heap)
            if row.due_ms <= now_ms:
                self._given.add(row.key)
                at_most -= 1
                yield row

    def rearm(self, key: Key, *, at_ms: int) -> None:
        """A wake was appended before its time: give the timer out again, not before `at_ms`."""
        row = self._table.get(Timer, *key)
        if row is not None:
            self._given.discard(key)
            self._arm(key, max(at_ms, row.due_ms))

    def again(self) -> None:
        """Give all out again that were given out: what was to become of them was taken back."""
        for key in self._given:
            row = self._table.get(Timer, *key)
            if row is not None:
                self._arm(key, row.due_ms)
        self._given.clear()

    def next_ms(self) -> int | None:
        """Return when the next timer may be due."""
        first = self._first()
        return None if first is None else first[0]

    def _first(self) -> tuple[int, Timer] | None:
        """Return when the first is due, and its row; those before it that are not due any more go."""
        if self._restored is not None:
            if not self._restored.done():
                return None
            self._merge(self._restored.result())
            self._restored = None
        heap = self._heap
        while heap:
            at_ms, n, key = heap[0]
            if isinstance(key, bytes):
                key = key_of(key)[1]
                heap[0] = at_ms, n, key
            row = self._table.get(Timer, *key)
            if row is not None and key not in self._given:
                return at_ms, row
            heapq.heappop(heap)
        return None

    def _merge(self, heap: Heap) -> None:
        """Go on with the restored ones and those that were armed meanwhile."""
        count, meanwhile = len(heap), self._heap
        self._heap = heap
        self._armed += count
        for at_ms, n, key in meanwhile:
            heapq.heappush(heap, (at_ms, n + count, key))

    def _arm(self, key: Key, at_ms: int) -> None:
        self._armed += 1  # keys of mixed parts do not compare; the count does
        heapq.heappush(self._heap, (at_ms, self._armed, key))
