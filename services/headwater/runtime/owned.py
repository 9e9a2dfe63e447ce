"""Owned: what a deciding loop keeps per claim."""

from __future__ import annotations

import dataclasses
from collections import deque

from headwater.contracts.records import Record
from headwater.core import blobs
from headwater.runtime.aside import Aside
from headwater.runtime.table import Table
from headwater.runtime.timers import Timers
from headwater.runtime.values import Fetch


@dataclasses.dataclass(slots=True)
class Owned:
    """One owned partition.

    Args:
        table: Its rows.
        timers: Those among them that are due some time.
        next_offset: Where its group goes on.
        since_ms: When it was taken up, by the wall clock.
        caught_up: Whether a record was taken that came after that.
        backlog: Records that were polled and not yet taken.
        parked_until_ms: Nothing is taken before.
        retry_ms: How long it waited last; 0 once something was committed after it.
        paused: Whether the log delivers nothing of it.
        fetch: Values that its next turn needs.
        aside: Suspects that wait, and what is done beyond them; `None` where nobody can be suspected.
    """

    table: Table
    timers: Timers
    next_offset: int
    since_ms: int = 0
    caught_up: bool = False
    backlog: deque[Record] = dataclasses.field(default_factory=deque)
    parked_until_ms: int = 0
    retry_ms: int = 0
    paused: bool = False
    fetch: Fetch | None = None
    aside: Aside | None = None

    @property
    def waits(self) -> bool:
        """Whether a value is on its way that the next turn needs."""
        return self.fetch is not None and self.fetch.pending

    @property
    def at_hand(self) -> blobs.AtHand:
        """The values that have come for the next turn."""
        return self.fetch or blobs.NOTHING
