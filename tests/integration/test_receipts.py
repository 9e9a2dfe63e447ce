"""Receipts on a real broker: partitions move, and processes stop, while long calls are under way."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.integration.cards import CODEC, PARTITIONS, Cluster

from headwater.contracts.messages import Answered, Ask, InDoubt, Intent, Reply, Result
from headwater.contracts.records import Draft
from headwater.core.effector import Attempt, Call, Done
from headwater.runtime import performing
from headwater.runtime.answering import Item
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
        async with asyncio.timeout(180):
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

    def start(self, name: str, **lease: int) -> None:
        """Join."""
        self._stops[name] = stop = asyncio.Event()
        self.loops[name] = loop = self._cluster.member(name, self._tool, **lease)
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
    async with asyncio.timeout(180):
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


STOOD_S = 1.2
"""A little longer than an heir may have been blind."""


def _begun_by_another(cluster: Cluster) -> tuple[Draft, Draft]:
    """Return the notes that call 0 was begun by a process whose lease is over, and what it answers."""
    begun_ms = time.time_ns() // 1_000_000 - 60_000
    intent = Intent(
        run="desk.0.r",
        number=0,
        offset=0,
        attempt="its",
        holder="gone",
        begun_ms=begun_ms,
        until_ms=begun_ms + 3_000,
    )
    reply = Reply(run="desk.0.r", number=0, attempt="its", outcome=Answered(value=b"late"))
    notes = (intent, Result(offset=0, reply=reply))
    return tuple(  # type: ignore[return-value] - there are two
        Draft(topic=cluster.receipts, key=bytes([number]), value=CODEC.encode(note), partition=0)
        for number, note in enumerate(notes)
    )


def _frozen_after_its_note(cluster: Cluster, heir: Performing, answer: Draft) -> None:
    """Have an heir stand still, all its threads, once it has read its own note; the answer comes then."""
    answered = heir._noting._answered

    async def thawed(item: Item, mine: Intent) -> Reply | None:
        heir._noting._answered = answered  # type: ignore[method-assign] - as it was
        known = heir._noting.known[item.claim]

        def noted() -> bool:
            intent = known.intent(item)
            return intent is not None and intent.attempt == mine.attempt

        await _until(noted, "its own note")
        _stand_still(cluster, known.lock, answer)
        return await answered(item, mine)

    heir._noting._answered = thawed  # type: ignore[method-assign] - it stands still there


def _stand_still(cluster: Cluster, lock: threading.Lock, answer: Draft) -> None:
    """Have the answer written meanwhile; the loop goes on first, and whoever reads after it."""
    lock.acquire()
    appends = threading.Thread(target=lambda: asyncio.run(_append(cluster, answer)))
    appends.start()
    appends.join()
    time.sleep(STOOD_S)
    asyncio.get_running_loop().call_later(0.5, lock.release)


async def _append(cluster: Cluster, draft: Draft) -> None:
    await cluster.log.append(draft)


@pytest.mark.parametrize(("blind_ms", "began"), [(1_000, 0), (60_000, 1)], ids=["", "control"])
def test_an_heir_that_stood_still_reads_on_before_it_makes_a_call_again(
    cluster, blind_ms: int, began: int
) -> None:
    """The former owner's answer came meanwhile; the control makes the call, and answers it twice."""
    begun, answer = _begun_by_another(cluster)

    async def scene() -> None:
        tool = Long()
        tool.free.set()
        await cluster.log.append(begun)
        await cluster.ask(0, key="card-1", partition=0)
        fleet = Fleet(cluster, tool)
        fleet.start("heir", blind_ms=blind_ms)
        _frozen_after_its_note(cluster, fleet.loops["heir"], answer)
        await _until(lambda: cluster.answers() and not cluster.behind(), "it is answered")
        await fleet.end()
        assert tool.began[0] == began
        (reply,) = cluster.answers()
        assert reply.outcome == Answered(value=b"0" if began else b"late")

    asyncio.run(scene())


PATIENCE_S = 4.0
"""Longer than joining takes, shorter than the transaction of the dead."""
OPEN_MS = 600_000
"""Whoever waits for the end of that transaction is not done when the test gives up."""


@pytest.mark.parametrize("intends", [True, False], ids=["", "control"])
def test_a_start_does_not_wait_for_a_note_that_the_dead_left_open(cluster, intends: bool) -> None:
    """Who may note ends what its predecessor of the same name was at, and then reads the receipts.

    The control has no producer until its first note: it waits for the transaction's own end.
    """
    dead = Producer(
        cluster.config.transactional(cluster.group, "one")
        | {"transaction.timeout.ms": OPEN_MS, "delivery.timeout.ms": 60_000}
    )
    dead.init_transactions(180)
    dead.begin_transaction()
    note, _ = _begun_by_another(cluster)
    dead.produce(note.topic, note.value, note.key, partition=0)
    reader = Consumer({**cluster.config.consumer(), "group.id": cluster.group})
    place = TopicPartition(cluster.requests, 0, 0)
    dead.send_offsets_to_transaction([place], reader.consumer_group_metadata(), 180)
    assert dead.flush(180) == 0

    async def scene() -> None:
        tool = Long()
        tool.free.set()
        await cluster.ask(0, key="card-1", partition=0)
        fleet = Fleet(cluster, tool)
        fleet.start("one", intends=intends)
        if not intends:
            await asyncio.sleep(PATIENCE_S)
            assert not tool.began, "it waits"
            dead.abort_transaction(180)
        await _until(cluster.answers, "it is answered")
        await fleet.end()

    began_s = time.monotonic()
    asyncio.run(scene())
    assert intends or time.monotonic() - began_s > PATIENCE_S
    reader.close()
