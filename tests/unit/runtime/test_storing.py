"""The local store: what is kept beside the process is used only if nothing can be missing from it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import logging
import pathlib
import random
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.records import Draft, Partition
from headwater.core.keys import row_key
from headwater.core.messages import Key
from headwater.log.local import LocalLog
from headwater.log.port import Claim
from headwater.runtime import storing
from headwater.runtime.restoring import Inline, Local, Restored, Restorer
from headwater.runtime.storing import Life, RocksStore, Stamp

INBOX = Partition("in", 0)
PLACE = Partition("state", 0)
CLAIM = Claim(INBOX, 1)
BYTES_MAX = 1 << 30


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A row."""

    name: str
    number: int = 0

    @property
    def key(self) -> Key:
        """By its name."""
        return (self.name,)


CODEC = Codec(Schemas(), (Count,))


class Bench:
    """A state topic, a store, and restorers as processes start one after the other."""

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        self.now_ms = 1_000_000
        self.log = LocalLog(clock=lambda: self.now_ms)
        self.log.create("in")
        self.log.create("state", compacted=True)
        self.log.begin_group("g", ["in"])
        self.starts: list[int] = []
        self.store = RocksStore(path, bytes_max=BYTES_MAX)
        self._read = self.log.read
        self.log.read = self._noted  # type: ignore[method-assign] # still the log's own read

    def _noted(self, starts):  # type: ignore[no-untyped-def] # passed through
        self.starts += starts.values()
        return self._read(starts)

    def put(self, *rows: Count, dropped: str = "") -> None:
        """Write rows, or the end of one."""
        for row in rows:
            self._append(row.name, CODEC.encode(row))
        if dropped:
            self._append(dropped, None)

    def _append(self, name: str, value: bytes | None) -> None:
        draft = Draft(topic="state", partition=0, key=row_key("Count", (name,)), value=value)
        asyncio.run(self.log.append(draft))

    def restorer(self, *, follow_s: float = 1e9, executor: Inline | None = None) -> Restorer:
        """Return what a process that starts now restores with."""
        local = Local(store=self.store, follow_s=follow_s, clock=lambda: self.now_ms)
        return Restorer(
            self.log,
            group="g",
            state="state",
            codec=CODEC,
            executor=executor or Inline(),
            local=local,
        )

    def restart(self) -> list[Count]:
        """Start anew with what the disk has; return the rows."""
        self.store = RocksStore(self.path, bytes_max=BYTES_MAX)
        return rows(self.restorer())

    @property
    def life(self) -> Life:
        """The partition's."""
        return Life(place=PLACE, topic_id=self.log.topic_id("state"))


def rows(restorer: Restorer) -> list[Count]:
    """Restore the partition."""
    restorer.begin(CLAIM)
    ((_, restored),) = restorer.done()
    assert isinstance(restored, Restored)
    return [*restored.table.scan(Count)]


class Later(Inline):
    """Writes stores when it is told to, which may be long after their rows were restored."""

    def __init__(self) -> None:
        self.left: list[Callable[[], object]] = []

    def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def] # as its base
        """Run it now, or keep it."""
        if fn.__name__ != "replace":
            return super().submit(fn, *args, **kwargs)
        self.left.append(functools.partial(fn, *args, **kwargs))
        return concurrent.futures.Future()


@pytest.fixture
def bench(tmp_path: pathlib.Path) -> Bench:
    """Return a bench of its own."""
    return Bench(tmp_path / "store")


def test_a_restart_reads_only_the_tail(bench: Bench) -> None:
    """The store's rows and the records after its stamp are all the rows there are."""
    bench.put(Count(name="a"), Count(name="b"), Count(name="c"))
    assert [row.name for row in bench.restart()] == ["a", "b", "c"]
    bench.put(Count(name="a", number=2), dropped="b")
    assert bench.restart() == [Count(name="a", number=2), Count(name="c")]
    assert bench.restart() == [Count(name="a", number=2), Count(name="c")]
    assert bench.starts == [0, 3, 5]


def test_rows_that_are_asked_for_before_the_store_is_written_are_in_it(bench: Bench) -> None:
    """What a loop takes out of a restored table is no less part of what was read."""
    bench.put(Count(name="a"), Count(name="b"))
    later = Later()
    assert len(rows(bench.restorer(executor=later))) == 2
    (write,) = later.left
    write()
    assert [row.name for row in bench.restart()] == ["a", "b"]
    assert bench.starts == [0, 2]


def test_the_store_follows_what_is_committed_meanwhile(bench: Bench) -> None:
    """A long life leaves a short tail."""
    bench.put(Count(name="a"))
    restorer = bench.restorer(follow_s=0)
    rows(restorer)
    bench.put(Count(name="b"))
    restorer.done()
    restorer.forget(CLAIM)
    restorer.done()
    assert [row.name for row in bench.restart()] == ["a", "b"]
    assert bench.starts == [0, 1, 2]


def test_a_follow_that_failed_is_said_and_stops_nobody(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store only falls behind."""
    restorer = bench.restorer(follow_s=0)
    rows(restorer)

    def refuse(_: object) -> None:
        raise OSError("no")

    with monkeypatch.context() as patch:
        patch.setattr(bench.log, "read", refuse)
        restorer.done()
    restorer.done()
    assert "fell behind: no" in caplog.text


def test_a_follow_that_takes_too_long_is_given_up(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A log that is away holds no thread for ever; the stamp stays where it was."""
    restorer = bench.restorer(follow_s=0)
    rows(restorer)
    bench.put(Count(name="a"))
    monkeypatch.setattr("headwater.runtime.restoring.FOLLOW_S_MAX", -1.0)
    restorer.done()
    stamp = bench.store.stamp(bench.life)
    assert stamp is not None
    assert stamp.next_offset == 0


def test_one_follow_at_a_time(bench: Bench) -> None:
    """What follows never takes all the threads that restore."""
    calls: list[concurrent.futures.Future[None]] = []

    class Later(concurrent.futures.Executor):
        def submit(self, fn, /, *args, **kwargs):  # type: ignore[no-untyped-def] # never runs it
            calls.append(concurrent.futures.Future())
            return calls[-1]

    restorer = bench.restorer(follow_s=0)
    rows(restorer)
    restorer._executor = Later()
    restorer.done()
    restorer.done()
    assert len(calls) == 1


def test_without_a_store_a_follow_does_nothing(bench: Bench) -> None:
    """A store that is gone stays gone until the partition is restored again."""
    restorer = bench.restorer(follow_s=0)
    rows(restorer)
    shutil.rmtree(bench.path)
    restorer.done()
    assert bench.store.stamp(bench.life) is None


def test_a_store_older_than_tombstones_live_is_thrown_away(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Compaction may have taken the tombstone of a row that the store still has."""
    bench.put(Count(name="a"), Count(name="b"))
    bench.restart()
    bench.put(dropped="a")
    bench.now_ms += storing.AGE_S_MAX * 1000 + 1
    bench.log.compact("state", tombstone_ms=0)
    assert bench.restart() == [Count(name="b")]
    assert "12.0 hours ago" in caplog.text


def test_an_old_store_that_was_used_would_bring_a_dropped_row_back(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the age."""
    bench.put(Count(name="a"), Count(name="b"))
    bench.restart()
    bench.put(dropped="a")
    bench.now_ms += storing.AGE_S_MAX * 1000 + 1
    bench.log.compact("state", tombstone_ms=0)
    monkeypatch.setattr("headwater.runtime.restoring.usable", lambda *_, **__: "")
    assert bench.restart() == [Count(name="a"), Count(name="b")]


def test_a_stamp_beyond_the_topics_end_is_thrown_away(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A topic that lost its end has other records where the store's were."""
    bench.put(Count(name="a"))
    stamp = Stamp(next_offset=9, caught_up_ms=bench.now_ms)
    bench.store.replace(bench.life, {row_key("Count", ("z",)): b"z"}, stamp)
    assert bench.restart() == [Count(name="a")]
    assert "the topic ends at 1" in caplog.text


def test_another_life_of_the_topic_does_not_see_the_store(bench: Bench) -> None:
    """A recreated topic begins from nothing, and what was kept of its former life goes."""
    bench.put(Count(name="a"))
    bench.restart()
    other = Life(place=PLACE, topic_id="another")
    assert bench.store.load(other) is None
    bench.store.replace(other, {}, Stamp(next_offset=0, caught_up_ms=0))
    assert bench.store.load(bench.life) is None


def test_a_stamp_that_is_not_written_with_its_rows_loses_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control of the one write: the stamp first, a crash between, and rows are lost."""
    bench.put(Count(name="a"))
    bench.restart()
    bench.put(Count(name="b"))
    write = RocksStore._write

    def torn(self, store, changes, stamp):  # type: ignore[no-untyped-def] # as the method it replaces
        write(self, store, {}, stamp)

    with monkeypatch.context() as patch:
        patch.setattr(RocksStore, "_write", torn)
        assert bench.restart() == [Count(name="a"), Count(name="b")]
    assert bench.restart() == [Count(name="a")]


def test_rows_without_their_stamp_count_as_none(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that dies while it writes a store leaves one that is not used."""
    bench.put(Count(name="a"), Count(name="b"))
    write = RocksStore._write

    def dies(self, store, changes, stamp):  # type: ignore[no-untyped-def] # as the method it replaces
        write(self, store, changes, None)

    with monkeypatch.context() as patch:
        patch.setattr(RocksStore, "_write", dies)
        bench.restart()
    assert bench.restart() == [Count(name="a"), Count(name="b")]
    assert bench.starts == [0, 0]


def test_a_broken_store_is_thrown_away_and_left_alone(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """Rows come from the log; one warning, and no second try until the next start."""
    bench.put(Count(name="a"))
    bench.restart()
    (current,) = bench.path.glob("*/*/*/CURRENT")
    current.write_text("nonsense\n")
    caplog.set_level(logging.WARNING)
    assert bench.restart() == [Count(name="a")]
    assert caplog.text.count("not used until the next start") == 1
    assert rows(bench.restorer()) == [Count(name="a")]
    assert caplog.text.count("not used until the next start") == 1
    assert bench.restart() == [Count(name="a")]
    assert bench.starts == [0, 0, 0, 0]


@pytest.mark.parametrize("place", [0.01, 0.3, 0.6, 0.9])
def test_a_store_of_which_some_rows_cannot_be_read_is_not_used(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, place: float
) -> None:
    """A bit that a disk has lost costs the store, never a row: those behind it would be missing."""
    life, stamp = Life(place=PLACE, topic_id="t"), Stamp(next_offset=1, caught_up_ms=1)
    kept = {b"%05d" % n: random.Random(n).randbytes(100) for n in range(2_000)}
    store = RocksStore(tmp_path, bytes_max=BYTES_MAX)
    store.replace(life, kept, stamp)
    assert store.load(life) == (stamp, kept)
    file = max(tmp_path.glob("*/*/*/*.sst"), key=lambda one: one.stat().st_size)
    data = bytearray(file.read_bytes())
    data[int(len(data) * place)] ^= 1
    file.write_bytes(data)
    assert RocksStore(tmp_path, bytes_max=BYTES_MAX).load(life) is None
    assert "thrown away" in caplog.text


def test_a_directory_that_cannot_be_written_costs_nothing_but_the_store(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    """A full or read-only disk never keeps a partition from its rows."""
    bench.put(Count(name="a"))
    bench.path.write_text("a file where the directory should be")
    assert bench.restart() == [Count(name="a")]
    assert "thrown away" in caplog.text


def test_stores_over_the_bound_go_stalest_first(tmp_path: pathlib.Path) -> None:
    """The size of all of them together is bounded, and what was just written goes last."""
    wide = RocksStore(tmp_path, bytes_max=BYTES_MAX)
    stamp = Stamp(next_offset=1, caught_up_ms=1)
    lives = [Life(place=Partition("state", n), topic_id="x") for n in range(2)]
    wide.replace(lives[0], {b"k": b"v" * 1_000}, stamp)
    (one,) = tmp_path.glob("*/*/*")
    size = sum(file.stat().st_size for file in one.iterdir())
    narrow = RocksStore(tmp_path, bytes_max=size * 3 // 2)
    narrow.replace(lives[1], {b"k": b"v" * 1_000}, stamp)
    assert narrow.load(lives[0]) is None
    assert narrow.load(lives[1]) is not None


def test_a_store_keeps_two_logs_of_its_own(tmp_path: pathlib.Path) -> None:
    """Each opening begins one: by default a thousand would stay, and count against the bound."""
    store = RocksStore(tmp_path, bytes_max=BYTES_MAX)
    life = Life(place=PLACE, topic_id="x")
    store.replace(life, {b"a": b"0"}, Stamp(next_offset=0, caught_up_ms=0))
    for _ in range(8):
        assert store.load(life) is not None
    (directory,) = tmp_path.glob("*/*/*")
    assert len([*directory.glob("LOG*")]) == 2


def test_a_later_write_from_an_old_base_is_not_taken(tmp_path: pathlib.Path) -> None:
    """Of two that read on from one stamp, the second would take the store back."""
    store = RocksStore(tmp_path, bytes_max=BYTES_MAX)
    life = Life(place=PLACE, topic_id="x")
    stamps = [Stamp(next_offset=n, caught_up_ms=n) for n in range(3)]
    store.replace(life, {b"a": b"0"}, stamps[0])
    store.advance(life, stamps[0], {b"a": b"2"}, stamps[2])
    store.advance(life, stamps[0], {b"a": b"1"}, stamps[1])
    assert store.load(life) == (stamps[2], {b"a": b"2"})


def test_two_that_replace_at_once_leave_the_rows_of_one(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A claim that is lost and gained before its store was written is restored twice, on two threads.

    What the second found dropped must not come back with what the first had.
    """
    store, life = RocksStore(tmp_path, bytes_max=BYTES_MAX), Life(place=PLACE, topic_id="t")
    using = store._using
    first = [lambda: store.replace(life, {b"a": b"1"}, Stamp(next_offset=1, caught_up_ms=1))]

    def overtaken(*args: Any, **options: Any) -> Any:
        if first:
            first.pop()()
        return using(*args, **options)

    monkeypatch.setattr(store, "_using", overtaken)
    second = Stamp(next_offset=2, caught_up_ms=1)
    store.replace(life, {b"b": b"1"}, second)
    assert store.load(life) == (second, {b"b": b"1"})


def test_a_store_that_followed_just_now_waits_its_time(bench: Bench) -> None:
    """Following costs a read of the log, so it happens once in a while."""
    restorer = bench.restorer()
    rows(restorer)
    restorer.done()
    assert bench.starts == [0]
