"""The app that is simulated: a desk that asks a model, tools of every safety, and a clerk."""

from __future__ import annotations

import asyncio
import dataclasses
import functools

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from headwater.contracts.messages import Ask, Spent
from headwater.core.prices import Price, Prices, usd_per_million
from headwater.errors import AgentError, BudgetExceeded, DeadlineExceeded, Denied, ToolError
from headwater.sdk import wire
from headwater.sdk.agents import Agent
from headwater.sdk.app import App
from headwater.sdk.context import Context
from headwater.sdk.tools import Tool
from headwater.sdk.types import Budget
from headwater.testing.simulator import outside

KINDS = (
    "plain",
    "plain",
    "ask",
    "wait",
    "fail",
    "pay",
    "pay",
    "wire",
    "spend",
    "cleanup",
    "huge",
    "hurry",
    "slow",
    "gift",
    "sign",
    "again",
)
"""What a task may be; the first word of its question."""
TIMED = frozenset({"hurry", "cleanup", "sign", "gift", "wait"})
"""Kinds whose result rightly depends on when something happens, or on what people say."""
FIRST, SECOND = "1", "2"
"""Versions of the app: the second one checks with the bank before it asks the clerk."""
PATCH = "checked"
GO, GONE = "go", b'"gone"'
"""The signal that tasks wait for."""
HUGE_CHARS = 6_000
APPROVE_S = 3.0
STEPS, CLERK_STEPS = 20, 4
PRICE: Price = usd_per_million(input_usd=1, output_usd=1)
PRICES = Prices(of={"small": PRICE})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """An event that the desk publishes."""

    text: str


def owed(question: str) -> int:
    """Return what the bank says to a question."""
    return len(question) * 7


def ceiling(ask: Ask) -> Spent:
    """Return what a model call may cost at most."""
    sent = ask.arguments
    size = len(sent) if isinstance(sent, bytes) else sent.size
    most, _ = PRICES.ceiling(ask.name, input_bytes=size, max_tokens=wire.MAX_TOKENS)
    assert most is not None, "every model has a price"
    return most


def words(question: str) -> str:
    """Return what the model says to a question."""
    return f"about {question}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bank:
    """The tools that the desk uses, one or more of every safety."""

    balance: Tool[[str], int]
    block: Tool[[str], str]
    note: Tool[[str], str]
    pay: Tool[[str], str]
    wire: Tool[[str], str]
    gift: Tool[[str], str]


def desk_app(version: str = FIRST) -> App:  # noqa: C901 - one place to see all that is declared
    """Return the app."""
    app = App("fleet", namespace="sim", version=version)
    small = app.model(
        "small", lambda _: FunctionModel(_answer, model_name="simulated"), price=PRICE
    )
    bank = _bank(app)

    @app.agent(budget=Budget(steps=CLERK_STEPS))
    async def clerk(ctx: Context, case: str) -> str:
        await asyncio.sleep(0.02)
        if not case.startswith("plain"):
            return f"{case}: {await bank.balance(case)} {ctx.uuid()}"
        hint = asyncio.create_task(small(f"a hint on {case}"))
        opinion = f"{case}: {await bank.balance(case)} {ctx.uuid()}"
        hint.cancel()  # it ends as soon as it has what it needs, whatever is open
        return opinion

    @app.agent(budget=Budget(steps=STEPS), emits=[Noted])
    async def desk(ctx: Context, question: str) -> str:  # noqa: C901, PLR0912 - a kind a branch
        kind, _, number = question.partition(" ")
        if kind == "spend":
            return await _spend(bank, question)
        if kind == "hurry":
            return await _hurry(clerk, question)
        if kind == "again":
            await bank.note(question)
            ctx.continue_as(f"plain {number}")
        if kind == "sign":
            try:
                await ctx.approve(f"may {number}?", to="group:bosses", expires_s=APPROVE_S)
            except Denied:
                return "denied"
        if kind == "cleanup":
            try:
                await ctx.receive("never")
            finally:
                await bank.block(f"card {number}")
        owing, blocked = await asyncio.gather(
            bank.balance(question), bank.block(f"card {int(number) % 2}")
        )
        said = await small(question)
        if careful := {"pay": bank.pay, "wire": bank.wire, "gift": bank.gift}.get(kind):
            try:
                said += f" {await careful(question)}"
            except (ToolError, Denied, DeadlineExceeded) as error:
                said += f" {error.error}"
        ctx.emit(Noted(text="x" * HUGE_CHARS if kind == "huge" else said))
        if version != FIRST and ctx.patched(PATCH):
            said += f" {await bank.note(f'checked {question}')}"
        opinion = await clerk(question)
        if kind == "slow":
            for n in range(3):
                await asyncio.sleep(0.04)
                said += f" {await bank.note(f'{question}/{n}')}"
        if kind == "fail" and ctx.run.attempt == 1:
            raise ValueError(f"nobody can answer {question}")
        if kind == "ask":
            said += f" {await ctx.receive('go')}"
        if kind == "wait":
            await ctx.receive("never")
        return f"{owing} {blocked} {said} {opinion} {ctx.uuid()} {ctx.random.random()}"

    return app


def _bank(app: App) -> Bank:
    """Declare the tools, and how a wire is looked for after a crash."""

    @app.tool(effect="read", service="bank")
    async def balance(account: str) -> int:
        return int(await outside.act(str(owed(account))))

    @app.tool(effect="write", service="bank", order_key="card")
    async def block(card: str) -> str:
        return await outside.act(f"{card} is blocked")

    @app.tool(effect="write", service="bank")
    async def note(text: str) -> str:
        return await outside.act(f"noted {text}")

    @app.tool(effect="irreversible", service="bank")
    async def pay(text: str) -> str:
        return await outside.act(f"paid {text}")

    @app.tool(effect="irreversible", service="bank")
    async def wire(text: str) -> str:
        return await outside.act(f"wired {text}")

    @wire.verify
    async def wired(text: str) -> str | None:
        return outside.found()

    @app.tool(
        effect="irreversible",
        service="bank",
        approve_if=lambda text: True,
        approve_to="group:bosses",
        approve_expires_s=APPROVE_S,
    )
    async def gift(text: str) -> str:
        return await outside.act(f"gave {text}")

    return Bank(balance=balance, block=block, note=note, pay=pay, wire=wire, gift=gift)


async def _spend(bank: Bank, question: str) -> str:
    """Ask for more than the budget has."""
    asked = (bank.balance(f"{question}/{n}") for n in range(STEPS + 5))
    found = await asyncio.gather(*asked, return_exceptions=True)
    return f"{sum(isinstance(one, BudgetExceeded) for one in found)} were refused"


async def _hurry(clerk: Agent[str, str], question: str) -> str:
    """Give the clerk too little time, as a rule."""
    try:
        async with asyncio.timeout(0.03):
            return await clerk(question)
    except (TimeoutError, AgentError) as error:
        return type(error).__name__


def is_timed(question: str) -> bool:
    """Say whether a question's result rightly depends on when something happens, or on people."""
    return question.partition(" ")[0] in TIMED


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answer on the event loop itself: a thread would move at a time that no seed knows."""
    del info
    part = messages[-1].parts[0]
    assert isinstance(part, UserPromptPart)
    return ModelResponse(parts=[TextPart(await outside.act(words(str(part.content))))])


@functools.cache
def app_of(version: str) -> App:
    """Return the app, made once a process: schemas are hashed once, not once a start."""
    return desk_app(version)
