"""Replaying: once, in order, in transactions, whoever dies half-way."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import threading
from collections.abc import Sequence

import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Operation
from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.replays import Skipped
from headwater.contracts.wanted import Wanted
from headwater.errors import SettingsError, WorkRefusedError
from headwater.log.local import LocalLog, LocalReader
from headwater.log.local_member import LocalOwner
from headwater.log.port import Claim, Work
from headwater.runtime import replaying
from headwater.runtime.operating import Wish
from headwater.runtime.replaying import Order, Replaying, ranges
from headwater.views.ledger import Ledger

FROM, TO, AUDIT = "hw.dlq.a.v1", "hw.cmd.a.v1", "hw.audit.operators.v1"
CODEC = Codec(Schemas(), (Operation,))


class World:
    """A log with dead letters in it."""

    def __init__(self, count: int, *, partitions: int = 1) -> None:
        self.log = LocalLog(clock=lambda: 5)
        self.log.create(FROM, partitions=partitions)
        self.log.create(TO, partitions=1)
        self.log.create(AUDIT, partitions=1)
        self.add(*range(count))

    def add(self, *numbers: int) -> None:
        async def write() -> None:
            for number in numbers:
                place = number % self.log.partitions(FROM)
                await self.log.append(
                    Draft(topic=FROM, key=b"k", value=str(number).encode(), partition=place)
                )

        asyncio.run(write())

    def replaying(
        self, id_: str = "r", log: LocalLog | None = None, ledger: Ledger | None = None, **more
    ) -> Replaying:
        operation = Operation(action="replay", id=id_, actor="ana", at_ms=0)
        order = Order(operation=operation, topic=FROM, make=more.pop("make", copy), **more)
        log = log or self.log
        return Replaying(
            log,
            order,
            ledger=ledger or Ledger(log, CODEC, AUDIT),
            note=lambda of: Draft(topic=AUDIT, value=CODEC.encode(of)),
            group=f"hw.operation.{id_}",
            writer=f"hw.operation.{FROM}",
            clock=lambda: 7,
        )

    def values(self, topic: str = TO) -> list[bytes]:
        reader = self.log.read({Partition(topic, 0): 0})
        found = []
        while not reader.at_end:
            found += [record.value for record in reader.poll(records_max=1_000, wait_ms=0)]
        return found

    def notes(self) -> list[Operation]:
        return [CODEC.decode(value) for value in self.values(AUDIT)]


def copy(record: Record) -> Draft | Skipped | None:
    return Draft(topic=TO, key=record.key, value=record.value, partition=0)


def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every operation write under a name of its own."""
    own = LocalLog.own

    def unnamed(self: LocalLog, topics: Sequence[str], *, writer: str, **more: str) -> LocalOwner:
        return own(self, topics, **more)

    monkeypatch.setattr(LocalLog, "own", unnamed)


def go() -> threading.Event:
    return threading.Event()


def test_everything_is_copied_in_order_and_noted(monkeypatch):
    """In stretches; each note says which, and how far it looked."""
    monkeypatch.setattr(replaying, "BATCH", 4)
    world = World(10)
    progress = world.replaying().run(go())
    assert world.values() == [str(number).encode() for number in range(10)]
    assert [(note.offsets, note.next_offset) for note in world.notes()] == [
        ((0, 3), 4),
        ((4, 7), 8),
        ((8, 9), 10),
    ]
    assert (progress.done, progress.looked, progress.total) == (10, 10, 10)


def test_a_second_time_does_nothing_and_goes_on_with_what_is_new():
    """What was done is noted in the transaction that did it."""
    world = World(3)
    world.replaying().run(go())
    assert world.replaying().run(go()).done == 0
    world.add(3)
    again = world.replaying()
    again.run(go())
    assert world.values() == [b"0", b"1", b"2", b"3"]
    assert again.progress.skipped["done before"] == 3


@pytest.mark.parametrize("again", [False, True])
def test_a_process_that_dies_half_way_is_followed_by_one_that_goes_on(monkeypatch, again):
    """Whatever it had begun is aborted; whatever it had committed is not repeated."""
    monkeypatch.setattr(replaying, "BATCH", 2)
    world = World(7)
    calls = 0

    class DiedError(Exception):
        pass

    def dying(record: Record) -> Draft | Skipped | None:
        nonlocal calls
        calls += 1
        if calls == 6:
            raise DiedError
        return copy(record)

    with pytest.raises(DiedError):
        world.replaying(again=again, make=dying).run(go())
    assert len(world.values()) == 4
    world.replaying(again=again).run(go())
    assert world.values() == [str(number).encode() for number in range(7)]


def test_without_the_notes_a_second_process_would_repeat(monkeypatch):
    """Control: the copies alone do not say what was copied."""
    monkeypatch.setattr(Ledger, "of", lambda self, place, offset: None)
    world = World(3)
    world.replaying().run(go())
    world.replaying().run(go())
    assert len(world.values()) == 6


def test_what_comes_back_is_not_taken_up_by_the_replay_that_sent_it():
    """It ends at the end that the topic had when it began."""
    world = World(3)
    one = world.replaying(make=lambda record: Draft(topic=FROM, value=record.value, partition=0))
    one.run(go())
    assert one.progress.done == 3
    assert len(world.values(FROM)) == 6


def test_what_nobody_meant_and_what_is_skipped_is_counted():
    """The first reasons are kept, so that a person can see them."""

    def some(record: Record) -> Draft | Skipped | None:
        number = int(record.value or b"0")
        if number % 3 == 0:
            return None
        return copy(record) if number % 3 == 1 else Skipped(kind="odd", why=f"it is {number}")

    world = World(9)
    progress = world.replaying(make=some).run(go())
    assert (progress.done, dict(progress.skipped), progress.looked) == (3, {"odd": 3}, 9)
    assert progress.reasons[0] == ("hw.dlq.a.v1:0@2", "it is 2")
    assert world.notes()[0].offsets == (1, 1, 4, 4, 7, 7)


def test_a_record_that_the_log_refuses_is_skipped_alone(monkeypatch):
    """The batch is halved down to it; the others go."""

    def large(record: Record) -> Draft:
        value = b"x" * 2_000_000 if record.value == b"3" else record.value
        return Draft(topic=TO, value=value, partition=0)

    world = World(8)
    progress = world.replaying(make=large).run(go())
    assert world.values() == [b"0", b"1", b"2", b"4", b"5", b"6", b"7"]
    assert (progress.done, dict(progress.skipped)) == (7, {"refused by the log": 1})
    assert world.replaying(make=large).run(go()).done == 0


def test_stretches_grow_while_records_are_small_and_transactions_short(monkeypatch):
    """The first is small; what it came to says how large the next may be."""
    monkeypatch.setattr(replaying, "_FIRST", 2)
    monkeypatch.setattr(replaying, "BATCH", 12)
    world = World(40)
    world.replaying().run(go())
    assert [note.next_offset for note in world.notes()] == [2, 10, 22, 34, 40]


@pytest.mark.parametrize(("bound", "value"), [("BATCH_BYTES", 3), ("BATCH_S", 1e-9)])
def test_stretches_shrink_where_one_was_too_much(monkeypatch, bound, value):
    """Control of the above: what a transaction may hold and how long it may take are bounds."""
    monkeypatch.setattr(replaying, "_FIRST", 5)
    monkeypatch.setattr(replaying, bound, value)
    world = World(9)
    world.replaying().run(go())
    assert world.values() == [str(number).encode() for number in range(9)]
    assert [note.next_offset for note in world.notes()][:2] == ([5, 8] if value == 3 else [5, 6])


def test_told_to_stop_while_nothing_comes_it_does(monkeypatch):
    """What it had begun is undone; begun again, it does all of it."""
    world, stop = World(2), go()
    transaction = world.log.hold([Draft(topic=FROM, value=b"2", partition=0)])

    def stopping(record: Record) -> Draft | Skipped | None:
        stop.set()
        return copy(record)

    one = world.replaying(make=stopping)
    one.run(stop)
    assert (one.progress.done, world.values(), world.notes()) == (0, [], [])
    assert one.preview(stop).done == 0
    transaction.commit()
    world.replaying().run(go())
    assert world.values() == [b"0", b"1", b"2"]


@pytest.mark.parametrize("verb", ["run", "preview"])
def test_what_breaks_in_reading_ends_it(monkeypatch, verb):
    """It is told as it is, and not taken for a commit that came to nothing and is tried again."""
    world = World(3)
    one = world.replaying()

    def broken(self, **_: int) -> None:
        raise TimeoutError("no such partition")

    monkeypatch.setattr(LocalReader, "poll", broken)
    monkeypatch.setattr(Ledger, "catch_up", lambda self: None)
    with pytest.raises(TimeoutError, match="no such partition"):
        getattr(one, verb)(go())


def test_only_some_offsets_are_looked_at():
    """Where places are named, nothing else is read."""
    world = World(9)
    progress = world.replaying(offsets=(2, 4)).run(go())
    assert world.values() == [b"2", b"3", b"4"]
    assert progress.total == 3
    assert World(0).replaying().run(go()).total == 0
    assert world.replaying(offsets=(50, 60)).run(go()).total == 0


def test_a_preview_counts_and_writes_nothing():
    """A dry run."""
    world = World(5)
    progress = world.replaying().preview(go())
    assert (progress.done, progress.looked) == (5, 5)
    assert world.values() == []
    assert world.notes() == []


def test_a_discard_notes_and_sends_nothing():
    """The note is all there is of it."""
    world = World(5)
    world.replaying(sends=False).run(go())
    assert world.values() == []
    assert world.notes()[0].offsets == (0, 4)


def test_partitions_follow_one_another():
    """Each in its own order."""
    world = World(6, partitions=2)
    world.replaying().run(go())
    assert world.values() == [b"0", b"2", b"4", b"1", b"3", b"5"]


def test_it_stops_when_it_is_told(monkeypatch):
    """At the end of a batch; the rest is done the next time."""
    monkeypatch.setattr(replaying, "BATCH", 2)
    world, stop = World(6), go()

    def stopping(record: Record) -> Draft | Skipped | None:
        if record.offset == 3:
            stop.set()
        return copy(record)

    world.replaying(make=stopping).run(stop)
    assert len(world.values()) == 4
    world.replaying().run(go())
    assert len(world.values()) == 6


def test_a_rate_bounds_the_batches():
    """No batch is larger than a second's worth, so no burst is."""
    world = World(30)
    stop = go()
    world.replaying(rate=2_000.0).run(stop)
    assert len(world.values()) == 30
    assert [len(note.offsets) // 2 for note in world.notes()] == [1]
    small = World(6)
    waits: list[float] = []

    class Hurried(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waits.append(timeout or 0.0)
            return False

    small.replaying(rate=3.0).run(Hurried())
    assert [note.offsets for note in small.notes()] == [(0, 2), (3, 5)]
    assert 0.9 < waits[0] <= 1 < waits[1] <= 2


def test_an_older_process_is_fenced():
    """The younger one carries the operation out; the older ends with a word about it."""
    world = World(6)
    younger = world.replaying()

    def overtaken(record: Record) -> Draft | Skipped | None:
        if record.offset == 0 and not world.values():
            younger.run(go())
        return copy(record)

    with pytest.raises(SettingsError):
        world.replaying(make=overtaken).run(go())
    assert world.values() == [str(number).encode() for number in range(6)]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
@pytest.mark.parametrize("same", [True, False], ids=["one-gateway", "two-gateways"])
@pytest.mark.parametrize("begun_at", range(7))
def test_two_operations_at_once_do_nothing_twice(control, same, begun_at, monkeypatch):
    """One that is begun while another is in the midst of the same records leaves what that has done.

    It is begun when the other has made, but not written, what a record leads to. In the control each
    writes under a name of its own, as if the records were its alone: letters are replayed as two tasks.
    """
    monkeypatch.setattr(replaying, "BATCH", 2)
    if control:
        alone(monkeypatch)
    world = World(7)
    ledger = Ledger(world.log, CODEC, AUDIT)
    other = world.replaying("b", ledger=ledger if same else None)
    begun = False

    def overtaken(record: Record) -> Draft | Skipped | None:
        nonlocal begun
        if record.offset == begun_at and not begun:
            begun = True
            other.run(go())
        return copy(record)

    one = world.replaying("a", make=overtaken, ledger=ledger)
    one.run(go())
    values = world.values()
    assert {*values} == {b"%d" % number for number in range(7)}
    assert (len(values) > 7) is control
    assert control or one.progress.done + other.progress.done == 7


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
@pytest.mark.parametrize("twice", [False, True], ids=["once", "twice"])
def test_what_was_done_while_a_producer_was_renewed_is_not_done_again(control, twice, monkeypatch):
    """After a refusal Kafka's owner makes a new producer, keeps its claims, and tries again, as here.

    Whoever wrote in between was not fenced by it. In the control nothing is learnt of it.
    """
    world = World(6)
    other = world.replaying("b")
    commit, refused = LocalOwner.commit, False

    def renewing(self: LocalOwner, work: Sequence[Work]) -> frozenset[Claim]:
        nonlocal refused
        if ".a/" not in self.who or refused:
            return commit(self, work)
        refused = True
        collections.deque(work[0].drafts, maxlen=0)
        other.run(go())
        if control:
            monkeypatch.setattr(Ledger, "_take", lambda *_: None)
        with self._cluster.changed:
            self._epoch = self._cluster.fence(self._writer)
        if twice:
            raise WorkRefusedError("too large")
        return commit(self, work)

    monkeypatch.setattr(LocalOwner, "commit", renewing)
    world.replaying("a").run(go())
    assert len(world.values()) == (12 if control else 6)


@pytest.mark.parametrize("seed", range(5))
def test_two_gateways_at_once_get_everything_done_once(seed, monkeypatch):
    """In threads: neither keeps the other from going on for ever, and nothing is done twice."""
    monkeypatch.setattr(replaying, "BATCH", 3)
    world = World(60, partitions=2)
    ones = [world.replaying(name) for name in ("a", "b", "c")]
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        done = [*pool.map(lambda one: one.run(go()).done, ones)]
    assert sorted(world.values(), key=int) == [b"%d" % number for number in range(60)]
    assert sum(done) == 60


def test_ranges_are_pairs():
    """First and last of each run of neighbours."""
    assert ranges([3, 4, 5, 9]) == (3, 5, 9, 9)
    assert ranges([]) == ()


def test_the_ledger_files_what_was_done_last():
    """A range over others counts where it lies, and leaves the rest."""
    log = World(0).log
    ledger = Ledger(log, CODEC, AUDIT)

    def did(action, *offsets: int, topic: str = FROM) -> None:
        operation = Operation(
            action=action, id=action, actor="a", at_ms=1, topic=topic, partition=0, offsets=offsets,
            next_offset=offsets[-1] + 1 if offsets else -1,
        )  # fmt: skip
        asyncio.run(log.append(Draft(topic=AUDIT, value=CODEC.encode(operation))))

    did("replay", 2, 5, 8, 9)
    did("discard", 4, 8)
    did("resume", 0, 0)
    did("discard", topic="")
    ledger.catch_up()
    place = Partition(FROM, 0)
    found = [ledger.of(place, offset) for offset in range(11)]
    assert [None if one is None else one.action[0] for one in found] == [
        "r", None, "r", "r", "d", "d", "d", "d", "d", "r", None,
    ]  # fmt: skip
    assert ledger.of(Partition("other", 0), 1) is None
    assert (ledger.looked("replay", place), ledger.looked("x", place)) == (10, 0)


def test_two_tenants_may_give_their_operations_the_same_name():
    """Neither is taken for the other's, which would leave it undone."""

    def wish(tenant: str) -> Wish:
        return Wish(
            verb="replay", letters=True, topics=(FROM,), wanted=Wanted(tenant=tenant), name="monday"
        )

    assert wish("one").id == wish("one").id != wish("other").id
