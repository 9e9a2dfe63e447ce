"""Users' tests of people's decisions: approve, deny and resolve, through crashes and time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pydantic
import pytest

import headwater
from headwater.contracts.approvals import Decide
from headwater.contracts.messages import Ask
from headwater.core.messages import digest
from headwater.runs import people
from headwater.testing.app import App
from headwater.testing.stage import StillWaitingError

bank = headwater.App("bank")


class Payment(pydantic.BaseModel):
    account: str
    cents: int


class Receipt(pydantic.BaseModel):
    number: int


@bank.tool(
    effect="irreversible",
    approve_if=lambda p: p.cents > 100,
    approve_to="group:payments",
    timeout_s=10,
)
async def pay(p: Payment) -> Receipt:
    raise AssertionError("tests bring their own")


@bank.agent
async def desk(ctx: headwater.Context, p: Payment) -> str:
    try:
        return f"receipt {(await pay(p)).number}"
    except (headwater.Denied, headwater.ToolError) as error:
        return f"{error.error}: {error}"


@bank.agent
async def asks(ctx: headwater.Context, words: str) -> str:
    try:
        approval = await ctx.approve(words, {"n": 1}, to="group:payments", expires_s=3_600)
    except headwater.Denied as error:
        return str(error)
    return f"{approval.by}, {approval.at:%H:%M}: {approval.reason}"


class Bank:
    """Pays, or breaks in the middle; counts."""

    def __init__(self, breaks: int = 0) -> None:
        self.paid: list[int] = []
        self.breaks = breaks

    async def pay(self, p: Payment) -> Receipt:
        self.paid.append(p.cents)
        if len(self.paid) <= self.breaks:
            raise ConnectionError("the line broke")
        return Receipt(number=len(self.paid))


def run(body: Callable[[App, Bank], Awaitable[None]], breaks: int = 0) -> None:
    async def main() -> None:
        own = Bank(breaks)
        async with App(bank, tools={pay: own.pay}) as t:
            await body(t, own)

    asyncio.run(main())


def test_a_call_waits_for_its_approval_and_is_made_once() -> None:
    """Through crashes before and after, and longer than the call's own time."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=500), actor="kim")
        await t.advance(hours=20)
        await t.crash()
        with pytest.raises(StillWaitingError, match=r"approval \w+ \(call pay\)"):
            await run.result()
        assert own.paid == []
        await t.approve(run, by="ana", reason="checked")
        await t.crash()
        assert await run.result() == "receipt 1"
        assert own.paid == [500]
        assert [event.status for event in run.approvals] == ["asked", "approved"]
        assert [(call.kind, call.name) for call in run.calls] == [("tool", "pay")]
        with pytest.raises(StillWaitingError, match="asks nobody: it is completed"):
            await t.approve(run, by="ana")

    run(body)


def test_small_payments_ask_nobody() -> None:
    """Only what the tool says waits."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=5))
        assert await run.result() == "receipt 1"
        assert run.approvals == []

    run(body)


def test_denied_expired_and_refused() -> None:
    """A no is the agent's answer; a decision that may not be leaves it waiting."""

    async def body(t: App, own: Bank) -> None:
        task = Payment(account="a", cents=500)
        run = await t.start(desk, task, actor="kim")
        await t.approve(run, by="kim")
        await t.approve(run, by="bob", groups=["audit"])
        await t.decide(run, "approve", by="ana", digest=b"other")
        await t.decide(run, "give-up", by="ana")
        assert [event.status for event in run.approvals] == ["asked", *["refused"] * 4]
        assert len(run.asking) == 1
        await t.deny(run, by="ana", reason="no money")
        assert await run.result() == "Denied: call pay: denied by ana: no money"
        late = await t.start(desk, task)
        await t.advance(hours=25)
        assert (await late.result()).startswith("Expired: call pay: nobody decided before 2026-01-")
        assert own.paid == []

    run(body)


def test_an_agent_asks_for_itself() -> None:
    """And learns who said yes, when, and why."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(asks, "go on?", tenant="t1")
        await t.advance(hours=0.5)
        await t.approve(run, by="ana", reason="fine")
        assert await run.result() == "ana, 00:30: fine"
        assert run.events[-1].steps == 0

    run(body)


@pytest.mark.parametrize(
    ("verdict", "value", "result", "paid"),
    [
        ("happened", Receipt(number=77), "receipt 77", 1),
        ("not-happened", None, "receipt 2", 2),
        ("give-up", None, "InDoubt: nobody knows whether pay happened; ana could say, given-up", 1),
    ],
)
def test_a_call_in_doubt_is_a_persons_to_settle(
    verdict: Any, value: Any, result: str, paid: int
) -> None:
    """It happened and returned this; it did not, and is made again; or nobody can find out."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=50))
        assert [event.about for event in run.asking] == ["doubt"]
        await t.crash()
        await t.advance(hours=30)
        assert own.paid == [50]
        await t.decide(run, verdict, by="ana", value=value)
        await t.crash()
        assert await run.result() == result
        assert len(own.paid) == paid

    run(body, breaks=1)


def test_a_doubt_that_nobody_settles_is_never_repeated() -> None:
    """After a week the agent learns that nobody could say."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=50))
        await t.advance(days=8)
        assert await run.result() == (
            "InDoubt: nobody knows whether pay happened; nobody could say, expired"
        )
        assert own.paid == [50]

    run(body, breaks=1)


def test_what_is_made_again_may_be_in_doubt_again() -> None:
    """Each attempt is a question of its own, and the request names all that came to nothing."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=50))
        for _ in range(2):
            await t.decide(run, "not-happened", by="ana")
        assert await run.result() == "receipt 3"
        records = t.records(t.platform.names.req("tool.tools"))
        asks = [t.platform.codec.decode(record.value) for record in records]
        assert [len(ask.undone) for ask in asks if isinstance(ask, Ask)] == [0, 1, 2]
        assert {ask.number for ask in asks} == {1}

    run(body, breaks=2)


@pytest.mark.parametrize("order", ["pause first", "approve first"])
def test_a_paused_run_takes_its_decision_when_it_goes_on(order: str) -> None:
    """If it still counts by then."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=500))
        if order == "pause first":
            await t.pause(run)
            await t.approve(run, by="ana")
            await t.crash()
            assert own.paid == []
        else:
            await t.approve(run, by="ana")
            await t.pause(run)
        await t.resume(run)
        assert await run.result() == "receipt 1"
        late = await t.start(desk, Payment(account="a", cents=700))
        await t.pause(late)
        await t.approve(late, by="ana")
        await t.advance(hours=25)
        await t.resume(late)
        assert "before the run could act on it" in await late.result()
        assert own.paid == [500]

    run(body)


def test_a_cancelled_run_asks_nobody_any_more() -> None:
    """A decision that comes later is refused, and nothing is sent."""

    async def body(t: App, own: Bank) -> None:
        run = await t.start(desk, Payment(account="a", cents=500))
        await t.cancel(run)
        assert run.asking == []
        assert [event.status for event in run.approvals] == ["asked", "withdrawn"]
        with pytest.raises(StillWaitingError, match="asks nobody: it is cancelled"):
            await t.approve(run, by="ana")
        assert own.paid == []

    run(body)


@bank.agent(dedupe_s=3_600)
async def again(ctx: headwater.Context, words: str) -> str:
    try:
        return (await ctx.approve(words, {"n": 1})).by
    except headwater.Denied as error:
        return str(error)


def test_a_task_that_comes_again_after_its_window_asks_again() -> None:
    """It is a run of the same id, and what a person said to the one before is no word on this one."""

    async def body(t: App, bank: Bank) -> None:
        first = await t.start(again, "close the account?", id="c-1", actor="ana")
        (before,) = first.asking
        await t.approve(first, by="eva")
        assert await first.result() == "eva"
        await t.advance(hours=2)
        second = await t.start(again, "close the account?", id="c-1", actor="ana")
        assert second.id == first.id
        (asked,) = second.asking
        assert asked.approval != before.approval
        late = Decide(approval=before.approval, verdict="approve", digest=before.digest)
        await t._send(late, t.platform.approvals_address(second.tenant), second.tenant, "eva")
        await t.settle()
        assert second.asking == [asked]
        await t.deny(second, by="bob")
        assert "denied by bob" in await second.result()

    run(body)


def test_a_second_life_that_asks_under_the_firsts_name_is_not_heard(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Control of the above: without its life in the name, its petition passes for the one answered before."""

    def lifeless(*parts: Any, size: int = 0) -> bytes:
        return digest(parts[0], *parts[2:], size=size) if size else digest(*parts)

    monkeypatch.setattr(people, "digest", lifeless)

    async def body(t: App, bank: Bank) -> None:
        first = await t.start(again, "close the account?", id="c-1", actor="ana")
        await t.approve(first, by="eva")
        assert await first.result() == "eva"
        await t.advance(hours=2)
        second = await t.start(again, "close the account?", id="c-1", actor="ana")
        assert second.asking == []

    run(body)
