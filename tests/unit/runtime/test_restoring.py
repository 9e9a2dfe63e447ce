"""Restoring: rows are never older than the offset, although they are fetched while it is asked for."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.records import Draft, Partition
from headwater.core.keys import row_key
from headwater.core.messages import Key
from headwater.errors import SettingsError
from headwater.log.local import LocalLog, LocalReader
from headwater.log.port import Claim
from headwater.runtime.restoring import Inline, Restored, Restorer

CLAIM = Claim(Partition("in", 0), 1)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A row."""

    name: str

    @property
    def key(self) -> Key:
        """By its name."""
        return (self.name,)


CODEC = Codec(Schemas(), (Count,))


class Late(LocalLog):
    """A log where whoever had the partition commits once more while its offset is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.create("in")
        self.create("state", compacted=True)
        self.begin_group("g", ["in"])
        self.put("early")

    def put(self, name: str) -> None:
        """Write a row."""
        draft = Draft(
            topic="state",
            partition=0,
            key=row_key("Count", (name,)),
            value=CODEC.encode(Count(name=name)),
        )
        asyncio.run(self.append(draft))

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return the offset that the row belongs to."""
        _, metadata = super().committed(group, partition)
        self.put("late")
        return 1, metadata


def restored(log: LocalLog) -> Restored:
    """Restore the partition."""
    restorer = Restorer(log, group="g", state="state", codec=CODEC, executor=Inline())
    restorer.begin(CLAIM)
    ((_, found),) = restorer.done()
    return found


def names(found: Restored) -> list[str]:
    """Return the names of the rows, in order."""
    return [row.name for row in found.table.scan(Count)]


def test_rows_are_never_older_than_the_offset() -> None:
    """The reader is opened before the offset is asked for, and its end is taken after it."""
    found = restored(Late())
    assert found.next_offset == 1
    assert names(found) == ["early", "late"]


def test_rows_are_older_than_the_offset_where_the_end_stays(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control: with the end that there was when the reader was opened, a committed row is missing."""
    until_now = LocalReader.until_now

    def once(reader: LocalReader) -> None:
        if not hasattr(reader, "_ends"):
            until_now(reader)

    monkeypatch.setattr(LocalReader, "until_now", once)
    monkeypatch.setattr("headwater.runtime.restoring.RECORDS_MAX", 1)  # or it comes with the first
    found = restored(Late())
    assert found.next_offset == 1
    assert names(found) == ["early"]


def test_a_reader_is_closed_when_there_is_no_offset(monkeypatch: pytest.MonkeyPatch) -> None:
    """A partition that cannot be restored leaves no client behind."""
    closed = threading.Event()
    monkeypatch.setattr(LocalReader, "close", lambda _: closed.set())
    log = LocalLog()
    log.create("in")
    log.create("state", compacted=True)
    with pytest.raises(SettingsError, match="offset"):
        restored(log)
    assert closed.is_set()
