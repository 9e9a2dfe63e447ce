"""Answers: deadlines, retries in place, heartbeats, progress, and whatever an effector raises."""

from __future__ import annotations

import asyncio
import logging

import pytest
from stamina import instrumentation
from tests.unit.performing.world import (
    BEGIN_MS,
    QUARANTINE,
    TOKENS,
    Hands,
    World,
    finish,
    play,
    settle,
)

from headwater.contracts.messages import Answered, Failed, InDoubt, Usage
from headwater.core.effector import Done, Safety
from headwater.errors import TransientError
from headwater.runtime.answering import TOKEN_CHARS_MAX, VALUE_BYTES_MAX
from headwater.runtime.lanes import Bounds
from headwater.runtime.retrying import Retry, Retrying


async def _answer(behave, **options):
    """Return the world after one request was answered."""
    world = World(Hands(behave), **options)
    loop = world.performing()
    await world.ask()
    await finish(loop)
    await loop.close()
    return world


def failing(times, error):
    """Return a behaviour that raises so often, then answers."""
    left = [times]

    async def behave(call, ask, attempt):
        if left[0]:
            left[0] -= 1
            raise error
        return Done(value=b"at last")

    return behave


@play
async def test_a_call_is_told_its_terms():
    """The effector sees the idempotency key, safety, address and meta of its request."""
    seen = []

    async def behave(call, ask, attempt):
        seen.append((call, attempt))
        return Done(value=b"", usage=Usage(model="m", input_tokens=1, output_tokens=2, usd_nano=3))

    world = await _answer(behave)
    ((call, attempt),) = seen
    assert call.id == "desk.0.r/0"
    assert call.safety is Safety.READ
    assert call.reply_to.run == "desk.0.r"
    assert call.meta.tenant == "t1"
    assert (attempt.number, attempt.last_state) == (1, None)
    (reply,) = world.replies()
    assert reply.attempt == attempt.id
    assert reply.usage is not None
    assert reply.usage.usd_nano == 3


@play
async def test_a_world_away_is_tried_again_in_place_and_only_its_key_waits():
    """Backoff doubles up to a bound; calls of other keys are answered meanwhile."""
    behave = failing(4, TransientError("away"))

    async def only_first(call, ask, attempt):
        return await behave(call, ask, attempt) if ask.number == 0 else Done(value=b"")

    world = World(Hands(only_first), retry=Retry(wait_s_min=1, wait_s_max=5, jitter_s=0))
    loop = world.performing()
    for key in ("a", "a", "b"):
        await world.ask(order_key=key)
    await settle(loop)
    assert [*world.outcomes()] == [2]
    await finish(loop)
    assert [reply.number for reply in world.replies()] == [2, 0, 1]
    assert world.sleeps == [1, 2, 4, 5]


@play
async def test_waits_are_jittered():
    """Jitter keeps those who failed together from trying together."""
    draws = iter([0.0, 1.0, 0.5])
    sleeps = []

    async def sleep(seconds):
        sleeps.append(seconds)

    retrying = Retrying(
        Retry(wait_s_min=1, wait_s_max=9, jitter_s=2),
        clock=lambda: 0,
        sleep=sleep,
        draw=lambda: next(draws),
    )
    left = [3]

    async def attempt(number):
        if left[0]:
            left[0] -= 1
            raise TransientError
        return number

    assert await retrying.call("a call", attempt, within_s=60, wanted=lambda: True) == 4
    assert sleeps == [1, 4, 5]


@pytest.mark.parametrize("ours", [True, False], ids=["", "control"])
@play
async def test_each_try_that_came_to_nothing_is_logged_once(caplog, monkeypatch, ours):
    """With the call, its error without secrets, and the wait; the control has stamina's line too."""
    before = instrumentation.get_on_retry_hooks()  # none, where a simulation was imported
    instrumentation.set_on_retry_hooks([instrumentation.LoggingOnRetryHook])
    if not ours:
        monkeypatch.setattr(logging.getLogger("stamina"), "filters", [])
    await _answer(failing(1, TransientError("429 for token=abcdef123")))
    instrumentation.set_on_retry_hooks(before)
    lines = [record for record in caplog.records if record.levelname == "WARNING"]
    (line,) = [one.getMessage() for one in lines if "came to nothing" in one.getMessage()]
    assert "token=***" in line
    assert "try 1" in line
    assert "call" in line
    assert [one.name for one in lines if one.name == "stamina"] == ([] if ours else ["stamina"])


@play
async def test_a_call_whose_time_is_over_is_said_to_be_given_up(caplog):
    """Without its last word the log would end at a try that announces another."""
    retry = Retry(total_s=3, wait_s_min=1, jitter_s=0)
    world = await _answer(failing(9, TransientError("429 for token=abcdef123")), retry=retry)
    assert world.outcomes()[0].error == "TransientError"
    assert "token=***" in caplog.messages[-1]
    assert "given up, its time is over" in caplog.messages[-1]


@play
async def test_who_asks_to_be_left_alone_is():
    """A provider's Retry-After is waited for, where it is longer than our own wait."""
    world = await _answer(failing(1, TransientError("429", retry_after_s=37)))
    assert world.sleeps == [37]
    assert world.outcomes() == {0: Answered(value=b"at last")}


@play
async def test_after_its_time_the_error_is_the_answer():
    """No try begins later than `total_s`: the run retries by timer and a new number."""
    world = await _answer(
        failing(10_000, TransientError("token=abcdef123 is away")),
        retry=Retry(total_s=60, wait_s_min=1, wait_s_max=10, jitter_s=0),
    )
    assert sum(world.sleeps) <= 60
    assert world.now_ms() - BEGIN_MS <= 61_000
    assert world.outcomes() == {0: Failed(error="TransientError", detail="token=*** is away")}


@play
async def test_time_that_stands_still_ends_the_retries_too():
    """Under a test's clock, what was slept is what was spent."""
    sleeps = []

    async def sleep(seconds):
        sleeps.append(seconds)

    retrying = Retrying(Retry(total_s=60, jitter_s=0), clock=lambda: 0, sleep=sleep)

    async def attempt(number):
        raise TransientError("away")

    with pytest.raises(TransientError):
        await retrying.call("a call", attempt, within_s=1_000, wanted=lambda: True)
    assert 20 < sum(sleeps) <= 60


@play
async def test_no_try_begins_after_the_deadline():
    """`not_after_ms` bounds tries in place as well."""
    world = World(Hands(failing(100, TransientError("away"))))
    loop = world.performing()
    await world.ask(not_after_ms=BEGIN_MS + 5_000)
    await finish(loop)
    assert sum(world.sleeps) <= 5
    await loop.close()


@play
async def test_a_call_too_late_is_not_begun():
    """A request whose time is over is answered, not performed."""
    world = World()
    loop = world.performing()
    await world.ask(not_after_ms=BEGIN_MS)
    await finish(loop)
    assert world.hands.began == []
    assert world.outcomes()[0].error == "DeadlineExceeded"
    await loop.close()


@play
async def test_a_call_that_waits_too_long_for_its_turn_is_not_begun():
    """The deadline is looked at when its turn comes, not when it arrives."""
    world = World(bounds=Bounds(calls_max=1, mark_ms_min=0))
    world.hands.hold(0)
    loop = world.performing()
    await world.ask()
    await world.ask(not_after_ms=BEGIN_MS + 1_000)
    await settle(loop)
    await asyncio.sleep(2)
    world.hands.gates[0].set()
    await finish(loop)
    assert world.hands.began == [0]
    assert world.outcomes()[1].error == "DeadlineExceeded"
    await loop.close()


class UnprintableError(Exception):
    def __str__(self):
        raise RuntimeError("no words")


@pytest.mark.parametrize(
    ("error", "name", "detail"),
    [
        (ValueError("password=hunter22 is wrong"), "ValueError", "password=*** is wrong"),
        (asyncio.CancelledError(), "asyncio.exceptions.CancelledError", ""),
        (TimeoutError("its own"), "TimeoutError", "its own"),
        (SystemExit(3), "SystemExit", "3"),
        (KeyError("k" * 5_000), "KeyError", ("'" + "k" * 5_000)[:2_000]),
        (OSError("no file a\udcff"), "OSError", "no file a\\udcff"),
        (type("Out", (BaseException,), {"__module__": "builtins"})("of time"), "Out", "of time"),
    ],
)
def test_whatever_an_effector_raises_is_the_answer(error, name, detail):
    """No error of users' code stops the process or leaves a request unanswered; secrets are hidden."""

    @play
    async def scene():
        world = await _answer(failing(1, error))
        assert world.outcomes() == {0: Failed(error=name, detail=detail)}
        assert world.hands.began == [0]
        assert world.marked() == 1

    scene()


@pytest.mark.parametrize("safety", ["read", "write"])
def test_an_answer_that_cannot_be_written_fails_its_call_alone(safety):
    """Its request is kept for people; the run is told, and the process goes on with the next."""

    @play
    async def scene():
        async def behave(call, ask, attempt):
            return Done(value=b"", usage=Usage(model="m" * 1_000_000 if ask.number == 0 else "m"))

        world = World(Hands(behave))
        loop = world.performing()
        await world.ask(safety=safety)
        await world.ask(safety=safety)
        await finish(loop)
        outcomes = world.outcomes()
        assert outcomes[0].error == "too-large"
        assert outcomes[1] == Answered(value=b"")
        assert len(world.records(QUARANTINE)) == 1
        assert world.marked() == 2
        await loop.close()

    scene()


@play
async def test_an_error_without_words_is_an_answer():
    """An exception whose `__str__` fails is told by its class."""
    world = await _answer(failing(1, UnprintableError()))
    assert world.outcomes()[0].error.endswith("UnprintableError")


@play
async def test_an_answer_in_doubt_travels():
    """An effector may say that it does not know."""

    async def behave(call, ask, attempt):
        return InDoubt(since_ms=7)

    assert (await _answer(behave)).outcomes() == {0: InDoubt(since_ms=7)}


@pytest.mark.parametrize(("size", "fits"), [(VALUE_BYTES_MAX, True), (VALUE_BYTES_MAX + 1, False)])
def test_an_answer_over_the_limit_is_an_error(size, fits):
    """At most 512 KiB travel; what it cost is still told."""

    @play
    async def scene():
        async def behave(call, ask, attempt):
            return Done(value=b"x" * size, usage=Usage(usd_nano=5))

        (reply,) = (await _answer(behave)).replies()
        assert isinstance(reply.outcome, Answered) == fits
        assert fits or reply.outcome.error == "TooLarge"
        assert reply.usage is not None
        assert reply.usage.usd_nano == 5

    scene()


async def _quiet(beats, name="tool.cards"):
    async def behave(call, ask, attempt):
        for beat in range(10):
            if beats:
                attempt.heartbeat(beat)
            await asyncio.sleep(40)
        return Done(value=b"slow")

    world = World(Hands(behave, name=name), bounds=Bounds(quiet_s_max=60, mark_ms_min=0))
    loop = world.performing()
    await world.ask()
    await finish(loop)
    await loop.close()
    return world.outcomes()[0]


@play
async def test_a_call_without_a_heartbeat_is_ended(caplog):
    """Nothing stays in an effector that says nothing; the control is the same call with heartbeats."""
    failed = await _quiet(beats=False)
    assert [line for line in caplog.messages if "ended, it said nothing for 60 s" in line]
    assert failed.error == "ToolTimeout"
    assert "60 s" in failed.detail
    assert (await _quiet(beats=False, name="model")).error == "Timeout"
    assert await _quiet(beats=True) == Answered(value=b"slow")


@play
async def test_a_heartbeat_after_the_end_is_harmless():
    """A thread that was left behind may still speak."""
    kept = []

    async def behave(call, ask, attempt):
        kept.append(attempt)
        return Done(value=b"")

    await _answer(behave)
    kept[0].heartbeat("late")


@play
async def test_the_last_state_reaches_the_next_try():
    """What a heartbeat said is there for the try that follows."""
    states = []

    async def behave(call, ask, attempt):
        states.append((attempt.number, attempt.last_state))
        attempt.heartbeat({"page": attempt.number})
        if attempt.number < 3:
            raise TransientError("away")
        return Done(value=b"")

    await _answer(behave)
    assert states == [(1, None), (2, {"page": 1}), (3, {"page": 2})]


@play
async def test_progress_becomes_tokens_and_a_new_try_starts_over():
    """Each piece is a token of the run; the next try counts from one under a higher attempt."""

    async def behave(call, ask, attempt):
        await attempt.progress("half ")
        if attempt.number == 1:
            raise TransientError("away")
        await attempt.progress("whole")
        return Done(value=b"")

    world = await _answer(behave)
    tokens = world.tokens()
    assert [(t.attempt[:2], t.seq, t.text) for t in tokens] == [
        ("1.", 1, "half "),
        ("2.", 1, "half "),
        ("2.", 2, "whole"),
    ]
    assert {record.key for record in world.records(TOKENS)} == {b"desk.0.r"}


@play
async def test_a_long_piece_becomes_several_tokens():
    """No piece is so long that it could not be written."""

    async def behave(call, ask, attempt):
        await attempt.progress("x" * (TOKEN_CHARS_MAX + 1))
        return Done(value=b"")

    assert [len(t.text) for t in (await _answer(behave)).tokens()] == [TOKEN_CHARS_MAX, 1]


@play
async def test_a_lost_token_repeats_no_call():
    """Tokens are a courtesy: while the log is away, the call itself goes on."""
    world = World()

    async def behave(call, ask, attempt):
        world.faults.away = True
        await attempt.progress("lost")
        world.faults.away = False
        return Done(value=b"")

    world.hands = Hands(behave)
    loop = world.performing()
    await world.ask()
    await finish(loop)
    assert world.hands.began == [0]
    assert world.tokens() == []
    assert len(world.replies()) == 1
    await loop.close()


def test_the_log_is_waited_for_and_that_is_said_once(caplog):
    """However long it is away, there is one line."""

    @play
    async def scene():
        world = World()
        loop = world.performing()
        await world.ask()
        world.faults.away = True
        await settle(loop)
        for _ in range(5):
            await asyncio.sleep(30)
        assert world.faults.refused > 5
        world.faults.away = False
        await finish(loop)
        assert len(world.replies()) == 1
        await loop.close()

    scene()
    assert len([line for line in caplog.messages if "waits" in line]) == 1
