"""A process: its loops in threads, its services on one event loop, and one way to stop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import signal
import threading
import time
from collections.abc import Awaitable, Callable, Sequence

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Threaded:
    """A loop that blocks: it runs in a thread of its own until the event is set."""

    name: str
    run: Callable[[threading.Event], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A loop on the process's event loop; it ends when the event is set."""

    name: str
    run: Callable[[asyncio.Event], Awaitable[None]]


class Process:
    """Runs loops and services together; the first that dies stops all of them, loudly.

    Args:
        threaded: Loops with a thread each.
        served: Loops on the event loop.
        drain_s: How long a stop may take before the process ends without it.
    """

    def __init__(
        self, *, threaded: Sequence[Threaded] = (), served: Sequence[Served] = (), drain_s: float
    ) -> None:
        self._threaded = threaded
        self._served = served
        self._drain_s = drain_s
        self._halt = threading.Event()
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failure: BaseException | None = None
        self.started_s = time.monotonic()

    @property
    def live(self) -> bool:
        """Whether nothing has died."""
        return self._failure is None

    @property
    def stopping(self) -> bool:
        """Whether the process was told to stop."""
        return self._halt.is_set()

    def stop(self) -> None:
        """Have everything finish what it has in hand; any thread may call it."""
        self._halt.set()
        if self._loop is not None and self._stop is not None:
            with contextlib.suppress(RuntimeError):  # the event loop has ended already
                self._loop.call_soon_threadsafe(self._stop.set)

    async def run(self, *, signals: bool = True) -> None:
        """Run until stopped, by SIGTERM, SIGINT, `stop` or a failure.

        Raises:
            BaseException: What the first loop that died raised.
        """
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        if signals:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._loop.add_signal_handler(number, self.stop)
        threads = [
            threading.Thread(target=self._thread, args=(loop,), name=loop.name, daemon=True)
            for loop in self._threaded
        ]
        tasks = [asyncio.create_task(self._serve(loop), name=loop.name) for loop in self._served]
        for thread in threads:
            thread.start()
        await self._stop.wait()
        deadline = time.monotonic() + self._drain_s
        for task in tasks:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(task, max(0.1, deadline - time.monotonic()))
        for thread in threads:
            await asyncio.to_thread(thread.join, max(0.1, deadline - time.monotonic()))
            if thread.is_alive():
                self._late(thread.name)
        if self._failure is not None:
            raise self._failure

    def _thread(self, loop: Threaded) -> None:
        try:
            loop.run(self._halt)
        except BaseException as error:  # noqa: BLE001 - a loop that dies stops the process, whatever it died of
            self._died(loop.name, error)
        else:
            if not self._halt.is_set():
                self._died(loop.name, RuntimeError(f"{loop.name} ended by itself"))

    async def _serve(self, loop: Served) -> None:
        assert self._stop is not None
        try:
            await loop.run(self._stop)
        except BaseException as error:
            task = asyncio.current_task()
            assert task is not None, "it is served by one"
            cut = isinstance(error, asyncio.CancelledError) and task.cancelling() > 0
            if not cut:
                self._died(loop.name, error)
            elif self._halt.is_set():
                self._late(loop.name)
            else:
                raise  # whoever runs us ends everything: a Ctrl-C before our own handlers were there
        else:
            if not self._halt.is_set():
                self._died(loop.name, RuntimeError(f"{loop.name} ended by itself"))

    def _late(self, name: str) -> None:
        logger.error("%s did not stop within %.0f s", name, self._drain_s)

    def _died(self, name: str, error: BaseException) -> None:
        logger.critical("%s died: %s: %s", name, type(error).__name__, error)
        if self._failure is None:
            self._failure = error
        self.stop()
