"""What a type checker tells authors; `test_typing` has mypy read it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Literal, assert_type

import pydantic

import headwater

app = headwater.App("typed")
small = app.model("small", "test")


class Verdict(pydantic.BaseModel):
    amount: int


@app.tool(effect="read")
async def near(account: str, *, cents: bool = False) -> int:
    return 1


@app.tool(effect="write")
async def with_call(call: headwater.Call[int], card: str) -> bool:
    return call.deps > 1


@app.tool(effect="write")
def sync(call: headwater.Call[int], card: str) -> bool:
    return True


@app.tool(effect="read")
def plain(number: int) -> str:
    return str(number)


@app.agent
async def child(ctx: headwater.Context, number: int) -> str:
    return str(number)


@app.agent(budget=headwater.Budget(steps=1))
async def parent(ctx: headwater.Context, verdict: Verdict) -> str:
    asked: Coroutine[object, None, int] = near("42", cents=True)
    assert_type(await asked, int)
    assert_type(await with_call("c1"), bool)
    assert_type(await sync(card="c1"), bool)
    assert_type(await plain.local(1), str)
    assert_type(await child.with_(timeout_s=1)(1), str)
    assert_type(await small("?"), str)
    assert_type(await small("?", output=Verdict), Verdict)
    assert_type(await small("?", full=True), headwater.ModelReply[str])
    assert_type(await small("?", output=Verdict, full=True), headwater.ModelReply[Verdict])
    assert_type(await small("?", output=Literal["a", "b"]), Any)
    assert_type(await ctx.receive(Verdict, timeout_s=1), Verdict)
    both = await asyncio.gather(near("1"), child(1))
    assert_type(both, tuple[int, str])
    three = await asyncio.gather(near("1"), small("?", output=Verdict), child(1))
    assert_type(three, tuple[int, Verdict, str])
    await near(42)  # type: ignore[arg-type] # an account is text
    await with_call(headwater.Call(deps=1), "c1")  # type: ignore[arg-type, call-arg] # the call is never passed
    await child("one")  # type: ignore[arg-type] # a task is a number
    await plain(1, 2)  # type: ignore[call-arg] # there is one parameter
    app.tool(effect="reads")  # type: ignore[call-overload] # there is no such effect
    return ""
