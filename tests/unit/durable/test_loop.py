"""The loop answers what asyncio asks of a loop, and refuses what would leave the run."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from tests.unit.durable.plays import Play

from headwater.core.execution import Raised, Returned
from headwater.durable.running import Session


def inside(act: Callable[[asyncio.AbstractEventLoop], Any]) -> Any:
    """Return what `act` returns inside a turn."""
    found: list[Any] = []

    async def main(session: Session) -> bytes:
        value = act(asyncio.get_running_loop())
        found.append(await value if asyncio.iscoroutine(value) else value)
        return b""

    ended = Play(main).first.ended
    assert isinstance(ended, Returned), ended
    return found[0]


def test_loop_is_running_and_never_closed() -> None:
    """Libraries ask before they use a loop."""
    assert inside(lambda loop: [loop.is_running(), loop.is_closed(), loop.get_debug()]) == [
        True,
        False,
        False,
    ]
    assert inside(lambda loop: loop.set_debug(True)) is None
    assert inside(lambda loop: loop.get_task_factory()) is None
    assert inside(lambda loop: loop.shutdown_default_executor()) is None


@pytest.mark.parametrize(
    "name", ["run_forever", "run_until_complete", "stop", "close", "set_task_factory"]
)
def test_function_cannot_drive_its_own_loop(name: str) -> None:
    """The host alone runs turns."""

    def act(loop: asyncio.AbstractEventLoop) -> str:
        with pytest.raises(RuntimeError, match=f"loop.{name}"):
            getattr(loop, name)()
        return "refused"

    assert inside(act) == "refused"


def test_other_thread_cannot_call_back() -> None:
    """Nothing reaches a run but what is delivered to it."""
    loops: list[asyncio.AbstractEventLoop] = []

    async def main(session: Session) -> bytes:
        loop = asyncio.get_running_loop()
        loops.append(loop)
        loop.call_soon_threadsafe(loops.append, loop)
        await session.ask("tool", "a", b"")
        return b""

    play = Play(main)
    assert len(loops) == 2
    told: list[str] = []

    def call() -> None:
        try:
            loops[0].call_soon_threadsafe(print)
        except RuntimeError as error:
            told.append(str(error))

    thread = threading.Thread(target=call)
    thread.start()
    thread.join()
    assert "use a tool for work in threads" in told[0]
    play.running.close()


def test_executor_runs_inline_and_keeps_errors() -> None:
    """There are no threads: blocking functions block, their errors are the future's."""

    async def act(loop: asyncio.AbstractEventLoop) -> list[Any]:
        here = threading.get_ident()
        assert await asyncio.to_thread(threading.get_ident) == here

        def stop() -> None:
            raise StopIteration(3)

        found = await asyncio.gather(
            loop.run_in_executor(None, stop),
            loop.run_in_executor(None, int, "x"),
            return_exceptions=True,
        )
        return [type(error) for error in found]

    assert inside(act) == [RuntimeError, ValueError]


def test_exit_in_executor_ends_the_run() -> None:
    """A blocking function that exits is no different from any other code of the agent."""

    async def main(session: Session) -> bytes:
        await asyncio.to_thread(sys.exit)
        return b""

    ended = Play(main).first.ended
    assert isinstance(ended, Raised)
    assert ended.error == "SystemExit"


def test_cancelled_handle_does_not_run() -> None:
    """A handle can be taken back until it runs."""

    async def act(loop: asyncio.AbstractEventLoop) -> list[str]:
        order: list[str] = []
        handle = loop.call_soon(order.append, "never")
        later = loop.call_soon(order.append, "runs")
        assert "built-in method append" in repr(handle)
        handle.cancel()
        assert (handle.cancelled(), later.cancelled()) == (True, False)
        await asyncio.sleep(0)
        later.cancel()
        return order

    assert inside(act) == ["runs"]


def test_far_timer_never_wakes() -> None:
    """A time that no calendar reaches means never."""

    async def main(session: Session) -> bytes:
        timer = asyncio.get_running_loop().call_at(float("inf"), print)
        assert timer.when() == float("inf")
        await session.ask("tool", "a", b"")
        timer.cancel()
        return b""

    play = Play(main)
    assert play.first.wake_ms is None
    assert play.answer(1).ended


def test_functions_own_exception_handler_hears_of_callbacks_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Errors of collected objects come at no fixed turn, so they go to the log and not to the function."""
    heard: list[str] = []

    async def act(loop: asyncio.AbstractEventLoop) -> None:
        def handler(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
            heard.append(context["message"])
            if len(heard) == 2:
                raise ValueError("handler")

        loop.set_exception_handler(handler)
        assert loop.get_exception_handler() is handler
        loop.call_soon(int, "x")
        loop.call_soon(int, "y")
        loop.create_future().set_exception(LookupError("collected"))
        await asyncio.sleep(0)

    inside(act)
    assert len(heard) == 2
    assert "exception handler raised" in caplog.text
    assert "Future exception was never retrieved" in caplog.text


def test_task_names_count_within_the_run() -> None:
    """Asyncio counts tasks of the process, which another process would count otherwise."""

    async def act(loop: asyncio.AbstractEventLoop) -> list[str]:
        async def name() -> str:
            task = asyncio.current_task()
            assert task is not None
            return task.get_name()

        return [await loop.create_task(name()), await loop.create_task(name(), name="mine")]

    assert inside(act) == ["Task-2", "mine"]


def test_running_out_of_order_is_seen_by_asyncio() -> None:
    """`asyncio.all_tasks` and `current_task` know the run's tasks, and no other run's."""

    async def act(loop: asyncio.AbstractEventLoop) -> list[str]:
        kept = [loop.create_task(asyncio.sleep(1), name=name) for name in "ab"]
        found = [task.get_name() for task in asyncio.all_tasks()]
        assert asyncio.all_tasks(loop) == asyncio.all_tasks()
        for task in kept:
            task.cancel()
        return found

    assert sorted(inside(act)) == ["Task-1", "a", "b"]
