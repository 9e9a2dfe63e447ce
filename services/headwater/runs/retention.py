"""Retention: failed runs live so long and no longer, by bucket and not by a timer each."""

from __future__ import annotations

import itertools

from headwater.contracts.messages import Wake
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Meta
from headwater.runs.rows import Retained
from headwater.runs.visit import Visit

TIMER = "retention"
BUCKET_MS = 3_600_000
"""Runs that fail within one hour go together."""
KEEP_MS = 30 * 86_400_000


class Retention:
    """Notes until when failed runs are kept, and names those whose time is up.

    Args:
        keep_ms: How long a failed run is kept.
        at_most: Runs whose time ends in one turn.
    """

    def __init__(self, *, keep_ms: int, at_most: int) -> None:
        self._keep_ms = keep_ms
        self._at_most = at_most

    def keep(self, visit: Visit) -> None:
        """Note when a run that has failed may go."""
        until_ms = visit.turn.now_ms + self._keep_ms
        bucket = -(-until_ms // BUCKET_MS)
        visit.change(kept_until_ms=until_ms)
        visit.put(Retained(bucket=bucket, run=visit.run.run))
        if visit.get(Timer, TIMER, str(bucket)) is None:
            visit.put(_timer(bucket, bucket * BUCKET_MS, visit.opened.tenant))

    def release(self, visit: Visit) -> None:
        """Forget until when a run was kept: it goes on, or goes now."""
        if not visit.run.kept_until_ms:
            return
        bucket = -(-visit.run.kept_until_ms // BUCKET_MS)
        visit.drop(Retained(bucket=bucket, run=visit.run.run))
        if next(visit.scan_all(Retained, bucket), None) is None:
            visit.drop(_timer(bucket, bucket * BUCKET_MS, ""))
        visit.change(kept_until_ms=0)

    def over(self, turn: Turn, wake: Wake) -> list[str]:
        """Return the runs of a bucket whose time may be up; a long bucket goes in several turns."""
        bucket = int(wake.name[1])
        rows = [*itertools.islice(turn.scan(Retained, bucket), self._at_most)]
        for row in rows:
            turn.drop(row)
        if next(turn.scan(Retained, bucket), None) is not None:
            turn.put(_timer(bucket, turn.now_ms, turn.meta.tenant))
        return [row.run for row in rows]


def _timer(bucket: int, due_ms: int, tenant: str) -> Timer:
    return Timer(name=(TIMER, str(bucket)), due_ms=due_ms, meta=Meta(id=TIMER, tenant=tenant))
