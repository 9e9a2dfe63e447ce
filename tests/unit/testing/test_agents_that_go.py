"""Tasks that wait for a slot while their agent is taken out of the app."""

from __future__ import annotations

import asyncio

import pytest

import headwater
from headwater.admission.quotas import Quotas
from headwater.admission.telling import Routes
from headwater.assembly import Platform
from headwater.contracts.approvals import Petition
from headwater.contracts.quarantine import reason
from headwater.contracts.wanted import Wanted
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta
from headwater.runtime.operating import Wish
from headwater.testing import App

QUARANTINE = "hw.quarantine.inbox.admission.v1"


async def wait(ctx: headwater.Context, text: str) -> str:
    return await ctx.receive("go")


async def work(ctx: headwater.Context, text: str) -> str:
    return f"did {text}"


before, after = headwater.App("bank"), headwater.App("bank")
stays = before.agent(wait)
goes = before.agent(work)
after.agent(wait)


async def roll(test: App, app: headwater.App) -> None:
    """Have every worker end and begin again with another app."""
    test.app = app
    test.platform = Platform(app, test.log, test.platform.parts)
    await test.crash()


async def replay(test: App, topic: str) -> None:
    """Have an operator send back all that is kept in a topic."""
    operating = test.platform.operating(lambda run: None)
    wish = Wish(verb="replay", letters=False, topics=(topic,), wanted=Wanted(), actor="ana")
    operation = operating.begin(wish)
    await asyncio.to_thread(operating.join, operation)
    await test.settle()


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_tenant_keeps_its_slot_though_a_held_task_has_no_agent_any_more(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The control lets the task go to an inbox that nobody reads: no task of its tenant begins again."""
    if control:
        monkeypatch.setattr(Routes, "gone", lambda *_: None)

    async def main() -> str:
        async with App(before, parts={"quotas": Quotas(default=1)}) as test:
            blocker = await test.start(stays, "x")
            await test.start(goes, "it")
            await roll(test, after)
            await test.signal(blocker, "go", "on")
            return (await test.start(stays, "y")).status

    assert asyncio.run(main()) == ("held" if control else "started")


def test_held_task_of_an_agent_that_is_gone_is_put_aside_and_done_when_the_agent_is_back() -> None:
    """It took a slot that nobody would ever give back: no task of its tenant would have run again."""

    async def main() -> None:
        async with App(before, parts={"quotas": Quotas(default=1)}) as test:
            blocker = await test.start(stays, "x")
            held = await test.start(goes, "it", id="t-1")
            assert held.status == "held"
            await roll(test, after)
            await test.signal(blocker, "go", "on")
            other = await test.start(stays, "y")
            assert other.status == "started"
            assert [event.status for event in held.events] == ["held", "quarantined"]
            assert "no agent named 'work'" in held.events[-1].detail
            why = reason(test.records(QUARANTINE)[0])
            assert (why.source.topic, why.code) == ("hw.cmd.work.v1", "unknown-target")
            assert why.tenant == held.tenant
            await test.signal(other, "go", "on too")
            await roll(test, before)
            await replay(test, QUARANTINE)
            assert await held.result() == "did it"
            again = await test.start(goes, "it", id="t-1")
            assert [event.status for event in again.events[2:]] == ["accepted", "completed"]

    asyncio.run(main())


def test_a_run_of_an_agent_that_its_coordinator_does_not_know_asks_people() -> None:
    """It is there already, as a child that newer code began, and waits for the decision."""

    async def main() -> None:
        async with App(before, partitions=1) as test:
            await roll(test, after)
            petition = Petition(
                approval="p1",
                run="work.0.t",
                number=1,
                about="agent",
                name="approve",
                words="go on?",
                digest=b"d",
                shown=b"{}",
                expires_ms=2**50,
            )
            inbox = Address(test.platform.names.inbox("approvals"), "default", 0)
            sent = Sent(message=petition, to=inbox, meta=Meta(id="m1", tenant="default"))
            await test.log.append(test.platform.envelope("work").seal(sent))
            await test.settle()
            (asked,) = test.records("hw.evt.approvals.v1")
            assert asked.header("ce_runid") == b"work.0.t"

    asyncio.run(main())
