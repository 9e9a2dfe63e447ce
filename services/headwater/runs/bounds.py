"""Bounds on the runs of one agent."""

from __future__ import annotations

import dataclasses

from headwater.runs.retention import KEEP_MS


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """How much a run may grow, and how much of it is kept.

    Args:
        executions_max: Suspended executions kept in memory.
        entries_warn: A run with a journal of this length is named in a warning.
        entries_max: A run with a longer journal fails.
        journal_bytes_warn: Likewise, in bytes of what was delivered and asked.
        journal_bytes_max: Likewise.
        call_ms_max: How long after it was asked a call may still be started.
        drain_max: Held messages delivered in one turn, and rows that one timer's turn looks at.
        failed_ms_max: How long the rows of a failed run are kept.
    """

    executions_max: int = 10_000
    entries_warn: int = 1_000
    entries_max: int = 10_000
    journal_bytes_warn: int = 4 * 1024 * 1024
    journal_bytes_max: int = 64 * 1024 * 1024
    call_ms_max: int = 3_600_000
    drain_max: int = 100
    failed_ms_max: int = KEEP_MS
