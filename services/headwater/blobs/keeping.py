"""Keeping: a process's way to the store of blobs, with threads to wait for it and a bounded memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from concurrent.futures import Executor, Future

from headwater.blobs.store import Store
from headwater.core.blobs import ref_of

INLINE_BYTES_MAX = 128 * 1024
BYTES_MAX = 16 * 1024 * 1024
CACHE_BYTES_MAX = 64 * 1024 * 1024
HELD_BYTES_MAX = 256 * 1024 * 1024


class Keeping:
    """Puts and gets off the caller's thread; what was put or got lately is at hand.

    Args:
        store: The store.
        inline_bytes_max: A larger value goes to the store.
        bytes_max: A larger value goes nowhere.
        cache_bytes_max: How much is remembered.
        held_bytes_max: How much a batch, or the calls under way, hold at once.
        executor: Where the waiting is done.
    """

    def __init__(
        self,
        store: Store,
        *,
        inline_bytes_max: int = INLINE_BYTES_MAX,
        bytes_max: int = BYTES_MAX,
        cache_bytes_max: int = CACHE_BYTES_MAX,
        held_bytes_max: int = HELD_BYTES_MAX,
        executor: Executor,
    ) -> None:
        self.store = store
        self.inline_bytes_max = inline_bytes_max
        self.bytes_max = bytes_max
        self.held_bytes_max = held_bytes_max
        self._cache_bytes_max = cache_bytes_max
        self._executor = executor
        self._lock = threading.Lock()
        self._values: OrderedDict[tuple[str, str], bytes] = OrderedDict()
        self._bytes = 0

    def put(self, tenant: str, value: bytes) -> Future[None]:
        """Keep a value; always asked of the store, which makes the blob young again."""
        return self._executor.submit(self._put, tenant, value)

    def get(self, tenant: str, name: str) -> Future[bytes]:
        """Return a value that is of its name."""
        with self._lock:
            value = self._values.get((tenant, name))
            if value is not None:
                self._values.move_to_end((tenant, name))
        if value is None:
            return self._executor.submit(self._get, tenant, name)
        future: Future[bytes] = Future()
        future.set_result(value)
        return future

    def _put(self, tenant: str, value: bytes) -> None:
        self.store.put(tenant, value)
        self._remember(tenant, ref_of(value).name, value)

    def _get(self, tenant: str, name: str) -> bytes:
        value = self.store.get(tenant, name)
        self._remember(tenant, name, value)
        return value

    def _remember(self, tenant: str, name: str, value: bytes) -> None:
        with self._lock:
            if (tenant, name) in self._values:
                return
            self._values[tenant, name] = value
            self._bytes += len(value)
            while self._bytes > self._cache_bytes_max:
                _, oldest = self._values.popitem(last=False)
                self._bytes -= len(oldest)
