"""A watermark: how far one claim's requests are answered, and how much of them is in hand."""

from __future__ import annotations

from headwater.contracts.records import Record
from headwater.log.port import Claim
from headwater.runtime.lanes import Bounds


class Watermark:
    """Everything below it is done; offsets that were never delivered count as done.

    Args:
        claim: Of which claim.
    """

    __slots__ = ("_bytes", "_next", "_open", "claim", "marked", "paused")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.paused = False
        self.marked = -1
        self._next = -1
        self._bytes = 0
        self._open: dict[int, int] = {}

    def begin(self, next_offset: int) -> None:
        """Say where the claim's first record may be."""
        self._next = self.marked = next_offset

    def take(self, record: Record) -> None:
        """Count a delivered record as under way; they come in offset order."""
        size = len(record.value or b"")
        self._open[record.offset] = size
        self._bytes += size
        self._next = record.offset + 1

    def done(self, offset: int) -> None:
        """Count a record as done; once more changes nothing."""
        self._bytes -= self._open.pop(offset, 0)

    @property
    def value(self) -> int:
        """The next offset to go on from: the first that is not done."""
        return next(iter(self._open), self._next)

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._open

    def over(self, bounds: Bounds) -> bool:
        """Whether so much is in hand that no more should come."""
        return (
            len(self._open) >= bounds.queued_max
            or self._bytes >= bounds.queued_bytes_max
            or self._next - self.value >= bounds.window_max
        )

    def under(self, bounds: Bounds) -> bool:
        """Whether so little is left that more may come: half of what is too much."""
        return (
            len(self._open) <= bounds.queued_max // 2
            and self._bytes <= bounds.queued_bytes_max // 2
            and self._next - self.value <= bounds.window_max // 2
        )
