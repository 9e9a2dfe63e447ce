"""Room: how many bytes of large values the calls under way may hold together."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator


class Room:
    """Lets calls in, in order, while their values fit; one that is larger than all goes alone.

    Args:
        bytes_max: How much there is.
    """

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._held = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()

    @contextlib.asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Hold so many bytes for the length of a block; wait for them first."""
        if not size:
            yield
            return
        if self._waiting or not self._fits(size):
            await self._turn(size)
        else:
            self._held += size
        try:
            yield
        finally:
            self._held -= size
            self._let_in()

    async def _turn(self, size: int) -> None:
        """Wait until it is this one's turn; the bytes are counted by whoever lets it in."""
        entry = (size, asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        try:
            await entry[1]
        except asyncio.CancelledError:
            if entry in self._waiting:
                self._waiting.remove(entry)
            else:
                self._held -= size
            self._let_in()
            raise

    def _let_in(self) -> None:
        while self._waiting and self._fits(self._waiting[0][0]):
            size, future = self._waiting.popleft()
            self._held += size
            if not future.done():
                future.set_result(None)

    def _fits(self, size: int) -> bool:
        return not self._held or self._held + size <= self._bytes_max
