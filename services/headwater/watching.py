"""Watching: whether a child goes on, by its posts, its event loop's beat and its memory."""

from __future__ import annotations

import dataclasses
import pathlib
import resource
from collections.abc import Callable

from headwater.runtime.posts import Kind, Posts

_PAGE = resource.getpagesize()
_SLEPT = 4.0
"""A watcher that was away for so many ticks stood still itself, and begins to watch anew."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """When a child is ended.

    Args:
        turn_s: A turn of an agent may last so long.
        stall_s: Its event loop may stand still for so long.
        stuck_s: A thread may go on for so long after its call was answered.
        memory_bytes: It may have so much resident memory; `None` for what the machine gives.
    """

    turn_s: float = 30.0
    stall_s: float = 30.0
    stuck_s: float = 60.0
    memory_bytes: int | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is to be done to a child.

    Args:
        words: Why.
        orderly: Whether it can still be told to stop.
    """

    words: str
    orderly: bool = False


class Watch:
    """Watches one child; it has to be asked at every tick.

    It counts only time in which it was awake itself, so a machine that stood still and goes on finds
    nobody overdue.

    Args:
        pid: The child.
        posts: Its posts.
        limits: When it is ended.
        memory: Reads a process's resident bytes.
    """

    def __init__(
        self,
        pid: int,
        posts: Posts,
        limits: Limits,
        *,
        memory: Callable[[int], int] | None = None,
    ) -> None:
        self._pid = pid
        self._posts = posts
        self._limits = limits
        self._memory = memory or resident
        self._awake_s = 0.0
        self._looked_s: float | None = None
        self._beats = 0
        self._beaten_s = 0.0
        self._seen: dict[tuple[int, bool], float] = {}

    def look(self, now_s: float, *, tick_s: float) -> Verdict | None:
        """Return what is to be done now; `None` for nothing.

        Args:
            now_s: A clock that never goes back.
            tick_s: How long after the last look this one should have come.
        """
        if self._looked_s is not None:
            passed_s = now_s - self._looked_s
            if passed_s > _SLEPT * tick_s + 1.0:
                self._seen.clear()
                self._beats = -1
                passed_s = 0.0
            self._awake_s += passed_s
        self._looked_s = now_s
        return self._oversized() or self._stalled() or self._overdue()

    def _oversized(self) -> Verdict | None:
        limit = self._limits.memory_bytes
        if limit is None or self._memory(self._pid) <= limit:
            return None
        return Verdict(words=f"it took more than {limit} bytes of memory")

    def _stalled(self) -> Verdict | None:
        beats = self._posts.beats
        if beats != self._beats or not beats:
            self._beats, self._beaten_s = beats, self._awake_s
            return None
        if self._awake_s - self._beaten_s <= self._limits.stall_s:
            return None
        return Verdict(words=f"its event loop stood still for {self._limits.stall_s:g} s")

    def _overdue(self) -> Verdict | None:
        used = self._posts.used()
        bounds = {
            (post.serial, post.left_behind): self._limits.stuck_s
            if post.left_behind
            else self._limits.turn_s
            for post in used
            if post.left_behind or post.kind is Kind.TURN
        }
        self._seen = {one: self._seen.get(one, self._awake_s) for one in bounds}
        for post in used:
            began_s = self._seen.get((post.serial, post.left_behind))
            if began_s is None:
                continue
            bound_s = bounds[post.serial, post.left_behind]
            if self._awake_s - began_s <= bound_s:
                continue
            if post.left_behind:
                words = f"a thread of {post.what} went on for {bound_s:g} s after it was answered"
                return Verdict(words=words, orderly=True)
            return Verdict(words=f"a turn of {post.what} lasted more than {bound_s:g} s")
        return None


def resident(pid: int) -> int:
    """Return a process's resident bytes; 0 if it has ended."""
    try:
        return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE
    except (OSError, IndexError):
        return 0
