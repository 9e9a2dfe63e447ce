"""Running: a durable function, suspended between deliveries."""

from __future__ import annotations

from collections.abc import Callable, Collection, Coroutine, Sequence
from contextvars import Context
from typing import Any

from headwater.contracts.messages import Limits
from headwater.core.execution import (
    Answer,
    Begin,
    Cancel,
    Continued,
    Cut,
    Delivery,
    Parked,
    Raised,
    Released,
    Returned,
    Signal,
    Step,
)
from headwater.durable import confine, failure, libraries, unwinding
from headwater.durable.futures import Task
from headwater.durable.loop import Loop
from headwater.durable.session import Session, current, in_durable
from headwater.durable.streams import Streams
from headwater.errors import HeadwaterError, LivelockError, NonDeterminismError

__all__ = ["Running", "Session", "current", "in_durable"]


Function = Callable[[Session], Coroutine[Any, Any, bytes]]
Describe = Callable[[BaseException], tuple[str, str]]


class Running:
    """An `Execution` of an async function on a loop of its own.

    Args:
        function: Called once, with the run's session; returns its value as the output codec wrote it.
        seed: The run's id: seeds all that is drawn.
        callbacks_max: How many callbacks one turn may run.
        turn_s_max: How many seconds one turn may take, checked between callbacks.
        describe: Name and words of an exception nobody caught.
    """

    __slots__ = (
        "_broken", "_cancelling", "_describe", "_end", "_function", "_loop", "_main", "_reaped",
        "_session", "_streams",
    )  # fmt: skip

    def __init__(
        self,
        function: Function,
        *,
        seed: str,
        callbacks_max: int = 100_000,
        turn_s_max: float = 10.0,
        describe: Describe | None = None,
    ) -> None:
        libraries.prepare()
        self._function = function
        self._describe = failure.describe if describe is None else describe
        self._streams = Streams(seed)
        self._loop = Loop(  # type: ignore[abstract] # what it refuses is set after the class
            salt=self._streams.salt, callbacks_max=callbacks_max, turn_s_max=turn_s_max
        )
        self._session = Session(self._loop, self._streams)
        self._loop.session = self._session
        self._main: Task | None = None
        self._cancelling = False
        self._reaped = 0
        self._end: Returned | Raised | Continued | None = None
        self._broken: HeadwaterError | RuntimeError | None = None

    @property
    def replaying(self) -> bool:
        """Whether what is delivered now was delivered before, so that logs of it may be left out."""
        return self._session.is_replay

    @replaying.setter
    def replaying(self, value: bool) -> None:
        self._session.is_replay = self._loop.silent = value

    def hear_left(self, left: Callable[[], Limits | None] | None) -> None:
        """Take who says, in the turn under way, what the run may still spend."""
        self._session.left_now = left

    def recall(self, *, above: int = 0, patched: Collection[str] = ()) -> None:
        """Tell it what the journal knows of the turn that is delivered next."""
        self._session.recall(above=above, patched=patched)

    def deliver(self, delivery: Delivery, *, now_ms: int) -> Step:
        """Run until everything waits again.

        Args:
            delivery: The first is `Begin`, but for cuts, at which nothing runs; nothing may follow an end.
            now_ms: Run time; a lower one than before counts as the same.

        Raises:
            ConfinementError: The function touched the world, whether or not it caught the error.
            LivelockError: The turn did not end, or signals pile up.
            NonDeterminismError: A replay goes on where the function has ended.
            RuntimeError: The host delivers to a function that ended, broke or was closed.
        """
        if self._broken is not None:
            raise self._broken
        if isinstance(delivery, Cut) and self._end is None:
            self._session.cut = delivery
            return Step()
        if self._end is not None or (self._main is None) is not isinstance(delivery, Begin):
            raise self._unexpected(type(delivery).__name__)
        streams, loop = self._streams, self._loop
        streams.now_ms = max(streams.now_ms, now_ms)
        confine.enter(streams)
        outside = loop.enter(streams.now_ms)
        try:
            self._apply(delivery)
            loop.run()
            self._settle()
        except LivelockError as error:
            self._broken = error
        finally:
            loop.leave(outside)
            confine.leave()
        if streams.violation is not None:
            self._broken = streams.violation
        if self._broken is not None:
            raise self._broken
        return self._step()

    def close(self) -> None:
        """Cancel the function on its own loop; whatever it still asks, emits or logs is discarded.

        A host that drops an execution closes it first. Left to the collector of memory, its `finally`
        blocks would run wherever that happens to be, perhaps inside another run's turn.
        """
        self._drop()
        if self._broken is None:
            self._broken = RuntimeError("the execution was closed")

    def _unexpected(self, delivery: str) -> Exception:
        if self._end is not None and self.replaying:
            number = self._session.calls_made + 1
            return NonDeterminismError(number, f"made after a {delivery}", "nothing: it has ended")
        state = "has ended" if self._end else "has begun" if self._main else "has not begun"
        return RuntimeError(f"{delivery} delivered to a function that {state}")

    def _apply(self, delivery: Delivery) -> None:
        if isinstance(delivery, Answer):
            self._session.answer(delivery.number, delivery.outcome)
        elif isinstance(delivery, Begin):
            for signal in delivery.signals:
                self._session.signal(signal)
            self._main = self._loop.create_task(
                _call(self._function, self._session), context=Context()
            )
        elif isinstance(delivery, Signal):
            self._session.signal(delivery)
        elif isinstance(delivery, (Parked, Released)):
            self._session.park(delivery.number, parked=isinstance(delivery, Parked))
        elif isinstance(delivery, Cancel):
            self._cancelling = True
            for task in self._cancellable():
                task.cancel(delivery.reason)

    def _cancellable(self) -> Sequence[Task]:
        """Return the main task, or when it is done the tasks it left behind."""
        assert self._main is not None, "begun"
        return [self._main] if not self._main.done() else list(self._loop.pending().values())

    def _settle(self) -> None:
        """End the run once its main task and whatever that left behind are done, as `asyncio.run` does."""
        loop, main = self._loop, self._main
        assert main is not None, "begun"
        if self._session.continued is not None:
            self._end = self._continued(self._session.continued)
            return
        while loop.fatal is None and main.done():
            pending = loop.pending()
            if pending:
                fresh = [task for number, task in pending.items() if number > self._reaped]
                if not fresh:
                    return
                for task in fresh:
                    task.cancel()
                self._reaped = loop.tasks_made
            elif loop.abandoned():
                loop.create_task(loop.shutdown_asyncgens())
                self._reaped = loop.tasks_made
            else:
                self._end = self._outcome(main)
                return
            loop.run()
        if loop.fatal is not None:
            self._end = self._raised(loop.fatal)

    def _continued(self, task: bytes) -> Continued | Raised:
        """A run that was told to stop does not begin again."""
        if self._cancelling:
            detail = "cancelled; it cannot continue as another task then"
            return Raised(error="asyncio.CancelledError", detail=detail, cancelled=True)
        return Continued(task=task, signals=self._session.unreceived())

    def _outcome(self, main: Task) -> Returned | Raised:
        if main.cancelled():
            return Raised(
                error="asyncio.CancelledError",
                detail="cancelled" if self._cancelling else "the function cancelled itself",
                cancelled=self._cancelling,
            )
        error = main.exception()
        return Returned(value=main.result()) if error is None else self._raised(error)

    def _raised(self, error: BaseException) -> Raised:
        name, detail = self._describe(error)
        return Raised(error=name, detail=detail, stack=failure.stack(error))

    def _step(self) -> Step:
        loop, session = self._loop, self._session
        loop.sweep()
        step = Step(
            asked=tuple(session.asked),
            withdrawn=tuple(session.withdrawn),
            emitted=tuple(session.emitted),
            wake_ms=None if self._end else loop.wake_ms(),
            receiving=session.receiving(),
            patched=tuple(session.patches_used),
            ended=self._end,
        )
        session.asked.clear()
        session.withdrawn.clear()
        session.emitted.clear()
        session.patches_used.clear()
        if self._end is not None:
            self._drop()
        return step

    def _drop(self) -> None:
        """Unwind what is left and let go of it."""
        if self._main is None:
            return
        loop = self._loop
        self._streams.discarding = self._session.closing = loop.silent = True
        if not loop.pending() and not loop.abandoned():
            self._forget()
            return
        with confine.turn(self._streams):
            outside = loop.enter(self._streams.now_ms)
            try:
                unwinding.unwind(loop)
                # Coroutines that were never awaited die here, where nobody is warned of them.
                self._forget()
            finally:
                loop.leave(outside)

    def _forget(self) -> None:
        self._session.forget()
        self._loop.forget()
        self._main = None


async def _call(function: Function, session: Session) -> bytes:
    value: object = await function(session)
    if not isinstance(value, bytes):
        raise TypeError(f"the function returned {type(value).__name__}, not its value as bytes")
    return value
