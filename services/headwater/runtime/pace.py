"""Pace: how much one deciding loop does at a time, and how long it waits."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Bounds on one loop.

    Args:
        records_max: Most records in one transaction.
        batch_ms_max: Turns stop and commit after this long, or after eight times the last commit,
            whichever is more, so a slow log does not eat the time.
        wakes_max: Most timers answered in one transaction.
        retry_ms_min: First wait of a partition whose decider met something that is away.
        retry_ms_max: Longest such wait.
        slow_turn_ms: A turn over this is named in a warning.
        early_ms: A wake that came before its time is tried again no sooner than this.
    """

    records_max: int = 5_000
    batch_ms_max: int = 20
    wakes_max: int = 1_000
    retry_ms_min: int = 100
    retry_ms_max: int = 10_000
    slow_turn_ms: int = 500
    early_ms: int = 10
