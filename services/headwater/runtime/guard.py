"""The guard of a process: its posts, who is suspected, and where suspects are tried."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Sequence

from headwater.core.effector import Effector
from headwater.runtime.apart import Apart
from headwater.runtime.guarding import Guarded
from headwater.runtime.lines import Line
from headwater.runtime.posts import Accusation, Posts
from headwater.runtime.suspects import Suspects


class Guard:
    """What keeps one record from taking everything else down again and again.

    Args:
        posts: The posts of this process.
        suspects: Who is suspected.
        open_cell: Has a cell forked.
        cells_max: Most cells at once.
    """

    def __init__(
        self,
        posts: Posts,
        suspects: Suspects,
        open_cell: Callable[[], Awaitable[Line]],
        *,
        cells_max: int = 4,
    ) -> None:
        self.posts = posts
        self.suspects = suspects
        self.apart = Apart(open_cell, cells_max=cells_max)
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The event loop that trials run on."""
        assert self._loop is not None, "begun before anything is tried"
        return self._loop

    async def begin(self, accused: Sequence[Accusation]) -> None:
        """Read who is suspected, and write down whom a death has made so; before anything is joined."""
        self._loop = asyncio.get_running_loop()
        await asyncio.to_thread(self.suspects.restore)
        await self.suspects.accuse(accused)
        self.posts.join()

    def doing(self, effector: Effector) -> Guarded:
        """Return what makes an effector's calls."""
        return Guarded(effector, posts=self.posts, suspects=self.suspects, apart=self.apart)

    def follow(self, stop: threading.Event) -> None:
        """Go on reading what other processes say of suspects."""
        self.suspects.follow(stop)
