"""An event loop in virtual time: no selector, no sockets, no waiting; it runs when it is told to."""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, TypeVar

T = TypeVar("T")

HANDLES_MAX = 20_000
"""Callbacks of one step before the loop counts as spinning."""


class VirtualLoop(asyncio.BaseEventLoop):
    """A process's event loop; its time is the process's own clock.

    Args:
        clock: Time in milliseconds.
        alive: Whether the process still is: after its death not one callback more is run.
    """

    _ready: Any
    _scheduled: Any

    def __init__(self, clock: Callable[[], int], alive: Callable[[], bool]) -> None:
        self._clock = clock
        self._alive = alive
        super().__init__()
        self.set_exception_handler(lambda *_: None)

    def time(self) -> float:
        """Return the process's time, in seconds."""
        return self._clock() / 1000

    def next_ms(self) -> int | None:
        """Return when the next timer is due."""
        scheduled = self._scheduled
        while scheduled and scheduled[0].cancelled():
            heapq.heappop(scheduled)._scheduled = False  # noqa: SLF001 - as BaseEventLoop does
        return int(scheduled[0].when() * 1000) + 1 if scheduled else None

    def finish(self, coroutine: Coroutine[Any, Any, T]) -> T | None:
        """Run until a coroutine is done and nothing else can go on; `None` if it waits or the process died.

        Raises:
            BaseException: What the coroutine raised.
        """
        with inside(self):
            task = self.create_task(coroutine)
        self.spin()
        if not task.done():
            return None
        return task.result()

    def spin(self) -> int:
        """Run whatever can run without time passing; return how many callbacks that were."""
        ready, count = self._ready, 0
        with inside(self):
            self._wake()
            while ready and self._alive():
                handle = ready.popleft()
                count += 1
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - as BaseEventLoop does
                if not ready:
                    self._wake()
                assert count < HANDLES_MAX, "an event loop spins"
        return count

    def unwind(self) -> None:
        """Cancel everything that is under way, and let it go."""
        tasks = [task for task in asyncio.all_tasks(self) if not task.done()]
        with inside(self):
            for task in tasks:
                task.cancel()
            ready = self._ready
            for _ in range(HANDLES_MAX):
                if not ready:
                    break
                handle = ready.popleft()
                if not handle.cancelled():
                    handle._run()  # noqa: SLF001 - as BaseEventLoop does
        for task in tasks:
            if task.done() and not task.cancelled():
                task.exception()  # the dead do not report
        self._scheduled.clear()

    def _wake(self) -> None:
        now, scheduled = self.time(), self._scheduled
        while scheduled and (scheduled[0].cancelled() or scheduled[0].when() <= now):
            handle = heapq.heappop(scheduled)
            handle._scheduled = False  # noqa: SLF001 - as BaseEventLoop does
            if not handle.cancelled():
                self._ready.append(handle)

    def _write_to_self(self) -> None:
        """Nobody waits to be woken."""

    def _process_events(self, events: Any) -> None:
        """There are none."""


@contextlib.contextmanager
def inside(loop: asyncio.AbstractEventLoop | None) -> Iterator[None]:
    """Have a loop be the running one; the one around it stands still meanwhile, task and all."""
    before = _get_running_loop()
    swap: Any = getattr(asyncio.tasks, "_swap_current_task", None)
    task = swap(before, None) if swap is not None and before is not None else None
    _set_running_loop(loop)
    try:
        yield
    finally:
        _set_running_loop(before)
        if task is not None:
            swap(before, task)
