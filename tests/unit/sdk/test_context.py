"""The context: what belongs to the run, the same whenever it is replayed."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
from typing import Any

import pydantic
import pytest
from tests.unit.sdk.host import NOW_MS, Host, info

import headwater
from headwater.contracts.messages import Limits
from headwater.core.execution import Begin
from headwater.sdk.app import App

bank = App("bank")
SEEN: list[Any] = []


class Decision(pydantic.BaseModel):
    approve: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    about: str


@dataclasses.dataclass(frozen=True)
class Undeclared:
    number: int


EVENTS: dict[str, Any] = {
    "declared": Asked(about="money"),
    "undeclared": Undeclared(7),
    "words": "words",
    "wrong": Undeclared("seven"),  # type: ignore[arg-type] # the mistake
}


@bank.agent
async def looks(ctx: headwater.Context, what: str) -> str:
    SEEN.append(ctx.run)
    ctx.log.info("looking at %s", what)
    ctx.log.info("with more", extra={"more": 1})
    return f"{ctx.now().isoformat()} {ctx.uuid()} {ctx.random.random()}"


@bank.agent
async def lefts(ctx: headwater.Context, what: str) -> str:
    SEEN.append(ctx.run.left)
    return what


@bank.agent(emits=[Asked])
async def emits(ctx: headwater.Context, what: str) -> bool:
    ctx.emit(EVENTS[what])
    return True


@bank.agent
async def waits(ctx: headwater.Context, what: str) -> str:
    if what == "type":
        decision = await ctx.receive(Decision)
        return str(decision.approve)
    if what == "any":
        return str(await ctx.receive(""))
    try:
        return str(await ctx.receive("go", timeout_s=5))
    except TimeoutError:
        return "late"


def test_run_tells_who_asked_and_what_may_be_spent() -> None:
    """Identity, tenant, actor, deadline, attempt, limits."""
    Host(looks, "x")
    run = SEEN[-1]
    assert (run.id, run.task_id, run.tenant, run.actor) == ("agent.0.t1", "t1", "bank", "ana")
    assert (run.steps, run.tokens, run.usd, run.wall_s, run.attempt) == (7, 9, 0.5, 60.0, 1)
    assert run.deadline == datetime.datetime.fromtimestamp(NOW_MS / 1000 + 1, datetime.UTC)
    nothing = Limits(steps=None, tokens=None, usd_nano=None, wall_ms=None)
    Host(looks, "x", deadline_ms=None, limits=nothing, attempt=2)
    run = SEEN[-1]
    assert (run.steps, run.usd, run.wall_s, run.deadline, run.attempt) == (
        None,
        None,
        None,
        None,
        2,
    )


def test_run_tells_what_is_left_of_its_budget_and_says_so_again_in_a_replay() -> None:
    """It falls with what is open and settles with what is answered, in the units of a budget."""
    told: list[headwater.Budget] = []
    desk = App("desk")

    @desk.tool(effect="read")
    async def look() -> str:
        return "seen"

    @desk.agent(budget=headwater.Budget(steps=3, usd=0.5, wall_s=60))
    async def frugal(ctx: headwater.Context, what: str) -> int:
        looks = 0
        while ctx.run.left.steps:
            told.append(ctx.run.left)
            await look()
            looks += 1
            await ctx.receive("go")
        return looks

    async def play() -> int:
        async with headwater.testing.App(desk) as t:
            run = await t.start(frugal, "x")
            for _ in range(3):
                await t.crash()
                await t.advance(seconds=1)
                await t.signal(run, "go")
            return int(await run.result())

    assert asyncio.run(play()) == 3
    assert told[0] == headwater.Budget(steps=3, usd=0.5, wall_s=60)
    assert [(left.steps, left.usd) for left in told[-3:]] == [(3, 0.5), (2, 0.5), (1, 0.5)]
    assert [left.wall_s for left in told[-3:]] == [60, 59, 58], (
        "the last crash had it all told again"
    )


def test_what_is_left_is_all_of_it_where_no_journal_says() -> None:
    """A host that does not say, as code from before: the limits themselves."""
    Host(looks, "x")
    with pytest.raises(RuntimeError, match="outside the run's own turn"):
        _ = SEEN[-1].left
    Host(lefts, "x")
    assert SEEN[-1] == headwater.Budget(steps=7, tokens=9, usd=0.5, wall_s=60, cleanup_steps=10)


def test_time_and_chance_belong_to_the_run() -> None:
    """The same run sees the same; another sees other."""
    one, again, other = (Host(looks, "x", run=run).result for run in ("a.0.1", "a.0.1", "a.0.2"))
    assert one == again
    assert one != other
    assert one.startswith("2023-11-14T22:13:20+00:00 ")


def test_log_says_nothing_twice(caplog: pytest.LogCaptureFixture) -> None:
    """A replay is silent; the control is the run itself, which is not."""
    caplog.set_level(logging.INFO, logger="headwater.agents.looks")
    for replaying, lines in ((False, 2), (True, 0)):
        caplog.clear()
        execution = looks.begin(info("looks.0.t1"), looks.input.encode("x"))
        execution.replaying = replaying
        execution.deliver(Begin(), now_ms=NOW_MS)
        assert len(caplog.records) == lines
        assert all(record.__dict__["run"] == "looks.0.t1" for record in caplog.records)
        if lines:
            assert caplog.messages == ["[looks.0.t1] looking at x", "[looks.0.t1] with more"]
            assert caplog.records[1].__dict__["more"] == 1


def test_event_is_published_by_its_class_name() -> None:
    """Its schema is the app's; what was not declared is learned when it is emitted."""
    for what in ("declared", "undeclared"):
        host = Host(emits, what)
        (emitted,) = host.steps[0].emitted
        event = EVENTS[what]
        assert emitted.type == type(event).__name__
        shape = emits.events.shape(type(event))
        assert shape.decode(emitted.value, bank.schemas) == event
        assert shape.name == f"bank.{type(event).__name__}"
        assert host.result is True
    assert "bank.Asked" in bank.shapes()


def test_event_that_is_no_record_fails_the_run() -> None:
    """A bare text has no type of its own."""
    raised = Host(emits, "words").raised
    assert raised.error == "headwater.errors.SettingsError"
    assert "agent emits emits str: an event is a pydantic model or a dataclass" in raised.detail


def test_event_that_does_not_fit_fails_the_run() -> None:
    """Nobody publishes what nobody could read."""
    host = Host(emits, "wrong")
    assert host.raised.error == "ValueError"
    assert host.steps[0].emitted == ()


def test_declared_event_that_is_no_record_is_refused() -> None:
    """At build, naming agent and event."""
    with pytest.raises(headwater.SettingsError, match="agent emits emits int"):
        App("bank").agent(emits=[int])(emits.function)


def test_signal_is_received_by_name_or_type() -> None:
    """A type waits for the signal of its name and reads it as that type."""
    host = Host(waits, "type")
    assert host.steps[0].receiving == ("Decision",)
    host.signal("Decision", b'{"approve": true}')
    assert host.result == "True"
    host = Host(waits, "name")
    host.signal("go", b'{"a": 1}')
    assert host.result == "{'a': 1}"
    host = Host(waits, "any")
    host.signal("whatever", b"")
    assert host.result == "None"


def test_signal_that_does_not_fit_is_a_validation_error() -> None:
    """The agent may catch it and wait for the next."""
    host = Host(waits, "type")
    host.signal("Decision", b'{"approve": "perhaps"}')
    assert host.raised.error.endswith("ValidationError")


def test_signal_may_come_too_late() -> None:
    """Waiting is bounded if the agent says so."""
    host = Host(waits, "name")
    host.tick(5)
    assert host.result == "late"
