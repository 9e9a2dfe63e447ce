"""One partition of the local log: records, offsets, and how far readers may see."""

from __future__ import annotations

import bisect
import dataclasses
import functools
from collections.abc import Sequence

from headwater.contracts.records import Draft, Partition, Record

_M = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


@functools.lru_cache(maxsize=65_536)
def murmur2(data: bytes) -> int:
    """Return Murmur2 of a key as an unsigned 32-bit integer.

    The same as `org.apache.kafka.common.utils.Utils.murmur2` and librdkafka's `murmur2_random`.
    """
    size = len(data)
    h = _SEED ^ size
    for at in range(0, size - size % 4, 4):
        k = int.from_bytes(data[at : at + 4], "little") * _M & _MASK
        k = (k ^ k >> 24) * _M & _MASK
        h = (h * _M & _MASK) ^ k
    if tail := data[size - size % 4 :]:
        h = (h ^ int.from_bytes(tail, "little")) * _M & _MASK
    h = (h ^ h >> 13) * _M & _MASK
    return h ^ h >> 15


def partition_of(key: bytes, partitions: int) -> int:
    """Return the partition of a key, as every Java-compatible producer picks it."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


@dataclasses.dataclass(slots=True, kw_only=True)
class _Open:
    """What an unfinished transaction wrote here."""

    first: int
    offsets: list[int]


class Stored:
    """One partition. Nobody reads uncommitted, so what is aborted leaves only a gap.

    Args:
        place: Which partition.
    """

    __slots__ = ("_offsets", "_open", "_records", "end", "place")

    def __init__(self, place: Partition) -> None:
        self.place = place
        self._records: list[Record] = []
        self._offsets: list[int] = []
        self._open: dict[int, _Open] = {}
        self.end = 0
        """The uncommitted end: the offset that the next record or marker gets."""

    @property
    def stable_end(self) -> int:
        """The last stable offset: readers see nothing from the first open transaction on."""
        if not self._open:
            return self.end
        return min(written.first for written in self._open.values())

    def append(self, draft: Draft, *, time_ms: int, transaction: int | None) -> int:
        """Store a record; return its offset."""
        offset = self.end
        self.end = offset + 1
        self._records.append(
            Record(
                partition=self.place,
                offset=offset,
                time_ms=time_ms,
                key=draft.key,
                value=draft.value,
                headers=draft.headers,
            )
        )
        self._offsets.append(offset)
        if transaction is not None:
            written = self._open.get(transaction)
            if written is None:
                written = self._open[transaction] = _Open(first=offset, offsets=[])
            written.offsets.append(offset)
        return offset

    def finish(self, transaction: int, *, committed: bool) -> None:
        """End a transaction here: its marker takes an offset, and aborted records go."""
        written = self._open.pop(transaction)
        self.end += 1
        if committed:
            return
        gone = set(written.offsets)
        self._keep([record for record in self._records if record.offset not in gone])

    def read(self, start: int, count: int) -> tuple[Sequence[Record], int]:
        """Return up to `count` stable records from `start` on, and the offset to go on from."""
        stable = self.stable_end
        first = bisect.bisect_left(self._offsets, start)
        last = len(self._offsets)
        if stable < self.end:
            last = bisect.bisect_left(self._offsets, stable)
        if last - first > count:
            records = self._records[first : first + count]
            return records, (records[-1].offset + 1 if records else start)
        return self._records[first:last], max(start, stable)

    def offset_at(self, time_ms: int) -> int:
        """Return the first offset appended at this time or later; the end if there is none."""
        later = (record.offset for record in self._records if record.time_ms >= time_ms)
        return next(later, self.end)

    def compact(self, *, before_ms: int) -> None:
        """Keep the newest stable record of each key; a tombstone goes if it is older than `before_ms`."""
        stable = self.stable_end
        newest = {record.key: record.offset for record in self._records if record.offset < stable}
        self._keep(
            [
                record
                for record in self._records
                if record.offset >= stable
                or (
                    newest[record.key] == record.offset
                    and (record.value is not None or record.time_ms > before_ms)
                )
            ]
        )

    def _keep(self, records: list[Record]) -> None:
        self._records = records
        self._offsets = [record.offset for record in records]
