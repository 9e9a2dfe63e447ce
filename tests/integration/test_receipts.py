"""Receipts on a real broker: partitions move, and processes stop, while long calls are under way."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from tests.integration.cards import PARTITIONS, Cluster

from headwater.contracts.messages import Answered, Ask, InDoubt, Intent
from headwater.core.effector import Attempt, Call, Done
from headwater.runtime import performing
from headwater.runtime.performing import Performing

pytestmark = pytest.mark.kafka

KINDS = (("read", ""), ("paid", ""), ("write", ""), ("write", "card-1"), ("irreversible", ""))
CALLS = PARTITIONS * len(KINDS)


class Long:
    """A tool whose calls go on until they are let go; it remembers what began."""

    name = "tool.cards"

    def __init__(self) -> None:
        self.began: Counter[int] = Counter()
        self.free = asyncio.Event()
        self.all_began = asyncio.Event()

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        """Go on."""
        self.began[ask.number] += 1
        if len(self.began) >= CALLS:
            self.all_began.set()
        await self.free.wait()
        return Done(value=b"%d" % ask.number)


@pytest.fixture
def cluster(kafka: str) -> Iterator[Cluster]:
    cluster = Cluster(kafka)
    yield cluster
    cluster.log.close()


async def _until(condition: Callable[[], bool], what: str) -> None:
    try:
        async with asyncio.timeout(60):
            while not await asyncio.to_thread(condition):  # noqa: ASYNC110 - the broker tells no one
                await asyncio.sleep(0.05)
    except TimeoutError:
        raise AssertionError(what) from None


class Fleet:
    """Members by name, in one process."""

    def __init__(self, cluster: Cluster, tool: Long) -> None:
        self._cluster, self._tool = cluster, tool
        self._stops: dict[str, asyncio.Event] = {}
        self.loops: dict[str, Performing] = {}
        self.running: dict[str, asyncio.Task[None]] = {}

    def start(self, name: str) -> None:
        """Join."""
        self._stops[name] = stop = asyncio.Event()
        self.loops[name] = loop = self._cluster.member(name, self._tool)
        self.running[name] = asyncio.create_task(loop.run(stop, drain_s=120, leave=True))

    def stop(self, name: str) -> asyncio.Task[None]:
        """Tell one to stop; it goes on with its calls."""
        self._stops[name].set()
        return self.running[name]

    def owns(self, name: str, count: int) -> Callable[[], bool]:
        """Say whether one has so many partitions and works on them."""
        return lambda: len(self.loops[name].claims) == count

    async def end(self) -> None:
        """Stop all."""
        for name in self.running:
            self.stop(name)
        await asyncio.gather(*self.running.values())


async def _ask_all(cluster: Cluster, tool: Long) -> None:
    numbers = itertools.count()
    for partition in range(PARTITIONS):
        for safety, key in KINDS:
            own = f"{key}-{partition}" if key else ""
            await cluster.ask(next(numbers), safety=safety, key=own, partition=partition)
    async with asyncio.timeout(60):
        await tool.all_began.wait()


def _renewed(cluster: Cluster, times: int) -> Callable[[], bool]:
    """Say whether every call's lease was renewed so many times since this was asked."""
    before = Counter(note.number for note in cluster.notes() if isinstance(note, Intent))

    def holds() -> bool:
        now = Counter(note.number for note in cluster.notes() if isinstance(note, Intent))
        return all(now[number] - before[number] >= times for number in range(CALLS))

    return holds


def _verdict(cluster: Cluster, tool: Long) -> None:
    outcomes = {}
    for reply in cluster.answers():
        outcomes.setdefault(reply.number, reply.outcome)
        assert not isinstance(reply.outcome, InDoubt)
    assert outcomes == {number: Answered(value=b"%d" % number) for number in range(CALLS)}
    assert set(tool.began.values()) == {1}


def test_a_rolling_deploy_during_long_calls_repeats_nothing_and_puts_nothing_in_doubt(
    cluster, monkeypatch
) -> None:
    """Two members are replaced one after the other; their calls go on for many leases.

    A new call is taken meanwhile by whoever has the partition now.
    """
    monkeypatch.setattr(performing, "HOLD_S", 0.2)

    async def scene() -> None:
        tool = Long()
        fleet = Fleet(cluster, tool)
        for name in ("old-1", "old-2"):
            fleet.start(name)
        await _until(fleet.owns("old-1", PARTITIONS // 2), "two partitions each")
        await _ask_all(cluster, tool)
        for old, new in (("old-1", "new-1"), ("old-2", "new-2")):
            fleet.stop(old)
            await _until(fleet.owns(old, 0), f"{old} gives its partitions up")
            fleet.start(new)
            await _until(fleet.owns(new, PARTITIONS // 2), f"{new} takes over")
        await _until(await asyncio.to_thread(_renewed, cluster, 2), "leases are renewed")
        assert not any(fleet.running[old].done() for old in ("old-1", "old-2"))
        tool.free.set()
        await cluster.ask(CALLS, partition=0)
        await asyncio.gather(fleet.running["old-1"], fleet.running["old-2"])
        await _until(lambda: not cluster.behind(), "everything is marked")
        await fleet.end()
        assert tool.began.pop(CALLS) == 1
        answers = {reply.number for reply in cluster.answers()}
        assert answers == {*range(CALLS + 1)}
        assert set(tool.began.values()) == {1}
        assert not any(isinstance(reply.outcome, InDoubt) for reply in cluster.answers())

    asyncio.run(scene())


@pytest.mark.parametrize("told", [True, False], ids=["", "control"])
def test_a_partition_that_moves_takes_no_call_along(cluster, monkeypatch, told: bool) -> None:
    """A member joins while calls are under way: who gives partitions up notes them, so they go on.

    The control says nothing: calls that were not noted at their beginning are made a second time.
    """
    if not told:

        async def silent(self: Performing, claims: object) -> None:
            return None

        monkeypatch.setattr(Performing, "_part", silent)

    async def scene() -> None:
        tool = Long()
        fleet = Fleet(cluster, tool)
        fleet.start("first")
        await _until(fleet.owns("first", PARTITIONS), "all partitions")
        await _ask_all(cluster, tool)
        fleet.start("second")
        await _until(fleet.owns("second", PARTITIONS // 2), "half of them")
        if told:
            moved = fleet.loops["second"].claims
            waits = [
                n for n in range(CALLS) if n // len(KINDS) in {c.partition.number for c in moved}
            ]
            await _until(lambda: fleet.loops["second"].waiting >= len(waits), "the heir waits")
        else:
            await _until(lambda: max(tool.began.values()) > 1, "a call is made again")
        tool.free.set()
        await _until(lambda: not cluster.behind(), "everything is marked")
        await fleet.end()
        if told:
            _verdict(cluster, tool)
        twice = {KINDS[number % len(KINDS)] for number, times in tool.began.items() if times > 1}
        assert not twice & {("write", "card-1"), ("irreversible", "")}
        assert bool(twice) != told

    asyncio.run(scene())
