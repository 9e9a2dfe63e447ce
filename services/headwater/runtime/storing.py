"""Storing: a partition's rows beside the process, so that a restart reads only the tail.

What is kept is disposable. The changelog is the truth: whatever is wrong with a store, it is
thrown away with a warning, and the rows come from the log.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import shutil
import struct
import threading
import time
from collections.abc import Callable, Mapping
from typing import Protocol, TypeVar, cast

from rocksdict import Options, Rdict, WriteBatch

from headwater.contracts.records import Partition

T = TypeVar("T")

logger = logging.getLogger(__name__)

AGE_S_MAX = 12 * 3_600
"""Half of Kafka's default `delete.retention.ms`: an older store may miss tombstones."""

_STAMP = b"\x00stamp"  # no row's key begins so: a row's begins with the name of its kind
_FORMAT = struct.Struct(">BQQ")
_VERSION = 1
_ROWS_MAX = 10_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """Which life of which partition of a state topic is meant.

    Args:
        place: The partition.
        topic_id: The topic's id; a recreated topic has another.
    """

    place: Partition
    topic_id: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """How far a store has come.

    Args:
        next_offset: The first offset of the state topic that is not in it.
        caught_up_ms: When it last held everything that was committed, by the wall clock.
    """

    next_offset: int
    caught_up_ms: int


class Store(Protocol):
    """Keeps encoded rows per partition; it never raises, for it can always be done without."""

    def stamp(self, life: Life) -> Stamp | None:
        """Return how far the store has come, or `None` where there is nothing to be used."""
        ...

    def load(self, life: Life) -> tuple[Stamp, dict[bytes, bytes]] | None:
        """Return the stamp and the rows as of it, or `None` where there is nothing to be used."""
        ...

    def replace(self, life: Life, rows: Mapping[bytes, bytes], stamp: Stamp) -> None:
        """Keep these rows instead of whatever was there."""
        ...

    def advance(
        self, life: Life, base: Stamp, changes: Mapping[bytes, bytes | None], stamp: Stamp
    ) -> None:
        """Bring rows from one stamp to another, all or none; unless another was quicker."""
        ...

    def discard(self, life: Life, why: str) -> None:
        """Throw away what is kept of a partition, and say why."""
        ...


class RocksStore:
    """A store in RocksDB: a directory per partition and life of the topic.

    A store is open only while it is used, under a lock, so two loops of one process never meet.
    One that broke is not used again until the process starts anew: no crash loop, one warning.

    Args:
        path: Where; for one instance alone.
        bytes_max: Largest size of all partitions together; the stalest go first.
    """

    def __init__(self, path: pathlib.Path, *, bytes_max: int) -> None:
        self._path = path
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._broken: set[Life] = set()

    def stamp(self, life: Life) -> Stamp | None:
        """Return how far the store has come; see `Store`."""
        return self._using(life, _stamp)

    def load(self, life: Life) -> tuple[Stamp, dict[bytes, bytes]] | None:
        """Return the stamp and the rows as of it; see `Store`."""

        def read(store: Rdict) -> tuple[Stamp, dict[bytes, bytes]] | None:
            stamp = _stamp(store)
            if stamp is None:
                return None
            rows = cast("dict[bytes, bytes]", dict(store.items()))
            if _last(store) not in rows:
                raise OSError("not all of its rows can be read")
            del rows[_STAMP]
            return stamp, rows

        return self._using(life, read)

    def replace(self, life: Life, rows: Mapping[bytes, bytes], stamp: Stamp) -> None:
        """Keep these rows instead of whatever was there; without its stamp a store counts as none."""

        def write(store: Rdict) -> None:
            items = [*rows.items()]
            for start in range(0, len(items), _ROWS_MAX):
                self._write(store, dict(items[start : start + _ROWS_MAX]), None)
            self._write(store, {}, stamp)

        self._using(life, write, afresh=True)
        self._bound(life)

    def advance(
        self, life: Life, base: Stamp, changes: Mapping[bytes, bytes | None], stamp: Stamp
    ) -> None:
        """Bring rows from one stamp to another, in one write; see `Store`."""

        def write(store: Rdict) -> None:
            if _stamp(store) == base:
                self._write(store, changes, stamp)

        self._using(life, write)
        self._bound(life)

    def discard(self, life: Life, why: str) -> None:
        """Throw away what is kept of a partition, and say why."""
        logger.warning("the local store of %s is thrown away: %s", life.place, why)
        with self._lock:
            shutil.rmtree(self._directory(life), ignore_errors=True)

    def _write(
        self, store: Rdict, changes: Mapping[bytes, bytes | None], stamp: Stamp | None
    ) -> None:
        """Write rows and how far they go in one batch: a stamp ahead of its rows would lose them."""
        batch = WriteBatch(raw_mode=True)
        for key, value in changes.items():
            if value is None:
                batch.delete(key)
            else:
                batch.put(key, value)
        if stamp is not None:
            batch.put(_STAMP, _FORMAT.pack(_VERSION, stamp.next_offset, stamp.caught_up_ms))
        store.write(batch)

    def _using(self, life: Life, use: Callable[[Rdict], T], *, afresh: bool = False) -> T | None:
        """Open a store, use it, close it; one that breaks is thrown away, and `None` comes back.

        What is to be afresh has nothing of what another thread has written since it was asked for.
        """
        directory = self._directory(life)
        with self._lock:
            if life in self._broken or not (afresh or directory.exists()):
                return None
            try:
                if afresh:
                    self._remove_lives(life.place)
                directory.mkdir(parents=True, exist_ok=True)
                store = Rdict(str(directory), _options())
                try:
                    return use(store)
                finally:
                    store.close()
            except Exception as error:  # noqa: BLE001 - rocksdict raises plain Exception for all that can be wrong
                self._broken.add(life)
                logger.warning(
                    "the local store of %s is thrown away, and not used until the next start: %s",
                    life.place,
                    error,
                )
                shutil.rmtree(directory, ignore_errors=True)
                return None

    def _bound(self, life: Life) -> None:
        """Make room: stores that were not used for longest go first, this one last."""
        with self._lock:
            mine = self._directory(life)
            found = [one for one in self._path.glob("*/*/*") if one.is_dir()]
            sizes = {one: _size(one) for one in found}
            total = sum(sizes.values())
            for one in sorted(found, key=lambda one: (one == mine, _used_ns(one))):
                if total <= self._bytes_max:
                    return
                logger.warning(
                    "the local stores are over %d bytes: %s goes; see HEADWATER_STORE__BYTES_MAX",
                    self._bytes_max,
                    one,
                )
                shutil.rmtree(one, ignore_errors=True)
                total -= sizes[one]

    def _remove_lives(self, place: Partition) -> None:
        for one in (self._path / place.topic).glob(f"*/{place.number}"):
            shutil.rmtree(one, ignore_errors=True)

    def _directory(self, life: Life) -> pathlib.Path:
        return self._path / life.place.topic / life.topic_id / str(life.place.number)


def usable(stamp: Stamp, *, end: int, now_ms: int, age_s_max: float) -> str:
    """Say why a store cannot be used; empty if it can.

    Args:
        stamp: The store's.
        end: The state topic's end.
        now_ms: Wall clock.
        age_s_max: Half of the topic's `delete.retention.ms`, in seconds.
    """
    if stamp.next_offset > end:
        return f"it goes to offset {stamp.next_offset}, and the topic ends at {end}"
    if now_ms - stamp.caught_up_ms > age_s_max * 1000:
        hours = (now_ms - stamp.caught_up_ms) / 3_600_000
        return f"it caught up {hours:.1f} hours ago, and tombstones may be gone since"
    return ""


def wall_ms() -> int:
    """Return the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


def _options() -> Options:
    options = Options(raw_mode=True)
    options.set_keep_log_file_num(2)  # each opening begins one, and every follow opens
    return options


def _stamp(store: Rdict) -> Stamp | None:
    found = store.get(_STAMP)
    if found is None:
        return None
    version, next_offset, caught_up_ms = _FORMAT.unpack(found)
    if version != _VERSION:
        return None
    return Stamp(next_offset=next_offset, caught_up_ms=caught_up_ms)


def _last(store: Rdict) -> bytes | None:
    """Return the last key: going through the rows ends without a word where one cannot be read."""
    at = store.iter()
    at.seek_to_last()
    return cast("bytes", at.key()) if at.valid() else None


def _size(directory: pathlib.Path) -> int:
    total = 0
    for one in directory.iterdir():
        with contextlib.suppress(FileNotFoundError):  # RocksDB removes what it has merged
            total += one.stat().st_size
    return total


def _used_ns(directory: pathlib.Path) -> int:
    return directory.stat().st_mtime_ns
