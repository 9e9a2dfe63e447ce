"""Odds: how often what goes wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from headwater.log.local_faults import Ending, Point


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Odds:
    """How often what goes wrong, per occasion.

    Args:
        faults_max: Most faults of one history; half of it is the fewest.
        points: At each point of a call of the log; others never.
        calls: Before and after an effect in the world outside.
        ending: A transaction's end is never heard of.
        late: A transaction becomes visible late.
        twice: An append lands twice.
        away: The log is away for one append, which may have landed.
        stops: A process is told to end while a call of its is slow.
        missed: Something that a decider needs is away.
        between: Between two steps.
        steps_max: Steps before the calm.
    """

    faults_max: int = 40
    points: Mapping[Point, float] = dataclasses.field(
        default_factory=lambda: {
            Point.POLL: 0.003,
            Point.POLLED: 0.006,
            Point.COMMIT: 0.08,
            Point.WRITTEN: 0.05,
            Point.SENT: 0.05,
            Point.COMMITTED: 0.08,
            Point.APPEND: 0.04,
            Point.APPENDED: 0.05,
            Point.MARK: 0.03,
            Point.MARKED: 0.03,
            Point.READ: 0.01,
            Point.FETCHED: 0.005,
            Point.OFFSET: 0.02,
            Point.FOUND: 0.02,
            Point.PAUSE: 0.02,
            Point.RESUME: 0.02,
        }
    )
    calls: float = 0.12
    ending: float = 0.06
    late: float = 0.06
    twice: float = 0.08
    away: float = 0.02
    stops: float = 0.25
    missed: float = 0.01
    between: float = 0.08
    steps_max: int = 260


STORMY = Odds(
    faults_max=160,
    points={point: 2 * odds for point, odds in Odds().points.items()},
    ending=0.5,
    between=0.05,
    steps_max=400,
)
"""For controls: some four times as many faults, and half of all ends of transactions unknown."""

WAYS = (
    "death",
    "death",
    "standstill",
    "standstill, struck off",
    "standstill, struck off",
    "long standstill, struck off",
)
"""What becomes of a process inside a call; what is named twice comes twice as often."""
BETWEEN = (
    "a second of the name",
    "being struck off",
    "compaction",
    "death",
    "standstill of everyone",
    "a stop in good order",
    "a stop in good order",
    "another version",
    "another version",
)
"""What happens between two steps."""
ENDINGS = {
    "an unknown end, landed": Ending.LANDED_UNKNOWN,
    "an unknown end, aborted": Ending.ABORTED_UNKNOWN,
}
"""How the end of a transaction is kept from its owner."""
