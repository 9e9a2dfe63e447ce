"""One trace a task, through every hop of a whole platform in one process."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from pydantic_ai.models.test import TestModel

import headwater
from headwater import hosts, namespace
from headwater.settings import Settings
from headwater.tracing import spans

_TRACE = "0af7651916cd43dd8448eb211c80319c"
_ROOT = "b7ad6b7169203331"


def scripted(settings: Any) -> TestModel:
    return TestModel(custom_output_text="fine")


def build() -> headwater.App:
    """An app whose agent uses everything that makes a hop: a tool, a model, a child, a sleep."""
    app = headwater.App("traced")
    small = app.model("small", scripted, price=headwater.usd_per_million(input_usd=1, output_usd=1))

    @app.tool(effect="read")
    async def balance(account: str) -> int:
        return 7

    @app.agent
    async def child(ctx: headwater.Context, account: str) -> int:
        return await balance(account)

    @app.agent
    async def parent(ctx: headwater.Context, account: str) -> str:
        await asyncio.gather(balance(account), small("How is it?"))
        await asyncio.sleep(0.01)
        return str(await child(account))

    return app


async def traced(flags: str) -> Sequence[ReadableSpan]:
    """Run one task under a producer's trace; return the spans, in the order in which they ended."""
    exported = InMemorySpanExporter()
    app = build()
    log = await namespace.local(app)
    url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
    host = hosts.Host(
        app,
        log,
        Settings.of({"HEADWATER_HTTP__PORT": "0"}),
        roles=hosts.ROLES,
        announce=url.set_result,
        tracing=spans.Spans(SimpleSpanProcessor(exported), Resource({})),
    )
    async with asyncio.TaskGroup() as group:
        group.create_task(host.run(signals=False))
        async with httpx.AsyncClient(base_url=await url, timeout=180) as client:
            answer = await client.post(
                "/api/v1/agents/parent/tasks",
                params={"wait_s": 30},
                headers={"traceparent": f"00-{_TRACE}-{_ROOT}-{flags}"},
                json="42",
            )
        assert answer.json()["outcome"] == "7", answer.text
        assert host.process is not None
        host.process.stop()
    return exported.get_finished_spans()


def named(found: Sequence[ReadableSpan], name: str) -> list[ReadableSpan]:
    return [span for span in found if span.name == name]


@pytest.mark.parametrize("flags", ["01", "03"])
def test_every_hop_hangs_below_the_producers_span(flags: str) -> None:
    """Agents, tools, models and children in one trace; each span once, each parent a span of it."""
    found = asyncio.run(traced(flags))
    ids = [span.context.span_id for span in found if span.context is not None]
    assert len(ids) == len(found) == len(set(ids))
    assert {span.context.trace_id for span in found if span.context is not None} == {
        int(_TRACE, 16)
    }
    parents = {span.parent.span_id for span in found if span.parent is not None}
    assert parents <= {*ids, int(_ROOT, 16)}
    (intake,) = named(found, "process hw.cmd.parent.v1")
    assert intake.parent is not None
    assert intake.parent.span_id == int(_ROOT, 16)
    assert len(named(found, "execute_tool balance")) == 2
    (chat,) = named(found, "chat small")
    assert (chat.attributes or {})["gen_ai.usage.output_tokens"]
    turns = named(found, "process hw.inbox.parent.v1")
    messages = [(span.attributes or {})["headwater.message"] for span in turns]
    assert sorted(messages) == ["Reply", "Reply", "Reply", "Start", "Wake"]
    assert named(found, "process hw.inbox.child.v1")
    replies = {span.parent.span_id for span in turns if span.parent is not None}
    assert chat.context is not None
    assert chat.context.span_id in replies


def test_an_unsampled_task_makes_no_span() -> None:
    """The producer's decision holds on every hop."""
    assert asyncio.run(traced("00")) == ()
