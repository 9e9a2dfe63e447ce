"""Calls: every outcome is a value or an error that agents can name."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.sdk.host import Host, text

import headwater
from headwater.contracts.messages import Answered
from headwater.core.execution import Answer, Begin
from headwater.durable.running import Running, Session
from headwater.sdk.app import App
from headwater.sdk.calls import ask

bank = App("bank")
small = bank.model("small", "test")


@bank.tool(effect="write", timeout_s=3)
async def block(card: str) -> bool:
    return True


@bank.agent
async def child(ctx: headwater.Context, number: int) -> int:
    return number


@bank.agent
async def tries(ctx: headwater.Context, what: str) -> list[str]:
    try:
        if what == "tool":
            return [str(await block("c1"))]
        if what == "model":
            return [await small("hello")]
        return [str(await child.with_(timeout_s=3)(1))]
    except headwater.CallError as error:
        return [type(error).__name__, error.error, error.call_id, str(error)]


@bank.agent
async def outer(ctx: headwater.Context, what: str) -> str:
    try:
        async with asyncio.timeout(1):
            return str(await block("c1"))
    except TimeoutError as error:
        return type(error).__name__


KINDS = {"tool": "ToolError", "model": "ModelError", "agent": "AgentError"}


@pytest.mark.parametrize(("kind", "error"), KINDS.items())
def test_failure_is_the_kinds_error(kind: str, error: str) -> None:
    """The effector's words and class, and which call it was."""
    host = Host(tries, kind)
    host.fail(1, "bank.Away", "closed on sundays")
    assert host.result == [error, "bank.Away", "agent.0.t1/1", "closed on sundays"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", ["BudgetExceeded", "Denied"])
def test_what_was_never_sent_has_no_call_id(kind: str, error: str) -> None:
    """Nothing went out, so nothing need be looked for."""
    host = Host(tries, kind)
    host.fail(1, error)
    assert host.result == [error, error, "", "no"]


@pytest.mark.parametrize(("kind", "expected"), KINDS.items())
@pytest.mark.parametrize("error", ["TooLarge", "Unknown"])
def test_what_could_not_be_sent_has_no_call_id(kind: str, expected: str, error: str) -> None:
    """The same goes for what is too large, and for what this app does not have."""
    host = Host(tries, kind)
    host.fail(1, error)
    assert host.result == [expected, error, "", "no"]


@pytest.mark.parametrize("kind", KINDS)
def test_deadline_is_told_apart(kind: str) -> None:
    """The task's own deadline passed, whoever noticed."""
    host = Host(tries, kind)
    host.fail(1, "DeadlineExceeded")
    assert host.result[0] == "DeadlineExceeded"


def test_tools_timeout_is_a_tool_timeout() -> None:
    """Whether the tools role or the run noticed."""
    host = Host(tries, "tool")
    host.fail(1, "ToolTimeout")
    assert host.result[:3] == ["ToolTimeout", "ToolTimeout", "agent.0.t1/1"]
    host = Host(tries, "tool")
    host.tick(3)
    assert host.result == [
        "ToolTimeout", "Timeout", "agent.0.t1/1", "tool block did not answer within 3 s"
    ]  # fmt: skip


def test_late_child_is_withdrawn() -> None:
    """The host cancels what nobody waits for."""
    host = Host(tries, "agent")
    assert host.tick(3).withdrawn == (1,)
    assert host.result[:2] == ["AgentError", "Timeout"]


def test_agents_own_timeout_stays_a_timeout() -> None:
    """A call's time limit does not swallow the one around it."""
    host = Host(outer, "?")
    host.tick(1)
    assert host.result == "TimeoutError"


@pytest.mark.parametrize(("kind", "error"), KINDS.items())
def test_doubt_is_an_error(kind: str, error: str) -> None:
    """Nobody may take it for done or not done."""
    host = Host(tries, kind)
    host.doubt(1)
    assert host.result[:3] == [error, "InDoubt", "agent.0.t1/1"]


def test_cancelled_agent_may_still_call() -> None:
    """Cancel raises in the function; what waits is withdrawn."""
    host = Host(tries, "tool")
    step = host.cancel()
    assert step.withdrawn == (1,)
    assert host.raised.cancelled


def test_answer_is_the_value() -> None:
    """Text in, text out."""
    host = Host(tries, "model")
    host.reply(1, text("hi"))
    assert host.result == ["hi"]


def test_call_outside_a_declared_agent_has_its_number() -> None:
    """A durable function need not be an agent of an app."""

    async def main(session: Session) -> bytes:
        try:
            return await ask("tool", "t", b"")
        except headwater.ToolError as error:
            return error.call_id.encode()

    running = Running(main, seed="r")
    running.deliver(Begin(), now_ms=0)
    step = running.deliver(Answer(number=1, outcome=Answered(value=b"7")), now_ms=0)
    assert step.ended is not None
    running = Running(_timed, seed="r")
    running.deliver(Begin(), now_ms=0)
    assert running.deliver(Answer(number=1, outcome=Answered(value=b"7")), now_ms=0).ended


async def _timed(session: Session) -> bytes:
    return await ask("tool", "t", b"", timeout_s=5)
