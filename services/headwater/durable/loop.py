"""An asyncio event loop without selector and threads, whose time is the run's.

Between turns nothing is ready. A turn moves due timers and one delivery into the ready queue and runs
it until it is empty; the loop never waits for anything itself.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from asyncio import _get_running_loop, _set_running_loop
from collections.abc import AsyncGenerator, Callable, Coroutine, Generator
from contextvars import Context, copy_context
from typing import Any, ClassVar, TypeVarTuple

from headwater.durable import confine
from headwater.durable.futures import Future, Handle, Task, TimerHandle
from headwater.durable.refusals import Refusing
from headwater.durable.timers import Timers
from headwater.errors import LivelockError

Args = TypeVarTuple("Args")
_log = logging.getLogger("headwater.durable")
_HASHES = (1 << 61) - 1
_SWEPT_EACH_TURN = 32
_LOOKED_EACH = 1_000


class Loop(Refusing):
    """The loop of one run.

    Args:
        salt: Where the run's hashes begin.
        callbacks_max: How many callbacks one turn may run.
        turn_s_max: How many seconds one turn may take, checked between callbacks.
    """

    __slots__ = (
        "_asyncgens",
        "_calls_seen",
        "_deadline",
        "_hashes",
        "_on_error",
        "_ran",
        "_ready",
        "_resting",
        "_salt",
        "_sweep_at",
        "_tasks",
        "_timers",
        "_turn_s_max",
        "callbacks_max",
        "fatal",
        "now_ms",
        "session",
        "silent",
        "tasks_made",
    )  # fmt: skip

    persistent: ClassVar[set[Any]] = set()
    """Functions that call themselves back until others have ended."""

    def __init__(self, *, salt: int, callbacks_max: int, turn_s_max: float) -> None:
        self._salt = salt
        self.callbacks_max = callbacks_max
        self._turn_s_max = turn_s_max
        self._deadline = 0.0
        self._hashes = 0
        self._ran = 0
        self._ready: list[Handle | TimerHandle] = []
        self._resting: list[Handle | TimerHandle] = []
        self._calls_seen = -1
        self._timers = Timers()
        self._tasks: dict[int, Task] = {}
        self._sweep_at = _SWEPT_EACH_TURN
        self._asyncgens: list[AsyncGenerator[Any, Any]] = []
        self._on_error: Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object] | None = None
        self.tasks_made = 0
        """Number of the newest task."""
        self.fatal: BaseException | None = None
        """What asked the whole program to end."""
        self.now_ms = 0
        """Run time."""
        self.silent = False
        """Nothing is reported: a replay reported it before, or the run is being dropped."""
        self.session: Any = None
        """What the function's side sees."""

    def enter(self, now_ms: int) -> tuple[Any, Any]:
        """Make this the running loop, with due timers ready; return what `leave` needs.

        Args:
            now_ms: Run time; it never falls.
        """
        outside = _get_running_loop(), sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(self._first_iteration, _abandoned)
        _set_running_loop(self)
        self._deadline = confine.monotonic() + self._turn_s_max
        self._ran = 0
        self.now_ms = now_ms
        if self._resting:
            self._ready, self._resting = self._resting, []
        if self._timers:
            self._ready.extend(self._timers.due(now_ms))
        return outside

    def leave(self, outside: tuple[Any, Any]) -> None:
        """Let the loop that ran before run again."""
        _set_running_loop(outside[0])
        sys.set_asyncgen_hooks(*outside[1])

    def run(self) -> None:
        """Run callbacks until none is ready.

        Raises:
            LivelockError: They never end, or take too long.
        """
        ready = self._ready
        look_at = self._look_after(0)
        deadline = self._deadline
        monotonic = confine.monotonic
        for number, handle in enumerate(ready):
            if number >= look_at:
                look_at = self._look(number)
            callback = handle.callback
            if callback is None:
                continue
            if monotonic() > deadline:
                raise self._livelock(number)
            try:
                handle.context.run(callback, *handle.args)
            except (SystemExit, KeyboardInterrupt) as asked:
                self.fatal = asked
                del ready[: number + 1]
                return
            except BaseException as error:  # noqa: BLE001 - reported, as every asyncio loop does
                self.call_exception_handler(
                    {"message": f"Exception in callback {callback!r}", "exception": error}
                )
        self._ran += len(ready)
        ready.clear()

    def _look(self, number: int) -> int:
        """Look for a livelock; return the callback before which to look again.

        anyio cancels a scope's tasks again and again until they end. One that waits for an answer in
        its cleanup, below something that waits for it whatever happens (`asyncio.TaskGroup` does), ends
        in a later turn. Where many callbacks led to no call, anyio's next try comes with that turn.
        """
        if self._ran + number >= self.callbacks_max:
            raise self._livelock(number)
        calls_made = self.session.calls_made
        if calls_made == self._calls_seen:
            for handle in self._ready[number:]:
                callback = handle.callback
                if getattr(callback, "__func__", None) in self.persistent:
                    assert callback is not None, "it has that function"
                    self._resting.append(Handle(callback, handle.args, handle.context))
                    handle.cancel()
        self._calls_seen = calls_made
        return self._look_after(number)

    def _look_after(self, number: int) -> int:
        return min(number + _LOOKED_EACH, self.callbacks_max - self._ran)

    def _livelock(self, number: int) -> LivelockError:
        return LivelockError(
            f"one turn ran {self._ran + number} callbacks (at most {self.callbacks_max}, "
            f"{self._turn_s_max:g} s) and {self._ready[number]!r} was next: the function loops without "
            "waiting, or swallows CancelledError in a loop; wait for a call, a timer or a signal, and "
            "let CancelledError pass"
        )

    def wake_ms(self) -> int | None:
        """Return when the earliest timer is due; `None` if there is none."""
        return self._timers.wake_ms()

    def pending(self) -> dict[int, Task]:
        """Return the tasks that are not done, by number."""
        self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}
        self._sweep_at = max(_SWEPT_EACH_TURN, 2 * len(self._tasks))
        return self._tasks

    def sweep(self) -> None:
        """Forget tasks that are done; called after each turn, so it looks at many only now and then."""
        if 1 < len(self._tasks) <= _SWEPT_EACH_TURN or len(self._tasks) > self._sweep_at:
            self.pending()

    def abandoned(self) -> bool:
        """Whether async generators were begun and not finished."""
        self._asyncgens = [agen for agen in self._asyncgens if _open(agen)]
        return bool(self._asyncgens)

    def drop_ready(self) -> None:
        """Forget what is ready and what is due later: the run is being dropped."""
        self._ready.clear()
        self._resting.clear()
        self._timers.clear()

    def forget(self) -> None:
        """Let go of everything: the run is over."""
        self.drop_ready()
        self._tasks.clear()
        self._asyncgens.clear()
        self.session = self.fatal = self._on_error = None

    def next_hash(self) -> int:
        """Return the next hash of this run."""
        self._hashes += 1
        return (self._salt + self._hashes) & _HASHES

    # What asyncio asks of a loop

    def time(self) -> float:
        """Return run time in seconds."""
        return self.now_ms / 1000

    def call_soon(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> Handle:
        """Run a callback in this turn."""
        handle = Handle(callback, args, copy_context() if context is None else context)
        self._ready.append(handle)
        return handle

    def call_soon_threadsafe(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> Handle:
        """Run a callback in this turn; no other thread can ask for it."""
        if _get_running_loop() is not self:
            raise RuntimeError(
                "a durable function was called back from outside its turn, perhaps from a thread: only "
                "answers, signals and timers reach it; use a tool for work in threads"
            )
        return self.call_soon(callback, *args, context=context)

    def call_later(
        self,
        delay: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> TimerHandle:
        """Run a callback `delay` seconds of run time from now."""
        return self.call_at(self.now_ms / 1000 + delay, callback, *args, context=context)

    def call_at(
        self,
        when: float,
        callback: Callable[[*Args], object],
        *args: *Args,
        context: Context | None = None,
    ) -> TimerHandle:
        """Run a callback at a run time in seconds."""
        handle = TimerHandle(when, callback, args, copy_context() if context is None else context)
        self._timers.add(handle)
        return handle

    def create_future(self) -> Future:
        """Return a future of this loop."""
        return Future(loop=self)

    def create_task(
        self,
        coro: Coroutine[Any, Any, Any] | Generator[Any, None, Any],
        *,
        name: object = None,
        context: Context | None = None,
    ) -> Task:
        """Return a task of this loop, kept until it is done."""
        self.tasks_made += 1
        number = self.tasks_made
        task = Task(
            coro, loop=self, name=f"Task-{number}" if name is None else str(name), context=context
        )
        # A host that drops a run without closing it loses memory's worth of warnings, not the run.
        task._log_destroy_pending = False  # type: ignore[attr-defined] # noqa: SLF001 - asyncio's own loop does too
        self._tasks[number] = task
        return task

    def run_in_executor(
        self, executor: object, func: Callable[[*Args], Any], *args: *Args
    ) -> Future:
        """Call a function here and now: there are no threads."""
        future = self.create_future()
        try:
            future.set_result(func(*args))
        except StopIteration as error:
            future.set_exception(RuntimeError(f"the function raised StopIteration: {error}"))
        except Exception as error:  # noqa: BLE001 - it is the future's
            future.set_exception(error)
        return future

    def is_running(self) -> bool:
        """Whether this thread is in a turn of this loop."""
        return _get_running_loop() is self

    def is_closed(self) -> bool:
        """A loop between turns can always be resumed."""
        return False

    def get_debug(self) -> bool:
        """There is no debug mode: it would read the real clock."""
        return False

    def set_debug(self, enabled: bool) -> None:
        """Do nothing."""

    def get_task_factory(self) -> None:
        """Tasks are always the loop's own."""
        return

    def get_exception_handler(self) -> Any:
        """Return the function's handler, if it set one."""
        return self._on_error

    def set_exception_handler(self, handler: Any) -> None:
        """Take the function's handler."""
        self._on_error = handler

    def default_exception_handler(self, context: dict[str, Any]) -> None:
        """Log what nobody caught."""
        if not self.silent:
            _log.error("%s", context.get("message", "error"), exc_info=context.get("exception"))

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Report what nobody caught.

        What a destroyed object reports comes when memory is collected, in no fixed turn, so the
        function's own handler hears only of errors in callbacks.
        """
        if self._on_error is None or "future" in context or not self.is_running():
            self.default_exception_handler(context)
            return
        try:
            self._on_error(self, context)
        except Exception:  # noqa: BLE001 - logged, as every asyncio loop does
            _log.exception("the function's exception handler raised")

    async def shutdown_asyncgens(self) -> None:
        """Close the async generators that were begun and not finished, oldest first."""
        self.abandoned()
        closing, self._asyncgens = self._asyncgens, []
        for agen in closing:
            try:
                await agen.aclose()
            except Exception as error:  # noqa: BLE001 - reported, the others are closed all the same
                self.call_exception_handler(
                    {"message": f"error while closing {agen!r}", "exception": error}
                )

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:  # noqa: ASYNC109 - asyncio's signature
        """Do nothing: there are no threads."""

    def _first_iteration(self, agen: AsyncGenerator[Any, Any]) -> None:
        """Keep an async generator: collecting it would close it when memory happens to be collected."""
        if len(self._asyncgens) >= _SWEPT_EACH_TURN and not len(self._asyncgens) & (
            len(self._asyncgens) - 1
        ):
            self.abandoned()
        self._asyncgens.append(agen)


def _open(agen: Any) -> bool:
    return agen.ag_frame is not None


def _abandoned(agen: AsyncGenerator[Any, Any]) -> None:
    """Let a generator go whose run was dropped."""
