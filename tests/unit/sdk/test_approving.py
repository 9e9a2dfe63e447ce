"""Approving: tools say which of their calls a person has to approve, and an agent asks for itself."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable
from typing import Any

import pydantic
import pytest
from tests.unit.sdk.host import Host

import headwater
from headwater.core.execution import Asked, Parked, Released
from headwater.core.judge import Allow, AskPerson, Deny
from headwater.core.messages import Meta

META = Meta(id="m", tenant="t")


class Payment(pydantic.BaseModel):
    """What is paid."""

    amount: int


def bank(when: Callable[..., object] | None, judge: Any = None, **more: Any) -> headwater.App:
    """Return an app with one tool."""
    app = headwater.App("bank", judge=judge)

    @app.tool(effect="write", approve_if=when, **more)
    async def pay(p: Payment, currency: str = "EUR") -> str:
        return f"{p.amount} {currency}"

    return app


def judged(app: headwater.App, amount: int = 20_000) -> Any:
    """Return the verdict about a payment."""
    arguments = app.tools["pay"].parameters.encode({"p": Payment(amount=amount), "currency": "EUR"})
    asked = Asked(number=1, kind="tool", name="pay", arguments=arguments, digest=b"")
    return app.judge.judge(asked, META)


def test_a_tool_says_which_of_its_calls_a_person_approves() -> None:
    """By its arguments, in their order."""
    app = bank(
        lambda p, currency: p.amount > 10_000, approve_to="group:payments", approve_expires_s=60
    )
    assert judged(app, 10_000) == Allow()
    assert judged(app, 10_001) == AskPerson("call pay", to="group:payments", expires_s=60)
    assert judged(bank(None)) == Allow()
    other = Asked(number=1, kind="model", name="pay", arguments=b"", digest=b"")
    assert app.judge.judge(other, META) == Allow()


def test_a_condition_that_raises_denies() -> None:
    """Nobody knows whether a person would have to be asked."""
    verdict = judged(bank(lambda p, currency: p.nonsense))
    assert isinstance(verdict, Deny)
    assert verdict.reason.startswith("approve_if of tool pay raised AttributeError: ")


def test_the_apps_own_judge_is_asked_first() -> None:
    """What it denies is denied; whom it has asked is asked."""

    class Own:
        version = "own"

        def judge(self, call: Asked, meta: Meta) -> Any:
            return AskPerson("mine")

    assert judged(bank(lambda p, currency: True, judge=Own())) == AskPerson("mine")


async def _later(p: Payment, currency: str) -> bool:
    return True


@pytest.mark.parametrize(
    ("when", "more", "words"),
    [
        (
            lambda p: True,
            {},
            "tool pay: approve_if is told p, currency: too many positional arguments",
        ),
        (_later, {}, "tool pay: approve_if is decided where the run is; it cannot be async"),
        (
            None,
            {"approve_expires_s": 0},
            "tool pay: approve_expires_s must be over 0 seconds, not 0",
        ),
        (None, {"approve_to": "group:"}, "tool pay: approve_to names a group"),
    ],
)
def test_terms_that_cannot_work_are_refused(when: Any, more: dict[str, Any], words: str) -> None:
    """When the app is built, naming the tool."""
    with pytest.raises(headwater.SettingsError, match=words):
        bank(when, **more)


def test_people_are_shown_arguments_as_json() -> None:
    """As the tool takes them."""
    tool = bank(None).tools["pay"]
    arguments = tool.parameters.encode({"p": Payment(amount=7), "currency": "EUR"})
    assert json.loads(tool.shown(arguments)) == {"p": {"amount": 7}, "currency": "EUR"}


human = headwater.App("human")


@human.tool(effect="write", timeout_s=10)
async def send(text: str) -> str:
    return text


@human.agent
async def sends(ctx: headwater.Context, text: str) -> str:
    try:
        return await send(text)
    except headwater.ToolTimeout:
        return "timed out"


@human.agent
async def asks(ctx: headwater.Context, words: str) -> str:
    try:
        approval = await ctx.approve(words, Payment(amount=7), to="group:payments", expires_s=60)
    except headwater.Denied as error:
        return f"{type(error).__name__}: {error}"
    except ValueError as error:
        return str(error)
    assert approval.at == datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    return f"{approval.by}: {approval.reason}"


def test_an_agent_asks_a_person_and_learns_who_said_yes() -> None:
    """Who, when and why; the subject is in what they decide about."""
    host = Host(asks, "pay?")
    (asked,) = host.asked
    assert (asked.kind, asked.name) == ("person", "approve")
    assert json.loads(asked.arguments) == {"words": "pay?", "subject": {"amount": 7}}
    assert asked.options["ask"] == AskPerson("pay?", to="group:payments", expires_s=60)
    host.answer(1, b'{"by": "ana", "at_ms": 1767225600000, "reason": "fine"}')
    assert host.result == "ana: fine"


def test_a_no_is_raised() -> None:
    """With what the person said, and what expired."""
    host = Host(asks, "pay?")
    host.fail(1, "Denied", "pay?: denied by ana: no money")
    assert host.result == "Denied: pay?: denied by ana: no money"


@human.agent
async def nameless(ctx: headwater.Context, words: str) -> str:
    try:
        await ctx.approve(words, to="group:")
    except ValueError as error:
        return str(error)
    return ""


def test_nothing_is_asked_without_words() -> None:
    """A person has to know what they say yes to."""
    assert Host(asks, "").result == "approve needs words, and expires_s over 0 seconds"
    assert "to names a group" in Host(nameless, "x").result


def test_a_calls_time_stands_still_while_a_person_is_asked() -> None:
    """It begins when the call is sent; before that the limit of the agent's patience is the person's."""
    host = Host(sends, "x")
    host.deliver(Parked(number=1))
    assert host.steps[-1].wake_ms is None
    host.tick(3_600)
    assert host.steps[-1].ended is None
    released = Released(number=1, approval="p", by="ana", reason="", at_ms=0)
    host.deliver(released)
    assert host.steps[-1].wake_ms == host.now_ms + 10_000
    host.tick(10)
    assert host.result == "timed out"
    host = Host(sends, "x")
    host.deliver(Parked(number=1))
    host.deliver(released)
    host.answer(1, send.encode("y"))
    assert host.result == "y"


def test_without_the_pause_it_would_time_out() -> None:
    """The control."""
    host = Host(sends, "x")
    host.tick(10)
    assert host.result == "timed out"


def test_a_wait_that_was_given_up_is_parked_no_more() -> None:
    """What is told of it later is nobody's."""
    host = Host(sends, "x")
    host.deliver(Parked(number=2))
    assert host.steps[-1].ended is None
