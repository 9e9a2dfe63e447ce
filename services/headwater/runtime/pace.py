"""Pace: how much one deciding loop does at a time, and how long it waits."""

from __future__ import annotations

import dataclasses
import time


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Bounds on one loop.

    Args:
        records_max: Most records in one transaction.
        batch_ms_max: Turns stop and commit after this long, or after eight times the last commit,
            whichever is more, so a slow log does not eat the time. Partitions that have not caught up
            since they were gained have this long, or as long as the last commit, where others have.
        wakes_max: Most timers answered in one transaction.
        retry_ms_min: First wait of a partition whose decider met something that is away.
        retry_ms_max: Longest such wait.
        slow_turn_ms: A turn over this is named in a warning.
        early_ms: A wake that came before its time is tried again no sooner than this.
        patience_ms: Records that nobody waits for wait so long for others, to share their transaction.
    """

    records_max: int = 5_000
    batch_ms_max: int = 20
    wakes_max: int = 1_000
    retry_ms_min: int = 100
    retry_ms_max: int = 10_000
    slow_turn_ms: int = 500
    early_ms: int = 10
    patience_ms: int = 10


@dataclasses.dataclass(slots=True, kw_only=True)
class Share:
    """What is left of one round; whoever has it takes one record at least.

    Args:
        records: How many records may be taken yet.
        drafts: How many messages may be sent yet, about.
    """

    records: int
    drafts: int
    _until_s: float = 0.0
    _late: bool = False

    def spent(self) -> bool:
        """Say whether nothing more may be taken."""
        return self._late or self.records <= 0 or self.drafts <= 0

    def begin(self, seconds: float) -> None:
        """Have so much time from now on."""
        self._until_s = time.monotonic() + seconds
        self._late = False

    def took(self, *, last: bool) -> None:
        """Count a record that was taken; nothing more may be taken after the last."""
        self.records = 0 if last else self.records - 1
        self._late = time.monotonic() >= self._until_s
