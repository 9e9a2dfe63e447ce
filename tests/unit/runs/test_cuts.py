"""Cuts: a failed run goes on before the turn that failed, on terms, once; or is dropped, by name."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from typing import Any

import pytest

from headwater.contracts.approvals import Petition, Withdraw
from headwater.contracts.messages import (
    Answered,
    Ask,
    Closed,
    Control,
    Failed,
    Limits,
    Operation,
    Reopen,
    Reply,
    ReplyTo,
    Resume,
    RunEvent,
    Spent,
    Start,
    Task,
    Usage,
)
from headwater.core.decider import Timer
from headwater.core.execution import Answer, Begin, Cancel, Cut, Tick
from headwater.errors import UNKEEPABLE, UNWRITABLE, PoisonError, ProcessKillerError
from headwater.runs import hosting, people
from headwater.runs.cuts import Cuts
from headwater.runs.decider import Runs
from headwater.runs.rows import Entry, Held, OpenCall, Opened, Run

from .test_people import Careful, Petitioned, approve, pays
from .world import INBOX, World, call, gathered


class Shaky:
    """An agent that breaks as long as it is told to."""

    def __init__(self, *names: str) -> None:
        self.broken = True
        self.names = names or ("read-a", "read-b")

    async def __call__(self, session):
        first = await call(session, self.names[0])
        if self.broken:
            await asyncio.gather(*(call(session, name) for name in self.names[1:]), self.fall())
        rest = [await call(session, name) for name in self.names[1:]]
        return b"+".join([first, *rest])

    async def fall(self):
        raise ValueError("bad luck")


def events(world):
    return world.messages(RunEvent)


def the_run(world) -> Run:
    (run,) = world.rows.scan(Run)
    return run


def resume(world, *, slot="", **more):
    """Have an operator resume the run; with `slot`, as admission forwards it."""
    world.take(
        Control(
            target=world.run,
            verb="resume",
            reason="because",
            resume=Resume(slot=slot, **more),
        )
    )


def granted(world, **more):
    """Resume with a slot, and let what waits be delivered."""
    resume(world, slot=world.run, **more)
    world.drain()


def failed(*names: str) -> tuple[World, Shaky]:
    shaky = Shaky(*names)
    world = World(shaky)
    world.start()
    world.answer(1, b"A", usage=Usage(input_tokens=7))
    assert world.statuses()[-1] == "failed"
    return world, shaky


def test_a_resume_asks_admission_for_a_slot_first():
    """A failed run has given its slot back; on what terms it was resumed comes back with another."""
    world, _ = failed()
    resume(world, added=Spent(steps=3))
    terms = Resume(added=Spent(steps=3), attempt=1)
    assert world.messages(Reopen) == [Reopen(run=world.run, reason="because", resume=terms)]
    assert the_run(world).state == "failed"
    (asks,) = [sent.meta for sent in world.sent if isinstance(sent.message, Reopen)]
    assert asks.causation_id == f"m{world.offset}", (
        "so admission knows a word of its own that came back"
    )
    world.take(Control(target=world.run, verb="resume"), deadline_ms=7)
    (_, asks) = [sent.meta for sent in world.sent if isinstance(sent.message, Reopen)]
    assert asks.deadline_ms == 7, "it is the operator's word and not the task's"


def test_a_resumed_run_buys_nothing_again_and_reuses_no_number():
    """The failing turn is taken back; what was answered stays answered, what is asked has new numbers."""
    world, shaky = failed()
    assert world.asked() == [1, 2]
    shaky.broken = False
    before_ms = the_run(world).now_ms
    world.now_ms -= 500
    granted(world)
    assert the_run(world).now_ms == before_ms, "nor does its time fall, where the log's does"
    assert world.asked() == [1, 2, 3]
    world.answer(3, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")
    assert [closed.slot for closed in world.messages(Closed)] == ["slot1", world.run]
    assert len(world.rows) == 0


def test_numbers_would_be_sent_twice_without_the_cut(monkeypatch):
    """Control: an execution that is not told of the cut asks under a number that was sent before."""
    monkeypatch.setattr("headwater.durable.session.Session.recall", lambda self, **known: None)
    world, shaky = failed()
    shaky.broken = False
    granted(world)
    assert world.asked() == [1, 2, 2]


def test_a_crash_after_the_cut_replays_the_same():
    """The cut is in the journal: a fresh process numbers on above it too."""
    world, shaky = failed()
    shaky.broken = False
    resume(world, slot=world.run)
    world.crash()
    world.drain()
    world.crash()
    world.answer(3, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")


def test_an_answer_to_a_call_that_was_taken_back_is_booked_and_changes_nothing():
    """Every attempt is charged once; nobody waits for that answer any more."""
    world, shaky = failed()
    world.answer(2, b"late", usage=Usage(input_tokens=5))
    assert [held.message.number for held in world.rows.scan(Held)] == [2]
    shaky.broken = False
    granted(world)
    assert the_run(world).spent.tokens == 12
    world.answer(3, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")
    assert [closed.spent for closed in world.messages(Closed)] == [
        Spent(steps=2, tokens=7),
        Spent(steps=1, tokens=5),
    ], "the step of the call that was open was told as it failed"


def test_what_was_taken_back_comes_before_what_came_since():
    """Order is kept: the failing turn's delivery first, then later replies, then new ones."""

    class Early:
        broken = True

        async def __call__(self, session):
            one = asyncio.ensure_future(call(session, "read-a"))
            two = asyncio.ensure_future(call(session, "read-b"))
            seen = []
            for task in (one, two):
                task.add_done_callback(lambda of: seen.append(of.result()))
            await one
            if self.broken:
                raise ValueError("bad luck")
            await two
            return b"".join(seen)

    world = World(early := Early())
    world.start()
    world.answer(1, b"A")
    world.answer(2, b"B")
    early.broken = False
    resume(world, slot=world.run)
    assert [type(held.message).__name__ for held in world.rows.scan(Held)] == [
        "Redelivery",
        "Reply",
    ]
    world.drain()
    assert world.outcomes()[-1] == ("worker.completed", b"AB")


def test_a_second_bill_for_an_answer_that_was_delivered_again_is_an_overrun():
    """A redelivered answer keeps the attempt that was charged for it."""
    world, shaky = failed()
    shaky.broken = False
    granted(world)
    (entry,) = [one for one in world.rows.scan(Entry) if isinstance(one.delivery, Answer)]
    assert (entry.attempt, entry.usage) == ("a1", Usage(input_tokens=7))


def test_writes_of_the_failing_turn_are_not_repeated_unasked():
    """The resume is refused, the writes are named; with a yes it goes on, and the journal says so."""
    world, shaky = failed("read-a", "write-b")
    assert events(world)[-1].writes == ("2 tool write-b",)
    assert world.drafts[0].headers[-1] == ("writes", b"2 tool write-b")
    resume(world)
    assert not world.messages(Reopen)
    assert events(world)[-1].status == "failed"
    assert events(world)[-1].reason == "resume refused: it would repeat writes: 2 tool write-b"
    shaky.broken = False
    resume(world, repeat_writes=True)
    assert world.messages(Reopen)[0].resume.repeat_writes
    granted(world, repeat_writes=True)
    (cut,) = [one.delivery for one in world.rows.scan(Entry) if isinstance(one.delivery, Cut)]
    assert cut.writes == ("2 tool write-b",)
    assert (cut.attempt, cut.error) == (2, "ValueError")


def test_writes_before_the_failing_turn_stand_in_no_ones_way():
    """They are answered in the journal, and not made again; a dead letter names them for a replay."""
    world, shaky = failed("write-a", "read-b")
    assert events(world)[-1].writes == ()
    assert world.drafts[0].headers[-1] == ("writes", b"1 tool write-a")
    shaky.broken = False
    granted(world)
    assert world.asked() == [1, 2, 3]


def test_a_run_that_fails_again_is_resumed_again():
    """Attempts count up; what was taken back for good is still named; each outcome says its attempt."""
    world, shaky = failed("read-a", "write-b")
    granted(world, repeat_writes=True)
    assert the_run(world).state == "failed"
    assert the_run(world).attempt == 2
    assert world.drafts[-1].headers[-1] == ("writes", b"2 tool write-b, 3 tool write-b")
    outcomes = [item for item in world.sent if getattr(item.message, "type", "") == "worker.failed"]
    assert [dict(item.headers).get("ce_attempt") for item in outcomes] == [None, b"2"]
    shaky.broken = False
    granted(world, repeat_writes=True, added=Spent(steps=1))
    world.answer(4, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")
    assert events(world)[-1].attempt == 3


def test_the_same_resume_twice_is_one():
    """A word about an attempt that was resumed already does nothing, and says so."""
    world, _ = failed()
    granted(world, attempt=1)
    assert the_run(world).attempt == 2
    resume(world, attempt=1)
    assert not world.messages(Reopen)
    assert "attempt 1 was resumed before; this is 2" in events(world)[-1].reason
    resume(world, attempt=1, slot=world.run)
    assert world.messages(Closed)[-1] == Closed(slot=world.run), "a slot taken in vain goes back"


@pytest.mark.parametrize("verb", ["resume", "discard"])
def test_a_run_that_has_not_failed_says_that_nothing_was_done(verb):
    """It goes on as it was."""
    world = World(Shaky())
    world.start()
    world.control(verb)
    assert events(world)[-1].status == "waiting"
    assert events(world)[-1].detail == f"{verb} did nothing: the run is open"
    world.control("pause")
    world.control("discard")
    assert events(world)[-1].status == "paused"
    assert not world.messages(Operation)
    assert the_run(world).state == "paused"


@pytest.mark.parametrize("verb", ["cancel", "pause"])
def test_a_failed_run_says_of_a_word_that_it_did_nothing(verb):
    """One that comes just before the resume of which it is meant is not swallowed."""
    world, _ = failed()
    world.control(verb)
    told = events(world)[-1]
    assert (told.status, told.detail) == ("failed", events(world)[-2].detail), "as it failed"
    assert told.reason == f"{verb} did nothing: the run has failed"
    assert the_run(world).state == "failed"


def test_a_closing_run_is_not_resumed():
    """It has ended well, and only waits for its children."""

    async def parent(session):
        child = asyncio.ensure_future(call(session, "child", "agent"))
        await call(session, "read-a")
        child.cancel()
        return b"done"

    world = World(parent)
    world.start()
    world.answer(1)
    world.control("resume")
    assert events(world)[-1].detail == "resume did nothing: the run is completed"
    assert events(world)[-1].status == "completed"


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_resume_of_an_attempt_before_does_not_undo_a_pause(control, monkeypatch):
    """It waited at admission while another one resumed the run, and a person paused that since."""
    if control:
        monkeypatch.setattr(Cuts, "is_stale", lambda *_: False)
    world, _ = failed()
    resume(world, slot=world.run, attempt=1)
    world.control("pause")
    closed = len(world.messages(Closed))
    resume(world, attempt=1)
    resume(world, attempt=1, slot="another")
    if control:
        assert the_run(world).state != "paused"
        return
    assert the_run(world).state == "paused"
    assert [slot.slot for slot in world.messages(Closed)[closed:]] == ["another"]
    told = events(world)[-1]
    why = "resume did nothing: attempt 1 was resumed before; this is 2"
    assert (told.status, told.detail) == ("paused", why)
    resume(world, attempt=2)
    assert the_run(world).state == "open"


def test_a_slot_goes_back_where_there_is_no_such_run_or_it_was_paused():
    """Nothing may hold a slot that nobody uses."""
    world = World(Shaky())
    resume(world, slot=world.run)
    world.control("resume")
    assert world.messages(Closed) == [Closed(slot=world.run)]
    world.start()
    world.control("pause")
    resume(world, slot=world.run)
    assert the_run(world).state == "open"
    assert world.messages(Closed) == [Closed(slot=world.run)] * 2


class Parent:
    """Starts a child, then breaks as long as it is told to."""

    broken = True

    async def __call__(self, session):
        child = asyncio.ensure_future(call(session, "child", "agent"))
        await call(session, "read-a")
        if self.broken:
            raise ValueError("bad luck")
        try:
            return await child
        except RuntimeError as error:
            return str(error).encode()


def child_reply(world, number=2, **more):
    outcome = Failed(error="Cancelled", detail="its parent has ended")
    world.take(
        Reply(
            run=world.run,
            number=number,
            attempt=world.child(number),
            outcome=outcome,
            spent=Spent(steps=2),
            **more,
        )
    )


def test_a_resume_waits_until_the_children_have_ended():
    """They are being cancelled; their answers are part of what happened."""
    world = World(parent := Parent())
    world.start()
    world.answer(1)
    resume(world)
    assert "its children have not ended yet" in events(world)[-1].reason
    child_reply(world)
    child_reply(world)
    assert world.messages(Closed) == [Closed(slot="slot1", spent=Spent(steps=4))]
    assert the_run(world).held == 1, "the same answer twice is kept once"
    parent.broken = False
    granted(world)
    assert world.outcomes()[-1] == ("worker.completed", b"Cancelled")
    assert world.messages(Closed)[-1].spent == Spent(), "a child's bill is booked once"


def test_a_child_that_was_never_sent_keeps_no_run_from_going_on():
    """Whoever was asked about it had not answered: nobody will, so nothing waits for that."""

    async def parent(session):
        asyncio.ensure_future(call(session, "child", "agent"))  # noqa: RUF006 - the session keeps it
        await call(session, "read-a")
        raise ValueError("bad luck")

    world = Petitioned(parent, judge=Careful())
    world.start()
    world.answer(1)
    assert world.messages(Closed) == [Closed(slot="slot1", spent=Spent(steps=1))]
    resume(world)
    assert len(world.messages(Reopen)) == 1


def test_an_answer_of_a_child_that_waited_as_its_run_failed_is_delivered():
    """It came while the run was paused, behind what broke it; its bill is booked once."""
    world = World(parent := Parent())
    world.start()
    world.control("pause")
    world.answer(1)
    world.answer(2, b"C", spent=Spent(steps=2))
    world.control("resume")
    world.drain()
    assert events(world)[-1].status == "failed"
    assert world.messages(Closed) == [Closed(slot="slot1", spent=Spent(steps=4))]
    parent.broken = False
    granted(world)
    assert world.outcomes()[-1] == ("worker.completed", b"C")
    assert world.messages(Closed)[-1].spent == Spent()


@pytest.mark.parametrize("limited", [True, False])
def test_a_run_that_slept_as_it_failed_sleeps_on(limited, monkeypatch):
    """Nothing is to be delivered to it again, and its timer stands all the same."""

    async def sleeper(session):
        await asyncio.sleep(60)
        return b"rested"

    world = World(sleeper, limits=Limits(wall_ms=50_000 if limited else None))
    world.start()
    if limited:
        world.wake()
    else:

        def refuse(turn, message):
            raise PoisonError(UNKEEPABLE, "the log refuses what this record leads to")

        with monkeypatch.context() as refusing:
            refusing.setattr(world.decider, "react", refuse)
            world.control("signal", "news")
    assert events(world)[-1].status == "failed"
    granted(world)
    world.crash()
    world.wake()
    assert world.outcomes()[-1] == ("worker.completed", b"rested")


@pytest.mark.parametrize(
    ("code", "told"),
    [(UNWRITABLE, b"A"), (UNKEEPABLE, b"unkeepable")],
)
def test_a_run_whose_turn_could_not_be_written_gets_its_answer_again(code, told, monkeypatch):
    """Or, where the log refuses even to keep it, a failure: it waits for nothing that never comes."""

    async def emitting(session):
        try:
            return await call(session, "read-a")
        except RuntimeError as error:
            return str(error).encode()

    def refuse(turn, message):
        raise PoisonError(code, "the log refuses what this record leads to")

    world = World(emitting)
    world.start()
    with monkeypatch.context() as refusing:
        refusing.setattr(world.decider, "react", refuse)
        world.answer(1, b"A", usage=Usage(input_tokens=7))
    assert (events(world)[-1].status, events(world)[-1].error) == ("failed", code)
    assert the_run(world).held == 1
    granted(world)
    assert world.outcomes()[-1] == ("worker.completed", told)
    assert events(world)[-1].tokens == 7


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize(
    ("code", "told"), [(UNWRITABLE, b"receipt"), (UNKEEPABLE, b"InDoubt: nobody knows")]
)
def test_a_decision_that_was_refused_is_heard_after_a_resume(code, told, ended, monkeypatch):
    """It is taken once, so whoever waits for it would wait for ever."""

    class Pays:
        broken = True

        async def __call__(self, session):
            paid = asyncio.ensure_future(pays(session))
            await call(session, "read-a")
            if self.broken:
                raise ValueError("bad luck")
            return await paid

    def refuse(turn, message):
        raise PoisonError(code, "the log refuses what this record leads to")

    world = Petitioned(agent := Pays())
    world.start()
    agent.broken = ended
    world.in_doubt(2)
    if ended:
        world.answer(1)
    with monkeypatch.context() as refusing:
        refusing.setattr(world.decider, "react", refuse)
        world.decided("happened", value=b"receipt")
    assert the_run(world).state == "failed"
    agent.broken = False
    granted(world)
    if not ended:
        world.answer(1)
    assert world.outcomes()[-1][1].startswith(told)
    assert len(world.rows) == 0


async def leaving_its_child(session):
    """Return while a child that was cancelled has not answered yet."""
    child = asyncio.ensure_future(call(session, "child", "agent"))
    await call(session, "read-a")
    child.cancel()
    return b"done"


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ProcessKillerError("three deaths"), Answered(value=b"done")),
        (
            PoisonError("too-large", "over a limit"),
            Failed(error="too-large", detail="over a limit"),
        ),
        (PoisonError(UNKEEPABLE, "no room"), Failed(error=UNKEEPABLE, detail="no room")),
    ],
)
def test_a_run_that_has_ended_closes_though_its_childs_answer_is_refused(error, told, monkeypatch):
    """Nobody sends it another: its parent would wait for ever, or its slot be taken."""

    def refuse(turn, message):
        raise error

    world = World(leaving_its_child)
    world.start(reply_to=ReplyTo(topic=INBOX, partition=0, run="worker.0.boss", number=4))
    world.answer(1)
    assert the_run(world).state == "closing"
    monkeypatch.setattr(world.decider, "react", refuse)
    world.control("cancel")
    world.answer(1)
    assert not world.messages(Reply)
    assert the_run(world).ending == "completed"
    world.answer(2)
    (reply,) = world.messages(Reply)
    assert (reply.run, reply.number, reply.outcome) == ("worker.0.boss", 4, told)
    assert len(world.rows) == 0


@pytest.mark.parametrize("asked_by", ["a parent", "nobody"])
@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_refused_answer_that_is_nobodys_word_keeps_a_closing_run_for_ever(
    asked_by, control, monkeypatch
):
    """The control leaves a refused answer at that: its parent waits, or its slot is taken, for good."""

    def refuse(turn, message):
        raise ProcessKillerError("three deaths")

    world = World(leaving_its_child)
    to = ReplyTo(topic=INBOX, partition=0, run="worker.0.boss", number=4)
    world.start(reply_to=to if asked_by == "a parent" else None)
    world.answer(1)
    assert the_run(world).state == "closing"
    if control:
        monkeypatch.setattr(Runs, "_late_refused", lambda *_: None)
    with monkeypatch.context() as refusing:
        refusing.setattr(world.decider, "react", refuse)
        world.answer(2)
    for verb in ("cancel", "resume", "discard"):
        world.control(verb)
    told = world.messages(Reply if asked_by == "a parent" else Closed)
    assert len(told) == (0 if control else 1)
    assert (len(world.rows) == 0) is not control


def test_a_failed_run_can_be_resumed_though_its_childs_answer_was_refused(monkeypatch):
    """A resume waits until its children have ended, and one that was refused has."""

    async def parent(session):
        child = asyncio.ensure_future(call(session, "child", "agent"))
        await call(session, "read-a")
        raise ValueError(f"bad luck, and {child} goes on")

    def refuse(turn, message):
        raise ProcessKillerError("three deaths")

    world = World(parent)
    world.start()
    world.answer(1)
    assert not world.messages(Closed)
    with monkeypatch.context() as refusing:
        refusing.setattr(world.decider, "react", refuse)
        world.answer(2)
    assert len(world.messages(Closed)) == 1
    resume(world)
    assert len(world.messages(Reopen)) == 1


def test_a_resumed_child_answers_no_parent():
    """The parent was told when it failed; the outcome goes to `evt`, and its own slot back."""
    shaky = Shaky()
    world = World(shaky)
    to = ReplyTo(topic="hw.inbox.desk.v1", partition=1, run="desk.1.x", number=3)
    world.start(reply_to=to, task=Task(value=b"in"))
    world.answer(1, b"A")
    assert len(world.messages(Reply)) == 1
    shaky.broken = False
    granted(world)
    world.answer(3, b"B")
    assert len(world.messages(Reply)) == 1
    assert world.messages(Closed)[-1].slot == world.run
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")


def test_children_of_a_resumed_run_have_its_own_slot():
    """Its root's may be closed long ago."""

    class Starts(Shaky):
        async def __call__(self, session):
            await call(session, "read-a")
            if self.broken:
                raise ValueError("bad luck")
            return await call(session, "child", "agent")

    world = World(starts := Starts())
    world.start()
    world.answer(1)
    starts.broken = False
    granted(world)
    assert world.messages(Start)[-1].slot == world.run


def test_a_run_that_ran_out_of_money_goes_on_with_more():
    """`add_usd` raises the limit: for the run, and as the function sees it from the cut on."""
    seen = []

    async def spender(session):
        seen.append(session.cut and session.cut.limits.usd_nano)
        await call(session, "read-a")
        seen.append(session.cut and session.cut.limits.usd_nano)
        return await call(session, "small", "model")

    world = World(spender, limits=Limits(usd_nano=500_000))
    world.start()
    world.answer(1)
    assert events(world)[-1].error == "RuntimeError"
    granted(world)
    assert events(world)[-1].status == "failed", "nothing was added"
    granted(world, added=Spent(usd_nano=1_000_000))
    assert world.messages(Ask)[-1].name == "small"
    granted_usd = next(iter(world.rows.scan(Run))).again.added.usd_nano
    assert granted_usd == 1_000_000
    assert seen[-2:] == [None, 1_500_000]


@pytest.mark.parametrize("deadline", [False, True])
def test_a_run_whose_time_was_up_gets_fresh_time(deadline):
    """The limit's cancellation is taken back, and all that followed from it."""
    world = World(lambda session: gathered(session, "read-a", "read-b"))
    if deadline:
        world.start(deadline_ms=world.now_ms + 1_000)
    else:
        world = World(
            lambda session: gathered(session, "read-a", "read-b"), limits=Limits(wall_ms=1_000)
        )
        world.start()
    world.answer(1, b"A")
    world.wake()
    assert events(world)[-1].status == "failed"
    world.now_ms += 60_000
    granted(world)
    assert events(world)[-1].status == "waiting"
    world.answer(2, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")


def test_cleaning_up_after_a_limit_is_taken_back_too():
    """Answers to calls of the clean-up are not delivered again; others are."""

    async def tidy(session):
        other = asyncio.ensure_future(call(session, "read-b"))
        try:
            first = await call(session, "read-a")
        except asyncio.CancelledError:
            await call(session, "read-tidy")
            await call(session, "read-tidy")
            raise
        return first + await other

    world = World(tidy, limits=Limits(wall_ms=1_000))
    world.start()
    world.wake()
    world.answer(3)
    world.answer(2, b"B")
    world.answer(4)
    assert events(world)[-1].status == "failed"
    granted(world)
    kinds = [type(entry.delivery) for entry in world.rows.scan(Entry)]
    assert kinds == [Begin, Cut, Answer]
    assert the_run(world).cleanup is None
    world.answer(1, b"A")
    assert world.outcomes()[-1] == ("worker.completed", b"AB")


def test_a_task_that_came_too_late_begins_when_it_is_resumed():
    """It never began, so it is begun; the deadline held until somebody wanted it all the same."""
    shaky = Shaky()
    shaky.broken = False
    world = World(shaky)
    world.start(deadline_ms=world.now_ms)
    assert events(world)[-1].error == "DeadlineExceeded"
    granted(world)
    world.answer(1, b"A")
    world.answer(2, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")


def test_a_run_that_could_not_begin_begins_however_often_it_is_resumed():
    """A cut is no beginning: what goes to a function before that would stop the worker, and each heir."""
    shaky = Shaky()
    shaky.broken = False
    world = World(shaky, entries_max=1)
    world.start(deadline_ms=world.now_ms)
    for _ in range(2):
        granted(world)
        assert events(world)[-1].error == "journal-full"
    world.options["entries_max"] = 10
    world.crash()
    granted(world)
    world.answer(1, b"A")
    world.answer(2, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")
    assert len(world.rows) == 0


def test_a_deadline_that_is_still_to_come_holds():
    """A resume before the deadline does not lift it."""
    world, _ = (World(Shaky()), None)
    world.start(deadline_ms=world.now_ms + 5_000)
    world.answer(1, b"A")
    granted(world)
    assert world.messages(Ask)[-1].not_after_ms == world.now_ms + 5_000


def test_a_cancellation_by_a_person_stands():
    """A run that broke while it cleaned up goes on cleaning up, with fresh steps for it."""

    class Tidy:
        broken = True

        async def __call__(self, session):
            try:
                await call(session, "read-a")
            except asyncio.CancelledError:
                await call(session, "read-tidy")
                if self.broken:
                    raise ValueError("bad luck") from None
                await call(session, "read-more")
                raise

    world = World(tidy := Tidy(), limits=Limits(cleanup_steps=1))
    world.start()
    world.control("cancel")
    world.answer(2)
    assert events(world)[-1].status == "failed"
    tidy.broken = False
    granted(world)
    assert the_run(world).cleanup == 0, "what it asks is of its steps for that"
    world.answer(3)
    assert events(world)[-1].status == "cancelled"


@pytest.mark.parametrize("before", [False, True])
def test_a_cancellation_by_a_person_is_none_of_the_limit_that_was_taken_back(before):
    """Said while the run tidied, it is delivered again; said after its resume, it is what ends it."""

    class Tidy:
        broken = True

        async def __call__(self, session):
            try:
                await call(session, "read-a")
            except asyncio.CancelledError:
                if self.broken:
                    await call(session, "read-tidy")
                raise

    world = World(tidy := Tidy(), limits=Limits(wall_ms=1_000))
    world.start()
    world.wake()
    if before:
        world.control("cancel")
    else:
        world.answer(2)
    assert (events(world)[-1].status, events(world)[-1].error) == ("failed", "BudgetExceeded")
    tidy.broken = False
    granted(world)
    if not before:
        world.control("cancel")
    assert (events(world)[-1].status, events(world)[-1].error) == ("cancelled", "Cancelled")


def test_a_cancellation_that_broke_the_run_is_delivered_again():
    """It is what the failing turn was given."""

    class Touchy:
        broken = True

        async def __call__(self, session):
            try:
                await call(session, "read-a")
            except asyncio.CancelledError:
                if self.broken:
                    raise ValueError("bad luck") from None
                await call(session, "read-tidy")
                raise

    world = World(touchy := Touchy(), limits=Limits(cleanup_steps=3))
    world.start()
    world.control("cancel")
    touchy.broken = False
    granted(world)
    assert the_run(world).cleanup == 2, "what it asks is of its steps for that"
    world.answer(2)
    assert events(world)[-1].status == "cancelled"
    assert [type(e.delivery) for e in world.rows.scan(Entry)] == []


def test_a_message_that_was_refused_is_delivered_when_the_run_goes_on():
    """A journal that was full: with a higher bound the same answer is taken."""
    shaky = Shaky()
    shaky.broken = False
    world = World(shaky, entries_max=1)
    world.start()
    world.answer(1, b"A")
    assert events(world)[-1].error == "journal-full"
    world.options["entries_max"] = 10
    world.crash()
    granted(world)
    world.answer(2, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")
    cancelled = [e for e in world.rows.scan(Entry) if isinstance(e.delivery, (Cancel, Tick))]
    assert cancelled == []


def test_a_held_message_that_is_refused_stays_held():
    """It was taken in a turn of its own, and is there when the run goes on."""
    shaky = Shaky()
    shaky.broken = False
    world = World(shaky, entries_max=1)
    world.start()
    world.control("pause")
    world.answer(1, b"A")
    world.control("resume")
    world.drain()
    assert events(world)[-1].error == "journal-full"
    assert the_run(world).held == 1


def test_a_discarded_run_leaves_who_and_why():
    """Its rows go; the life cycle and the audit keep the name and the reason."""
    world, _ = failed()
    before = world.messages(Closed)
    world.control("discard")
    assert len(world.rows) == 0
    assert events(world)[-1].status == "discarded"
    assert events(world)[-1].reason == "because"
    (operation,) = world.messages(Operation)
    assert (operation.action, operation.run, operation.reason) == ("discard", world.run, "because")
    assert world.messages(Closed) == before
    (told,) = world.messages(Control)
    assert (told.verb, told.resume) == ("discard", Resume(slot=world.run)), "it waits for no slot"
    world.answer(2)
    world.control("discard")
    assert len(world.messages(Operation)) == 1


def test_a_discard_gives_back_a_slot_that_waited_for_children():
    """Whatever ends a slot gives it back."""
    world = World(Parent())
    world.start()
    world.answer(1)
    assert not world.messages(Closed)
    world.control("discard")
    assert len(world.messages(Closed)) == 1
    assert len(world.rows) == 0


def test_a_task_that_is_published_again_takes_no_slot_for_good():
    """Admission has forgotten it, and its failed run is still kept, and told of as what it is."""
    world, _ = failed()
    world.start()
    assert world.messages(Closed) == [
        Closed(slot="slot1", spent=Spent(steps=2, tokens=7)),
        Closed(slot="slot1"),
    ]
    (opened,) = world.rows.scan(Opened)
    assert opened.start.slot == "slot1"
    told = [(event.status, event.error) for event in events(world)]
    assert told[-2:] == [("failed", "ValueError")] * 2
    assert [type(row) for row in world.rows.scan(OpenCall)] == [OpenCall]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_failed_run_whose_task_comes_again_says_so_and_keeps_no_slot(control, monkeypatch):
    """The control lets the start pass: it is told of as accepted, and the slot is taken for good."""
    if control:
        monkeypatch.setattr(Cuts, "started_again", lambda *_: None)
    world, _ = failed("read-a", "write-b")
    before = len(events(world)), len(world.messages(Closed))
    world.start()
    told = [(event.status, event.error, event.writes) for event in events(world)[before[0] :]]
    assert told == ([] if control else [("failed", "ValueError", ("2 tool write-b",))])
    assert len(world.messages(Closed)) - before[1] == (0 if control else 1)


def test_a_signal_to_a_failed_run_is_dropped_for_everybody_to_see():
    """It does nothing until the run was resumed; whoever sent it looks at the run, and reads why."""
    world, shaky = failed("read-a", "write-b")
    before = len(events(world))
    world.control("signal", "go")
    (told,) = events(world)[before:]
    assert (told.status, told.error, told.writes) == ("failed", "ValueError", ("2 tool write-b",))
    assert told.reason.startswith("signal go was dropped: the run has failed")
    shaky.broken = False
    granted(world, repeat_writes=True)
    assert the_run(world).reason == ""


def asked_by_another_life(world) -> list[Reply]:
    """Have the parent's own task be published again, and ask for this child; return what it is told."""
    before = len(world.messages(Reply))
    world.start(reply_to=ReplyTo(topic=INBOX, partition=0, run="worker.0.boss", number=4))
    return world.messages(Reply)[before:]


def test_a_child_that_is_kept_answers_whoever_asks_for_it_again():
    """Its first parent was told; another of the same id would wait for ever."""
    shaky = Shaky()
    world = World(shaky)
    assert asked_by_another_life(world) == []
    assert asked_by_another_life(world) == [], "it answers when it has ended"
    world.answer(1, b"A")
    (told,) = world.messages(Reply)
    assert told.outcome == Failed(error="ValueError", detail="bad luck")
    assert asked_by_another_life(world) == [dataclasses.replace(told, spent=Spent())]
    shaky.broken = False
    granted(world)
    (resumed,) = asked_by_another_life(world)
    assert resumed.outcome.error == "Resumed"
    world.answer(3, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"A+B")


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_children_of_two_runs_of_one_id_are_two(control, monkeypatch):
    """What the first run asked its child may be other than what the second asks, and so is the answer.

    The control has their children be one, which goes on with the task of the first.
    """
    if control:
        monkeypatch.setattr(Opened, "life", 0)
    world = World(Parent())
    world.start()
    world.answer(1)
    world.control("discard")
    world.now_ms += 1
    world.start()
    children = [start.run for start in world.messages(Start)]
    assert len(children) == 2
    assert len({*children}) == (1 if control else 2)


def test_a_failed_child_that_waits_for_its_own_answers_once():
    """It answers as it closes, whoever asked again meanwhile."""
    world = World(Parent())
    asked_by_another_life(world)
    world.answer(1)
    assert asked_by_another_life(world) == []
    child_reply(world)
    assert len(world.messages(Reply)) == 1


def test_a_resume_that_is_refused_gives_its_slot_back(monkeypatch):
    """No later one would get a slot, nor would its task, published again."""
    world, _ = failed()

    def refuse(turn, message):
        raise PoisonError(UNWRITABLE, "the log refuses what this record leads to")

    before = len(world.messages(Closed))
    monkeypatch.setattr(world.decider, "react", refuse)
    resume(world)
    assert len(world.messages(Closed)) == before
    resume(world, slot=world.run)
    assert world.messages(Closed)[before:] == [Closed(slot=world.run)]
    told = events(world)[-2:]
    assert [(event.status, event.reason) for event in told] == [
        ("failed", "resume refused: the log refuses what this record leads to")
    ] * 2
    world.control("signal")
    assert len(events(world)) == 4, "whoever wrote that looks at what became of the record"


def test_a_resume_that_comes_twice_gives_no_slot_back_that_its_run_goes_on_with():
    """Refused and put aside it is replayed, and meanwhile its run was resumed: that ran over the quota."""
    world, shaky = failed()
    shaky.broken = False
    granted(world, attempt=1)
    before = len(world.messages(Closed))
    resume(world, attempt=1, slot=world.run)
    world.control("pause")
    resume(world, attempt=1, slot=world.run)
    assert the_run(world).state == "paused"
    assert world.messages(Closed)[before:] == []


@pytest.mark.parametrize("verb", ["pause", "discard"])
def test_a_word_to_a_failed_run_that_is_refused_says_so(verb, monkeypatch):
    """A discard ends the wait of a resume on its way: told of as held, no door took a discard again."""
    world, _ = failed()

    def refuse(turn, message):
        raise PoisonError(UNWRITABLE, "the log refuses what this record leads to")

    monkeypatch.setattr(world.decider, "react", refuse)
    said = len(events(world))
    world.control(verb)
    (told,) = events(world)[said:]
    assert told.status == "failed"
    assert told.reason.startswith(f"{verb} refused: the log")


@pytest.mark.parametrize("verb", ["pause", "resume", "discard"])
def test_a_word_that_is_refused_as_a_record_fails_no_run_and_cancels_none(verb, monkeypatch):
    """It failed the run, waited with it, and was delivered as a cancellation once that went on."""
    shaky = Shaky()
    shaky.broken = False
    world = World(shaky)
    world.start()

    def refuse(turn, message):
        raise PoisonError(UNWRITABLE, "the log refuses what this record leads to")

    with monkeypatch.context() as patch:
        patch.setattr(world.decider, "react", refuse)
        world.control(verb)
    assert (the_run(world).state, the_run(world).held) == ("open", 0)
    world.answer(1, b"A")
    world.answer(2, b"B")
    assert world.outcomes() == [("worker.completed", b"A+B")]


def test_a_held_answer_of_a_read_is_delivered():
    """Answers that came after the failure are kept, and delivered after the cut."""

    class Late:
        broken = True

        async def __call__(self, session):
            slow = asyncio.ensure_future(call(session, "read-slow"))
            await call(session, "read-a")
            if self.broken:
                raise ValueError("bad luck")
            return await slow

    world = World(late := Late())
    world.start()
    world.answer(1)
    world.take(Reply(run=world.run, number=2, attempt="x", outcome=Answered(value=b"slow")))
    late.broken = False
    granted(world)
    assert world.outcomes()[-1] == ("worker.completed", b"slow")


class LetGo:
    """Asks for a write that a person has to let go, and breaks before anybody has."""

    broken = True

    async def __call__(self, session):
        first = await call(session, "read-a")
        paid = asyncio.ensure_future(call(session, "write-pay"))
        await asyncio.sleep(0)
        if self.broken:
            raise ValueError("bad luck")
        return first + await paid


def test_a_decision_about_a_call_that_was_taken_back_sends_nothing():
    """The write was never sent, so a resume repeats none; the approval was of a call that is no more."""
    world = Petitioned(calm := LetGo(), judge=Careful())
    world.start()
    world.answer(1, b"A")
    assert events(world)[-1].writes == ()
    first = world.petition
    world.decided("approved", first)
    calm.broken = False
    granted(world)
    assert [ask.number for ask in world.messages(Ask)] == [1]
    assert world.petition.approval != first.approval
    world.decided("approved")
    assert [ask.number for ask in world.messages(Ask)] == [1, 3]
    world.answer(3, b"B")
    assert world.outcomes()[-1] == ("worker.completed", b"AB")


def test_time_that_people_took_before_a_cut_is_no_time_after_it():
    """The wall clock begins anew, and stands still again while somebody is asked."""

    class Breaks:
        broken = True

        async def __call__(self, session):
            await call(session, "write-first")
            paid = asyncio.ensure_future(call(session, "write-pay"))
            await call(session, "read-a")
            if self.broken:
                raise ValueError("bad luck")
            await paid
            return await call(session, "read-b")

    world = Petitioned(calm := Breaks(), judge=Careful(), limits=Limits(wall_ms=10_000))
    world.start()
    world.now_ms += 5_000
    world.decided("approved")
    world.answer(1)
    assert the_run(world).waited_ms == 5_000
    world.answer(2)
    assert events(world)[-1].status == "failed"
    calm.broken = False
    world.now_ms += 100_000
    granted(world)
    assert the_run(world).waited_ms == 0
    assert the_run(world).asking_ms == world.now_ms
    assert not [*world.rows.scan(Timer)]


def test_an_answer_to_a_call_that_was_let_go_is_delivered_after_a_resume():
    """The journal was full when it came; the call was let go and sent once."""
    world = Petitioned(lambda session: call(session, "write-pay"), judge=Careful(), entries_max=2)
    world.start()
    world.decided("approved")
    world.answer(1, b"paid")
    assert events(world)[-1].error == "journal-full"
    world.options["entries_max"] = 9
    world.crash()
    granted(world)
    assert world.outcomes()[-1] == ("worker.completed", b"paid")
    assert len(world.messages(Ask)) == 1


@pytest.mark.parametrize(
    ("decision", "wrote"), [("denied", ()), ("approved", ("1 tool write-pay",))]
)
def test_a_call_that_a_person_denied_is_no_write_of_the_letter(decision, wrote):
    """It was never sent; one that they let go was, and may have changed the world."""

    async def pays(session):
        await session.ask("tool", "write-pay", b"x")
        raise ValueError("bad luck")

    world = Petitioned(pays, judge=Careful())
    world.start()
    world.decided(decision)
    if decision == "approved":
        world.answer(1, b"B")
    assert events(world)[-1].status == "failed"
    letter = dict(world.drafts[0].headers)
    assert letter.get("writes", b"") == ", ".join(wrote).encode()


class Tidies:
    """Asks, and tidies up before it lets itself be cancelled."""

    def __init__(self, asks: Any) -> None:
        self.asks = asks

    async def __call__(self, session):
        try:
            return await self.asks(session)
        except asyncio.CancelledError:
            await call(session, "read-tidy")
            raise


def out_of_time(asks, *, doubted=False, **options) -> Petitioned:
    """A run whose deadline has passed, and that tidies up."""
    world = Petitioned(Tidies(asks), **options)
    world.start(deadline_ms=world.now_ms + 60_000)
    if doubted:
        world.in_doubt(1)
    world.wake()
    assert (the_run(world).state, the_run(world).cancelling) == ("open", "DeadlineExceeded")
    return world


@pytest.mark.parametrize("ends", ["decided", "answered"])
def test_a_doubt_outlives_the_limit_that_its_run_has_passed(ends):
    """A resume has the run wait for the call again, and a person is still asked about it."""
    world = out_of_time(pays, doubted=True)
    world.answer(2)
    assert events(world)[-1].status == "failed"
    granted(world)
    assert world.messages(Withdraw) == []
    if ends == "decided":
        world.decided("happened", value=b"receipt")
    else:
        world.answer(1, b"receipt", attempt="a1")
    assert world.outcomes()[-1][1] == b"receipt"
    assert world.asked() == [1, 2]


@pytest.mark.parametrize("asks", [approve, pays])
def test_a_run_waits_for_ever_for_what_a_limit_drops(asks, monkeypatch):
    """Control: the call is gone for good, and the function waits for it again."""
    monkeypatch.setattr(people.People, "suspend", people.People.abandon)
    world = out_of_time(asks, judge=Careful(), limits=Limits(wall_ms=None))
    world.answer(2)
    granted(world)
    world.decided("withdrawn", by="")
    world.answer(1)
    assert (the_run(world).state, [*world.rows.scan(Timer)]) == ("open", [])
    assert not [*world.rows.scan(OpenCall)]


def test_a_run_that_ends_well_though_its_time_was_up_asks_nobody_any_more():
    """It cannot be resumed."""

    async def main(session):
        try:
            return await pays(session)
        except asyncio.CancelledError:
            return await call(session, "read-tidy")

    world = Petitioned(main)
    world.start(deadline_ms=world.now_ms + 60_000)
    world.in_doubt(1)
    world.wake()
    assert world.messages(Withdraw) == []
    world.answer(2)
    assert world.result() == b"ok"
    assert [(of.reason, of.tell) for of in world.messages(Withdraw)] == [
        ("its run completed", False)
    ]


@pytest.mark.parametrize("heard", ["as it tidies", "failed", "resumed"])
@pytest.mark.parametrize("asks", [approve, pays])
def test_what_a_limit_took_back_from_people_is_told_to_the_run_that_goes_on(asks, heard):
    """Or it would wait for ever for a decision that nobody is asked for."""
    world = out_of_time(asks, judge=Careful())
    (withdrawn,) = world.messages(Withdraw)
    assert withdrawn.tell
    for at in ("as it tidies", "failed", "resumed"):
        if at == "failed":
            world.answer(2)
            assert events(world)[-1].status == "failed"
        elif at == "resumed":
            granted(world)
        if at == heard:
            world.decided("withdrawn", by="")
    assert world.outcomes()[-1][1].startswith(b"Withdrawn: ")
    assert world.asked() == [2], "the call that tidies"


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
@pytest.mark.parametrize("when", ["as it tidies", "failed", "resumed"])
def test_a_call_that_a_limit_left_is_put_to_a_person_once_it_is_in_doubt(
    when, control, monkeypatch
):
    """The function waits for it again after a resume: it is not told a doubt that nobody looked into.

    The control has a resume not say so: what the person says comes to nothing.
    """
    if control:
        monkeypatch.setattr(people.People, "resumed", lambda *_: None)
    world = out_of_time(pays)
    for at in ("as it tidies", "failed", "resumed"):
        if at == "failed":
            world.answer(2)
        elif at == "resumed":
            granted(world)
        if at == when:
            world.in_doubt(1)
    assert world.outcomes()[1:] == []
    assert world.petition.about == "doubt"
    world.decided("not-happened")
    assert world.asked() == ([1, 2] if control else [1, 2, 1]), "it counts as it does of any call"


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
@pytest.mark.parametrize("doubted", [False, True])
def test_no_word_of_a_person_sends_a_call_that_a_limit_left(doubted, control, monkeypatch):
    """It came as nobody waited for the call. The control sends it, after its deadline."""
    if control:
        monkeypatch.setattr(people.People, "unfit", lambda *_: "")
    world = out_of_time(pays, doubted=doubted, judge=None if doubted else Careful())
    before = [ask.number for ask in world.messages(Ask)]
    world.decided("not-happened" if doubted else "approved")
    assert [ask.number for ask in world.messages(Ask)] == ([*before, 1] if control else before)
    if control:
        return
    world.answer(2)
    granted(world)
    error, _, words = world.outcomes()[-1][1].decode().partition(": ")
    assert error == ("InDoubt" if doubted else "Denied")
    assert words.endswith("came while the run did not wait for it")


def test_a_call_that_tidies_is_sent_once_a_person_has_let_it():
    """The function waits for it, whatever it has left."""

    async def main(session):
        try:
            return await pays(session)
        except asyncio.CancelledError:
            await pays(session)
            raise

    world = Petitioned(main, judge=Careful())
    world.start(deadline_ms=world.now_ms + 60_000)
    world.wake()
    first, second = world.messages(Petition)
    world.decided("approved", first)
    assert world.asked() == []
    world.decided("approved", second)
    assert world.asked() == [2]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_what_tidying_leaves_is_left_for_good(control, monkeypatch):
    """A resume takes it back altogether, so nobody is asked about it any more; the control asks on."""
    if control:
        monkeypatch.setattr(hosting, "_asked_since_cut", lambda *_: False)

    async def main(session):
        try:
            return await call(session, "read-a")
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(60):
                    await pays(session)
            await call(session, "read-tidy")
            raise

    world = Petitioned(main)
    world.start(deadline_ms=world.now_ms + 60_000)
    world.wake()
    world.in_doubt(2)
    world.wake()
    assert [withdrawn.tell for withdrawn in world.messages(Withdraw)] == (
        [] if control else [False]
    )
    open_ = [row.number for row in world.rows.scan(OpenCall)]
    assert open_ == ([1, 2, 3] if control else [1, 3])


class LetsGo:
    """Lets a slow call go, hears of another that is denied at once, and breaks: one turn, two steps."""

    broken = True

    async def __call__(self, session):
        slow = asyncio.ensure_future(pays(session))
        await call(session, "read-a")
        if self.broken:
            slow.cancel()
            with contextlib.suppress(RuntimeError):
                await call(session, "nobody")
            raise ValueError("bad luck")
        return await slow


@pytest.mark.parametrize("judge", [Careful(), None])
def test_what_a_failing_turn_let_go_is_waited_for_after_a_resume(judge):
    """Whichever of its steps did: the cut takes all of the turn back."""
    world = Petitioned(lets := LetsGo(), judge=judge)
    world.start()
    world.answer(1)
    assert events(world)[-1].status == "failed"
    lets.broken = False
    granted(world)
    if judge is None:
        world.in_doubt(2)
        assert world.outcomes()[1:] == []
        world.decided("happened", value=b"receipt")
        assert world.outcomes()[-1][1] == b"receipt"
    else:
        (withdrawn,) = world.messages(Withdraw)
        assert withdrawn.tell
        world.decided("withdrawn", by="")
        assert world.outcomes()[-1][1].startswith(b"Withdrawn: ")
