"""Futures, tasks and handles of the deterministic loop.

asyncio and anyio keep tasks, futures and cancel scopes in sets and act on them in the set's order.
An object's default hash is its address, so that order would differ in every process. Here everything
hashes by the order in which the run first hashed it, from a start of the run's own, so that objects
of different runs do not meet in asyncio's process-wide sets.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any, Protocol, cast


class Numbering(Protocol):
    """What gives hashes: the loop."""

    def next_hash(self) -> int:
        """Return the next hash of this run."""
        ...


class Future(asyncio.Future[Any]):
    """A future whose hash is the same in every process."""

    __slots__ = ("_hash",)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            return self._first_hash()

    def _first_hash(self) -> int:
        self._hash: int = cast("Numbering", self.get_loop()).next_hash()
        return self._hash


class Task(asyncio.Task[Any]):
    """A task whose hash is the same in every process."""

    __slots__ = ("_hash",)

    def __hash__(self) -> int:
        try:
            return self._hash
        except AttributeError:
            return self._first_hash()

    def _first_hash(self) -> int:
        self._hash: int = cast("Numbering", self.get_loop()).next_hash()
        return self._hash


class Waiting(Future):
    """A future that the outside answers; whoever asked hears at once when its waiter gives up.

    Args:
        withdraw: Called with `key` when the future is cancelled before it was answered.
        restore: Called with the result when its waiter is cancelled between answer and delivery.
        key: Whatever names the future to the one who asked.
    """

    __slots__ = ("_taken", "key", "parked", "restore", "withdraw")

    def __init__(
        self,
        *,
        loop: asyncio.AbstractEventLoop,
        key: Any,
        withdraw: Callable[[Any], None],
        restore: Callable[[Any], None] | None = None,
    ) -> None:
        super().__init__(loop=loop)
        self.key = key
        self.withdraw = withdraw
        self.restore = restore
        self.parked: Callable[[bool], None] | None = None
        """Told when the answer begins to wait for a person, and when it no longer does."""
        self._taken = False

    def result(self) -> Any:
        """Return the answer, which is then taken."""
        self._taken = True
        return super().result()

    def cancel(self, msg: Any | None = None) -> bool:
        """Give up waiting; an answer that nobody has taken yet goes back where it came from."""
        if super().cancel(msg):
            self.withdraw(self.key)
            return True
        if self.restore is not None and not self._taken and not self.cancelled():
            self._taken = True
            self.restore(super().result())
        return False


class _Callback:
    """What both kinds of handle do; without a callback they were cancelled."""

    if TYPE_CHECKING:  # places that each of the two has of its own
        callback: Callable[..., object] | None
        args: tuple[Any, ...]
    else:
        __slots__ = ()

    def cancel(self) -> None:
        """Never run it."""
        self.callback = None
        self.args = ()

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self.callback is None

    def __repr__(self) -> str:
        return (
            f"<{type(self).__name__} {'cancelled' if self.callback is None else self.callback!r}>"
        )


class Handle(_Callback, asyncio.Handle):
    """A callback in the ready queue."""

    # The parent's own places would cost a look at the debug mode and a stack.
    __slots__ = ("args", "callback", "context")

    def __init__(
        self, callback: Callable[..., object], args: tuple[Any, ...], context: Context
    ) -> None:
        self.callback = callback
        self.args = args
        self.context = context


class TimerHandle(_Callback, asyncio.TimerHandle):
    """A callback that waits for run time.

    Args:
        when: Run time in seconds.
    """

    # `on_cancel` is called once if the timer is cancelled while it is scheduled.
    __slots__ = ("args", "callback", "context", "on_cancel")

    def __init__(
        self,
        when: float,
        callback: Callable[..., object],
        args: tuple[Any, ...],
        context: Context,
    ) -> None:
        self._when = when
        self.callback = callback
        self.args = args
        self.context = context
        self.on_cancel: Callable[[], None] | None = None

    def cancel(self) -> None:
        """Never run it."""
        if self.on_cancel is not None:
            self.on_cancel()
            self.on_cancel = None
        super().cancel()
