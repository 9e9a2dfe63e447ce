"""The decider of runs: journal, replay, holds, control in every order, limits, ends."""

from __future__ import annotations

import asyncio
import contextlib
import itertools

import pytest

from headwater.contracts.messages import (
    Ask,
    Closed,
    Control,
    Failed,
    Limits,
    Reply,
    ReplyTo,
    RunEvent,
    RunFailed,
    Spent,
    Start,
    Task,
    Usage,
)
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Timer, Turn
from headwater.core.judge import Allow, Deny
from headwater.core.messages import Meta, Position
from headwater.errors import PoisonError
from headwater.runs.rows import Entry, Held, OpenCall, Opened, Overrun, Run

from .world import World, call, gathered


async def two_calls(session):
    first = await call(session, "read-a")
    second = await call(session, "read-b", arguments=first)
    return first + second


async def wait_for_signal(session):
    signal = await session.receive("go")
    return signal.value


async def sleeper(session):
    await asyncio.sleep(60)
    return b"slept"


async def parent(session):
    return await call(session, "child", "agent")


def of(world, kind):
    return list(world.rows.scan(kind))


def test_run_asks_answers_and_ends_once():
    """One outcome a run; its slot closes; its rows go."""
    world = World(two_calls)
    world.start()
    assert [ask.name for ask in world.messages(Ask)] == ["read-a"]
    world.answer(1, b"A")
    assert world.messages(Ask)[1].arguments == b"A"
    world.answer(2, b"B")
    assert world.outcomes() == [("worker.completed", b"AB")]
    assert world.messages(Closed) == [Closed(slot="slot1", spent=Spent(steps=2))]
    assert world.statuses() == ["started", "waiting", "completed"]
    assert len(world.rows) == 0


def test_crash_after_every_turn_changes_nothing():
    """Replay sends no call whose number was ever issued, and reaches the same end."""
    calm, wild = World(two_calls), World(two_calls)
    for world, crash in ((calm, False), (wild, True)):
        for act in (
            world.start,
            lambda w=world: w.answer(1, b"A"),
            lambda w=world: w.answer(2, b"B"),
        ):
            act()
            if crash:
                world.crash()
    assert wild.sent == calm.sent
    assert wild.agent.begun == 3
    assert calm.agent.begun == 1


def test_aborted_turn_leaves_no_trace_in_the_cache():
    """A cached execution is used only if its head equals the run's row."""
    world = World(two_calls)
    world.start()
    world.answer(1, b"ghost", commit=False)
    world.answer(1, b"A")
    world.answer(2, b"B")
    assert world.outcomes() == [("worker.completed", b"AB")]


def test_stale_cache_would_answer_with_the_ghost(monkeypatch):
    """Control: without the check of the head, what was aborted comes back."""
    monkeypatch.setattr("headwater.runs.journal.head", lambda run: (0, 0))
    world = World(two_calls)
    world.start()
    world.answer(1, b"ghost", commit=False)
    world.answer(1, b"A")
    assert world.asked() == [1], "the second call was asked in the turn that came to nothing"


def test_duplicate_start_and_answers_count_once():
    """A start, an answer, and an answer to nothing are each taken once at most."""
    world = World(two_calls)
    world.start()
    world.start()
    world.answer(1, b"A")
    world.answer(1, b"again")
    world.answer(9)
    assert len(world.messages(Ask)) == 2
    world.answer(2, b"B")
    world.answer(2, b"late")
    assert world.outcomes() == [("worker.completed", b"AB")]


def test_second_attempts_bill_is_recorded_apart_once():
    """An attempt that was paid for twice is an overrun, not a settlement."""
    world = World(two_calls)
    world.start()
    usage = Usage(model="m", input_tokens=5, output_tokens=5, usd_nano=7)
    world.answer(1, b"A", attempt="a1", usage=usage)
    for _ in range(2):
        world.answer(1, b"A", attempt="a2", usage=usage)
    world.answer(1, b"A", attempt="a1", usage=usage)
    assert [row.attempt for row in of(world, Overrun)] == ["a2"]
    assert of(world, Run)[0].spent.usd_nano == 7
    world.answer(77, attempt="a3", usage=usage)
    assert len(of(world, Overrun)) == 1


def test_timer_row_follows_the_functions_sleep():
    """A run has one timer row, at its earliest due time; the wake lets it go on."""
    world = World(sleeper)
    world.start()
    assert [timer.due_ms for timer in of(world, Timer)] == [world.now_ms + 60_000]
    world.crash()
    world.wake()
    assert world.outcomes() == [("worker.completed", b"slept")]
    assert of(world, Timer) == []


def test_wall_clock_budget_fails_the_run():
    """A run that outlives its budget is cancelled from within and fails with the limit's name."""
    world = World(wait_for_signal, limits=Limits(wall_ms=5_000))
    world.start()
    world.wake()
    assert world.outcomes()[0][0] == "worker.failed"
    assert world.outcomes()[0][1].error == "BudgetExceeded"
    assert of(world, Run)[0].state == "failed"


def test_deadline_fails_the_run_at_once_or_when_it_passes():
    """A task that is not wanted any more is not begun; one under way is cancelled and fails."""
    world = World(wait_for_signal)
    world.start(deadline_ms=world.now_ms)
    assert world.agent.begun == 0
    assert world.outcomes()[0][1].error == "DeadlineExceeded"
    world = World(wait_for_signal)
    world.start(deadline_ms=world.now_ms + 1_000)
    world.wake()
    assert world.outcomes()[0][1].error == "DeadlineExceeded"


def test_what_a_run_waits_for_is_told_when_it_changes():
    """People look for runs by what they wait for; one that asks for nothing in between is found too."""

    async def waits(session):
        await session.receive("a")
        await session.receive("b")
        await asyncio.sleep(60)
        await session.receive("c")
        return b"done"

    world = World(waits)
    world.start()
    told = [("started", "signal a")]
    world.control("signal", "b")
    assert _told(world) == told, "nothing has changed: it still waits for the first"
    world.control("signal", "a")
    told.append(("waiting", "sleep until 1970-01-01T00:17:40Z"))
    assert _told(world) == told, "it sleeps: the other had come already"
    world.wake()
    told.append(("waiting", "signal c"))
    assert _told(world) == told
    world.control("signal", "c")
    assert world.statuses()[-1] == "completed"


def test_a_run_that_sleeps_says_until_when_unless_it_waits_for_a_call_too():
    """Only with what is told anyway: one that sleeps again and again writes no event each time."""

    async def naps(session):
        await asyncio.sleep(60)
        await asyncio.sleep(60)
        asked = asyncio.ensure_future(call(session, "read-a"))
        await asyncio.sleep(60)
        return await asked

    world = World(naps)
    world.start()
    assert _told(world) == [("started", "sleep until 1970-01-01T00:17:40Z")]
    world.wake()
    assert len(_told(world)) == 1, "it sleeps on, and nobody is told"
    world.wake()
    assert _told(world)[1:] == [("waiting", "")], "it asked, and its event names the call"


def _told(world):
    return [(event.status, event.reason) for event in world.messages(RunEvent)]


def test_run_without_limits_has_no_timer():
    """No wall clock and no deadline: nothing wakes the run."""
    world = World(wait_for_signal, limits=Limits(wall_ms=None))
    world.start()
    assert of(world, Timer) == []
    assert world.messages(RunEvent)[0].status == "started"


def test_signal_before_and_after_receive():
    """Signals wait for their receiver."""
    world = World(wait_for_signal)
    world.start()
    assert of(world, Run)[0].reason == "signal go"
    world.control("signal", "other", b"1")
    world.control("signal", "go", b"2")
    assert world.outcomes() == [("worker.completed", b"2")]


def test_foreign_tenant_and_unknown_run_are_ignored():
    """Control for another tenant's run, or for a run that is not here, changes nothing."""
    world = World(wait_for_signal)
    world.start()
    before = len(world.sent)
    world.control("cancel", tenant="evil")
    world.take(Control(target="worker.0.nobody", verb="cancel"))
    world.take(
        Reply(run="worker.0.nobody", number=1, attempt="a", outcome=Failed(error="e", detail="d"))
    )
    assert len(world.sent) == before
    assert of(world, Run)[0].state == "open"


def test_paused_run_keeps_messages_and_drains_in_order():
    """What comes while a run is paused is kept as rows and delivered in order; nothing overtakes."""

    async def collect(session):
        got = [(await session.receive("")).value for _ in range(4)]
        return b",".join(got)

    world = World(collect, drain_max=2)
    world.start()
    world.control("pause")
    world.control("pause")
    for value in (b"1", b"2", b"3"):
        world.control("signal", "s", value)
    assert len(of(world, Held)) == 3
    world.control("resume")
    world.control("signal", "s", b"4")
    world.drain()
    assert world.outcomes() == [("worker.completed", b"1,2,3,4")]
    assert "paused" in world.statuses()


def test_pause_during_a_drain_stops_it():
    """A drain finds the run paused and leaves the rest held."""
    world = World(wait_for_signal)
    world.start()
    world.control("pause")
    world.control("signal", "x")
    world.control("resume")
    world.control("pause")
    world.drain()
    assert len(of(world, Held)) == 1
    world.control("resume")
    world.drain()
    assert of(world, Held) == []


def test_cancel_of_a_paused_run_waits_its_turn_but_for_nobody():
    """Cancel lifts a pause, and comes after what was held before it."""

    async def polite(session):
        seen = []
        try:
            while True:
                seen.append((await session.receive("")).value)
        except asyncio.CancelledError:
            session.emit("seen", b",".join(seen))
            raise

    world = World(polite)
    world.start()
    world.control("pause")
    world.control("signal", "s", b"1")
    world.control("cancel")
    world.drain()
    assert [kind for kind, _ in world.outcomes()] == ["seen", "worker.cancelled"]
    assert world.outcomes()[0][1] == b"1"
    assert world.outcomes()[1][1].detail == "because"
    assert len(world.rows) == 0


def test_swallowed_cancellation_lets_the_run_go_on():
    """A function may refuse to stop; a second cancel asks again."""

    async def stubborn(session):
        try:
            await session.receive("go")
        except asyncio.CancelledError:
            return await call(session, "read-last")
        return b""

    world = World(stubborn)
    world.start()
    world.control("cancel")
    assert world.asked() == [1]
    world.answer(1, b"done")
    assert world.outcomes() == [("worker.completed", b"done")]


def test_cleanup_has_its_own_small_budget():
    """After a cancellation a run may still take `cleanup_steps` steps, whatever its budget."""

    async def cleaner(session):
        try:
            await session.receive("go")
        except asyncio.CancelledError:
            await call(session, "write-undo")
            try:
                await call(session, "write-more")
            except RuntimeError as error:
                session.emit("refused", str(error).encode())
            raise

    world = World(cleaner, limits=Limits(steps=0, cleanup_steps=1))
    world.start()
    world.control("cancel")
    world.control("cancel")
    assert world.asked() == [1]


def test_cleanup_beyond_its_budget_is_refused():
    """The step after the last one for cleaning up is answered with `BudgetExceeded`."""

    async def cleaner(session):
        try:
            await session.receive("go")
        except asyncio.CancelledError:
            await call(session, "write-undo")
            try:
                await call(session, "write-more")
            except RuntimeError as error:
                session.emit("refused", str(error).encode())
            raise

    world = World(cleaner, limits=Limits(steps=0, cleanup_steps=1))
    world.start()
    world.control("cancel")
    world.answer(1)
    assert world.outcomes()[0] == ("refused", b"BudgetExceeded")
    assert world.outcomes()[1][0] == "worker.cancelled"


def test_uncaught_exception_fails_the_run_and_keeps_it():
    """The failure goes to `evt`, the task's bytes to `dlq`, the slot closes, the rows stay."""

    async def broken(session):
        await call(session)
        raise ValueError("no good")

    world = World(broken)
    world.start()
    world.answer(1)
    kind, failed = world.outcomes()[0]
    assert (kind, failed.error, failed.detail) == ("worker.failed", "ValueError", "no good")
    assert isinstance(failed, RunFailed)
    (letter,) = world.drafts
    assert (letter.topic, letter.key, letter.value) == ("hw.dlq.worker.v1", b"key", b"in")
    assert world.messages(Closed)
    assert of(world, Run)[0].state == "failed"
    assert len(of(world, Entry)) == 2
    world.control("cancel")
    world.control("resume")
    assert of(world, Run)[0].state == "failed"


def test_failed_run_keeps_later_replies():
    """A reply that comes after the failure is held, for an operator who resumes the run."""

    async def hasty(session):
        session.ask("tool", "read-slow", b"")
        raise ValueError

    world = World(hasty)
    world.start()
    world.answer(1)
    assert len(of(world, Held)) == 1


def test_parent_and_child():
    """A child is placed by its parent's turn, and its reply is the parent's answer."""
    world = World(parent)
    world.start()
    (child,) = world.messages(Start)
    assert child.run.startswith("child.0.")
    assert child.slot == "slot1"
    assert child.reply_to == ReplyTo(
        topic="hw.inbox.worker.v1", partition=0, run=world.run, number=1
    )
    assert child.limits.usd_nano == 1_000_000_000
    assert child.limits.steps == 49
    world.answer(1, b"from child", spent=Spent(steps=3, tokens=10, usd_nano=5))
    assert world.messages(Closed)[0].spent == Spent(steps=4, tokens=10, usd_nano=5)


@pytest.mark.parametrize("how", ["completed", "failed", "cancelled"])
def test_closing_child_answers_its_parent(how):
    """A run with a parent sends `Reply` instead of `Closed`, beside its own outcome."""

    async def child(session):
        await session.receive("go")
        if how == "failed":
            raise ValueError("sad")
        return b"glad"

    world = World(child)
    to = ReplyTo(topic="hw.inbox.boss.v1", partition=3, run="boss.3.t", number=8)
    world.start(reply_to=to, task=Task(value=b"in"))
    if how == "cancelled":
        world.control("cancel")
    else:
        world.control("signal", "go")
    (reply,) = world.messages(Reply)
    assert (reply.run, reply.number, reply.attempt) == ("boss.3.t", 8, world.run)
    assert world.messages(Closed) == []
    if how == "completed":
        assert reply.outcome.value == b"glad"
    else:
        assert reply.outcome.error == {"failed": "ValueError", "cancelled": "Cancelled"}[how]
    if how == "failed":
        assert world.drafts[0].key == world.run.encode()


@pytest.mark.parametrize("failing", [True, False])
def test_closing_parent_waits_for_its_children(failing):
    """An ended parent cancels its children and gives its slot back after the last has replied."""

    async def careless(session):
        for _ in range(2):
            session.ask("agent", "child", b"")
        await session.receive("go")
        if failing:
            raise ValueError
        return b"done"

    world = World(careless)
    world.start()
    world.control("signal", "go")
    assert [c.verb for c in world.messages(Control)] == ["cancel", "cancel"]
    assert world.messages(Closed) == []
    world.answer(1, spent=Spent(steps=2))
    assert world.messages(Closed) == []
    world.answer(1, spent=Spent(steps=2))
    world.answer(2)
    assert [c.spent.steps for c in world.messages(Closed)] == [4]
    assert (len(of(world, Run)) == 1) is failing


@pytest.mark.parametrize("failing", [True, False])
def test_child_whose_reply_is_held_has_replied(failing):
    """A run that ends while it drains takes the replies of children that are held behind; its slot closes."""

    async def careless(session):
        for _ in range(2):
            session.ask("agent", "child", b"")
        session.ask("tool", "read-account", b"")
        await session.receive("go")
        if failing:
            raise ValueError
        return b"done"

    world = World(careless)
    world.start()
    world.control("pause")
    world.control("signal", "go")
    world.answer(1, spent=Spent(steps=2))
    world.answer(3)
    world.control("resume")
    world.drain()
    assert [c.target for c in world.messages(Control)] == [world.messages(Start)[1].run]
    assert world.messages(Closed) == []
    world.answer(2, spent=Spent(steps=3))
    assert [c.spent.steps for c in world.messages(Closed)] == [8]
    assert (len(of(world, Run)) == 1) is failing


def test_child_nobody_waits_for_is_cancelled():
    """A child whose waiter timed out would go on spending; it is told to stop."""

    async def impatient(session):
        try:
            async with asyncio.timeout(5):
                await call(session, "child", "agent")
        except TimeoutError:
            await call(session, "read-other")
        return b""

    world = World(impatient)
    world.start()
    world.wake()
    assert [c.verb for c in world.messages(Control)] == ["cancel"]
    world.answer(1, b"late")
    world.answer(2)
    assert world.outcomes()[0][0] == "worker.completed"


def test_budget_refuses_and_the_refusal_is_an_answer_in_the_same_turn():
    """`reserved + spent` never passes the limit at a send."""

    async def greedy(session):
        results = await asyncio.gather(
            *(call(session, f"read-{n}") for n in range(3)), return_exceptions=True
        )
        return b",".join(str(r).encode() if isinstance(r, Exception) else r for r in results)

    world = World(greedy, limits=Limits(steps=2))
    world.start()
    assert world.asked() == [1, 2]
    assert [n.state for n in world.messages(RunEvent)[0].calls] == ["asked", "asked", "denied"]
    world.crash()
    world.answer(2, b"2")
    world.crash()
    world.answer(1, b"1")
    assert world.outcomes() == [("worker.completed", b"1,2,BudgetExceeded")]


@pytest.mark.parametrize("limits", [Limits(tokens=50), Limits(usd_nano=1)])
def test_token_and_money_limits(limits):
    """A model call reserves its ceiling."""

    async def asks(session):
        return await call(session, "small", "model")

    world = World(asks, limits=limits)
    world.start()
    assert world.asked() == []
    assert world.outcomes()[0][1].detail == "BudgetExceeded"


def test_unknown_price_is_refused_only_under_a_money_budget():
    """No price, no promise: the refusal names the prices file."""

    async def asks(session):
        return await call(session, "small", "model")

    world = World(asks)
    world.catalogue.price = None
    world.start()
    assert "prices file" in world.messages(RunEvent)[0].calls[0].detail
    world = World(asks, limits=Limits(usd_nano=None))
    world.catalogue.price = None
    world.start()
    assert world.asked() == [1]
    world.answer(1, usage=Usage(model="m", input_tokens=2, output_tokens=3, usd_nano=4))
    assert world.messages(Closed)[0].spent == Spent(steps=1, tokens=5, usd_nano=4)


def test_judge_denies_in_the_same_turn_and_replay_does_not_judge_again():
    """A denial is journaled; today's rules do not change yesterday's answer."""

    class Strict:
        version = "strict"
        asked = 0

        def judge(self, call, meta):
            self.asked += 1
            return Deny("not today") if call.name == "write-pay" else Allow()

    async def payer(session):
        try:
            await call(session, "write-pay")
        except RuntimeError as error:
            session.emit("e", str(error).encode())
        return await call(session, "read-x")

    judge = Strict()
    world = World(payer, judge=judge)
    world.start()
    world.crash()
    world.answer(2, b"!")
    assert world.outcomes() == [("e", b"Denied"), ("worker.completed", b"!")]
    assert judge.asked == 2


@pytest.mark.parametrize(
    ("kind", "name"), [("tool", "nobody"), ("agent", "nobody"), ("tool", "read-big")]
)
def test_impossible_calls_fail_where_they_are_made(kind, name):
    """A call to nothing, or with arguments too large, is answered at once."""

    async def asks(session):
        return await call(session, name, kind, b"x" * (600_000 if name == "read-big" else 1))

    world = World(asks)
    world.start()
    assert world.outcomes()[0][1].detail in {"Unknown", "TooLarge"}


def test_changed_code_holds_the_run_and_says_why():
    """Call n must have the recorded kind and name; restored code goes on where it was."""
    world = World(two_calls)
    world.start()
    world.crash()

    async def changed(session):
        return await call(session, "read-other")

    world.agent.function = changed
    world.answer(1, b"A")
    row = of(world, Run)[0]
    assert row.state == "held"
    assert "call 1 is recorded as tool read-a" in row.reason
    assert "tool read-other" in row.reason
    assert len(of(world, Held)) == 1
    world.control("signal", "s")
    world.control("resume")
    world.drain()
    assert of(world, Run)[0].state == "held"
    assert len(of(world, Held)) == 2
    world.agent.function = two_calls
    world.control("resume")
    world.drain()
    world.answer(2, b"B")
    assert world.outcomes() == [("worker.completed", b"AB")]


@pytest.mark.parametrize(
    ("change", "held"),
    [("fewer", True), ("more", True), ("arguments-read", False), ("arguments-write", True)],
)
def test_every_kind_of_change_is_seen(change, held, caplog):
    """Fewer calls, more calls, or other arguments of a write hold; other arguments of a read warn."""
    name = "write-a" if change == "arguments-write" else "read-a"

    async def before(session):
        await call(session, name)
        return await call(session, "read-b")

    async def after(session):
        if change == "fewer":
            await session.receive("x")
        if change == "more":
            session.ask("tool", "read-extra", b"")
            session.ask("tool", "read-extra", b"")
        await call(session, name, arguments=b"other" if "arguments" in change else b"x")
        return await call(session, "read-b")

    world = World(before)
    world.start()
    world.answer(1)
    world.crash()
    world.agent.function = after
    world.answer(2)
    assert (of(world, Run)[0].state == "held" if of(world, Run) else False) is held
    assert ("other arguments" in caplog.text) is True or change in {"fewer", "more"}


def test_call_more_in_a_later_step_is_seen():
    """A call where the journal has none is named as such."""

    async def before(session):
        await session.receive("a")
        await session.receive("b")
        return b""

    async def after(session):
        await session.receive("a")
        await call(session, "read-new")
        return b""

    world = World(before)
    world.start()
    world.control("signal", "a")
    world.crash()
    world.agent.function = after
    world.control("signal", "b")
    assert "call 1 is recorded as nothing" in of(world, Run)[0].reason


@pytest.mark.parametrize("slept", [True, False])
def test_code_that_ends_where_its_run_waits_holds_it(slept):
    """The journal says nothing of an end: whatever comes next waits for code that waits for it, too."""

    async def waits(session):
        first = await call(session, "read-a")
        if slept:
            await asyncio.sleep(60)
        else:
            await session.receive("go")
        return first

    async def ends(session):
        return await call(session, "read-a")

    world = World(waits)
    world.start()
    world.answer(1)
    world.agent.function = ends
    world.crash()
    if slept:
        world.wake()
    else:
        world.control("signal", "go")
    (run,) = of(world, Run)
    assert run.state == "held"
    assert "call 2 is recorded as yet to come, but the code now asks for nothing" in run.reason
    world.agent.function = waits
    world.control("resume")
    world.drain()
    assert world.outcomes() == [("worker.completed", b"ok")]


def test_held_run_can_be_cancelled_without_its_code():
    """Code that cannot be replayed cannot clean up: cancel ends the run all the same."""
    world = World(two_calls)
    world.start()
    world.crash()
    world.agent.function = wait_for_signal
    world.answer(1)
    assert of(world, Run)[0].state == "held"
    world.control("cancel")
    assert world.outcomes()[0][0] == "worker.cancelled"
    assert len(world.rows) == 0


def test_code_that_cannot_take_its_start_is_held():
    """A socket in an agent holds the run with a message; fixed code goes on."""

    async def naughty(session):
        open("/tmp/headwater-never", "w")  # noqa: ASYNC230, PTH123, SIM115, S108 - it is refused
        return b""

    world = World(naughty)
    world.start()
    assert "ConfinementError" in of(world, Run)[0].reason
    world.agent.function = two_calls
    world.control("resume")
    world.drain()
    assert world.asked() == [1]


def test_undecodable_task_gives_the_slot_back_or_answers_the_parent():
    """Whatever ends a slot says so."""
    world = World(two_calls)
    world.start(task=Task(value=b"rotten"))
    assert world.messages(Closed)[0].slot == "slot1"
    assert world.statuses() == ["quarantined"]
    world = World(two_calls)
    to = ReplyTo(topic="hw.inbox.boss.v1", partition=3, run="boss.3.t", number=8)
    world.start(task=Task(value=b"rotten"), reply_to=to)
    assert world.messages(Reply)[0].outcome.error == "invalid-input"


def test_full_journal_fails_the_run():
    """A journal has a cap, and a warning before it."""

    async def endless(session):
        while True:
            await call(session)

    world = World(endless, entries_max=3, entries_warn=2, limits=Limits(steps=None))
    world.start()
    for number in range(1, 4):
        world.answer(number)
    assert world.outcomes()[0][1].error == "journal-full"
    world.take(Control(target="worker.0.none", verb="cancel"))


def test_a_message_of_another_tenant_that_is_refused_fails_no_run(monkeypatch):
    """What a stranger sends changes nothing, whether it is taken or quarantined."""
    world = World(two_calls)
    world.start()

    def refuse(turn, message):
        raise PoisonError("bad", "processes die of it")

    monkeypatch.setattr(world.decider, "react", refuse)
    world.control("cancel", tenant="evil")
    assert (of(world, Run)[0].state, of(world, Run)[0].held) == ("open", 0)
    assert world.outcomes() == []


def test_refusal_of_a_message_for_no_run_is_only_logged(caplog):
    """A record nobody can decode changes no run."""
    world = World(two_calls)
    world.start()
    turn = Turn(world.rows, at=Position("i", "t", 0, 1), meta=Meta(id="x", tenant=""), now_ms=0)
    record = Record(partition=Partition("t", 0), offset=1, time_ms=0, key=None, value=b"?")
    world.decider.refused(turn, record, None, PoisonError("bad", "cannot be read"))
    assert turn.sent == []
    assert "cannot be read" in caplog.text


def test_evicted_executions_are_replayed():
    """The cache is bounded; what falls out is replayed when it is needed."""
    world = World(two_calls, executions_max=1)
    runs = [f"worker.0.t{n}" for n in range(3)]
    for run in runs:
        world.run = run
        world.start()
    for number, value in ((1, b"A"), (2, b"B")):
        for run in runs:
            world.run = run
            world.answer(number, value)
    assert world.outcomes() == [("worker.completed", b"AB")] * 3
    assert world.agent.begun > 3


@pytest.mark.parametrize(
    "order", list(itertools.permutations(["pause", "resume", "cancel", "signal"]))
)
@pytest.mark.parametrize("crash", [False, True])
def test_control_in_every_order(order, crash):
    """Pause, resume, cancel and signal in every order leave one outcome or a run that still takes one."""
    world = World(wait_for_signal)
    world.start()
    for verb in order:
        world.control(verb, "go", b"1")
        if crash:
            world.crash()
    world.drain()
    world.control("resume")
    world.drain()
    kinds = [kind for kind, _ in world.outcomes()]
    assert len(kinds) == 1
    first = next(verb for verb in order if verb in {"cancel", "signal"})
    assert kinds == ["worker.cancelled" if first == "cancel" else "worker.completed"]
    assert len(world.rows) == 0
    assert len(world.messages(Closed)) == 1


def test_parallel_calls_answered_out_of_order():
    """Numbers, not order, tie answers to calls."""

    async def both(session):
        return await gathered(session, "read-a", "read-b")

    world = World(both)
    world.start()
    world.answer(2, b"B")
    world.crash()
    world.answer(1, b"A")
    assert world.outcomes() == [("worker.completed", b"A+B")]


def test_failed_tool_is_an_error_the_function_can_catch():
    """A failure is an answer; the event names it."""

    async def catches(session):
        try:
            return await call(session)
        except RuntimeError as error:
            return str(error).encode()

    world = World(catches)
    world.start()
    world.fail(1)
    assert world.outcomes() == [("worker.completed", b"Boom")]
    assert world.messages(RunEvent)[-1].calls[0].detail == "it broke"


def test_requests_carry_terms():
    """Order key, deadline and reply address travel with the request."""

    async def asks(session):
        return await call(session, "write-x", order_key="card-1", timeout_ms=500)

    world = World(asks)
    world.start(deadline_ms=world.now_ms + 200)
    (ask,) = world.messages(Ask)
    assert (ask.order_key, ask.not_after_ms, ask.safety) == ("card-1", world.now_ms + 200, "write")
    assert world.sent[0].to.key == "t1|write-x|card-1"
    assert of(world, OpenCall)[0].reserved == Spent(steps=1)
    assert of(world, Opened)[0].meta().tenant == "t1"


@pytest.mark.parametrize(
    ("kind", "name", "held"), [("agent", "child", True), ("model", "small", False)]
)
def test_other_arguments_hold_a_child_and_let_a_model_pass(kind, name, held):
    """A child's task is a write to the world of runs; a model's prompt may be reworded, with a warning."""

    def asks(arguments):
        async def function(session):
            await call(session, name, kind, arguments)
            return await call(session, "read-b")

        return function

    world = World(asks(b"one"))
    world.start()
    world.answer(1)
    world.crash()
    world.agent.function = asks(b"two")
    world.answer(2)
    assert bool(of(world, Run)) is held


def test_losing_one_partition_leaves_the_others_suspended():
    """What is cached for a partition goes with it alone."""
    world = World(two_calls)
    world.start()
    world.decider.forget(Partition("hw.inbox.worker.v1", 1))
    world.answer(1, b"A")
    assert world.agent.begun == 1


def test_bill_for_a_call_the_journal_does_not_have_is_no_overrun():
    """Only a second attempt at an answered call is recorded apart."""
    world = World(two_calls)
    world.start()
    world.control("signal", "noise")
    usage = Usage(model="m", input_tokens=1, output_tokens=1, usd_nano=1)
    world.answer(5, usage=usage)
    assert of(world, Overrun) == []


@pytest.mark.parametrize("run", ["no run", "other.0.task1", "worker.9.task1"])
def test_a_start_that_is_not_for_here_is_refused(run):
    """Its outcome would have nowhere to go; its slot goes back."""
    world = World(two_calls)
    world.take(Start(run=run, task_id="task1", slot="slot1", task=Task(value=b"in")))
    assert world.messages(Closed) == [Closed(slot="slot1")]
    assert world.statuses() == ["quarantined"]
    assert len(world.rows) == 0


def test_a_start_whose_parent_cannot_be_is_refused_and_answered_nowhere():
    """An answer to where nobody is could not be written, and would stop the inbox for good."""
    world = World(two_calls)
    for to in (
        ReplyTo(topic="hw.inbox.nobody.v1", partition=0, run="nobody.0.x", number=1),
        ReplyTo(topic="elsewhere", partition=0, run="desk.0.x", number=1),
        ReplyTo(topic="hw.inbox.desk.v1", partition=0, run="no run", number=1),
    ):
        world.start(reply_to=to)
    assert world.messages(Reply) == []
    assert world.statuses() == ["quarantined"] * 3


@pytest.mark.parametrize(("name", "kind"), [("read-a", "tool"), ("child", "agent")])
def test_a_run_that_left_a_call_and_sleeps_says_that_it_sleeps(name, kind):
    """Whoever looks is told what it waits for, and that nobody waits for the call any more."""

    async def main(session):
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(60):
                await call(session, name, kind)
        await asyncio.sleep(300)
        return b"ok"

    world = World(main)
    world.start()
    told = len(_told(world))
    world.wake()
    event = world.messages(RunEvent)[-1]
    assert (len(_told(world)), event.reason[:11]) == (told + 1, "sleep until")
    assert left(event) == [(1, "asked", "the run no longer waits for it")]
    (row,) = world.rows.scan(OpenCall)
    assert row.withdrawn
    world.answer(1)
    assert world.messages(RunEvent)[-1].calls[0].state == "answered", "it is booked all the same"


def left(event):
    return [(note.number, note.state, note.detail) for note in event.calls if note.detail]


@pytest.mark.parametrize("name", ["read-a", "irreversible-pay"])
@pytest.mark.parametrize("kind", ["tool", "agent"])
def test_a_call_that_a_limits_cancellation_leaves_is_not_said_to_be_left(name, kind):
    """A resume takes the cancellation back, and the run waits for the call again."""

    async def main(session):
        try:
            return await call(session, name, kind)
        except asyncio.CancelledError:
            await call(session, "read-b")
            raise

    world = World(main, limits=Limits(wall_ms=50_000))
    world.start()
    world.wake()
    event = world.messages(RunEvent)[-1]
    assert [note.number for note in event.calls] == [2], "what it cleans up with"
    (row, _) = world.rows.scan(OpenCall)
    assert not row.withdrawn


def test_a_call_that_was_denied_is_let_go_like_any():
    """It was never sent, and there is nothing to take back."""

    async def main(session):
        denied = asyncio.ensure_future(call(session, "nobody"))
        await asyncio.sleep(0)
        denied.cancel()
        return await call(session)

    world = World(main)
    world.start()
    assert [row.number for row in world.rows.scan(OpenCall)] == [2]
    world.answer(2)
    assert world.outcomes() == [("worker.completed", b"ok")]
