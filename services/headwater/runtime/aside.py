"""Aside: records of one partition that wait for a trial while the partition's other keys go on.

The group's offset stays at the first of them; what beyond it is done stands beside the offset, as
effectors keep it, so a later owner takes what waited and nothing else.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections import deque
from collections.abc import Collection, Iterable
from typing import Protocol

from headwater.contracts.records import Record
from headwater.core.state import State
from headwater.errors import TransientError
from headwater.log.port import Work
from headwater.runtime import doneset

WAITING_MAX = 1_000
"""Records of one partition that may wait; beyond it, the partition does."""
Key = bytes | None
Ended = concurrent.futures.Future[None]


class Trials(Protocol):
    """Who is suspected, and where it is found out (`runtime.trying`)."""

    def suspected(self, record: Record) -> bool:
        """Say whether a record is to be tried before it is taken."""
        ...

    def begin(self, record: Record, state: State) -> Ended:
        """Try a record's turn over these rows; it ends when the record may be taken, or refused."""
        ...


class Nobody:
    """The trials of a process that suspects nobody."""

    def suspected(self, record: Record) -> bool:
        """Nobody is."""
        return False

    def begin(self, record: Record, state: State) -> Ended:
        """There is no cause to."""
        raise AssertionError(f"{record.partition}@{record.offset} is not suspected")


class Aside:
    """What waits of one claim, and what is done beyond it.

    Args:
        trials: Where suspects are tried.
        next_offset: Where the claim goes on.
        done: Which offsets beyond that are done already.
    """

    def __init__(self, trials: Trials, next_offset: int, done: Collection[int] = ()) -> None:
        self._trials = trials
        self._next = next_offset
        self._ahead = {*done}
        self._open: dict[int, Record] = {}
        """Set aside or taken back, and not done, whether they wait or were given back."""
        self._waiting: dict[Key, deque[Record]] = {}
        self._running: dict[Key, Ended] = {}
        self._tried: set[int] = set()

    def passes(self, record: Record) -> bool:
        """Say whether a record is to be passed over: it is done, or it waits here from now on.

        Raises:
            TransientError: So much waits already that the partition has to.
        """
        if record.offset in self._ahead:
            self._ahead.discard(record.offset)
            self._next = max(self._next, record.offset + 1)
            return True
        if self._open and record.offset - min(self._open) >= doneset.WINDOW - 1:
            # What is done so far beyond the offset could not be written down.
            raise TransientError(f"{len(self._open)} records wait for trials of suspects")
        waiting = self._waiting.get(record.key)
        if waiting is not None:
            if record.offset < waiting[0].offset:
                return False
        elif record.offset in self._tried or not self._trials.suspected(record):
            return False
        if record.offset not in self._open and len(self._open) >= WAITING_MAX:
            raise TransientError(f"{len(self._open)} records wait for trials of suspects")
        self._open[record.offset] = record
        self._next = max(self._next, record.offset + 1)
        self._waiting.setdefault(record.key, deque()).append(record)
        return True

    def round(self, backlog: deque[Record], state: State) -> None:
        """Begin what may be tried, and give back to the backlog what was."""
        for key, ended in [*self._running.items()]:
            if ended.done():
                del self._running[key]
                ended.result()
                waiting = self._waiting.pop(key)
                self._tried.add(waiting[0].offset)
                backlog.extendleft(reversed(waiting))
        for key, waiting in self._waiting.items():
            first = waiting[0]
            earlier = any(one.key == key and one.offset < first.offset for one in backlog)
            if key not in self._running and not earlier:
                self._running[key] = self._trials.begin(first, state)

    def settle(self, work: Work, taken: Iterable[Record]) -> Work:
        """Return work whose offset stays at what waits, with what is done beyond it."""
        following = max(work.next_offset, self._next)
        left = self._open.keys() - {record.offset for record in taken}
        base = min([following, *left])
        ahead = {offset for offset in self._ahead if offset >= following}
        bits = bytearray((max([following, *(offset + 1 for offset in ahead)]) - base + 7) // 8)
        for offset in (*range(base, following), *ahead):
            if offset not in left:
                bits[(offset - base) >> 3] |= 1 << ((offset - base) & 7)
        return dataclasses.replace(
            work, next_offset=base, metadata=doneset.encode(base, bytes(bits))
        )

    def committed(self, records: Iterable[Record]) -> None:
        """These were taken, and are done."""
        for record in records:
            self._open.pop(record.offset, None)
            self._tried.discard(record.offset)

    def taken_back(self, records: Iterable[Record]) -> None:
        """These were passed and came to nothing: what is done beyond them says nothing of them."""
        self._open.update((record.offset, record) for record in records)

    def close(self) -> None:
        """Give up the trials under way."""
        for ended in self._running.values():
            ended.cancel()
