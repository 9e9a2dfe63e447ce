"""Values by reference: fetched before the turns that need them, put before the commit that sends them."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

from headwater.contracts.messages import BlobRef
from headwater.contracts.records import Record
from headwater.core.blobs import Blobs, needed_by
from headwater.core.decider import Turn
from headwater.core.messages import Meta
from headwater.errors import BlobLostError, PoisonError, TransientError

logger = logging.getLogger(__name__)

PUT_S_MAX = 30.0
"""How long a commit waits for its values; then their turns are taken again later."""
AHEAD_BYTES_MAX = 16 * 1024 * 1024
"""How much more is fetched for the records behind one that waits for a value."""

Fetched = bytes | BlobLostError
_Wanted = tuple[str, str]


class Fetch:
    """What one partition's next turn needs, on its way."""

    __slots__ = ("_pending", "_values")

    def __init__(self) -> None:
        self._pending: dict[_Wanted, Future[bytes]] = {}
        self._values: dict[_Wanted, Fetched] = {}

    def begin(self, blobs: Blobs | None, tenant: str, names: Iterable[str]) -> None:
        """Ask for values besides those that are here.

        Raises:
            TransientError: This process has no store of blobs.
        """
        if blobs is None:
            raise TransientError(
                "a value is in a store of blobs, and this process has none: set HEADWATER_BLOBS__URL "
                "to the one of the other processes"
            )
        for name in names:
            if (tenant, name) not in self._values and (tenant, name) not in self._pending:
                self._pending[tenant, name] = blobs.get(tenant, name)

    @staticmethod
    def ahead(blobs: Blobs | None, wanted: Iterable[tuple[str, BlobRef]]) -> None:
        """Have values on their way for later turns, which find them in the process's memory."""
        left = AHEAD_BYTES_MAX
        for tenant, ref in wanted:
            left -= ref.size
            if blobs is None or left < 0:
                return
            blobs.get(tenant, ref.name)

    @property
    def pending(self) -> bool:
        """Whether one of them is still on its way."""
        return any(not future.done() for future in self._pending.values())

    def take(self) -> None:
        """Take what has come.

        Raises:
            TransientError: The store is away; what did come is kept.
        """
        away: TransientError | None = None
        for wanted, future in self._pending.items():
            try:
                self._values[wanted] = future.result()
            except BlobLostError as error:
                logger.error("%s", error)  # noqa: TRY400 - the words say all
                self._values[wanted] = error
            except TransientError as error:
                away = error
        self._pending.clear()
        if away is not None:
            raise away

    def get(self, tenant: str, name: str) -> Fetched | None:
        """Return a value that has come."""
        return self._values.get((tenant, name))


class Puts:
    """Values that a batch has to have in the store before it commits."""

    __slots__ = ("_bytes", "_futures", "full")

    def __init__(self) -> None:
        self._futures: list[Future[None]] = []
        self._bytes = 0
        self.full = False
        """Whether the batch is to commit before it takes more."""

    def __bool__(self) -> bool:
        return bool(self._futures)

    def begin(self, blobs: Blobs | None, turn: Turn) -> None:
        """Begin to put what a turn keeps; later turns go on meanwhile."""
        assert blobs is not None, "a decider keeps values only where there is a store"
        for value in turn.kept.values():
            self._futures.append(blobs.put(turn.meta.tenant, value))
            self._bytes += len(value)
        self.full = self._bytes >= blobs.held_bytes_max

    def wait(self, until_s: float) -> None:
        """Wait until all is durable, at most until then (monotonic).

        Raises:
            TransientError: The store is away, or too slow.
        """
        done, late = concurrent.futures.wait(
            self._futures, timeout=max(0.0, until_s - time.monotonic())
        )
        for future in done:
            future.result()
        if late:
            raise TransientError(f"the store of blobs took over {PUT_S_MAX:g} s to keep a value")


def needs(
    records: Iterable[Record], opener: Callable[[Record], tuple[Meta, Any]]
) -> Iterator[tuple[str, BlobRef]]:
    """Yield the tenant and value that each record needs; one that cannot be read needs nothing yet."""
    for record in records:
        try:
            meta, message = opener(record)
        except PoisonError:
            continue
        for ref in needed_by(message):
            yield meta.tenant, ref
