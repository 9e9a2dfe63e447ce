"""An app in memory: the whole way of a task, as users test it."""

from __future__ import annotations

import asyncio

import pydantic
import pytest

import headwater
from headwater.testing.app import App
from headwater.testing.stage import StillWaitingError

bank = headwater.App("bank")
small = bank.model("small", "openai:gpt-5-mini")


class Verdict(pydantic.BaseModel):
    amount: int
    why: str = ""


class Asked(pydantic.BaseModel):
    about: str


@bank.tool(effect="read")
async def balance(account: str) -> str:
    return f"{account} has 7"


@bank.tool(effect="write", order_key="card")
def block(call: headwater.Call[None], card: str) -> bool:
    return call.attempt == 1


@bank.agent
async def child(ctx: headwater.Context, number: int) -> int:
    return number * 2


@bank.agent
async def answer(ctx: headwater.Context, question: str) -> str:
    facts, double = await asyncio.gather(balance("42"), child(21))
    verdict = await small(f"{facts} {question}", output=Verdict)
    await asyncio.sleep(600)
    ctx.emit(Asked(about=question))
    text = await small("again")
    return f"{facts}|{double}|{verdict.amount}|{text}|{await block('c1')}"


@bank.agent
async def patient(ctx: headwater.Context, question: str) -> str:
    return str(await ctx.receive("go"))


@bank.agent
async def broken(ctx: headwater.Context, question: str) -> str:
    raise ValueError(question)


SCRIPT = {"again": "text", "": {"amount": 7}}


def test_task_goes_all_the_way():
    """Tools, models, a child, a sleep and an event; with a crash at every stop it is the same."""

    async def main(*, crash: bool) -> tuple[str, list[str]]:
        async with App(bank, models={small: SCRIPT}) as t:
            run = await t.start(answer, "how much?")
            if crash:
                await t.crash()
            await t.advance(seconds=600)
            if crash:
                await t.crash()
            result = await run.result()
            assert [event.about for event in t.emitted(run, Asked)] == ["how much?"]
            return result, [f"{call.kind} {call.name}" for call in run.calls]

    calm = asyncio.run(main(crash=False))
    assert calm[0] == "42 has 7|42|7|text|True"
    assert calm[1] == ["tool balance", "agent child", "model small", "model small", "tool block"]
    assert asyncio.run(main(crash=True)) == calm


def test_signal_wakes_a_waiting_run():
    """A run that waits says for what."""

    async def main() -> None:
        async with App(bank, models={small: SCRIPT}) as t:
            run = await t.start(patient, "?")
            with pytest.raises(StillWaitingError, match="signal go"):
                await run.result()
            await t.signal(run, "go", 3)
            assert await run.result() == "3"

    asyncio.run(main())


def test_failed_run_raises_its_error():
    """The error of the function is the error of the run."""

    async def main() -> None:
        async with App(bank) as t:
            with pytest.raises(headwater.AgentError, match="bad luck") as caught:
                await (await t.start(broken, "bad luck")).result()
            assert caught.value.error == "ValueError"

    asyncio.run(main())


def test_same_id_is_the_same_task_and_rubbish_is_quarantined():
    """Duplicates are dropped; what cannot be read is kept byte for byte."""

    async def main() -> None:
        async with App(bank, tools={balance: lambda account: "x"}) as t:
            one = await t.start(child, 4, id="a")
            two = await t.start(child, 4, id="a")
            assert one.task_id == two.task_id
            assert await two.result() == 8
            assert [event.status for event in one.events].count("accepted") == 1
            await t.publish(child, b"rubbish", headers=(("ce_tenantid", b"t1"),))
            await t.settle()
            assert [record.value for record in t.quarantined(child)] == [b"rubbish"]

    asyncio.run(main())


shaky = headwater.App("shaky")
sun = {"shines": False}


@shaky.tool(effect="read")
async def look(question: str) -> str:
    return "seen"


@shaky.tool(effect="write")
async def pay(question: str) -> str:
    return "paid"


@shaky.agent(budget=headwater.Budget(steps=2))
async def careful(ctx: headwater.Context, question: str) -> str:
    found = await look(question)
    if not sun["shines"]:
        raise ValueError("no sun")
    return f"{found} {await pay(question)} {ctx.run.attempt} {ctx.run.steps}"


def test_a_failed_run_is_resumed_once_it_can_go_on():
    """What it had asked is not asked again; the last outcome counts; its dead letter is there."""

    async def main() -> None:
        sun["shines"] = False
        async with App(shaky) as t:
            run = await t.start(careful, "?")
            with pytest.raises(headwater.AgentError, match="no sun"):
                await run.result()
            (letter,) = t.dead_letters(careful)
            assert letter.header("__dlq.errors.run") == run.id.encode()
            await t.crash()
            sun["shines"] = True
            await t.resume(run, "the sun is out", add_steps=1)
            assert await run.result() == "seen paid 2 3"
            assert [call.number for call in run.calls] == [1, 2]

    asyncio.run(main())


def test_dead_letters_are_replayed_as_new_runs_once():
    """The second time there is nothing left to replay."""

    async def main() -> None:
        sun["shines"] = False
        async with App(shaky) as t:
            run = await t.start(careful, "?")
            sun["shines"] = True
            assert await t.replay(careful) == 1
            assert await t.replay(careful) == 0
            done = [event for event in t.life() if event.status == "completed"]
            assert [event.outcome for event in done] == [b'"seen paid 1 2"']
            assert run.status == "failed"

    asyncio.run(main())


def test_a_discarded_run_can_be_resumed_no_more():
    """Its rows are gone; a resume is nothing to anybody."""

    async def main() -> None:
        sun["shines"] = False
        async with App(shaky) as t:
            run = await t.start(careful, "?")
            await t.discard(run, "a test")
            assert (run.status, run.events[-1].actor) == ("discarded", "test")
            (operation,) = t.records("hw.audit.operators.v1")
            assert operation.header("ce_type") == b"headwater.operation"
            await t.resume(run)
            assert run.status == "discarded"

    asyncio.run(main())


closed = headwater.App("closed")


@closed.agent(tenants=["ours"], actors=False)
async def private(ctx: headwater.Context, question: str) -> str:
    return f"{ctx.run.tenant}/{ctx.run.actor}"


def test_agent_takes_tasks_of_its_own_tenants_alone():
    """Who may be named on a command topic is declared with the agent."""

    async def main() -> None:
        async with App(closed) as t:
            value = private.input.encode("?")
            await t.publish(private, value, headers=(("ce_tenantid", b"theirs"),))
            await t.publish(private, value, headers=(("ce_id", b"1"), ("ce_actorid", b"eve")))
            await t.settle()
            (refused,) = t.quarantined(private)
            assert refused.header("error.type") == b"foreign-tenant"
            (event,) = [event for event in t.life() if event.status == "completed"]
            assert event.outcome == b'"ours/"'

    asyncio.run(main())


@pytest.mark.parametrize(("tenants", "words"), [([], "nobody"), (["Upper"], "1 to 64")])
def test_tenants_that_cannot_work_are_refused_at_build(tenants, words):
    """A declaration that nothing could satisfy stops the start."""
    app = headwater.App("refused")
    with pytest.raises(headwater.SettingsError, match=words):

        @app.agent(tenants=tenants)
        async def agent(ctx: headwater.Context, question: str) -> str:
            return question
