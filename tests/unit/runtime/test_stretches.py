"""Stretches: read as they are written, and again where the log asks again."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.replays import Skipped
from headwater.log.local import LocalLog
from headwater.log.port import Work
from headwater.runtime import stretches
from headwater.runtime.stretches import CutShortError, Reading, Stretch

TOPIC = "hw.dlq.a.v1"
PLACE = Partition(TOPIC, 0)


def filled(count: int) -> LocalLog:
    """Return a log with records at 0, 1, ...; appends leave no gaps."""
    log = LocalLog()
    log.create(TOPIC, partitions=1)

    async def write() -> None:
        for number in range(count):
            await log.append(Draft(topic=TOPIC, value=b"%d" % number, partition=0))

    asyncio.run(write())
    return log


def gappy(count: int) -> LocalLog:
    """Return a log with records at 0, 2, 4, ...: each is a transaction, whose marker follows."""
    log = LocalLog()
    log.create(TOPIC, partitions=1)
    log.create("hw.in.v1", partitions=1)
    owner = log.own(["hw.in.v1"], group="g", instance="i")
    (claim,) = owner.poll(records_max=1, wait_ms=0).gained
    for number in range(count):
        draft = Draft(topic=TOPIC, value=b"%d" % number, partition=0)
        assert owner.commit([Work(claim=claim, next_offset=0, drafts=[draft])]) == {claim}
    owner.close(leave=True)
    return log


def offsets(reading: Reading, start: int, until: int) -> list[int]:
    return [one.offset for found in reading.between(start, until) for one in found]


def test_each_record_is_in_one_stretch_whatever_offsets_nobody_gets():
    """What was read beyond the end of a stretch is the beginning of the next."""
    log = gappy(9)
    end = log.offset_at(PLACE, 1 << 50)
    assert end == 18
    reading = Reading(log, PLACE, threading.Event())
    found = [offsets(reading, at, min(at + 5, end)) for at in range(0, end, 5)]
    assert found == [[0, 2, 4], [6, 8], [10, 12, 14], [16]]
    assert offsets(reading, 5, 10) == [6, 8], "an earlier one again"
    assert offsets(reading, 10, 11) == [10]


def test_records_are_read_as_they_are_asked_for(monkeypatch):
    """Never more of them than a slice ahead: a million take no more memory than a few."""
    monkeypatch.setattr(stretches, "SLICE", 3)
    reading = Reading(filled(10), PLACE, threading.Event())
    made, tries = 0, []

    def make(record: Record) -> Draft:
        nonlocal made
        made += 1
        return Draft(topic="t", value=record.value)

    stretch = Stretch(
        lambda: reading.between(0, 10), make, lambda of: Draft(topic="note"), (0, 10),
        sends=True, again=lambda: tries.append(made),
    )  # fmt: skip
    for number, draft in enumerate(stretch):
        assert made == min(number + 1, 10)
        assert stretch.looked <= number + 3
        assert draft.topic == ("note" if number == 10 else "t")
    assert stretch.offsets == [*range(10)]
    assert [draft.value for draft in stretch][:10] == [b"%d" % n for n in range(10)]
    assert tries == [10], "before it is gone through again, and only then"
    assert (stretch.looked, stretch.bytes, len(stretch.offsets)) == (10, 10, 10), "counted once"


def test_what_nobody_meant_leads_to_nothing():
    """Neither a draft nor a note."""
    reading = Reading(filled(4), PLACE, threading.Event())

    def make(record: Record) -> Skipped | None:
        return None if record.offset % 2 else Skipped(kind="odd", why="it is even")

    stretch = Stretch(
        lambda: reading.between(0, 4), make, lambda of: Draft(topic="note"), (0, 4),
        sends=True, again=lambda: None,
    )  # fmt: skip
    assert [*stretch] == []
    assert [offset for offset, _ in stretch.skipped] == [0, 2]


def test_it_stops_where_no_records_come():
    """Somebody's open transaction holds them back; whoever writes is not to wait for it for ever."""
    log, stop = filled(2), threading.Event()
    log.hold([Draft(topic=TOPIC, value=b"x", partition=0)])
    reading = Reading(log, PLACE, stop)
    stop.set()
    assert offsets(reading, 0, 2) == [0, 1], "what is there is read"
    with pytest.raises(CutShortError) as cut:
        offsets(reading, 2, 3)
    assert cut.value.__cause__ is None
    reading.close()


def test_what_breaks_in_reading_is_told_apart_from_writing(monkeypatch):
    """It goes through a commit as it is."""
    reading = Reading(filled(2), PLACE, threading.Event())
    assert offsets(reading, 0, 1) == [0]
    assert reading._reader is not None

    def broken(**_: int) -> None:
        raise TimeoutError("away")

    monkeypatch.setattr(reading._reader, "poll", broken)
    with pytest.raises(CutShortError) as cut:
        offsets(reading, 1, 2)
    assert isinstance(cut.value.__cause__, TimeoutError)
