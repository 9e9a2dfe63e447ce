"""Halving: finding out which of several suspects a process dies of, the others being cleared on the way."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")


class Halving(Generic[T]):
    """Which suspects are tried together next.

    Those that came are one group. Whoever was still at work when a group's process died is tried again,
    in halves, until one alone is left: only its death says anything of it. Whatever ended is cleared,
    and never comes back here. Whoever had a process die of it alone comes last, so that innocents
    among the others do not wait for its deaths.

    Args:
        group_max: Most suspects in one process.
    """

    def __init__(self, group_max: int = 1_000) -> None:
        self._group_max = group_max
        self._came: deque[T] = deque()
        self._groups: deque[tuple[T, ...]] = deque()
        self._lone: deque[T] = deque()

    def __len__(self) -> int:
        return len(self._came) + len(self._lone) + sum(map(len, self._groups))

    def add(self, one: T, *, lone: bool = False) -> None:
        """Suspect one more; lone, if a process has died of it alone before."""
        (self._lone if lone else self._came).append(one)

    def discard(self, one: T) -> None:
        """Forget one that nobody waits for."""
        self._came = deque(other for other in self._came if other != one)
        self._lone = deque(other for other in self._lone if other != one)
        kept = (tuple(other for other in group if other != one) for group in self._groups)
        self._groups = deque(group for group in kept if group)

    def next(self) -> tuple[T, ...]:
        """Take the next group; empty if nobody is suspected."""
        if self._groups:
            return self._groups.popleft()
        if self._came:
            size = min(len(self._came), self._group_max)
            return tuple(self._came.popleft() for _ in range(size))
        return (self._lone.popleft(),) if self._lone else ()

    def died(self, at_work: Sequence[T]) -> T | None:
        """A group's process died with these at work; return the one that was alone.

        It is for the caller to say whether that one is tried again.
        """
        if len(at_work) == 1:
            return at_work[0]
        half = (len(at_work) + 1) // 2
        self._groups += (part for part in (tuple(at_work[:half]), tuple(at_work[half:])) if part)
        return None

    def again(self, group: Iterable[T]) -> None:
        """Try a group again, before all others: it never began."""
        if given := tuple(group):
            self._groups.appendleft(given)
