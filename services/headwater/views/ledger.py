"""The ledger: what was done to kept records, folded from the audit topic."""

from __future__ import annotations

import bisect
import logging
import threading
from typing import Protocol

from headwater.contracts.messages import Operation
from headwater.contracts.records import Partition, Record
from headwater.errors import PoisonError
from headwater.log.port import Log

logger = logging.getLogger(__name__)

_RECORDS_MAX = 1_000
_WAIT_MS = 200


class Coder(Protocol):
    """Reads messages (`contracts.codec.Codec`)."""

    def decode(self, data: bytes) -> object:
        """Return the message."""
        ...


class Ledger:
    """Says of a kept record what was done to it; thread-safe, and as large as what operators did.

    Args:
        log: The log.
        codec: Reads the records.
        topic: The audit topic.
    """

    def __init__(self, log: Log, codec: Coder, topic: str) -> None:
        self._log = log
        self._codec = codec
        self._places = [Partition(topic, number) for number in range(log.partitions(topic))]
        self._next = dict.fromkeys(self._places, 0)
        self._lock = threading.Lock()
        self._firsts: dict[Partition, list[int]] = {}
        self._ranges: dict[Partition, list[tuple[int, int, Operation]]] = {}
        self._looked: dict[tuple[str, Partition], int] = {}

    def catch_up(self) -> None:
        """Read what was committed before this was called."""
        with self._lock:
            reader = self._log.read(self._next)
            try:
                while not reader.at_end:
                    for record in reader.poll(records_max=_RECORDS_MAX, wait_ms=_WAIT_MS):
                        self._next[record.partition] = record.offset + 1
                        self._take(record)
            finally:
                reader.close()

    def of(self, place: Partition, offset: int) -> Operation | None:
        """Return what was done last to the record at a place, if anything was."""
        firsts = self._firsts.get(place)
        if firsts is None:
            return None
        at = bisect.bisect_right(firsts, offset) - 1
        if at < 0:
            return None
        _, last, operation = self._ranges[place][at]
        return operation if offset <= last else None

    def looked(self, id: str, place: Partition) -> int:  # noqa: A002 - what it is
        """Return how far an operation has looked; 0 before it began."""
        return self._looked.get((id, place), 0)

    def _take(self, record: Record) -> None:
        try:
            operation = self._codec.decode(record.value or b"")
        except PoisonError as error:
            logger.warning("%s@%d is no note: %s", record.partition, record.offset, error)
            return
        if not isinstance(operation, Operation) or len(operation.offsets) % 2:
            logger.warning("%s@%d is no note of ours", record.partition, record.offset)
            return
        if not operation.topic:
            return  # it was done to a run
        place = Partition(operation.topic, operation.partition)
        known = (operation.id, place)
        self._looked[known] = max(self._looked.get(known, 0), operation.next_offset)
        pairs = operation.offsets
        for first, last in zip(pairs[::2], pairs[1::2], strict=True):
            self._note(place, first, last, operation)

    def _note(self, place: Partition, first: int, last: int, operation: Operation) -> None:
        """File a range over whatever was there: what was done last counts."""
        ranges = self._ranges.setdefault(place, [])
        firsts = self._firsts.setdefault(place, [])
        at = bisect.bisect_right(firsts, first) - 1
        low = at if at >= 0 and ranges[at][1] >= first else at + 1
        high = bisect.bisect_right(firsts, last)
        left = [(a, min(b, first - 1), of) for a, b, of in ranges[low:high] if a < first]
        right = [(max(a, last + 1), b, of) for a, b, of in ranges[low:high] if b > last]
        new = [*left, (first, last, operation), *right]
        ranges[low:high] = new
        firsts[low:high] = [one[0] for one in new]
