"""Every way in which a durable function goes on, ends, is cancelled, breaks or is dropped."""

from __future__ import annotations

import asyncio
import contextvars
import gc
import time
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import NoReturn

import pytest
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Begin, Raised, Returned, Step
from headwater.durable.running import Running, Session, current, in_durable
from headwater.errors import ConfinementError


def returned(step: Step) -> bytes:
    assert isinstance(step.ended, Returned), step.ended
    return step.ended.value


def raised(step: Step) -> Raised:
    assert isinstance(step.ended, Raised), step.ended
    return step.ended


def test_calls_are_numbered_when_made() -> None:
    """A call's number is given when it is asked for, not when it is awaited."""

    async def main(session: Session) -> bytes:
        first, second = (session.ask("tool", name, b"") for name in "ab")
        assert (await second).value == b"2"
        return bytes((await first).value)

    play = Play(main)
    assert [(call.number, call.name) for call in play.first.asked] == [(1, "a"), (2, "b")]
    assert play.answer(2, b"2").ended is None
    assert returned(play.answer(1, b"1")) == b"1"


def test_digest_is_of_arguments_unless_given() -> None:
    """Arguments that mean the same have one digest; whoever knows what they mean says so."""

    async def main(session: Session) -> bytes:
        session.ask("model", "m", b"x", digest=b"d" * 16, options={"timeout_ms": 5})
        session.ask("model", "m", b"x")
        session.ask("agent", "m", b"x")
        return b""

    given, first, second = Play(main).first.asked
    assert (given.digest, given.options["timeout_ms"]) == (b"d" * 16, 5)
    assert first.digest == second.digest
    assert len(first.digest) == 16


@pytest.mark.parametrize("number", [1, 7])
def test_answer_that_nobody_waits_for_is_ignored(number: int) -> None:
    """An answer may come twice, late, or for a number never asked."""

    async def main(session: Session) -> bytes:
        await ask("a")
        return await ask("b")

    play = Play(main)
    play.answer(1)
    assert play.answer(number, b"again") == Step()
    assert returned(play.answer(2, b"b")) == b"b"


def test_cancelled_wait_withdraws_its_call_at_once() -> None:
    """A timeout needs no answer from the callee: the future is cancelled here and now."""

    async def main(session: Session) -> bytes:
        with suppress(TimeoutError):
            await asyncio.wait_for(ask("slow"), 1)
        return b"late"

    play = Play(main)
    assert play.first.wake_ms == 1000
    step = play.tick(1000)
    assert step.withdrawn == (1,)
    assert returned(step) == b"late"


def test_run_time_never_falls() -> None:
    """A record stamped earlier than the one before does not turn time back."""

    async def main(session: Session) -> bytes:
        await ask("a")
        return str(session.now_ms).encode()

    play = Play(main)
    play.tick(500)
    play.now_ms = 20
    assert returned(play.answer(1)) == b"500"


def test_cancel_raises_in_function_which_may_clean_up() -> None:
    """Cancelling is an exception in the function; its cleanup can make calls; then it has ended so."""

    async def main(session: Session) -> bytes:
        try:
            await ask("work")
        finally:
            await ask("tidy")
        return b""

    play = Play(main)
    step = play.cancel()
    assert (step.withdrawn, [call.name for call in step.asked]) == ((1,), ["tidy"])
    assert raised(play.answer(2)) == Raised(
        error="asyncio.CancelledError", detail="cancelled", cancelled=True
    )


def test_swallowed_cancellation_goes_on() -> None:
    """A function may decide to finish all the same."""

    async def main(session: Session) -> bytes:
        with suppress(asyncio.CancelledError):
            await ask("work")
        return await ask("rest")

    play = Play(main)
    play.cancel()
    assert returned(play.answer(2, b"done")) == b"done"


def test_function_that_cancels_itself_was_not_cancelled() -> None:
    """Only a cancellation that was delivered ends a run as cancelled."""

    async def main(session: Session) -> bytes:
        raise asyncio.CancelledError

    assert not raised(Play(main).first).cancelled


def test_exception_is_told_with_place_but_without_values() -> None:
    """An operator learns what was raised and where, and no secrets."""

    async def main(session: Session) -> bytes:
        token = "hunter2hunter2"  # noqa: S105 - that it stays out is the point
        raise LookupError(f"no account for token={token}")

    told = raised(Play(main).first)
    assert (told.error, told.detail) == ("LookupError", "no account for token=***")
    assert "in test_exception_is_told_with_place" in told.stack
    assert "tests/unit/durable/test_running.py:" in told.stack
    assert "hunter2" not in told.stack


def test_host_may_describe_exceptions() -> None:
    """Names and words are the host's to choose."""

    async def main(session: Session) -> bytes:
        raise KeyError("x")

    assert raised(Play(main, describe=lambda error: ("Mine", "words")).first).detail == "words"


def test_value_must_be_bytes() -> None:
    """The output codec belongs to the host's side of the function."""

    async def main(session: Session) -> bytes:
        return "text"  # type: ignore[return-value] # that is the test

    assert "returned str" in raised(Play(main).first).detail


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
@pytest.mark.parametrize("where", ["main", "task", "callback", "leftover"])
def test_asking_the_program_to_end_ends_the_run(kind: type[BaseException], where: str) -> None:
    """An agent's exit is its own, never its worker's."""

    def leave() -> NoReturn:
        raise kind("bye")

    async def side() -> None:
        try:
            await asyncio.sleep(0)
            if where == "leftover":
                await asyncio.sleep(9)
        finally:
            leave()

    async def main(session: Session) -> bytes:
        if where == "main":
            leave()
        if where == "callback":
            asyncio.get_running_loop().call_soon(leave)
        kept = asyncio.create_task(side())
        await asyncio.sleep(0)
        if where != "leftover":
            await kept
        return b""

    assert raised(Play(main).first).error == kind.__name__


def test_tasks_left_behind_are_cancelled_in_order_and_awaited() -> None:
    """Like `asyncio.run`: the run has ended when all it started has ended."""
    order: list[str] = []

    async def work(name: str) -> None:
        try:
            await ask(name)
        finally:
            order.append(name)
            if name == "b":
                await ask("tidy")

    async def main(session: Session) -> bytes:
        for name in "abc":
            asyncio.create_task(work(name))  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)
        return b"value"

    play = Play(main)
    assert order == ["a", "b", "c"]
    assert play.first.ended is None
    assert play.first.withdrawn == (1, 2, 3)
    assert [call.name for call in play.first.asked] == ["a", "b", "c", "tidy"]
    assert play.tick(1).ended is None
    assert returned(play.answer(4)) == b"value"


def test_cancel_reaches_tasks_left_behind() -> None:
    """A task that cleans up for ever can still be cancelled."""

    async def work() -> None:
        try:
            await ask("work")
        finally:
            await ask("never answered")

    async def main(session: Session) -> bytes:
        asyncio.create_task(work())  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)
        return b"value"

    play = Play(main)
    assert play.first.ended is None
    assert returned(play.cancel()) == b"value"


def test_task_started_while_ending_is_cancelled_too() -> None:
    """Cleanup that starts work does not keep a run alive."""

    async def late() -> None:
        await ask("late")

    async def work() -> None:
        try:
            await ask("work")
        finally:
            asyncio.create_task(late())  # noqa: RUF006 - left behind on purpose

    async def main(session: Session) -> bytes:
        asyncio.create_task(work())  # noqa: RUF006 - left behind on purpose
        await asyncio.sleep(0)
        return b""

    assert returned(Play(main).first) == b""


def test_abandoned_generators_are_closed_at_the_end_in_order(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A generator is closed at a fixed place, not when memory happens to be collected."""
    order: list[str] = []

    async def values(name: str) -> AsyncIterator[int]:
        try:
            yield 1
            yield 2
        finally:
            order.append(name)
            if name == "bad":
                raise ValueError(name)
            if name == "calls":
                await ask("tidy")

    async def main(session: Session) -> bytes:
        for name in ("first", "bad", "calls"):
            async for _ in values(name):
                break
        async for _ in values("finished"):
            pass
        gc.collect()
        order.append("end")
        return b""

    play = Play(main)
    assert order == ["finished", "end", "first", "bad", "calls"]
    assert "error while closing" in caplog.text
    assert returned(play.answer(1)) == b""


def test_finished_generators_are_forgotten() -> None:
    """A long run keeps what is open, not what it ever opened."""

    async def values() -> AsyncIterator[int]:
        yield 1

    async def main(session: Session) -> bytes:
        for _ in range(200):
            async for _ in values():
                pass
        return str(len(asyncio.get_running_loop()._asyncgens)).encode()  # type: ignore[attr-defined] # asyncio's own

    assert int(returned(Play(main).first)) <= 64


def test_many_tasks_are_swept_now_and_then() -> None:
    """Tasks are kept while they live; finished ones go, without looking at all of them each turn."""

    async def main(session: Session) -> bytes:
        kept = [asyncio.create_task(ask(f"{n}")) for n in range(100)]
        for _ in range(3):
            await asyncio.sleep(1)
        await asyncio.gather(*kept)
        return b""

    play = Play(main)
    loop = play.running._loop
    assert len(loop._tasks) == 101
    for number in range(1, 100):
        play.answer(number)
    play.tick(1000)
    assert len(loop.pending()) == 2
    play.tick(1000)
    play.answer(100)
    assert play.tick(1000).ended


def test_run_has_its_own_context() -> None:
    """What the host keeps in context variables does not leak into runs, nor from one to another."""
    variable = contextvars.ContextVar("variable", default="nothing")
    variable.set("the host's")

    async def main(session: Session) -> bytes:
        found = variable.get()
        variable.set("the run's")
        return found.encode()

    assert returned(Play(main).first) == b"nothing"
    assert variable.get() == "the host's"


def test_turn_inside_a_host_loop_leaves_it_running() -> None:
    """A host may itself be asyncio; the turn is a plain call to it."""

    async def main(session: Session) -> bytes:
        assert in_durable()
        return await ask("a")

    async def host() -> bytes:
        play = Play(main)
        loop = asyncio.get_running_loop()
        assert not in_durable()
        await asyncio.sleep(0)
        assert asyncio.get_running_loop() is loop
        return returned(play.answer(1, b"x"))

    assert asyncio.run(host()) == b"x"


def test_confined_cleanup_after_end_is_still_refused() -> None:
    """A violation counts in whichever turn it comes."""

    async def main(session: Session) -> bytes:
        await ask("a")
        time.sleep(1)  # noqa: ASYNC251 - refused
        return b""

    play = Play(main)
    with pytest.raises(ConfinementError, match=r"await asyncio\.sleep"):
        play.answer(1)


def test_nothing_waits_for_current_outside_a_run() -> None:
    """Calling an agent's tools outside an agent is a mistake that the message explains."""
    with pytest.raises(RuntimeError, match=r"tool\.local"):
        current()
    assert not in_durable()


def test_asking_outside_the_turn_is_refused() -> None:
    """A session belongs to its run's coroutines."""
    sessions: list[Session] = []

    async def main(session: Session) -> bytes:
        sessions.append(session)
        return await ask("a")

    play = Play(main)
    for act in (
        lambda: sessions[0].ask("tool", "x", b""),
        lambda: sessions[0].emit("x", b""),
        lambda: sessions[0].receive("x"),
    ):
        with pytest.raises(RuntimeError, match="outside the run's own turn"):
            act()
    play.running.close()


def test_errors_in_callbacks_are_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A replay does not report again what was reported."""

    async def main(session: Session) -> bytes:
        asyncio.get_running_loop().call_soon(int, "x")
        await asyncio.sleep(0)
        return b""

    running = Running(main, seed="r")
    running.replaying = True
    running.deliver(Begin(), now_ms=0)
    assert running.replaying
    assert not caplog.records
    Play(main)
    assert "Exception in callback" in caplog.text
