"""Restoring: a gained partition's offset and rows, read off the consumer's thread."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

from headwater.contracts.records import Partition
from headwater.core.envelope import Coder
from headwater.errors import SettingsError
from headwater.log.port import Claim, Log, Reader
from headwater.runtime import doneset
from headwater.runtime.storing import AGE_S_MAX, Life, Stamp, Store, usable, wall_ms
from headwater.runtime.table import Restore, Table
from headwater.runtime.timers import Heap, Timers, armed

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
Add = Callable[[Sequence[bytes], Sequence[bytes | None]], None]
"""Takes the keys and the values of what was read."""

RECORDS_MAX = 500
"""So few that they are still in the processor's caches when they are filed."""
WAIT_MS = 200
FOLLOW_S_MAX = 30.0
_FOREVER_MS = 1 << 53


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A partition ready to go on: where to read, what is done beyond that, and the rows as of then.

    The timers are armed where the rows are read: a hundred thousand of them would make the loop stand
    still for the partitions it has. The partition need not wait for that either, so it is done last.
    """

    next_offset: int
    table: Table
    timers: Timers
    armed: concurrent.futures.Future[Heap]
    done: frozenset[int] = frozenset()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """Where restored rows are kept beside the process, and how closely that follows the log.

    Args:
        store: The store.
        follow_s: How often a partition's store catches up with the log, in seconds.
        age_s_max: Half of the state topics' `delete.retention.ms`, in seconds.
        clock: Wall clock in milliseconds.
    """

    store: Store
    follow_s: float = 60.0
    age_s_max: float = AGE_S_MAX
    clock: Callable[[], int] = wall_ms


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Kept:
    """What a partition's store had before the rest was read, and what was read since."""

    store: Store
    life: Life
    base: Stamp | None
    start: int
    began_ms: int
    changes: dict[bytes, bytes | None]
    add: Add


class Inline(concurrent.futures.Executor):
    """Runs at once, on the caller's thread: for one process that steps everything itself."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Run it now."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        _come_to(future, fn, *args, **kwargs)
        return future


def _come_to(
    future: concurrent.futures.Future[T], fn: Callable[P, T], *args: P.args, **kwargs: P.kwargs
) -> None:
    """Have a future tell what a call comes to."""
    try:
        future.set_result(fn(*args, **kwargs))
    except Exception as error:  # noqa: BLE001 - the future carries it to whoever asks
        future.set_exception(error)


class Restorer:
    """Restores gained claims while the loop goes on with the others.

    The offset is asked for before the end of the state topic is, so the rows are never older than
    the offset; an open transaction holds the read back until it has ended. Rows may come before
    either.

    Args:
        log: The log.
        group: The decider's group.
        state: The state topic, or `None` for a decider without rows.
        codec: Decodes rows.
        executor: Where the reading happens; `Inline()` for a single thread.
        local: Keeps rows beside the process, so that a restart reads the tail alone.
    """

    def __init__(
        self,
        log: Log,
        *,
        group: str,
        state: str | None,
        codec: Coder,
        executor: concurrent.futures.Executor,
        local: Local | None = None,
    ) -> None:
        self._log = log
        self._group = group
        self._state = state
        self._codec = codec
        self._executor = executor
        self._local = local
        self._pending: dict[Claim, concurrent.futures.Future[Restored]] = {}
        self._arming: dict[Claim, concurrent.futures.Future[Heap]] = {}
        self._followed_s: dict[Claim, float] = {}
        self._following: concurrent.futures.Future[None] | None = None

    def __len__(self) -> int:
        return len(self._pending) + len(self._arming)

    def begin(self, claim: Claim) -> None:
        """Start restoring a claim."""
        ready = self._pending[claim] = concurrent.futures.Future()
        self._executor.submit(self._restore, claim.partition, ready)

    def forget(self, claim: Claim) -> None:
        """The claim was lost: what is read of it is dropped."""
        self._pending.pop(claim, None)
        self._arming.pop(claim, None)
        self._followed_s.pop(claim, None)

    def done(self) -> list[tuple[Claim, Restored]]:
        """Return the claims that are ready; they count as restoring until their timers are armed.

        Raises:
            SettingsError, PoisonError: A claim cannot be restored; the process must stop.
        """
        self._follow_on()
        for claim in [claim for claim, armed_ in self._arming.items() if armed_.done()]:
            del self._arming[claim]
        ready = [claim for claim, future in self._pending.items() if future.done()]
        found = [(claim, self._pending.pop(claim).result()) for claim in ready]
        self._arming.update(
            (claim, restored.armed) for claim, restored in found if not restored.armed.done()
        )
        self._followed_s.update((claim, time.monotonic()) for claim in ready)
        return found

    def _restore(self, partition: Partition, ready: concurrent.futures.Future[Restored]) -> None:
        """Restore a partition, then arm its timers on this thread while the loop goes on with it."""
        restore = Restore(self._codec)
        _come_to(ready, self._restored, partition, restore)
        if ready.exception() is None:
            _come_to(ready.result().armed, lambda: armed(restore.dues()))

    def _restored(self, partition: Partition, restore: Restore) -> Restored:
        if self._state is None:
            next_offset, done = self._reached(partition)
        else:
            place = Partition(self._state, partition.number)
            kept = None if self._local is None else self._kept(self._local, place, restore)
            with contextlib.closing(self._log.read({place: kept.start if kept else 0})) as reader:
                # The client fetches rows while the offset is asked for; the end is taken after it.
                next_offset, done = self._reached(partition)
                reader.until_now()
                end = self._read(reader, place, kept.add if kept else restore.add)
            assert end is not None, "nothing bounds this read"
            if kept:
                self._keep(kept, restore, end)
        table, later = restore.table(), concurrent.futures.Future[Heap]()
        timers = Timers(table, later)
        return Restored(next_offset=next_offset, table=table, timers=timers, armed=later, done=done)

    def _reached(self, partition: Partition) -> tuple[int, frozenset[int]]:
        """Return where reading goes on, and what is done beyond that."""
        next_offset, metadata = self._log.committed(self._group, partition)
        try:
            return next_offset, doneset.decode(next_offset, metadata)
        except doneset.UndecodableError as error:
            raise SettingsError(
                f"what {self._group} has done of {partition} beyond offset {next_offset} cannot be read "
                f"({error}), and no turn may be taken twice: run the version that wrote it"
            ) from error

    def _read(
        self, reader: Reader, place: Partition, add: Add, *, until_s: float = 0
    ) -> int | None:
        """Read up to the end; return what comes next, `None` if the end was not reached by `until_s`."""
        while not reader.at_end:
            if until_s and time.monotonic() > until_s:
                return None
            add(*reader.pairs(records_max=RECORDS_MAX, wait_ms=WAIT_MS))
        return reader.next_offset(place)

    def _kept(self, local: Local, place: Partition, restore: Restore) -> _Kept:
        """Begin with what the store has, if it can be used."""
        life = Life(place=place, topic_id=self._log.topic_id(place.topic))
        now_ms = local.clock()
        base, start = None, 0
        if (kept := local.store.load(life)) is not None:
            base, rows = kept
            end = self._log.offset_at(place, _FOREVER_MS)
            if why := usable(base, end=end, now_ms=now_ms, age_s_max=local.age_s_max):
                local.store.discard(life, why)
                base = None
            else:
                restore.begin(rows)
                start = base.next_offset
        changes: dict[bytes, bytes | None] = {}

        def add(keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
            restore.add(keys, values)
            changes.update(zip(keys, values, strict=True))

        return _Kept(
            store=local.store,
            life=life,
            base=base,
            start=start,
            began_ms=now_ms,
            changes=changes,
            add=restore.add if base is None else add,
        )

    def _keep(self, kept: _Kept, restore: Restore, end: int) -> None:
        """Keep what was read."""
        stamp = Stamp(next_offset=max(kept.start, end), caught_up_ms=kept.began_ms)
        if kept.base is None:
            self._executor.submit(kept.store.replace, kept.life, restore.rows(), stamp)
        else:
            self._executor.submit(kept.store.advance, kept.life, kept.base, kept.changes, stamp)

    def _follow_on(self) -> None:
        """Let one partition's store catch up, off this thread, if it is time."""
        local = self._local
        if local is None or self._state is None:
            return
        if self._following is not None:
            if not self._following.done():
                return
            if (error := self._following.exception()) is not None:
                logger.warning("a local store of %s fell behind: %s", self._state, error)
            self._following = None
        now_s = time.monotonic()
        for claim, followed_s in self._followed_s.items():
            if now_s - followed_s >= local.follow_s:
                self._followed_s[claim] = now_s
                place = Partition(self._state, claim.partition.number)
                self._following = self._executor.submit(self._follow, local, place)
                return

    def _follow(self, local: Local, place: Partition) -> None:
        """Take into a store what was committed since its stamp."""
        life = Life(place=place, topic_id=self._log.topic_id(place.topic))
        now_ms = local.clock()
        base = local.store.stamp(life)
        if base is None:
            return
        changes: dict[bytes, bytes | None] = {}

        def add(keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
            changes.update(zip(keys, values, strict=True))

        until_s = time.monotonic() + FOLLOW_S_MAX
        with contextlib.closing(self._log.read({place: base.next_offset})) as reader:
            next_offset = self._read(reader, place, add, until_s=until_s)
        if next_offset is not None:
            stamp = Stamp(next_offset=max(base.next_offset, next_offset), caught_up_ms=now_ms)
            local.store.advance(life, base, changes, stamp)
