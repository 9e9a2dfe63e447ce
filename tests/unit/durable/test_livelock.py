"""A turn that does not end is stopped, with words that its author can act on."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import anyio
import pytest
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Begin, Tick
from headwater.durable.running import Running, Session
from headwater.errors import LivelockError


def test_callbacks_of_turn_are_capped() -> None:
    """A function that never waits is stopped with words its author can act on."""

    async def main(session: Session) -> bytes:
        while True:  # noqa: ASYNC110 - this is what must not be
            await asyncio.sleep(0)

    play = Running(main, seed="r", callbacks_max=500)
    with pytest.raises(LivelockError, match=r"ran 500 callbacks .* let CancelledError pass"):
        play.deliver(Begin(), now_ms=1)
    with pytest.raises(LivelockError):
        play.deliver(Tick(), now_ms=2)
    play.close()


def test_time_of_turn_is_capped_by_the_real_clock() -> None:
    """A slow loop of callbacks is stopped although run time stands still."""

    async def main(session: Session) -> bytes:
        real = threading.Lock()
        real.acquire()
        while True:
            await asyncio.sleep(0)
            real.acquire(timeout=0.01)

    with pytest.raises(LivelockError, match=r"0\.02 s"):
        Play(main, turn_s_max=0.02)


def test_wait_that_absorbs_cancellation_is_a_livelock() -> None:
    """Anyio cancels again and again what does not end: a loop over CancelledError spins for ever."""

    async def main(session: Session) -> bytes:
        with anyio.move_on_after(1):
            while True:
                with suppress(asyncio.CancelledError):
                    await ask("again")
        return b""

    play = Play(main, callbacks_max=300)
    with pytest.raises(LivelockError):
        play.tick(1000)
    play.running.close()
