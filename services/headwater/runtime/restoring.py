"""Restoring: a gained partition's offset and rows, read off the consumer's thread."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from headwater.contracts.records import Partition
from headwater.core.envelope import Coder
from headwater.log.port import Claim, Log
from headwater.runtime.table import Restore, Table

P = ParamSpec("P")
T = TypeVar("T")

RECORDS_MAX = 5_000
WAIT_MS = 200


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Restored:
    """A partition ready to go on: the offset to read next, and its rows as of that offset."""

    next_offset: int
    table: Table


class Inline(concurrent.futures.Executor):
    """Runs at once, on the caller's thread: for one process that steps everything itself."""

    def submit(
        self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs
    ) -> concurrent.futures.Future[T]:
        """Run it now."""
        future: concurrent.futures.Future[T] = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - the future carries it to whoever asks
            future.set_exception(error)
        return future


class Restorer:
    """Restores gained claims while the loop goes on with the others.

    The offset is read first and the end of the state topic after it, so the rows are never older
    than the offset; an open transaction holds the read back until it has ended.

    Args:
        log: The log.
        group: The decider's group.
        state: The state topic, or `None` for a decider without rows.
        codec: Decodes rows.
        executor: Where the reading happens; `Inline()` for a single thread.
    """

    def __init__(
        self,
        log: Log,
        *,
        group: str,
        state: str | None,
        codec: Coder,
        executor: concurrent.futures.Executor,
    ) -> None:
        self._log = log
        self._group = group
        self._state = state
        self._codec = codec
        self._executor = executor
        self._pending: dict[Claim, concurrent.futures.Future[Restored]] = {}

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, claim: Claim) -> None:
        """Start restoring a claim."""
        self._pending[claim] = self._executor.submit(self._restore, claim.partition)

    def forget(self, claim: Claim) -> None:
        """The claim was lost: what is read of it is dropped."""
        self._pending.pop(claim, None)

    def done(self) -> list[tuple[Claim, Restored]]:
        """Return the claims that are ready.

        Raises:
            SettingsError, PoisonError: A claim cannot be restored; the process must stop.
        """
        ready = [claim for claim, future in self._pending.items() if future.done()]
        return [(claim, self._pending.pop(claim).result()) for claim in ready]

    def _restore(self, partition: Partition) -> Restored:
        next_offset, _ = self._log.committed(self._group, partition)
        restore = Restore(self._codec)
        if self._state is not None:
            reader = self._log.read({Partition(self._state, partition.number): 0})
            try:
                while not reader.at_end:
                    restore.add(reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS))
            finally:
                reader.close()
        return Restored(next_offset=next_offset, table=restore.table())
