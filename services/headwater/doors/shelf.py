"""The shelf: kept records as they are in the log, for people who look at them."""

from __future__ import annotations

import base64
import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

from headwater.contracts.messages import Operation
from headwater.contracts.quarantine import reason
from headwater.contracts.records import Partition, Record
from headwater.contracts.wanted import Wanted, place_of, tenant_of
from headwater.errors import SettingsError
from headwater.log.port import Log

WINDOW = 2_000
"""Offsets read at a time, from the newest back."""
LOOKED_MAX = 200_000
"""Offsets of one partition that a list looks at; say `since`, or an id, for what is older."""
_FAR_MS = 253_402_300_799_999


class Ledger(Protocol):
    """What was done to kept records (`views.ledger.Ledger`)."""

    def catch_up(self) -> None:
        """Read what was committed before this was called."""
        ...

    def of(self, place: Partition, offset: int) -> Operation | None:
        """Return what was done last to the record at a place."""
        ...


class Shelf:
    """Reads kept records.

    Args:
        log: The log.
        ledger: What was done to them.
    """

    def __init__(self, log: Log, ledger: Ledger) -> None:
        self._log = log
        self._ledger = ledger

    def newest(self, topics: Sequence[str], wanted: Wanted, *, limit: int) -> list[dict[str, Any]]:
        """Return the newest records of some topics.

        Args:
            topics: Where they are kept; one that is not there has none.
            wanted: Which.
            limit: At most so many.
        """
        self._ledger.catch_up()
        kept: list[tuple[int, int, dict[str, Any]]] = []
        count = 0
        for place in self._places(topics):
            mine = 0
            for record in self._backwards(place, wanted):
                why = reason(record)
                if not wanted.takes(record, why):
                    continue
                count += 1
                item = (record.time_ms, -count, self.tell(record))
                (heapq.heappush if len(kept) < limit else heapq.heappushpop)(kept, item)
                mine += 1
                if mine >= limit:
                    break
        return [told for _, _, told in sorted(kept, key=lambda one: one[:2], reverse=True)]

    def has(self, topics: Sequence[str]) -> bool:
        """Say whether any of some topics is there."""
        return any(True for _ in self._places(topics))

    def get(self, record: str) -> Record | None:
        """Return one record, by the id that `newest` gives."""
        named = place_of(record)
        if named is None:
            return None
        place, offset = named
        try:
            if place.number >= self._log.partitions(place.topic):
                return None
        except SettingsError:
            return None
        if offset >= self._log.offset_at(place, _FAR_MS):
            return None
        reader = self._log.read({place: offset})
        try:
            while not reader.at_end:
                for one in reader.poll(records_max=1, wait_ms=200):
                    return one if one.offset == offset else None
        finally:
            reader.close()
        return None

    def tell(self, record: Record) -> dict[str, Any]:
        """Return what a list shows of a record."""
        why, place = reason(record), record.partition
        done = self._ledger.of(place, record.offset)
        return {
            "id": f"{place.topic}:{place.number}@{record.offset}",
            "code": why.code,
            "message": why.message,
            "topic": why.source.topic,
            "partition": why.source.number,
            "offset": why.offset,
            "deliveries": why.deliveries,
            "tenant": tenant_of(record, why),
            "run": why.run,
            "attempt": why.attempt,
            "writes": why.writes,
            "done": None if done is None else done.action,
            "done_by": None if done is None else done.actor,
            "at_ms": record.time_ms,
            "bytes": len(record.value or b""),
        }

    def whole(self, record: Record) -> dict[str, Any]:
        """Return a record with its headers and bytes, in base64 where they are no text."""
        self._ledger.catch_up()
        done = self._ledger.of(record.partition, record.offset)
        return {
            **self.tell(record),
            "done_reason": None if done is None else done.reason,
            "done_at_ms": None if done is None else done.at_ms,
            "key": shown(record.key),
            "value": shown(record.value),
            "headers": {name: shown(value) for name, value in record.headers},
        }

    def _places(self, topics: Sequence[str]) -> Iterator[Partition]:
        for topic in topics:
            try:
                count = self._log.partitions(topic)
            except SettingsError:
                continue  # no record of its kind can be in a topic that is not there
            yield from (Partition(topic, number) for number in range(count))

    def _backwards(self, place: Partition, wanted: Wanted) -> Iterator[Record]:
        """Yield a partition's records, newest first, a window in memory at a time."""
        end = self._log.offset_at(place, _FAR_MS)
        first = max(0, end - LOOKED_MAX)
        if wanted.since_ms:
            first = max(first, self._log.offset_at(place, wanted.since_ms))
        if (span := wanted.span()) is not None:
            first, end = span[0], min(end, span[1] + 1)
        while end > first:
            start = max(first, end - WINDOW)
            yield from reversed(self._window(place, start, end))
            end = start

    def _window(self, place: Partition, start: int, end: int) -> list[Record]:
        reader = self._log.read({place: start})
        found: list[Record] = []
        try:
            while not reader.at_end:
                found += reader.poll(records_max=WINDOW, wait_ms=200)
                if found and found[-1].offset >= end - 1:
                    break
        finally:
            reader.close()
        return [record for record in found if record.offset < end]


def shown(data: bytes | None) -> str | None:
    """Return bytes as text, in base64 where they are none."""
    if data is None:
        return None
    encoded = "base64:" + base64.b64encode(data).decode()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return encoded
    return text if all(one.isprintable() or one in "\n\t" for one in text) else encoded
