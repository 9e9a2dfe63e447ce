"""What a stranger writes into a topic of ours stops nobody: messages of the wrong kind, or for nowhere."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest
from tests.contracts.golden import EXAMPLES

import headwater
from headwater.contracts.messages import Admit, Control, Drain, Reopen, Resume, Start, Task, Wake
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta
from headwater.testing.app import App

bank = headwater.App("strangers")
small = bank.model("small", "openai:gpt-5-mini")


@bank.tool(effect="read")
async def look(question: str) -> str:
    return question


@bank.agent
async def triage(ctx: headwater.Context, question: str) -> str:
    return await look(await small(question))


_START = Start(run="nobody.9.x", task_id="x", slot="s", task=Task(value=b""))
NOWHERE: tuple[Any, ...] = (
    _START,
    dataclasses.replace(_START, run="no run"),
    dataclasses.replace(_START, run="triage.77.x"),
    Wake(name=(), due_ms=1),
    Wake(name=("odd",), due_ms=1),
    Drain(run=""),
    Reopen(run="no run", resume=Resume()),
    Reopen(run="nobody.0.x", resume=Resume()),
    Control(target="", verb="resume"),
    Control(target="no run", verb="discard", resume=Resume(slot="s")),
    Admit(agent="triage", task_id="a.b", digest=b"", task=Task(value=b"")),
)
MESSAGES = (*EXAMPLES, *NOWHERE)


@pytest.mark.parametrize(
    "message", MESSAGES, ids=[f"{n}-{type(of).__name__}" for n, of in enumerate(MESSAGES)]
)
def test_a_message_that_has_no_business_somewhere_stops_nobody(message: Any) -> None:
    """Whatever it is, in whichever inbox: the next task goes through all of them."""

    async def main() -> None:
        async with App(bank, models={small: "yes"}, partitions=1) as t:
            names = t.platform.names
            inboxes = [names.inbox(name) for name in ("triage", "admission", "approvals")]
            requests = [names.req("tool.tools"), names.req("model")]
            for topic in [*inboxes, *requests]:
                meta = Meta(id="stranger", tenant="default")
                sent = Sent(message=message, to=Address(topic, "k", 0), meta=meta)
                await t.log.append(t.platform.envelope("stranger").seal(sent))
            await t.settle()
            assert await (await t.start(triage, "?")).result() == "yes"

    asyncio.run(main())


def test_a_message_of_the_wrong_kind_is_kept_with_its_reason() -> None:
    """It is in the quarantine of the topic it was written to."""

    async def main() -> None:
        async with App(bank, models={small: "yes"}, partitions=1) as t:
            topic = t.platform.names.inbox("admission")
            meta = Meta(id="stranger", tenant="default")
            sent = Sent(message=Drain(run="x"), to=Address(topic, "k", 0), meta=meta)
            await t.log.append(t.platform.envelope("stranger").seal(sent))
            await t.settle()
            (kept,) = t.records("hw.quarantine.inbox.admission.v1")
            assert kept.header("error.type") == b"unexpected-message"

    asyncio.run(main())
