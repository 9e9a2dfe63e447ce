"""Agents: declared functions, their executions, and themselves as children."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pydantic
import pytest
from tests.unit.sdk.host import Host, info

import headwater
from headwater.contracts.messages import Limits
from headwater.core.execution import AgentFunction, Execution
from headwater.sdk.app import App

if TYPE_CHECKING:
    from collections.abc import Sequence

bank = App("bank")


class Claim(pydantic.BaseModel):
    amount: int


@bank.agent(budget=headwater.Budget(steps=5, usd=0.5), dedupe_s=60)
async def fraud(ctx: headwater.Context, claim: Claim) -> int:
    return claim.amount * 2


@bank.agent
async def parent(ctx: headwater.Context, claim: Claim) -> str:
    try:
        return str(await fraud(claim))
    except headwater.CallError as error:
        return f"{type(error).__name__} {error.error} {error.call_id}: {error}"


@bank.agent
async def hurried(ctx: headwater.Context, claim: Claim) -> int:
    return await fraud.with_(timeout_s=2, budget=headwater.Budget(steps=1))(claim)


@bank.agent
async def careless(ctx: headwater.Context, claim: Claim) -> int:
    return await fraud(5)  # type: ignore[arg-type] # the mistake


@bank.agent
async def liar(ctx: headwater.Context, claim: Claim) -> int:
    return "seven"  # type: ignore[return-value] # the mistake


@bank.agent
async def both(ctx: headwater.Context, claim: Claim) -> list[int]:
    return [*await asyncio.gather(fraud(Claim(amount=1)), fraud(Claim(amount=2)))]


def test_agent_is_what_runs_host() -> None:
    """The decider of runs needs a name, limits, executions and outcomes as JSON."""
    hosted: AgentFunction = fraud
    assert hosted.name == "fraud"
    assert hosted.limits == Limits(steps=5, usd_nano=500_000_000)
    assert fraud.dedupe_s == 60
    execution: Execution = hosted.begin(info(), fraud.input.encode(Claim(amount=2)))
    assert not execution.replaying
    assert hosted.outcome_json(fraud.output.encode(7)) == b"7"


def test_agent_decodes_its_task_and_encodes_its_result() -> None:
    """Typed in, typed out."""
    assert Host(fraud, Claim(amount=21)).result == 42


def test_foreign_task_is_poison() -> None:
    """Bytes of another type never reach the function."""
    with pytest.raises(headwater.PoisonError):
        fraud.begin(info(), b"\xc3\x01rubbish!")


def test_result_of_another_type_fails_the_run() -> None:
    """What a function returns is checked against what it declared."""
    raised = Host(liar, Claim(amount=1)).raised
    assert raised.error == "ValueError"
    assert "the result of agent liar does not fit its declared type" in raised.detail


def test_agent_in_an_agent_is_a_call() -> None:
    """Awaited in an agent it is a child run."""
    host = Host(parent, Claim(amount=3))
    (asked,) = host.asked
    assert (asked.kind, asked.name, asked.options) == ("agent", "fraud", {})
    assert fraud.input.decode(asked.arguments, bank.schemas) == Claim(amount=3)
    host.answer(1, fraud.output.encode(6))
    assert host.result == "6"


def test_children_run_side_by_side() -> None:
    """Calling returns a coroutine, so `gather` takes it."""
    host = Host(both, Claim(amount=0))
    assert [asked.number for asked in host.asked] == [1, 2]
    host.answer(2, fraud.output.encode(4))
    host.answer(1, fraud.output.encode(2))
    assert host.result == [2, 4]


def test_with_sets_budget_and_time() -> None:
    """The child's terms travel beside the call; the agent itself keeps its own."""
    host = Host(hurried, Claim(amount=3))
    (asked,) = host.asked
    assert asked.options == {"limits": Limits(steps=1), "timeout_ms": 2_000}
    step = host.tick(2)
    assert step.withdrawn == (1,)
    assert host.raised.error == "headwater.errors.AgentError"
    assert "did not answer within 2 s" in host.raised.detail
    with pytest.raises(headwater.SettingsError, match="timeout_s"):
        fraud.with_(timeout_s=0)


def test_task_of_another_type_is_the_callers_mistake() -> None:
    """Nothing is asked with arguments that do not fit."""
    host = Host(careless, Claim(amount=1))
    assert host.asked == []
    assert host.raised.error == "ValueError"
    assert "the task of agent fraud" in host.raised.detail


def test_answer_of_another_type_is_an_agent_error() -> None:
    """A child of another version may answer what cannot be read."""
    host = Host(parent, Claim(amount=1))
    host.answer(1, b"\xc3\x01rubbish!")
    assert host.result.startswith("AgentError unknown-schema :")


def test_agent_outside_a_run_says_what_to_do() -> None:
    """There is no run to which the call could belong."""
    with pytest.raises(RuntimeError, match="no agent is running here"):
        asyncio.run(fraud(Claim(amount=1)))


def refused(function: Any, **terms: Any) -> str:
    with pytest.raises(headwater.SettingsError) as caught:
        App("bank").agent(**terms)(function)
    return str(caught.value)


def test_what_is_no_agent_is_refused() -> None:
    """An agent is `async def agent(ctx, task) -> result`, all of it with type hints."""

    def sync(ctx: headwater.Context, claim: Claim) -> int:
        return 1

    async def lonely(ctx: headwater.Context) -> int:
        return 1

    async def unhinted(ctx: headwater.Context, claim) -> int:  # type: ignore[no-untyped-def] # that is refused
        return 1

    async def endless(ctx: headwater.Context, claim: Claim):  # type: ignore[no-untyped-def] # that is refused
        return 1

    async def absent(ctx: headwater.Context, claim: Sequence[int]) -> int:
        return 1

    assert "agent sync: it must be an async function" in refused(sync)
    assert "agent lonely: it takes a context and one task" in refused(lonely)
    assert "agent unhinted: claim and the result need type hints" in refused(unhinted)
    assert "agent endless: claim and the result" in refused(endless)
    assert "agent absent: a type hint cannot be read: name 'Sequence'" in refused(absent)
    assert "dedupe_s must be over 0" in refused(lambda_agent, name="short", dedupe_s=0)


async def lambda_agent(ctx: headwater.Context, claim: Claim) -> int:
    return 1
