"""What asyncio and anyio need to behave the same in another process.

Three of their habits depend on addresses or on threads: `as_completed` starts coroutines in the order
of a set, `gather`'s future and anyio's cancel scopes are kept in sets, and anyio runs blocking
functions in worker threads. Outside a turn everything is as it was.
"""

from __future__ import annotations

import asyncio
import asyncio.tasks
from asyncio import _get_running_loop
from collections.abc import Callable, Iterable
from contextvars import copy_context
from typing import Any

from anyio._backends import _asyncio as backend

from headwater.durable import world
from headwater.durable.loop import Loop

_as_completed = asyncio.as_completed
_all_tasks = asyncio.all_tasks
_run_sync = backend.AsyncIOBackend.run_sync_in_worker_thread.__func__  # type: ignore[attr-defined] # a class method


def as_completed(fs: Iterable[Any], *, timeout: float | None = None) -> Any:
    """Return `asyncio.as_completed`, with coroutines started in the order they were given."""
    loop = _get_running_loop()
    if isinstance(loop, Loop) and not asyncio.isfuture(fs) and not asyncio.iscoroutine(fs):
        fs = [asyncio.ensure_future(one, loop=loop) for one in dict.fromkeys(fs)]
    return _as_completed(fs, timeout=timeout)


def all_tasks(loop: asyncio.AbstractEventLoop | None = None) -> set[asyncio.Task[Any]]:
    """Return `asyncio.all_tasks`, a durable loop's in the order they were made."""
    of = _get_running_loop() if loop is None else loop
    return set(of.pending().values()) if isinstance(of, Loop) else _all_tasks(loop)


def _hash(self: Any) -> int:
    """Hash by order of first use if that is in a turn, by identity otherwise."""
    try:
        return int(self._durable_hash)
    except AttributeError:
        loop = _get_running_loop()
        self._durable_hash = loop.next_hash() if isinstance(loop, Loop) else object.__hash__(self)
        return int(self._durable_hash)


class CancelScope(backend.CancelScope):
    """anyio's cancel scope, with a place for its hash."""

    __slots__ = ("_durable_hash",)
    __hash__ = _hash


async def _run_sync_inline(
    cls: type[backend.AsyncIOBackend],
    func: Callable[..., Any],
    args: tuple[Any, ...],
    abandon_on_cancel: bool = False,
    limiter: Any = None,
) -> Any:
    """Run a blocking function here and now inside a turn, else in a worker thread."""
    if not isinstance(_get_running_loop(), Loop):
        return await _run_sync(cls, func, args, abandon_on_cancel, limiter)
    await cls.checkpoint()
    return copy_context().run(func, *args)


def prepare() -> None:
    """Prepare the process for executions, once: the world, then asyncio's and anyio's habits."""
    if not world.prepare():
        return
    world.replace(
        {
            (asyncio, "as_completed"): as_completed,
            (asyncio, "all_tasks"): all_tasks,
            (backend, "CancelScope"): CancelScope,
        }
    )
    asyncio.tasks.as_completed = as_completed
    asyncio.tasks.all_tasks = all_tasks
    Loop.persistent.add(backend.CancelScope._deliver_cancellation)  # noqa: SLF001 - see Loop
    asyncio.tasks._GatheringFuture.__hash__ = _hash  # type: ignore[attr-defined] # noqa: SLF001 - what gather returns
    setattr(backend.AsyncIOBackend, "run_sync_in_worker_thread", classmethod(_run_sync_inline))  # noqa: B010 - replaced
