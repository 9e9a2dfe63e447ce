"""A watermark: how far one claim's requests are answered, and how much of them is in hand."""

from __future__ import annotations

from collections.abc import Collection

from headwater.contracts.records import Record
from headwater.log.port import Claim
from headwater.runtime import doneset
from headwater.runtime.lanes import Bounds


class Watermark:
    """Everything below it is done; offsets that were never delivered count as done.

    Args:
        claim: Of which claim.
    """

    __slots__ = ("_ahead", "_bytes", "_changed", "_next", "_open", "claim", "paused")

    def __init__(self, claim: Claim) -> None:
        self.claim = claim
        self.paused = False
        self._next = -1
        self._bytes = 0
        self._open: dict[int, int] = {}
        self._ahead: set[int] = set()
        """Done before this claim, and not delivered again yet."""
        self._changed = False

    def begin(self, next_offset: int, done: Collection[int] = ()) -> None:
        """Say where the claim's first record may be, and which beyond it are done already."""
        self._next = next_offset
        self._ahead = {*done}

    def take(self, record: Record) -> bool:
        """Count a delivered record as under way, in offset order; false if it was done before."""
        self._next = record.offset + 1
        if record.offset in self._ahead:
            self._ahead.discard(record.offset)
            self._changed = True
            return False
        size = len(record.value or b"")
        self._open[record.offset] = size
        self._bytes += size
        return True

    def done(self, offset: int) -> None:
        """Count a record as done; once more changes nothing."""
        size = self._open.pop(offset, None)
        if size is not None:
            self._bytes -= size
            self._changed = True

    @property
    def value(self) -> int:
        """The next offset to go on from: the first that is not done."""
        return next(iter(self._open), self._next)

    @property
    def done_set(self) -> str:
        """What is done beyond `value`, for the commit's metadata; gaps that were passed count as done."""
        base = self.value
        self._ahead = {offset for offset in self._ahead if offset >= self._next}
        last = min(max(self._ahead, default=-1) + 1, base + doneset.WINDOW)
        size = max(min(self._next, base + doneset.WINDOW), last) - base
        bits = bytearray((size + 7) // 8)
        passed = self._next - base
        whole = min(passed // 8, len(bits))
        bits[:whole] = b"\xff" * whole
        for at in range(whole * 8, min(passed, len(bits) * 8)):
            bits[at >> 3] |= 1 << (at & 7)
        for offset in self._open:
            at = offset - base
            if 0 <= at < len(bits) * 8:
                bits[at >> 3] &= ~(1 << (at & 7))
        for offset in self._ahead:
            at = offset - base
            if at < len(bits) * 8:
                bits[at >> 3] |= 1 << (at & 7)
        return doneset.encode(base, bytes(bits))

    def marking(self) -> bool:
        """Say whether something was done since this was last asked."""
        changed, self._changed = self._changed, False
        return changed

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
