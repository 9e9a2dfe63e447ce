"""Large values end to end, in memory: every kind travels by reference, and a crash changes nothing."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from pydantic_ai.messages import ModelMessagesTypeAdapter, ModelResponse, TextPart
from pydantic_ai.models.function import FunctionModel

import headwater
from headwater import cells, testing
from headwater.contracts.messages import Control
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta
from headwater.runs.rows import KINDS
from headwater.runtime import values
from headwater.runtime.lines import TakeTurn
from headwater.sdk import history

BIG = "x" * 700_000
TURNS = 200
TRIED: list[int] = []
app = headwater.App("large")
talker = app.model("talker", "test")


@app.tool(effect="read")
async def fetch(number: int) -> str:
    return BIG + str(number)


@app.tool(effect="write")
async def store(text: str) -> int:
    return len(text)


@app.agent
async def child(ctx: headwater.Context, text: str) -> str:
    return text[:600_000]


@app.agent
async def parent(ctx: headwater.Context, question: str) -> int:
    text = await fetch(1)
    size = await store(text)
    answer = await child(text)
    await asyncio.sleep(10)
    return size + len(answer)


@app.agent
async def broken(ctx: headwater.Context, question: str) -> str:
    try:
        await fetch(1)
    except headwater.ToolError as error:
        return error.error
    return "it fitted"


@app.agent
async def waits(ctx: headwater.Context, question: str) -> int:
    text = await fetch(1)
    await ctx.receive("go")
    TRIED.append(len(text))
    return len(text)


@app.agent(budget=headwater.Budget(steps=1_000, usd=None))
async def chat(ctx: headwater.Context, question: str) -> int:
    messages: list[Any] = []
    for turn in range(TURNS):
        reply = await talker([*messages, f"{turn}: " + "tell me more " * 40], full=True)
        messages = list(reply.messages)
    return len(messages)


def answering(seen: list[int]) -> FunctionModel:
    def answer(messages: list[Any], info: Any) -> ModelResponse:
        seen.append(len(messages))
        return ModelResponse(parts=[TextPart("and so on " * 40)])

    return FunctionModel(answer)


def played(scene: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Make a coroutine function a test."""

    @functools.wraps(scene)
    def test(*args: Any, **kwargs: Any) -> None:
        asyncio.run(scene(*args, **kwargs))

    return test


def blobs_of(t: testing.App) -> Any:
    found = t.platform.parts.blobs
    assert found is not None
    return found


async def ran(t: testing.App, *, crash: bool = False) -> Any:
    run = await t.start(parent, "go")
    if crash:
        await t.crash()
    await t.advance(seconds=20)
    return await run.result()


@played
async def test_answers_arguments_tasks_and_results_travel_by_reference() -> None:
    """700 KB pass through a tool's answer, a tool's arguments, a child's task and its result."""
    async with testing.App(app, blobs=True) as t:
        assert await ran(t) == 700_001 + 600_000
        largest = max(
            len(record.value or b"")
            for need in t.platform.layout.needs()
            for record in t.records(need.name)
            if ".evt." not in need.name
        )
        assert largest < 10_000
        assert len([*blobs_of(t).store.scan("default")]) == 4


@played
async def test_a_crash_changes_nothing() -> None:
    """Replays find the values that the journal names."""
    async with testing.App(app, blobs=True) as t:
        assert await ran(t, crash=True) == 1_300_001


@played
async def test_a_turn_that_is_tried_apart_has_its_values() -> None:
    """A suspect whose turn stopped for want of a value would pass for harmless."""
    TRIED.clear()
    async with testing.App(app, blobs=True) as t:
        run = await t.start(waits, "go")
        await t.settle()
        (loop,) = [one for one in t._deciding if one._decider.name == "runs.waits"]
        rows = [
            row
            for owned in loop._owned.values()
            for kind in KINDS
            for row in owned.table.scan(kind)
        ]
        here = Partition(t.platform.names.inbox("waits"), int(run.id.split(".")[1]))
        go = Sent(
            message=Control(target=run.id, verb="signal", name="go", value=b"null"),
            to=Address(here.topic, run.id, here.number),
            meta=Meta(id="m", tenant="default"),
        )
        draft = t.platform.envelope("tests").seal(go)
        record = Record(
            partition=here, offset=99, time_ms=t.now_ms, key=draft.key, value=draft.value,
            headers=draft.headers,
        )  # fmt: skip
        said = TakeTurn(number=1, agent="waits", run=run.id, record=record, rows=rows)
        cells.take_turn(t.platform, said, lambda: None)
        assert TRIED == [700_001]


@played
async def test_without_a_store_the_bound_and_its_error_stay() -> None:
    """Nobody is surprised who set nothing."""
    async with testing.App(app) as t:
        assert await (await t.start(broken, "go")).result() == "TooLarge"


@played
async def test_control_without_the_put_the_value_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """A decider that commits without putting refers to nothing, and its call fails."""
    monkeypatch.setattr(values.Puts, "begin", lambda self, blobs, turn: None)
    async with testing.App(app, blobs=True) as t:
        run = await t.start(parent, "go")
        with pytest.raises(headwater.AgentError, match="is not in memory:"):
            await run.result()


async def written(monkeypatch: pytest.MonkeyPatch, *, blobs: bool) -> tuple[int, int]:
    """Return the bytes that a long conversation wrote to the log and the store, half way and in all."""
    sizes = []
    for turns in (TURNS // 2, TURNS):
        monkeypatch.setattr(f"{__name__}.TURNS", turns)
        seen: list[int] = []
        async with testing.App(app, models={talker: answering(seen)}, blobs=blobs) as t:
            assert await (await t.start(chat, "go")).result() == 2 * turns
            total = sum(
                len(record.value or b"")
                for need in t.platform.layout.needs()
                for record in t.records(need.name)
            )
            if blobs:
                total += sum(blob.size for blob in blobs_of(t).store.scan())
            assert seen == [2 * number + 1 for number in range(turns)]
        sizes.append(total)
    return sizes[0], sizes[1]


@played
async def test_a_long_conversation_costs_linear_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twice the turns write twice the bytes to log and store, and the model sees every message."""
    half, full = await written(monkeypatch, blobs=True)
    assert full < 2.2 * half


@played
async def test_control_without_chains_it_costs_quadratic_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The same conversation inline: twice the turns write nearly four times the bytes."""
    half, full = await written(monkeypatch, blobs=False)
    assert full > 3 * half


@played
async def test_a_conversation_survives_crashes_between_its_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A replay makes the same parts, and keeps none of them twice."""
    monkeypatch.setattr(history, "CUT_BYTES", 2_000)
    monkeypatch.setattr(f"{__name__}.TURNS", 12)
    seen: list[int] = []
    async with testing.App(app, models={talker: answering(seen)}, blobs=True) as t:
        run = await t.start(chat, "go")
        await t.crash()
        assert await run.result() == 24
        stored = [blobs_of(t).get(b.tenant, b.name).result() for b in blobs_of(t).store.scan()]
    messages = [message for part in stored for message in json.loads(part)["messages"]]
    assert len(ModelMessagesTypeAdapter.validate_python(messages)) == len(messages) < 24
