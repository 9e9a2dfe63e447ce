"""Timers fire in the order of their times, before whatever is delivered at or after them."""

from __future__ import annotations

import asyncio

import anyio
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Returned
from headwater.durable.running import Session


def test_due_timers_fire_before_delivery_in_order() -> None:
    """Timers due at or before a delivery's time happened before it."""
    order: list[str] = []

    async def main(session: Session) -> bytes:
        loop = asyncio.get_running_loop()
        for name, delay in (("late", 0.03), ("second", 0.02), ("first", 0.01), ("third", 0.02)):
            loop.call_later(delay, order.append, name)
        dead = loop.call_later(0.005, order.append, "dead")
        dead.cancel()
        dead.cancel()
        assert dead.cancelled()
        assert "cancelled" in repr(dead)
        await ask("a")
        order.append("answer")
        return b""

    play = Play(main)
    assert play.first.wake_ms == 10
    play.answer(1, after_ms=20)
    assert order == ["first", "second", "third", "answer"]


def test_wake_is_rounded_up_and_forgets_cancelled_timers() -> None:
    """A wake never comes before its timer is due, and none comes for a timer that is gone."""

    async def main(session: Session) -> bytes:
        timers = [asyncio.get_running_loop().call_later(s / 100, print) for s in range(1, 9)]
        for name in "abc":
            await ask(name)
            for timer in timers[: {"a": 1, "b": 7, "c": 8}[name]]:
                timer.cancel()
        await asyncio.sleep(0.0101)
        with anyio.move_on_after(0.5):
            await asyncio.sleep(float("inf"))
        return b""

    play = Play(main)
    assert play.first.wake_ms == 10
    assert [play.answer(number).wake_ms for number in (1, 2)] == [20, 80]
    assert play.answer(3).wake_ms == 11
    assert play.tick(10).wake_ms == 11
    assert play.tick(1).wake_ms == 511
    assert play.tick(500).ended


def test_cancelled_timer_that_is_due_does_not_fire() -> None:
    """Few cancelled timers stay in the heap; meeting one there does nothing."""

    async def main(session: Session) -> bytes:
        loop = asyncio.get_running_loop()
        early, late = loop.call_later(0.001, print), loop.call_later(0.004, print)
        loop.call_later(0.002, print)
        loop.call_later(0.003, print)
        late.cancel()
        await ask("a")
        early.cancel()
        return b"x"

    play = Play(main)
    assert play.tick(4).wake_ms is None
    assert play.answer(1).ended == Returned(value=b"x")
