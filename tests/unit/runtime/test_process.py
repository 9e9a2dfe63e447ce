"""A process: everything runs, the first death stops all, a stop drains."""

from __future__ import annotations

import asyncio
import os
import signal
import threading

import pytest

from headwater.runtime.process import Process, Served, Threaded


def waits(started: threading.Event | None = None):
    def run(stop: threading.Event) -> None:
        if started is not None:
            started.set()
        stop.wait(300)

    return run


async def serves(stop: asyncio.Event) -> None:
    await stop.wait()


def test_sigterm_stops_everything_in_order():
    """A drain: each loop sees the stop and ends by itself."""
    ended = []

    def run(stop: threading.Event) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        stop.wait(300)
        ended.append("loop")

    async def serve(stop: asyncio.Event) -> None:
        await stop.wait()
        ended.append("service")

    process = Process(
        threaded=[Threaded(name="loop", run=run)], served=[Served(name="s", run=serve)], drain_s=300
    )
    asyncio.run(process.run())
    assert sorted(ended) == ["loop", "service"]
    assert process.live
    assert process.stopping


@pytest.mark.parametrize("how", ["raises", "returns"])
@pytest.mark.parametrize("kind", ["thread", "task"])
def test_first_death_stops_the_process_loudly(how, kind, caplog):
    """A background task that dies, or ends by itself, is never survived in silence."""

    def dies(stop: threading.Event) -> None:
        if how == "raises":
            raise ValueError("broken")

    async def dies_too(stop: asyncio.Event) -> None:
        dies(threading.Event())

    process = Process(
        threaded=[Threaded(name="other", run=waits())]
        + ([Threaded(name="bad", run=dies)] if kind == "thread" else []),
        served=[Served(name="fine", run=serves)]
        + ([Served(name="bad", run=dies_too)] if kind == "task" else []),
        drain_s=300,
    )
    with pytest.raises((ValueError, RuntimeError), match=r"broken|ended by itself"):
        asyncio.run(process.run(signals=False))
    assert "bad died" in caplog.text
    assert not process.live


def test_first_failure_is_the_one_raised():
    """What followed from it is logged, not raised."""

    def first(stop: threading.Event) -> None:
        raise ValueError("first")

    def second(stop: threading.Event) -> None:
        stop.wait(300)
        raise ValueError("second")

    process = Process(
        threaded=[Threaded(name="b", run=second), Threaded(name="a", run=first)], drain_s=300
    )
    with pytest.raises(ValueError, match="first"):
        asyncio.run(process.run(signals=False))


def test_loop_that_does_not_stop_is_named(caplog):
    """A drain has a bound; whoever passes it is named, and did not die of it."""
    release = threading.Event()

    def stubborn(stop: threading.Event) -> None:
        release.wait(300)

    async def dawdles(stop: asyncio.Event) -> None:
        await asyncio.Event().wait()

    process = Process(
        threaded=[Threaded(name="stubborn", run=stubborn), Threaded(name="x", run=waits())],
        served=[Served(name="dawdles", run=dawdles)],
        drain_s=0,
    )

    async def main() -> None:
        asyncio.get_running_loop().call_soon(process.stop)
        await process.run(signals=False)

    asyncio.run(main())
    release.set()
    for name in ("stubborn", "dawdles"):
        assert f"{name} did not stop" in caplog.text
    assert "died" not in caplog.text


def test_stop_after_the_end_is_harmless():
    """Whoever says stop twice says it once too often, and no more."""
    process = Process(threaded=[Threaded(name="x", run=waits())], drain_s=300)
    process.stop()

    async def main() -> None:
        asyncio.get_running_loop().call_soon(process.stop)
        await process.run(signals=False)

    asyncio.run(main())
    process.stop()


def test_a_process_that_is_ended_from_outside_calls_no_loop_dead(caplog):
    """A Ctrl-C while it starts is no failure of a loop; the control is a loop that cancels itself."""

    async def ended(serve) -> None:
        process = Process(threaded=[], served=[Served(name="s", run=serve)], drain_s=300)
        running = asyncio.create_task(process.run(signals=False))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    async def cancels(stop: asyncio.Event) -> None:
        raise asyncio.CancelledError

    asyncio.run(ended(serves))
    assert "died" not in caplog.text
    asyncio.run(ended(cancels))
    assert "s died: CancelledError" in caplog.text
