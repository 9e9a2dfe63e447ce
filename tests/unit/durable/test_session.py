"""Signals are kept in order and each goes to one receiver; events and draws belong to the turn."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress

import pytest
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Emitted, Parked, Released, Returned, Step
from headwater.durable import session as sessions
from headwater.durable.running import Session
from headwater.errors import LivelockError


def names(step: Step) -> list[str]:
    assert isinstance(step.ended, Returned), step
    return [str(name) for name in json.loads(step.ended.value)]


def test_signals_wait_in_order_for_receivers() -> None:
    """A signal that came before anyone asked is not lost, and none overtakes another."""

    async def main(session: Session) -> bytes:
        await ask("a")
        found = [(await session.receive(name)).name for name in ("b", "", "", "")]
        return json.dumps(found).encode()

    play = Play(main)
    for name in "abc":
        assert play.signal(name).receiving == ()
    step = play.answer(1)
    assert step.receiving == ("",)
    assert names(play.signal("d")) == ["b", "a", "c", "d"]


def test_receivers_are_served_in_order() -> None:
    """The first receiver of the name, or of any, gets it; the names waited for are told once each."""

    async def main(session: Session) -> bytes:
        waits = [session.receive(name) for name in ("x", "y", "", "y")]
        found = [(await one).value.decode() for one in waits]
        return json.dumps(found).encode()

    play = Play(main)
    assert play.first.receiving == ("x", "y", "")
    assert play.signal("y", b"1").receiving == ("x", "", "y")
    assert play.signal("y", b"2").receiving == ("x", "y")
    play.signal("y", b"3")
    assert names(play.signal("x", b"4")) == ["4", "1", "2", "3"]


def test_receiver_that_gives_up_leaves_the_signal_to_others() -> None:
    """A timeout withdraws the receiver."""

    async def main(session: Session) -> bytes:
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                await session.receive("x")
        await ask("a")
        return json.dumps([(await session.receive("x")).name]).encode()

    play = Play(main)
    assert play.tick(1000).receiving == ()
    play.signal("x")
    assert names(play.answer(1)) == ["x"]


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("other", [True, False])
def test_signal_is_not_lost_when_its_receiver_times_out_in_the_same_turn(
    before: bool, other: bool
) -> None:
    """What arrives with the timeout, and nobody took, waits for the next receiver."""

    async def main(session: Session) -> bytes:
        if before:
            await asyncio.sleep(0.5)
        try:
            async with asyncio.timeout(1):
                await session.receive("x")
        except TimeoutError:
            return json.dumps(["late", (await session.receive("x")).name]).encode()
        return b"[]"

    play = Play(main)
    if other:
        play.signal("other")
    if before:
        play.tick(500)
    assert names(play.signal("x", after_ms=1000)) == ["late", "x"]


def test_signal_that_was_taken_is_not_put_back() -> None:
    """Cancelling a receiver that has its signal, or had it withdrawn, changes nothing."""

    async def main(session: Session) -> bytes:
        one = session.receive("x")
        await one
        assert not one.cancel()
        two = session.receive("x")
        assert two.cancel()
        assert not two.cancel()
        ask_ = session.ask("tool", "a", b"")
        await ask_
        assert not ask_.cancel()
        return json.dumps([(await session.receive("")).name]).encode()

    play = Play(main)
    play.signal("x")
    play.answer(1)
    assert names(play.signal("y")) == ["y"]


def test_unread_signals_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sends a run more than it reads is told, and the run is held, not the worker filled."""
    monkeypatch.setattr(sessions, "SIGNALS_MAX", 2)

    async def main(session: Session) -> bytes:
        return await ask("a")

    play = Play(main)
    play.signal("x")
    play.signal("y")
    with pytest.raises(LivelockError, match=r"2 signals wait .* 'z'"):
        play.signal("z")
    play.running.close()


def test_events_belong_to_their_turn() -> None:
    """What is emitted is in the step of the turn that emitted it, in order."""

    async def main(session: Session) -> bytes:
        session.emit("one", b"1")
        session.emit("two", b"2")
        await ask("a")
        session.emit("three", b"3")
        return b""

    play = Play(main)
    assert play.first.emitted == (
        Emitted(type="one", value=b"1"),
        Emitted(type="two", value=b"2"),
    )
    assert play.answer(1).emitted == (Emitted(type="three", value=b"3"),)


def test_whoever_waits_is_told_when_a_person_is_asked() -> None:
    """And when no longer; a call that nobody waits for tells nobody."""
    told: list[bool] = []

    async def main(session: Session) -> bytes:
        waiting = session.ask("tool", "pay", b"")
        waiting.parked = told.append
        await waiting
        return b""

    play = Play(main)
    play.deliver(Parked(number=1))
    play.deliver(Released(number=1, approval="p", by="ana", reason="", at_ms=0))
    play.deliver(Parked(number=2))
    assert told == [True, False]
    play.answer(1)
    assert told == [True, False]
