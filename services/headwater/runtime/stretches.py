"""Stretches: the records of some offsets, and what they lead to, made while it is written.

A record is read, what it leads to is made and handed to the log, and both are gone before the next is
looked at. So a million of them take no more memory than a few, and each is dealt with while it is still
near the processor: kept until a batch is whole, letters took a third longer (docs/benchmarks.md).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence

from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.replays import Skipped
from headwater.log.port import Log, Reader

SLICE = 250
"""Records that are read at a time."""
_WAIT_MS = 200


class CutShortError(Exception):
    """Reading ended in the middle: it was told to stop, or its cause says what broke."""


class Reading:
    """Reads a partition stretch by stretch; an earlier one again, if that is asked for.

    Args:
        log: The log.
        place: The partition.
        stop: Told to stop, it does once no records come.
    """

    def __init__(self, log: Log, place: Partition, stop: threading.Event) -> None:
        self._log = log
        self._place = place
        self._stop = stop
        self._at = -1
        self._ahead: Sequence[Record] = ()
        self._reader: Reader | None = None

    def between(self, start: int, until: int) -> Iterator[Sequence[Record]]:
        """Yield every record from `start` on and before `until`, which there was when this began.

        Raises:
            CutShortError: They could not all be read.
        """
        reader = self._from(start)
        while self._at < until:
            some = min(SLICE, until - self._at)
            found = self._ahead or self._poll(reader, some)
            self._ahead = ()
            if found:
                self._at = found[-1].offset + 1
            if self._at > until:
                cut = next(n for n, one in enumerate(found) if one.offset >= until)
                found, self._ahead = found[:cut], found[cut:]
                self._at = until
            elif reader.at_end:
                self._at = until  # offsets that nobody gets may be the last
            yield found

    def close(self) -> None:
        """Stop reading."""
        self._ahead = ()
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def _from(self, start: int) -> Reader:
        if self._reader is None or start != self._at:
            self.close()
            self._reader, self._at = self._log.read({self._place: start}), start
        return self._reader

    def _poll(self, reader: Reader, some: int) -> Sequence[Record]:
        """Return the next records; none if none came in time.

        What breaks here must not be taken for an error of the writing that asked for it.
        """
        try:
            found = reader.poll(records_max=some, wait_ms=_WAIT_MS)
        except Exception as error:
            raise CutShortError from error
        if not found and self._stop.is_set() and not reader.at_end:
            raise CutShortError
        return found


class Stretch:
    """What the records of some offsets lead to, for a commit; gone through anew at each of its tries.

    Args:
        records: Gives the records, in order.
        make: What each leads to.
        note: Makes the note of which were meant.
        offsets: The first of them, and the one after the last.
        sends: Whether drafts are written, or the note alone.
        again: Called before every try but the first.
    """

    def __init__(
        self,
        records: Callable[[], Iterator[Sequence[Record]]],
        make: Callable[[Record], Draft | Skipped | None],
        note: Callable[[Sequence[int]], Draft],
        offsets: tuple[int, int],
        *,
        sends: bool,
        again: Callable[[], None],
    ) -> None:
        self._again = again
        self._tried = False
        self._records = records
        self._make = make
        self._note = note
        self._sends = sends
        self.start, self.until = offsets
        self.offsets: list[int] = []
        """Of the records that were meant, as of the last time this was gone through."""
        self.skipped: list[tuple[int, Skipped]] = []
        self.looked = 0
        self.bytes = 0
        """Of the drafts' values."""
        self.took_s = 0.0
        """How long its commit took, once it was committed."""

    def __iter__(self) -> Iterator[Draft]:
        """Yield what is to be written: drafts, and the note."""
        if self._tried:
            self._again()
        self._tried = True
        if self._sends:
            yield from self.drafts()
        else:
            for _ in self.drafts():
                pass
        if self.offsets:
            yield self._note(self.offsets)

    def drafts(self) -> Iterator[Draft]:
        """Yield what the records lead to, and count.

        Raises:
            CutShortError: They could not all be read.
        """
        make = self._make
        self.offsets, self.skipped, self.looked, self.bytes = [], [], 0, 0
        for records in self._records():
            self.looked += len(records)
            for record in records:
                made = make(record)
                if isinstance(made, Draft):
                    self.offsets.append(record.offset)
                    self.bytes += len(made.value or b"")
                    yield made
                elif made is not None:
                    self.skipped.append((record.offset, made))
