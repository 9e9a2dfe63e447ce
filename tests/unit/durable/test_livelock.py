"""A turn that does not end is stopped, with words that its author can act on."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

import anyio
import pytest
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Begin, Returned, Tick
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


@pytest.mark.parametrize("shift", range(4))
def test_cleanup_in_task_group_below_cancelled_scope_waits_for_its_answer(
    shift: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Anyio's repeated cancelling rests between turns where it leads to nothing."""

    async def child(name: str) -> None:
        try:
            await ask(name)
        finally:
            await ask(f"tidy {name}")

    async def main(session: Session) -> bytes:
        with anyio.move_on_after(1) as scope:
            for _ in range(shift):
                asyncio.get_running_loop().call_later(1, int)
            async with asyncio.TaskGroup() as group:
                group.create_task(child("a"))
                group.create_task(child("b"))
        assert scope.cancelled_caught
        return b"tidied"

    play = Play(main)
    assert [call.name for call in play.tick(1000).asked] == ["tidy a", "tidy b"]
    assert play.tick(1).ended is None
    assert play.answer(4).ended is None
    assert play.answer(3).ended == Returned(value=b"tidied")
    assert not caplog.records


def test_run_that_rests_can_be_dropped() -> None:
    """What rests goes with the run."""

    async def main(session: Session) -> bytes:
        with anyio.move_on_after(1):
            while True:
                with suppress(asyncio.CancelledError):
                    await session.receive("never")
        return b""

    play = Play(main)
    assert play.tick(1000).ended is None
    play.running.close()
