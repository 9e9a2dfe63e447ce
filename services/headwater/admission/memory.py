"""Memory: how long admission remembers a task, so that its like is dropped."""

from __future__ import annotations

import itertools

from headwater.admission.rows import Expiry, Seen
from headwater.admission.telling import Routes
from headwater.core.decider import Timer, Turn

_GONE_S = 86_400
"""How long a held task is remembered whose agent this app no longer has."""


class Memory:
    """Remembers tasks and forgets them.

    Args:
        routes: Knows how long each agent's tasks are remembered.
        bucket_ms: How finely ends are bundled.
        expiries_max: Remembered tasks forgotten in one turn; the rest follows in the next.
    """

    def __init__(self, routes: Routes, *, bucket_ms: int, expiries_max: int) -> None:
        self._routes = routes
        self._bucket_ms = bucket_ms
        self._expiries_max = expiries_max

    def until(self, turn: Turn, agent: str) -> int:
        """Return the bucket of time in which a task's window ends that begins now."""
        due_ms = turn.now_ms + self._routes.dedupe_s.get(agent, _GONE_S) * 1000
        return due_ms // self._bucket_ms + 1

    def remember(self, turn: Turn, seen: Seen, until: int) -> None:
        """Have a task forgotten when its time is over: one timer per bucket of time, one end per task."""
        turn.put(Expiry(bucket=until, tenant=seen.tenant, task_id=seen.task_id))
        arm(turn, "expiry", until, until * self._bucket_ms)

    def expire(self, turn: Turn, bucket: int) -> None:
        """Forget the tasks whose time is over, but for those that are held or came again since."""
        rows = list(itertools.islice(turn.scan(Expiry, bucket), self._expiries_max + 1))
        for row in rows[: self._expiries_max]:
            turn.drop(row)
            seen = turn.get(Seen, row.tenant, row.task_id)
            assert seen is not None, "a task is forgotten by its own expiry alone"
            if seen.queued >= 0:
                self.remember(turn, seen, self.until(turn, seen.agent))
            elif seen.until > bucket:
                self.remember(turn, seen, seen.until)
            else:
                turn.drop(seen)
        if len(rows) > self._expiries_max:
            arm(turn, "expiry", bucket, turn.now_ms)


def arm(turn: Turn, what: str, whose: str | int, due_ms: int) -> None:
    """Have a timer stand, unless one does."""
    if turn.get(Timer, what, whose) is None:
        turn.put(Timer(name=(what, whose), due_ms=due_ms, meta=turn.meta))
