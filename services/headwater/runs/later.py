"""Later: runs that a later version of the app wrote last, kept until code that knows them has them."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from headwater.contracts.messages import Drain, Wake
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Address, Meta
from headwater.core.versions import Versions
from headwater.runs.rows import Ahead, Opened, Run
from headwater.runs.visit import Visit

TIMER = "later"
LOOK_MS = 2_000


class Later:
    """Keeps runs whose newest entry is of a version that is later than this code's, and lets them go.

    Their messages are kept as those of any run that is held. One timer a partition and version asks
    again: whoever owns the partition then, and may take what that version wrote, drains them.

    Args:
        own: The version of the code here.
        versions: What is known of versions now.
        at_most: Runs let go in one turn.
    """

    def __init__(self, own: str, versions: Callable[[], Versions], *, at_most: int) -> None:
        self._own = own
        self._versions = versions
        self._at_most = at_most

    def holds(self, run: Run) -> bool:
        """Say whether a run is not for this code to take."""
        return run.version != self._own and not self._versions().may_take(self._own, run.version)

    def keep(self, visit: Visit) -> None:
        """Note that a run waits for its version, and have that looked at again."""
        run = visit.run
        if visit.get(Ahead, run.version, run.run) is not None:
            return
        visit.put(Ahead(version=run.version, run=run.run))
        visit.change(
            reason=f"version {run.version} of the app took it last, and this worker has {self._own}"
        )
        visit.say("held")
        if visit.get(Timer, TIMER, run.version) is None:
            visit.put(_timer(run.version, visit.turn.now_ms + LOOK_MS, visit.opened.tenant))

    def look(self, turn: Turn, wake: Wake) -> None:
        """Let go of what a version wrote, if this code may take it; else look again later."""
        version = str(wake.name[1])
        rows = turn.scan(Ahead, version)
        due_ms = turn.now_ms + LOOK_MS
        if self._versions().may_take(self._own, version):
            due_ms = turn.now_ms
            for row in [*itertools.islice(rows, self._at_most)]:
                turn.drop(row)
                self._let_go(turn, row)
        if next(turn.scan(Ahead, version), None) is not None:
            turn.put(_timer(version, due_ms, turn.meta.tenant))

    def _let_go(self, turn: Turn, row: Ahead) -> None:
        opened = turn.get(Opened, row.run)
        if opened is not None:
            to = Address(turn.at.topic, row.run, turn.at.number)
            turn.send(Drain(run=row.run), to, meta=opened.meta())


def _timer(version: str, due_ms: int, tenant: str) -> Timer:
    return Timer(name=(TIMER, version), due_ms=due_ms, meta=Meta(id=TIMER, tenant=tenant))
