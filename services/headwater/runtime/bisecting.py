"""Bisecting: how many records a batch may have, and which one alone the log refuses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from headwater.contracts.records import Partition, Record
from headwater.errors import UNKEEPABLE, UNWRITABLE, PoisonError, WorkRefusedError


class Bisect:
    """Halves batches while the log refuses their work, down to the culprit, and doubles them again.

    The culprit is refused as poison then; if the log refuses that too, it is refused once more without
    what it carried; if even that cannot be written, the process stops.

    Args:
        records_max: Most records in a batch.
    """

    def __init__(self, *, records_max: int) -> None:
        self.records_max = records_max
        self.now = records_max
        """How many records the next batch may have."""
        self._culprit: tuple[Partition, int] | None = None
        self._code = ""

    def condemned(self, record: Record) -> str:
        """Return the code under which a record is refused; empty if it is not the culprit."""
        return self._code if (record.partition, record.offset) == self._culprit else ""

    def refused(self, records: Sequence[Record], error: WorkRefusedError | PoisonError) -> None:
        """Nothing of a batch was written: halve, or know the culprit.

        Raises:
            WorkRefusedError: Nothing less can be written: a wake alone, or the culprit's last words.
            PoisonError: The same.
        """
        if len(records) <= 1 and self._has_culprit(records):
            if self._code == UNKEEPABLE:
                raise error
            self._code = UNKEEPABLE
            return
        self.now = max(1, len(records) // 2)
        if len(records) > 1:
            return
        if not records:
            raise error
        self._code = UNWRITABLE
        self._culprit = (records[0].partition, records[0].offset)

    def accepted(self, records: Iterable[Record]) -> None:
        """A batch was written: double, up to the bound; or the culprit is done with."""
        if self._has_culprit(records):
            self._culprit = None
        else:
            self.now = min(self.records_max, self.now * 2)

    def _has_culprit(self, records: Iterable[Record]) -> bool:
        return self._culprit is not None and any(map(self.condemned, records))
