"""An execution that is dropped unwinds; nothing of it counts, and nobody is warned of it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from tests.unit.durable.plays import Function, Play, ask

from headwater.core.execution import Tick
from headwater.durable import unwinding
from headwater.durable.running import Running, Session


def closing(function: Function, **options: Any) -> Running:
    """Begin, close twice and collect, with every warning an error; return the closed execution."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        running = Play(function, **options).running
        running.close()
        running.close()
        gc.collect()
    return running


def test_dropped_run_unwinds_and_nothing_of_it_counts(caplog: pytest.LogCaptureFixture) -> None:
    """`finally` blocks run, and what they ask, emit, wait for and report goes nowhere."""
    seen: list[str] = []

    async def side(session: Session) -> None:
        try:
            await session.receive("x")
        finally:
            assert session.replaying
            seen.append("side")
            with suppress(asyncio.CancelledError):
                await session.receive("y")
            raise ValueError("nobody hears")

    async def values() -> AsyncIterator[int]:
        try:
            yield 1
        finally:
            seen.append("generator")

    async def main(session: Session) -> bytes:
        asyncio.create_task(side(session))  # noqa: RUF006 - left behind on purpose
        async for _ in values():
            break
        never = ask("never awaited")
        try:
            await ask("work")
        finally:
            seen.append("main")
            session.emit("e", b"")
            try:
                await ask("tidy")
            finally:
                asyncio.get_running_loop().call_soon(int, "x")
                await asyncio.sleep(5)
        await never
        return b""

    running = closing(main)
    assert sorted(seen) == ["generator", "main", "side"]
    assert running._session.calls_made == 1
    assert running._session.emitted == []
    assert not caplog.records


@pytest.mark.parametrize("stubborn", ["swallows", "cleans", "exits", "livelock", "clings"])
def test_function_that_will_not_be_dropped_is_dropped_all_the_same(stubborn: str) -> None:
    """Whatever a function does about its cancellation, dropping it ends."""
    clinging = iter(range(20))

    async def main(session: Session) -> bytes:
        while True:
            try:
                await ask("work")
            except asyncio.CancelledError:
                if stubborn == "exits":
                    raise SystemExit from None
                while stubborn == "livelock":
                    with suppress(asyncio.CancelledError):
                        await asyncio.sleep(0)
                if stubborn == "cleans":
                    for name in "abc":
                        with suppress(asyncio.CancelledError):
                            await ask(name)
                    raise
            except BaseException:
                if stubborn != "clings" or next(clinging, None) is None:
                    raise

    closing(main)


def test_closed_execution_says_so() -> None:
    """A host that delivers to what it closed has a bug."""

    async def main(session: Session) -> bytes:
        return await ask("a")

    running = closing(main)
    with pytest.raises(RuntimeError, match="was closed"):
        running.deliver(Tick(), now_ms=1)
    fresh = Running(main, seed="r")
    fresh.close()
    with pytest.raises(RuntimeError, match="was closed"):
        fresh.deliver(Tick(), now_ms=1)


def test_unwinding_gives_up_in_the_end() -> None:
    """A coroutine that catches everything for ever is left, not waited for."""

    class Clings:
        thrown = 0

        def throw(self, error: BaseException) -> None:
            self.thrown += 1

    clings = Clings()
    unwinding._throw(clings)
    assert clings.thrown == unwinding._ROUNDS


def test_frames_of_long_chains_are_emptied_up_to_a_bound() -> None:
    """An error with many others behind it costs no more than any."""

    async def main(session: Session) -> bytes:
        try:
            await ask("a")
        except asyncio.CancelledError as error:
            last: BaseException = error
            for _ in range(2 * unwinding._ROUNDS):
                last.__context__ = ValueError()
                last = last.__context__
            raise

    closing(main)
