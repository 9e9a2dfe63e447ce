"""The shelf: quarantined records as they are in the log, for people who look at them."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from typing import Any

from headwater.contracts.quarantine import reason
from headwater.contracts.records import Partition, Record
from headwater.errors import SettingsError
from headwater.log.port import Log

RECORDS_MAX = 100_000


class Shelf:
    """Reads quarantine topics.

    Args:
        log: The log.
        topics: Names of the quarantine topics.
    """

    def __init__(self, log: Log, topics: Callable[[], Sequence[str]]) -> None:
        self._log = log
        self._topics = topics

    def list(self, *, topic: str, code: str, limit: int) -> list[dict[str, Any]]:
        """Return the newest records.

        Args:
            topic: Only from this source topic.
            code: Only of this class.
            limit: At most so many.
        """
        found = [
            told
            for record in self._all()
            if (told := tell(record))
            and (not topic or told["topic"] == topic)
            and (not code or told["code"] == code)
        ]
        return sorted(found, key=lambda told: -told["at_ms"])[:limit]

    def get(self, record: str) -> dict[str, Any] | None:
        """Return one record with its bytes, by the id that `list` gives."""
        name, _, offset = record.rpartition("@")
        topic, _, number = name.rpartition(":")
        if not (topic in self._topics() and number.isdecimal() and offset.isdecimal()):
            return None
        place = Partition(topic, int(number))
        reader = self._log.read({place: int(offset)})
        try:
            while not reader.at_end:
                for one in reader.poll(records_max=1, wait_ms=200):
                    return whole(one) if one.offset == int(offset) else None
        finally:
            reader.close()
        return None

    def _all(self) -> Sequence[Record]:
        starts: dict[Partition, int] = {}
        for topic in self._topics():
            try:
                starts |= {Partition(topic, n): 0 for n in range(self._log.partitions(topic))}
            except SettingsError:
                continue  # no record of its kind can be in a topic that is not there
        reader = self._log.read(starts)
        found: list[Record] = []
        try:
            while not reader.at_end and len(found) < RECORDS_MAX:
                found += reader.poll(records_max=1_000, wait_ms=200)
        finally:
            reader.close()
        return found


def tell(record: Record) -> dict[str, Any]:
    """Return what a list shows of a record."""
    why, place = reason(record), record.partition
    return {
        "id": f"{place.topic}:{place.number}@{record.offset}",
        "code": why.code,
        "message": why.message,
        "topic": why.source.topic,
        "partition": why.source.number,
        "offset": why.offset,
        "deliveries": why.deliveries,
        "at_ms": record.time_ms,
        "bytes": len(record.value or b""),
    }


def whole(record: Record) -> dict[str, Any]:
    """Return a record with its headers and bytes, in base64 where they are no text."""
    return {
        **tell(record),
        "key": _shown(record.key),
        "value": _shown(record.value),
        "headers": {name: _shown(value) for name, value in record.headers},
    }


def _shown(data: bytes | None) -> str | None:
    if data is None:
        return None
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return "base64:" + base64.b64encode(data).decode()
    return text if text.isprintable() else "base64:" + base64.b64encode(data).decode()
