"""Timers of one run, in the order in which they fire."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator

from headwater.durable.futures import TimerHandle

_NEVER_S = 1e11


class Timers:
    """A heap by (due time, order of making); cancelled timers stay in it until they are many."""

    __slots__ = ("_cancelled", "_heap", "_made")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, int, TimerHandle]] = []
        self._made = 0
        self._cancelled = 0

    def __bool__(self) -> bool:
        """Whether there may be any."""
        return bool(self._heap)

    def add(self, handle: TimerHandle) -> None:
        """Schedule a timer, unless it is so far away that it means never."""
        when = handle.when()
        if when < _NEVER_S:
            self._made += 1
            handle.on_cancel = self._count_cancelled
            # Rounded first, or the fraction of a float of seconds would make it due a millisecond late.
            due_ms = math.ceil(round(when * 1000, 3))
            heapq.heappush(self._heap, (when, self._made, due_ms, handle))

    def due(self, now_ms: int) -> Iterator[TimerHandle]:
        """Take out the timers that are due, oldest first."""
        heap = self._heap
        while heap and heap[0][2] <= now_ms:
            handle = heapq.heappop(heap)[3]
            if handle.callback is None:
                self._cancelled -= 1
            else:
                handle.on_cancel = None
                yield handle

    def wake_ms(self) -> int | None:
        """Return when the earliest live timer is due, rounded up; `None` if there is none."""
        if self._cancelled * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[3].callback is not None]
            heapq.heapify(self._heap)
            self._cancelled = 0
        heap = self._heap
        while heap and heap[0][3].callback is None:
            heapq.heappop(heap)
            self._cancelled -= 1
        return heap[0][2] if heap else None

    def clear(self) -> None:
        """Forget them all."""
        self._heap.clear()
        self._cancelled = 0

    def _count_cancelled(self) -> None:
        self._cancelled += 1
