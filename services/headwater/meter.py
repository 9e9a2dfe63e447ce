"""The meter: figures of what a process commits."""

from __future__ import annotations

from collections.abc import Sequence

from prometheus_client import CollectorRegistry, Counter, Histogram

from headwater.runtime.committing import Taken
from headwater.runtime.observing import Observer


class Meter:
    """Counts what was committed, and passes it on to tracing.

    Args:
        registry: Where the figures go.
        tracing: Told after the figures are.
    """

    def __init__(self, registry: CollectorRegistry, tracing: Observer) -> None:
        self._tracing = tracing
        self._turns = Counter("headwater_turns", "Turns committed.", ["decider"], registry=registry)
        self._refused = Counter(
            "headwater_refused",
            "Records put in quarantine.",
            ["decider", "code"],
            registry=registry,
        )
        self._commits = Histogram(
            "headwater_commit_seconds", "Time of one commit.", ["decider"], registry=registry
        )

    def committed(self, decider: str, taken: Sequence[Taken], *, seconds: float) -> None:
        """Count a committed batch."""
        self._turns.labels(decider).inc(len(taken))
        self._commits.labels(decider).observe(seconds)
        for one in taken:
            if one.refused:
                self._refused.labels(decider, one.refused).inc()
        self._tracing.committed(decider, taken, seconds=seconds)
