"""Patience: records that nobody waits for wait a little for others, and share their transaction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection

from headwater.core.envelope import Envelope, kind_header
from headwater.core.messages import Meta
from headwater.core.state import State
from headwater.errors import PoisonError
from headwater.runtime.owned import Owned

RECORDS_MAX = 8
"""More than that are worth a transaction of their own, and looking at all of them again is not."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Patient:
    """Which messages may wait.

    Args:
        kind: Their type.
        when: Whether one may, by the rows there are and its meta.
    """

    kind: type
    when: Callable[[State, Meta], bool]


class Patience:
    """Has a loop take nothing for a bounded while, if all that was polled may wait.

    Order and offsets are what they are without it: the records are taken later, as they stand.

    Args:
        patient: Which messages may wait; `None` if none ever does.
        envelope: Reads records' headers.
        wait_ms: How long the first of them waits at most.
    """

    def __init__(self, patient: Patient | None, envelope: Envelope, *, wait_ms: int) -> None:
        self._patient = patient
        self._meta = envelope.meta
        self._wait_ms = wait_ms
        self._until_ms = 0

    def waits(self, owned: Collection[Owned], now_ms: int) -> bool:
        """Say whether nothing is to be taken in this round."""
        patient = self._patient
        if patient is None or not self._may_wait(patient, owned):
            self._until_ms = 0
            return False
        self._until_ms = self._until_ms or now_ms + self._wait_ms
        if self.left_ms(now_ms):
            return True
        self._until_ms = 0
        return False

    def left_ms(self, now_ms: int) -> int:
        """Return how much longer it is waited; no longer once the clock was put back."""
        left_ms = self._until_ms - now_ms
        return left_ms if 0 < left_ms <= self._wait_ms else 0

    def _may_wait(self, patient: Patient, owned: Collection[Owned]) -> bool:
        if not 0 < sum(len(one.backlog) for one in owned) <= RECORDS_MAX:
            return False
        here = [(one.table, record) for one in owned for record in one.backlog]
        kind = kind_header(patient.kind)
        if not all(kind in record.headers for _, record in here):
            return False
        try:
            return all(patient.when(table, self._meta(record)) for table, record in here)
        except PoisonError:
            return False  # it is refused at once
