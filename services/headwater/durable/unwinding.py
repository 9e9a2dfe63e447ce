"""Unwinding: an execution that is dropped ends on its own loop, whatever it does about that."""

from __future__ import annotations

import traceback
from typing import Any

from headwater.durable.futures import Task
from headwater.durable.loop import Loop
from headwater.errors import LivelockError

_ROUNDS = 30
_CALLBACKS_MAX = 10_000


def unwind(loop: Loop) -> None:
    """Cancel every task until all are done; throw into those that refuse."""
    loop.drop_ready()
    loop.callbacks_max = _CALLBACKS_MAX
    tasks = list(loop.pending().values())
    for _ in range(_ROUNDS):
        if not _cancel(loop):
            break
    for task in loop.pending().values():
        _throw(task.get_coro())
    for task in tasks:
        _clear(task)


def _cancel(loop: Loop) -> bool:
    """Cancel what is pending, then close what generators are left; whether there was anything."""
    pending = list(loop.pending().values())
    for task in pending:
        task.cancel()
    if not pending:
        if not loop.abandoned():
            return False
        loop.create_task(loop.shutdown_asyncgens())
    try:
        loop.run()
    except LivelockError:
        loop.drop_ready()
    return True


class _Dropped(BaseException):
    """Thrown into a coroutine that caught every cancellation."""


def _throw(coroutine: Any) -> None:
    """End a coroutine that caught every cancellation; each throw ends one more wait inside it.

    `close` would end the outermost coroutine and leave what that awaits suspended.
    """
    for _ in range(_ROUNDS):
        try:
            coroutine.throw(_Dropped())
        except BaseException:  # noqa: BLE001 - the run is dropped, whatever it says to that
            return


def _clear(task: Task) -> None:
    """Empty the frames that a task's error holds: with its locals in a cycle they would die much later."""
    error: BaseException | None = None
    if task.cancelled():
        error = task._make_cancelled_error()  # type: ignore[attr-defined] # noqa: SLF001 - the one it holds
    elif task.done():
        error = task.exception()
    for _ in range(_ROUNDS):
        if error is None:
            return
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
