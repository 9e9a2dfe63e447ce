"""Cells: what is told over a real line is done as the process itself would do it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

import headwater
from headwater import cells
from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Ask, ReplyTo, Start, Task, Wake
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Sent, Timer
from headwater.core.effector import Call, Done, Safety
from headwater.core.messages import Address, Meta
from headwater.log.local import LocalLog
from headwater.runtime.lines import (
    Beat,
    Cut,
    Line,
    Perform,
    Raised,
    Ready,
    Returned,
    TakeTurn,
    Text,
)
from headwater.runtime.posts import Posts
from headwater.settings import Settings

pytestmark = pytest.mark.anyio
RUN = "triage.0.task1"
INBOX = Partition("hw.inbox.triage.v1", 0)


def app() -> headwater.App:
    """Return an app of a tool for each way to end, and one agent."""
    made = headwater.App("small")

    @made.tool(effect="read")
    async def look(call: headwater.Call[Any], how: str) -> str:
        if how == "wait":
            call.heartbeat(lambda: "no value")
            await call.progress("so far")
            await asyncio.Event().wait()
        if how == "away":
            raise headwater.TransientError("the bank is away", retry_after_s=2)
        if how == "undone":
            raise headwater.NotDone("refused")
        if how == "late":
            raise TimeoutError("too late")
        if how == "end":
            raise SystemExit(3)
        if how == "wrong":
            raise ValueError("no such card")
        return how

    @made.tool(effect="irreversible")
    async def pay(how: str) -> str:
        return how

    @pay.verify
    async def paid(how: str) -> str | None:
        return None if how == "never" else how

    @made.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        if claim == "bad":
            raise SystemExit(4)
        return await look(claim)

    return made


@pytest.fixture
def platform() -> Platform:
    log = LocalLog()
    platform = Platform(app(), log, Parts(clock=lambda: 0, instance="tools-1"))
    for need in platform.layout.needs(partitions=1, coordinators=1):
        log.create(need.name, partitions=need.partitions)
    return platform


@contextlib.asynccontextmanager
async def cell(platform: Platform) -> AsyncIterator[tuple[Line, Posts]]:
    """Run a cell as a task of this process, until its line ends."""
    posts = Posts(8)
    mine, its = socket.socketpair()
    settings = Settings.of({})
    serving = asyncio.create_task(
        cells.serve(
            platform, settings, posts, await Line.over(its), roles=["tools"], services=["tools"]
        )
    )
    line = await Line.over(mine)
    assert isinstance(await line.hear(), Ready)
    yield line, posts
    line.close()
    await line.closed()
    await asyncio.wait_for(serving, 120)
    assert posts.beats


def perform(platform: Platform, name: str, how: str, *, verify: bool = False) -> Perform:
    tool = platform.app.tools[name]
    to = ReplyTo(topic=INBOX.topic, partition=0, run=RUN, number=1)
    ask = Ask(
        run=RUN, number=1, name=name, arguments=tool.parameters.encode({"how": how}),
        safety=tool.safety.value, order_key="", not_after_ms=1_000, reply_to=to,
    )  # fmt: skip
    call = Call(
        id=f"{RUN}/1", safety=Safety(ask.safety), order_key="", not_after_ms=1_000, reply_to=to,
        meta=Meta(id="m", tenant="t"),
    )  # fmt: skip
    record = Record(
        partition=Partition("hw.req.tool.tools.v1", 0), offset=3, time_ms=0, key=b"", value=b""
    )
    return Perform(
        number=1, effector="tool.tools", verify=verify, record=record, call=call, ask=ask,
        attempt="a", tried=1, last_state=None,
    )  # fmt: skip


async def test_a_call_is_made_and_answered(platform: Platform) -> None:
    """As the process itself would."""
    async with cell(platform) as (line, posts):
        await line.say(perform(platform, "look", "well"))
        said = await line.hear()
        assert isinstance(said, Returned)
        assert isinstance(said.result, Done)
        assert platform.app.tools["look"].decode_result(said.result.value) == "well"
        assert posts.used() == []


@pytest.mark.parametrize(
    ("how", "kind", "name"),
    [
        ("away", "transient", "headwater.errors.TransientError"),
        ("undone", "not-done", "headwater.errors.NotDone"),
        ("late", "timeout", "TimeoutError"),
        ("wrong", "other", "ValueError"),
        ("end", "other", "SystemExit"),
    ],
)
async def test_what_a_tool_raises_is_told(
    platform: Platform, how: str, kind: str, name: str
) -> None:
    """Its name, its words, and what that permits."""
    async with cell(platform) as (line, _):
        await line.say(perform(platform, "look", how))
        said = await line.hear()
        assert isinstance(said, Raised)
        assert (said.kind, said.name) == (kind, name)
        assert said.retry_after_s == (2 if how == "away" else 0)


async def test_a_request_that_cannot_be_read_is_poison_there_too(platform: Platform) -> None:
    """It is quarantined by the process, under its own code."""
    async with cell(platform) as (line, _):
        broken = perform(platform, "look", "x")
        msgspec.structs.force_setattr(broken.ask, "arguments", b"?")
        await line.say(broken)
        said = await line.hear()
        assert isinstance(said, Raised)
        assert said.kind == "poison"
        assert said.name != "headwater.errors.PoisonError"


async def test_heartbeats_progress_and_a_cut_go_over_the_line(platform: Platform) -> None:
    """A state that cannot travel is left behind; whoever is cut leaves its post."""
    async with cell(platform) as (line, posts):
        await line.say(perform(platform, "look", "wait"))
        heard = [await line.hear(), await line.hear()]
        assert Text(number=1, text="so far") in heard
        assert Beat(number=1, state=None) in heard
        assert [post.what for post in posts.used()] == [f"{RUN}/1"]
        await line.say(Cut(number=1))
        await line.say(Cut(number=9))
        await line.say(perform(platform, "look", "well"))
        assert isinstance(await line.hear(), Returned)
        assert posts.used() == []


@pytest.mark.parametrize(("how", "happened"), [("yes", True), ("never", False)])
async def test_what_happened_is_found_out_there(
    platform: Platform, how: str, happened: bool
) -> None:
    """`verify` may be the killer."""
    async with cell(platform) as (line, _):
        await line.say(perform(platform, "pay", how, verify=True))
        said = await line.hear()
        assert isinstance(said, Returned)
        assert (said.result is not None) is happened


def start(platform: Platform, claim: str) -> Record:
    """Return the record that begins a run."""
    shape = platform.app.agents["triage"].input
    message = Start(
        run=RUN, task_id="task1", slot="s",
        task=Task(topic="hw.cmd.triage.v1", partition=0, offset=0, key=b"", value=shape.encode(claim)),
    )  # fmt: skip
    return sealed(platform, message)


def sealed(platform: Platform, message: Any) -> Record:
    meta = Meta(id="m1", tenant="t", correlation_id="c")
    draft = platform.envelope("tests").seal(
        Sent(message=message, to=Address(INBOX.topic, RUN, 0), meta=meta)
    )
    return Record(
        partition=INBOX, offset=5, time_ms=1_000, key=draft.key, value=draft.value,
        headers=draft.headers,
    )  # fmt: skip


@pytest.mark.parametrize("claim", ["good", "bad"])
async def test_a_turn_is_taken_and_forgotten(platform: Platform, claim: str) -> None:
    """It is survived whatever it leads to; nothing of it is written."""
    async with cell(platform) as (line, posts):
        record = start(platform, claim)
        await line.say(TakeTurn(number=1, agent="triage", run=RUN, record=record, rows=[]))
        assert await line.hear() == Returned(number=1, result=None)
        assert posts.used() == []
    assert platform.log.partitions(INBOX.topic) == 1


async def test_a_turn_of_a_timer_is_taken_with_its_timer(platform: Platform) -> None:
    """A wake speaks in the name of whoever set it."""
    timer = Timer(name=("run", RUN), due_ms=900, meta=Meta(id="w", tenant="t"))
    record = sealed(platform, Wake(name=timer.name, due_ms=900))
    async with cell(platform) as (line, _):
        for rows in ([timer], []):
            await line.say(TakeTurn(number=1, agent="triage", run=RUN, record=record, rows=rows))
            assert await line.hear() == Returned(number=1, result=None)
