"""The guard of turns: a suspect is tried over the rows of its run, whatever comes of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater.contracts.ctl import Suspect
from headwater.contracts.records import Partition, Record
from headwater.errors import ProcessKillerError, TransientError
from headwater.runtime import trying as trials
from headwater.runtime.apart import DiedError
from headwater.runtime.lines import TakeTurn
from headwater.runtime.posts import Kind, Posts
from headwater.runtime.table import Table
from headwater.runtime.trying import Trying

pytestmark = pytest.mark.anyio
RECORD = Record(
    partition=Partition("hw.inbox.triage.v1", 0), offset=7, time_ms=0, key=b"run", value=b"",
)  # fmt: skip


class Suspects:
    """Suspects one record."""

    deaths_max = 3

    def __init__(self, alone: int = 0) -> None:
        self.suspect: Suspect | None = Suspect(
            topic="t", topic_id="i", partition=0, offset=7, what="run", alone=alone
        )
        self.causes: list[str] = []
        self.broken = False

    def __len__(self) -> int:
        return self.suspect is not None

    def find(self, record: Record) -> Suspect | None:
        return self.suspect if record is RECORD else None

    def check(self, record: Record) -> None:
        raise ProcessKillerError("three died of it")

    async def died(self, record: Record, cause: str) -> bool:
        self.causes.append(cause)
        return False

    async def clear(self, record: Record) -> None:
        if self.broken:
            raise OSError("the log is broken")
        self.suspect = None


class Guard:
    """A guard whose cells end as they are told, one after the other."""

    def __init__(self, *ends: Exception | None) -> None:
        self.posts = Posts(2)
        self.suspects = Suspects()
        self.apart = self
        self.loop = asyncio.get_running_loop()
        self.ends = [*ends]
        self.works: list[Any] = []

    async def alone(
        self, work: Callable[[int], object], blame: Callable[[str], Awaitable[bool]]
    ) -> None:
        self.works.append(work(4))
        end = self.ends.pop(0)
        if isinstance(end, DiedError):
            assert not await blame(end.cause)
        if end is not None:
            raise end


def of(guard: Any) -> Trying:
    return Trying(guard, "triage", lambda state, run: [f"row of {run}"])  # type: ignore[list-item] # any row


async def begun(guard: Guard) -> None:
    """Try the record, from another thread, as a decider would."""
    ended = await asyncio.to_thread(of(guard).begin, RECORD, Table())
    await asyncio.wrap_future(ended)


async def test_a_turn_is_seen_while_it_lasts() -> None:
    """It begins again at each of its deliveries, and nothing is seen after it."""
    guard = Guard()
    one = of(guard)
    one.enter(RECORD)
    [first] = guard.posts.used()
    assert (first.kind, first.what, first.offset) == (Kind.TURN, "run", 7)
    one.going_on()
    [again] = guard.posts.used()
    assert again.serial > first.serial
    one.leave()
    assert guard.posts.used() == []
    one.going_on()
    assert guard.posts.used() == []


@pytest.mark.parametrize("end", [None, ValueError("a turn may raise")])
async def test_whatever_a_turn_leads_to_is_survived(end: Exception | None) -> None:
    """The process that tried it lives."""
    guard = Guard(end)
    await begun(guard)
    [work] = guard.works
    assert work == TakeTurn(number=4, agent="triage", run="run", record=RECORD, rows=["row of run"])
    assert guard.suspects.causes == []


async def test_deaths_are_counted() -> None:
    """The verdict is the suspects'."""
    guard = Guard(DiedError("signal 11"))
    await begun(guard)
    assert guard.suspects.causes == ["signal 11"]


async def test_what_lacked_something_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A turn that stopped for want of a value was not survived."""
    monkeypatch.setattr(trials, "AWAY_S", 0)
    guard = Guard(TransientError("the store is away"), TransientError("still"), None)
    await begun(guard)
    assert len(guard.works) == 3


async def test_a_turn_that_was_taken_clears_its_record() -> None:
    """Only a suspect that may still be tried, and only once it was committed."""
    guard = Guard()
    one = of(guard)
    assert one.suspected(RECORD)
    with pytest.raises(ProcessKillerError):
        one.check(RECORD)
    for suspects in (Suspects(alone=3), Suspects()):
        guard.suspects = suspects
        await asyncio.to_thread(one.survived, [RECORD])
        await asyncio.to_thread(one.survived, [RECORD])
    for _ in range(3):
        await asyncio.sleep(0)
    assert guard.suspects.suspect is None
    await asyncio.to_thread(one.survived, [RECORD])


async def test_a_suspect_that_cannot_be_cleared_is_said(caplog: pytest.LogCaptureFixture) -> None:
    """It stays suspected, and is tried once more some time; no turn waits for that."""
    guard = Guard()
    guard.suspects.broken = True
    await asyncio.to_thread(of(guard).survived, [RECORD])
    for _ in range(3):
        await asyncio.sleep(0)
    assert "a suspect was not cleared" in caplog.text
