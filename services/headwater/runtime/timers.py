"""Timers: a heap over timer rows, fed as rows are applied; the clock only suggests, the log decides."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator

from headwater.core.decider import Timer
from headwater.core.messages import Key
from headwater.core.state import Row


class Timers:
    """The timers of one owned partition.

    A timer that is due is given out once; the mark goes when the row goes or changes, when the
    wake turns out to have come early (`rearm`), or with the whole object when the claim is lost.
    """

    __slots__ = ("_due", "_given", "_heap", "_rows")

    def __init__(self, rows: Iterable[Timer] = ()) -> None:
        self._heap: list[tuple[int, int, Key]] = []
        self._rows: dict[Key, Timer] = {}
        self._given: set[Key] = set()
        self._due = 0
        for row in rows:
            self._arm(row, row.due_ms)

    def __len__(self) -> int:
        return len(self._rows)

    def applied(self, written: Iterable[tuple[type, Key, Row | None]]) -> None:
        """Follow the timer rows that a commit wrote."""
        for kind, key, row in written:
            if kind is not Timer:
                continue
            self._given.discard(key)
            if row is None:
                self._rows.pop(key, None)
            else:
                assert isinstance(row, Timer)
                self._arm(row, row.due_ms)

    def due(self, now_ms: int, *, at_most: int) -> Iterator[Timer]:
        """Give out the timers due by `now_ms`, earliest first, each once."""
        while self._heap and self._heap[0][0] <= now_ms and at_most > 0:
            _, _, key = heapq.heappop(self._heap)
            row = self._rows.get(key)
            if row is None or key in self._given or row.due_ms > now_ms:
                continue
            self._given.add(key)
            at_most -= 1
            yield row

    def rearm(self, key: Key, *, at_ms: int) -> None:
        """A wake was appended before its time: give the timer out again, not before `at_ms`."""
        row = self._rows.get(key)
        if row is not None:
            self._given.discard(key)
            self._arm(row, max(at_ms, row.due_ms))

    def next_ms(self) -> int | None:
        """Return when the next timer may be due."""
        while self._heap:
            when, _, key = self._heap[0]
            if key in self._rows and key not in self._given:
                return when
            heapq.heappop(self._heap)
        return None

    def _arm(self, row: Timer, at_ms: int) -> None:
        self._rows[row.key] = row
        self._due += 1  # keys of mixed parts do not compare; the count does
        heapq.heappush(self._heap, (at_ms, self._due, row.key))
