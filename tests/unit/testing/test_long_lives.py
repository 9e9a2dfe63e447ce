"""Runs that outlive their journals, and failed runs that do not outlive their month."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterable

import pytest

import headwater
from headwater.admission.decider import Admission
from headwater.admission.quotas import Quotas
from headwater.admission.rows import Slot
from headwater.contracts.messages import Control, Reopen, Resume, Start
from headwater.contracts.records import Draft
from headwater.core.decider import Sent, Turn
from headwater.core.messages import Meta
from headwater.runs.cuts import Cuts
from headwater.runs.life import Life
from headwater.runs.rows import Opened
from headwater.testing import App

app = headwater.App("bank")


@dataclasses.dataclass(frozen=True)
class Watch:
    left: int
    seen: list[str]


@app.tool(effect="read")
async def look(number: int) -> str:
    return f"saw {number}"


@app.agent
async def watch(ctx: headwater.Context, state: Watch) -> str:
    if state.left:
        seen = await look(state.left)
        await asyncio.sleep(3_600)
        ctx.continue_as(Watch(left=state.left - 1, seen=[*state.seen, seen]))
    return ", ".join(state.seen)


@app.agent(budget=headwater.Budget(wall_s=None))
async def boss(ctx: headwater.Context, rounds: int) -> str:
    return await watch.with_(budget=headwater.Budget(wall_s=None))(Watch(left=rounds, seen=[]))


@app.agent
async def fail(ctx: headwater.Context, text: str) -> str:
    raise ValueError(text)


@app.agent
async def wrong(ctx: headwater.Context, text: str) -> str:
    ctx.continue_as(7 if text else text)


def test_child_goes_through_journals_and_crashes_and_answers_once() -> None:
    """Its parent sees one call; each journal begins where the one before ended."""

    async def main() -> tuple[str, list[str]]:
        async with App(app) as test:
            run = await test.start(boss, 3)
            for _ in range(3):
                await test.crash()
                await test.advance(hours=1)
            return await run.result(), [call.name for call in run.calls]

    result, calls = asyncio.run(main())
    assert result == "saw 3, saw 2, saw 1"
    assert calls == ["watch"]


def test_task_of_another_type_is_the_functions_own_mistake() -> None:
    """It fails where it is said, and the run with it."""

    async def main() -> None:
        async with App(app) as test:
            await (await test.start(wrong, "x")).result()

    with pytest.raises(headwater.AgentError, match="the task that agent wrong continues as"):
        asyncio.run(main())


def test_failed_run_is_dropped_after_a_month() -> None:
    """Its events say so; the day before it is there."""

    async def main() -> tuple[str, str]:
        async with App(app) as test:
            run = await test.start(fail, "no")
            await test.advance(days=29)
            before = run.status
            await test.advance(days=2)
            return before, run.status

    assert asyncio.run(main()) == ("failed", "discarded")


def test_failed_run_whose_task_comes_again_can_still_be_resumed() -> None:
    """Admission forgot the task and tells of it as accepted; who looks sees that the run has failed."""

    async def main() -> str:
        async with App(app) as test:
            run = await test.start(fail, "no", id="t-1")
            await test.advance(days=2)
            again = await test.start(fail, "no", id="t-1")
            assert again.id == run.id
            assert [event.status for event in run.events[-2:]] == ["accepted", "failed"]
            return run.status

    assert asyncio.run(main()) == "failed"


@app.agent
async def tries(ctx: headwater.Context, text: str) -> str:
    try:
        return await fail(text)
    except headwater.AgentError as error:
        return error.error


moods = ["bad"]


@app.tool(effect="read")
async def mood(text: str) -> str:
    return moods[-1]


@app.agent
async def moody(ctx: headwater.Context, text: str) -> str:
    if (found := await mood(text)) == "bad":
        raise ValueError(text)
    return found


@app.agent
async def asks(ctx: headwater.Context, text: str) -> str:
    try:
        return await moody(text)
    except headwater.AgentError as error:
        return error.error


@app.agent(budget=headwater.Budget(wall_s=None))
async def waits(ctx: headwater.Context, text: str) -> str:
    return await ctx.receive("go")


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_parent_whose_task_comes_again_asks_a_child_of_its_own(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What failed in the run before is kept there, and tried anew.

    The control has children of both runs be one, and the second is told of a failure that is over.
    """
    if control:
        monkeypatch.setattr(Opened, "life", 0)
    monkeypatch.setattr("tests.unit.testing.test_long_lives.moods", ["bad"])

    async def main() -> list[str]:
        async with App(app) as test:
            first = await (await test.start(asks, "x", id="t-1")).result()
            moods.append("good")
            await test.advance(days=2)
            return [first, await (await test.start(asks, "x", id="t-1")).result()]

    assert asyncio.run(main()) == ["ValueError", "ValueError" if control else "good"]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_parent_whose_task_comes_again_is_answered_for_a_child_that_failed(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Code from before children's ids told of which run of its id they are asks for the one that is kept.

    The control waits for it, and for ever once it is cancelled.
    """
    monkeypatch.setattr(Opened, "life", 0)
    if control:
        monkeypatch.setattr(Life, "asked_again", lambda *_: None)

    async def main() -> tuple[str, bool]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            assert await (await test.start(tries, "no", id="t-1")).result() == "ValueError"
            await test.advance(days=2)
            again = await test.start(tries, "no", id="t-1")
            status = again.status
            await test.cancel(again)
            await test.advance(days=40)
            other = await test.start(watch, Watch(left=0, seen=[]))
            return status, other.status == "held"

    assert asyncio.run(main()) == (("started", True) if control else ("completed", False))


async def said_at_once(test: App, run, *verbs: str, settles: bool = True) -> None:
    """Have operators say something to a run, each before the others are heard."""
    for verb in verbs:
        word = Control(
            target=run.id, verb=verb, reason="so", resume=Resume() if verb == "resume" else None
        )
        meta = Meta(id=verb, tenant=run.tenant, actor="ana")
        sent = Sent(message=word, to=test.platform.admission_address(run.tenant), meta=meta)
        await test.log.append(test._envelope.seal(sent))
    if settles:
        await test.settle()


@pytest.mark.parametrize("dropped_by", ["retention", "an operator, at the same time"])
def test_task_whose_run_was_dropped_while_it_waited_to_go_on_is_a_new_one(dropped_by: str) -> None:
    """Nobody is left to be resumed: a task that comes again was taken for that run, and never ran."""

    async def main() -> tuple[str, list[str]]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            run = await test.start(fail, "no", id="t-1")
            await test.advance(days=29)
            blocker = await test.start(waits, "x")
            if dropped_by == "retention":
                await test.resume(run)
                assert run.status == "held"
                await test.advance(days=2)
            else:
                await said_at_once(test, run, "resume", "discard")
            dropped = run.status
            again = await test.start(fail, "no", id="t-1")
            await test.signal(blocker, "go", "on")
            return dropped, [event.status for event in again.events[-3:]]

    assert asyncio.run(main()) == ("discarded", ["held", "accepted", "failed"])


@app.tool(effect="write")
async def do(text: str) -> str:
    return f"did {text}"


@app.agent(budget=headwater.Budget(wall_s=None))
async def does(ctx: headwater.Context, text: str) -> str:
    return await do(text)


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_an_answer_that_outlives_its_run_is_not_that_of_the_next(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A call goes on though its run was cancelled, and is answered once there is a run of that id again.

    The control has requests of both runs be alike, and what was done is taken for what was asked.
    """
    if control:
        monkeypatch.setattr(Opened, "life", 0)

    async def main() -> str:
        async with App(app) as test:
            append, late = test.log.append, []

            async def slowly(draft: Draft) -> object:
                if ("ce_type", b"headwater.reply") not in draft.headers:
                    return await append(draft)
                return late.append(draft)

            monkeypatch.setattr(test.log, "append", slowly)
            run = await test.start(does, "one", id="t-1")
            await test.cancel(run)
            await test.advance(days=2)
            again = await test.start(does, "two", id="t-1")
            assert again.id == run.id
            for draft in late:
                await append(draft)
                await test.settle()
            return await again.result()

    assert asyncio.run(main()) == ("did one" if control else "did two")


BROKEN: list[str] = []


@app.agent
async def mendable(ctx: headwater.Context, text: str) -> str:
    if text in BROKEN:
        raise ValueError(text)
    return f"{text} in the end"


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_failed_run_is_resumed_though_its_task_comes_again_at_the_same_time(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its task takes the slot first and gives it back; the control takes the slot for the resume's own."""
    if control:
        monkeypatch.setattr(Admission, "_again", lambda *_: None)
    BROKEN[:] = ["it"]

    async def main() -> tuple[str, list[str]]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            run = await test.start(mendable, "it", id="t-1")
            await test.advance(days=2)
            BROKEN.clear()
            await said_at_once(test, run, "resume", settles=False)
            await test.start(mendable, "it", id="t-1")
            other = await test.start(fail, "no")
            return run.status, [event.status for event in other.events]

    status, other = asyncio.run(main())
    assert status == ("failed" if control else "completed")
    assert other == ["accepted", "failed"], "no slot is lost"


def test_failed_run_is_resumed_though_its_task_that_came_again_is_held() -> None:
    """The word went to the held task, which did not begin: whoever had sent it heard that it was held."""
    BROKEN[:] = ["it"]

    async def main() -> tuple[list[str], str]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            run = await test.start(mendable, "it", id="t-1")
            await test.advance(days=2)
            blocker = await test.start(waits, "x")
            await test.start(mendable, "it", id="t-1")
            BROKEN.clear()
            await test.resume(run, "mended")
            assert run.events[-1].reason == "mended"
            await test.signal(blocker, "go", "on")
            return [event.status for event in run.events[-5:]], await run.result()

    told, result = asyncio.run(main())
    assert told == ["held", "accepted", "failed", "waiting", "completed"]
    assert result == "it in the end"


@app.agent(budget=headwater.Budget(wall_s=None))
async def listens(ctx: headwater.Context, text: str) -> str:
    if text in BROKEN:
        raise ValueError(text)
    return await ctx.receive("go")


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_word_to_a_failed_run_whose_resume_waits_is_heard_once_it_goes_on(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It looks held, so words to it are taken; the control sends them to the run, which drops them."""
    if control:
        monkeypatch.setattr(Admission, "_waiting", lambda *_: None)
    BROKEN[:] = ["it"]

    async def main() -> tuple[str, str]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            run = await test.start(listens, "it", id="t-1")
            await test.advance(days=2)
            blocker = await test.start(waits, "x")
            BROKEN.clear()
            await test.resume(run)
            assert run.status == "held"
            await test.signal(run, "go", "heard")
            await test.start(listens, "it", id="t-1")
            await test.signal(blocker, "go", "on")
            return run.status, run.events[-1].outcome.decode()

    assert asyncio.run(main()) == (("waiting", "") if control else ("completed", '"heard"'))


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_word_to_a_failed_run_that_nobody_resumed_is_refused_for_everybody_to_see(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It waited with the task that was published again; that is no new one, and begins nothing."""
    if control:
        monkeypatch.setattr(Cuts, "unheard", lambda *_: None)
    BROKEN[:] = ["it"]

    async def main() -> tuple[str, str]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            run = await test.start(listens, "it", id="t-1")
            await test.advance(days=2)
            blocker = await test.start(waits, "x")
            await test.start(listens, "it", id="t-1")
            await test.signal(run, "go", "lost")
            await test.signal(blocker, "go", "on")
            dropped = run.status, run.events[-1].reason
            BROKEN.clear()
            await test.resume(run)
            await test.signal(run, "go", "said again")
            assert await run.result() == "said again"
            return dropped

    why = "signal go was dropped: the run has failed; resume it, then send it again"
    assert asyncio.run(main()) == ("failed", "" if control else why)


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_resume_of_a_held_new_task_resumes_no_failure_that_nobody_saw(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is for a run that failed before. The control sends it behind the start, as it was."""
    if control:
        behind = Admission._pass_on
        late: list[object] = []

        def pass_on(
            self: Admission, turn: Turn, words: Iterable[tuple[Control, Meta]], run: str
        ) -> None:
            late.extend(words)
            if turn.sent and any(
                isinstance(getattr(one, "message", 0), Start) for one in turn.sent
            ):
                behind(self, turn, late, run)

        monkeypatch.setattr(Admission, "_pass_on", pass_on)
    BROKEN[:] = ["it"]

    async def main() -> list[int]:
        async with App(app, parts={"quotas": Quotas(default=1)}) as test:
            blocker = await test.start(waits, "x")
            run = await test.start(mendable, "it", id="t-1")
            await said_at_once(test, run, "resume")
            await test.signal(blocker, "go", "on")
            assert run.status == "failed"
            return [event.attempt for event in run.events if event.status == "failed"]

    assert asyncio.run(main()) == ([1, 2] if control else [1])


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_resume_whose_runs_slot_was_lost_has_it_and_goes_on(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It went to and fro between its run and admission without end, which the control cuts short."""
    gone_back, again, closed = 0, Admission._again, Admission._closed

    def counted(self: Admission, turn: Turn, reopen: Reopen, slot: Slot) -> None:
        nonlocal gone_back
        gone_back += 1
        if control:
            slot = dataclasses.replace(slot, asked=())
        if gone_back < 20:
            again(self, turn, reopen, slot)

    monkeypatch.setattr(Admission, "_again", counted)
    BROKEN[:] = ["it"]

    async def main() -> str:
        async with App(app) as test:
            monkeypatch.setattr(Admission, "_closed", lambda *_: None)
            run = await test.start(mendable, "it", id="t-1")
            monkeypatch.setattr(Admission, "_closed", closed)
            BROKEN.clear()
            await said_at_once(test, run, "resume")
            return run.status

    assert asyncio.run(main()) == ("failed" if control else "completed")
    assert gone_back == (20 if control else 2)
