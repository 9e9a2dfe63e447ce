"""The app of the matrix: one agent, and a call of each safety; all its answers follow from the question."""

from __future__ import annotations

import asyncio
import hashlib
import os
from typing import Any

import pydantic
from tests.chaos.world import ANSWERED, BEGUN, WORLD, World

import headwater
from headwater.models.scripted import Scripted

VERSION = "CHAOS_VERSION"
"""Variable: 2 for the agent as the rolling upgrade changes it."""
TOOL_MS, PAY_MS = "CHAOS_TOOL_MS", "CHAOS_PAY_MS"
"""Variables: how long a tool takes, and how long a payment."""
GRAB_MB, GRABS_EACH = "CHAOS_GRAB_MB", 300
"""Variable: how much memory one of so many calls takes, the first time it is made."""
HEARTBEAT_S = 20
PAYS_EACH = 3
"""One of so many tasks pays."""

app = headwater.App("chaos", namespace="chaos", version=os.environ.get(VERSION, "1"))
CHANGED = app.version != "1"
"""Whether this is the agent as it is after the upgrade."""


class Question(pydantic.BaseModel):
    """A customer's question; its number makes it one of its kind."""

    number: int
    account: str


class Answer(pydantic.BaseModel):
    """What became of it."""

    number: int
    topic: str
    digits: int
    filed: str
    paid: str


def topic_of(prompt: str) -> str:
    """Return what the model says of a prompt."""
    return hashlib.blake2b(prompt.encode(), digest_size=4).hexdigest()


def answer_of(question: Question) -> Answer:
    """Return the answer that plain functions give."""
    number = question.number
    return Answer(
        number=number,
        topic=topic_of(f"topic of {number}"),
        digits=len(str(number)),
        filed=f"{question.account}/{number}",
        paid=f"paid {number}" if pays(number) else "",
    )


def pays(number: int) -> bool:
    """Say whether a task pays."""
    return number % PAYS_EACH == 0


_WORLD = World.of_this_process() if WORLD in os.environ else None


def _deed(
    event: str, name: str, number: int | str, call: headwater.Call[Any] | None = None
) -> None:
    assert _WORLD is not None, f"{WORLD} names the file of the world"
    _WORLD.note(event, name, str(number), "" if call is None else call.idempotency_key)


async def _takes() -> None:
    await asyncio.sleep(int(os.environ.get(TOOL_MS, "5")) / 1000)


async def _pays(call: headwater.Call[Any]) -> None:
    """Take long, and say so: a call that is silent for five minutes counts as stuck."""
    left_s = int(os.environ.get(PAY_MS) or os.environ.get(TOOL_MS, "5")) / 1000
    while left_s > 0:
        await asyncio.sleep(min(left_s, HEARTBEAT_S))
        left_s -= HEARTBEAT_S
        call.heartbeat(left_s)


def _grab(number: int) -> None:
    """Take more memory than there may be, once."""
    size = int(os.environ.get(GRAB_MB, "0")) << 20
    if not size or number % GRABS_EACH != GRABS_EACH // 2 or _happened("grab", number):
        return
    _deed(BEGUN, "grab", number)
    hoard = bytearray(size)
    hoard[::4096] = b"\1" * len(range(0, size, 4096))


def _happened(name: str, number: int) -> bool:
    assert _WORLD is not None, f"{WORLD} names the file of the world"
    return any(deed.name == name and deed.what == str(number) for deed in _WORLD.deeds())


async def _think(prompt: str) -> str:
    number = prompt.rpartition(" ")[2]
    _deed(BEGUN, "small", number)
    await _takes()
    _deed(ANSWERED, "small", number)
    return topic_of(prompt)


small = app.model(
    "small", Scripted(_think), price=headwater.usd_per_million(input_usd=1, output_usd=2)
)


@app.tool(effect="read", service="desk")
async def digits(call: headwater.Call[Any], number: int) -> int:
    """Count the digits of a number."""
    _grab(number)
    _deed(BEGUN, "digits", number, call)
    await _takes()
    return len(str(number))


@app.tool(effect="write", service="desk", order_key="account")
async def file(call: headwater.Call[Any], account: str, number: int) -> str:
    """File a question in its customer's account, in order."""
    _deed(BEGUN, "file", number, call)
    await _takes()
    _deed(ANSWERED, "file", number, call)
    return f"{account}/{number}"


@app.tool(effect="irreversible", service="desk")
async def pay(call: headwater.Call[Any], number: int) -> str:
    """Pay; nobody can take it back."""
    _deed(BEGUN, "pay", number, call)
    await _pays(call)
    _deed(ANSWERED, "pay", number, call)
    return f"paid {number}"


@pay.verify
async def paid(number: int) -> str | None:
    """Look the payment up: it happened when it began."""
    _deed(BEGUN, "verify", number)
    return f"paid {number}" if _happened("pay", number) else None


@app.agent
async def clerk(ctx: headwater.Context, question: Question) -> Answer:
    """Answer one question."""
    number = question.number
    topic, length = await asyncio.gather(small(f"topic of {number}"), digits(number))
    if CHANGED and ctx.patched("count-twice"):
        length = min(length, await digits(number))
    filed = await file(question.account, number)
    receipt = await pay(number) if pays(number) else ""
    return Answer(number=number, topic=str(topic), digits=length, filed=filed, paid=receipt)
