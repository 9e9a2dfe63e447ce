"""Journals that end and begin afresh, and patches: what changes for a run, and what does not."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.sdk.host import info

from headwater.contracts.approvals import Withdraw
from headwater.contracts.messages import Ask, Closed, Control, Limits, ReplyTo, Resume, Spent
from headwater.core.decider import Timer
from headwater.core.execution import Begin
from headwater.runs.rows import Entry, Held, OpenCall, Opened, Run
from headwater.sdk.app import App

from .test_people import Careful, Petitioned
from .world import World, call


def of(world, kind):
    return list(world.rows.scan(kind))


def rounds(count, *, ends=b"done"):
    """Return a function that makes a call and continues, so many times, and then ends."""
    seen: list[bytes] = []

    async def function(session):
        value = await call(session, "read-a", arguments=b"%d" % len(seen))
        seen.append(value)
        if len(seen) <= count:
            session.continue_as(b"round %d" % len(seen))
        return ends

    return function


def continuing(world, task=b"again"):
    """Answer call 1 of a function that continues on it."""
    world.start()
    world.answer(1)
    assert of(world, Opened)[0].task == task


async def again(session):
    await call(session, "read-a")
    session.continue_as(b"again")


def test_fresh_journal_goes_on_counting():
    """A number is issued once in the life of a run, so no answer and no receipt is taken for another."""
    world = World(rounds(2))
    world.start()
    for number in (1, 2, 3):
        world.drain()
        assert [ask.number for ask in world.messages(Ask)] == [*range(1, number + 1)]
        world.answer(number)
    assert world.outcomes() == [("worker.completed", b"done")]
    assert world.messages(Closed) == [Closed(slot="slot1", spent=Spent(steps=3))]
    assert len(world.rows) == 0


@pytest.mark.parametrize("crash", [False, True])
def test_journal_is_replayed_from_where_it_began_afresh(crash):
    """The turn that continues and the turn that begins are two; a crash after either changes nothing."""
    tasks: list[int] = []

    async def function(session):
        first = await call(session, "read-a")
        if first == b"more":
            session.continue_as(b"again")
        second = await call(session, "read-b", arguments=first)
        tasks.append(session.calls_made)
        return second

    world = World(function)
    for act in (
        world.start,
        lambda: world.answer(1, b"more"),
        world.drain,
        lambda: world.answer(2, b"enough"),
        lambda: world.answer(3, b"end"),
    ):
        act()
        if crash:
            world.crash()
    assert [ask.number for ask in world.messages(Ask)] == [1, 2, 3]
    assert world.outcomes() == [("worker.completed", b"end")]
    assert tasks == [3]


def test_journal_goes_and_all_else_stays():
    """What was spent, the limits, the slot and the clock of the run are the run's, not the journal's."""
    world = World(again)
    world.start(limits=Limits(steps=5, wall_ms=60_000))
    before = of(world, Opened)[0]
    world.now_ms += 1_000
    world.answer(1)
    (run,), (opened,) = of(world, Run), of(world, Opened)
    assert of(world, Entry) == []
    assert (run.seq, run.number, run.journal_bytes, run.spent) == (0, 1, 0, Spent(steps=1))
    assert (opened.start, opened.limits, opened.started_ms) == (
        before.start,
        before.limits,
        before.started_ms,
    )
    assert (opened.task, opened.journal) == (b"again", 1)
    assert of(world, Timer)[0].due_ms == before.started_ms + 60_000
    world.drain()
    assert of(world, Entry)[0].above == 1


def test_nothing_after_it_runs():
    """What the function does once it has continued is discarded, whether or not it catches what is raised."""

    async def function(session):
        await call(session, "read-a")
        try:
            session.continue_as(b"again")
        except BaseException:  # noqa: BLE001 - what it must not be able to do
            session.emit("too-late", b"x")
            assert not session.patched("too-late")
            await call(session, "write-b")
        return b"never"

    world = World(function)
    continuing(world)
    assert world.outcomes() == []
    assert [ask.name for ask in world.messages(Ask)] == ["read-a"]


def test_second_word_changes_nothing():
    """The first task it continued as counts."""

    async def function(session):
        await call(session, "read-a")
        try:
            session.continue_as(b"again")
        finally:
            session.continue_as(b"other")

    continuing(World(function))


def test_open_calls_are_withdrawn_and_booked_when_answered():
    """Children are cancelled; what a call costs counts when its answer comes, which nobody reads."""

    async def function(session):
        tasks = [
            asyncio.ensure_future(call(session, "child", "agent")),
            asyncio.ensure_future(call(session, "write-b")),
        ]
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=5)
        await call(session, "read-c")
        session.continue_as(b"again")

    world = World(function)
    world.start(limits=Limits(steps=1_000, wall_ms=None))
    world.now_ms += 5_000
    world.wake()
    world.answer(3)
    (cancel,) = world.messages(Control)
    assert (cancel.verb, cancel.target) == ("cancel", of(world, OpenCall)[0].child)
    assert of(world, Timer) == []
    world.drain()
    assert [row.number for row in of(world, OpenCall)] == [1, 2, 4, 5]
    world.answer(2)
    assert of(world, Run)[0].spent == Spent(steps=2)
    assert of(world, Entry)[-1].delivery.number == 2
    world.crash()
    world.answer(5)
    assert [ask.number for ask in world.messages(Ask)] == [2, 3, 5, 6]


def test_nobody_is_asked_about_a_journal_that_has_ended():
    """The decision would send a call for which the fresh function does not wait."""

    async def function(session):
        asyncio.ensure_future(call(session, "write-b"))  # noqa: RUF006 - the session keeps it
        await call(session, "read-a")
        session.continue_as(b"again")

    world = Petitioned(function, judge=Careful())
    world.start()
    world.answer(1)
    (withdrawn,) = world.messages(Withdraw)
    assert withdrawn.approval == world.petition.approval
    assert (world.row.asking, world.row.reserved) == (0, Spent())
    world.decided("approved")
    assert [ask.name for ask in world.messages(Ask)] == ["read-a"]


def test_a_letter_names_what_journals_before_have_written():
    """Whoever replays it has to know what would be done again."""

    async def function(session):
        if not session.calls_made:
            await call(session, "write-a")
            session.continue_as(b"again")
        raise ValueError("bad luck")

    world = World(function)
    world.start()
    world.answer(1)
    world.drain()
    assert world.statuses()[-1] == "failed"
    assert dict(world.drafts[-1].headers)["writes"] == b"1 tool write-a"


async def listen_then_continue(session):
    first = await session.receive("go")
    if first.value == b"0":
        session.continue_as(b"again")
    second = await session.receive("")
    return first.value + second.value


@pytest.mark.parametrize("crash", [False, True])
def test_signals_nobody_received_wait_for_the_fresh_function(crash):
    """A signal is delivered once: those of before come first, those that came meanwhile after them."""
    world = World(listen_then_continue)
    world.start()
    world.control("signal", "other", b"early")
    world.control("signal", "go", b"0")
    world.control("signal", "go", b"meanwhile")
    assert len(of(world, Held)) == 1
    if crash:
        world.crash()
    world.drain()
    assert world.outcomes() == [("worker.completed", b"meanwhileearly")]


def test_control_that_comes_before_it_begins_waits_behind_that():
    """Pause, resume and cancel find a run that is to begin as they find any other."""

    async def function(session):
        await call(session, "read-a")
        session.continue_as(b"again")

    world = World(function)
    continuing(world)
    world.control("pause")
    world.drain()
    assert of(world, Entry) == []
    world.control("resume")
    world.control("cancel")
    world.drain()
    assert world.statuses()[-1] == "cancelled"
    assert [ask.number for ask in world.messages(Ask)] == [1, 2]


def test_cancelled_run_ends_and_does_not_continue():
    """A person's word is not undone by a loop that cleans up by beginning again."""

    async def function(session):
        try:
            await call(session, "read-a")
        except asyncio.CancelledError:
            session.continue_as(b"again")

    world = World(function)
    world.start()
    world.control("cancel")
    assert world.statuses()[-1] == "cancelled"


def test_child_that_continues_answers_its_parent_once():
    """Whoever waits for a run does not see how many journals it took."""
    world = World(rounds(1, ends=b"out"))
    world.start(reply_to=ReplyTo(topic="hw.inbox.p.v1", partition=0, run="p.0.x", number=9))
    world.answer(1)
    world.drain()
    world.answer(2)
    (reply,) = [item.message for item in world.sent if type(item.message).__name__ == "Reply"]
    assert (reply.run, reply.number, reply.outcome.value) == ("p.0.x", 9, b"out")


def test_chance_is_another_in_each_journal():
    """An id that a journal drew is not drawn again by the next."""
    drawn: list[str] = []
    bank = App("bank")

    @bank.agent
    async def draw(ctx, task: str) -> str:
        drawn.append(str(ctx.uuid()))
        return task

    for journal in (0, 0, 1, 2):
        bank.agents["draw"].begin(info(journal=journal), draw.input.encode("x")).deliver(
            Begin(), now_ms=1
        )
    assert drawn[0] == drawn[1]
    assert len({*drawn}) == 3


def test_refusal_of_a_long_journal_names_the_way_out(caplog):
    """A journal is warned of at its bounds, and refused at its caps, with what to do."""
    caplog.set_level("WARNING")

    async def function(session):
        while True:
            await call(session, "read-a")

    world = World(function, entries_warn=2, journal_bytes_warn=500, entries_max=4)
    world.start(limits=Limits(steps=None))
    for number in range(1, 5):
        world.answer(number, b"x" * 200)
    said = [one.getMessage() for one in caplog.records if "of journal" in one.getMessage()]
    assert [words.split(":")[0] for words in said[:2]] == [
        f"run {world.run} has 2 entries and 404 bytes of journal",
        f"run {world.run} has 3 entries and 706 bytes of journal",
    ]
    assert all("ctx.continue_as(...)" in words for words in said)
    assert world.statuses()[-1] == "failed"
    assert "ctx.continue_as" in world.outcomes()[-1][1].detail


def patched_at(step, patch):
    """Return a function that looks at a patch before its later calls; `None` is code from before."""

    async def function(session):
        got = b""
        for number in range(3):
            new = patch is not None and number >= step and session.patched(patch)
            got += await call(session, "read-new" if new else "read-old")
        return got

    return function


@given(
    step=st.integers(0, 2),
    deploy=st.integers(0, 3),
    crashes=st.lists(st.booleans(), min_size=5, max_size=5),
)
def test_patch_branches_for_what_is_new_whenever_it_crashes(step, deploy, crashes):
    """Wherever a deploy and crashes fall, a run goes on: by the old code past the patch, else by the new."""
    world = World(patched_at(step, None))
    new = patched_at(step, "p")
    for turn in range(4):
        if turn == deploy:
            world.crash()
            world.agent.function = new
        world.start() if turn == 0 else world.answer(turn)
        if crashes[turn]:
            world.crash()
    took_new = deploy <= step
    names = [ask.name for ask in world.messages(Ask)]
    expected = ["read-new" if took_new and number >= step else "read-old" for number in range(3)]
    assert names == expected
    assert world.statuses()[-1] == "completed"


def test_change_without_a_patch_holds_the_run():
    """The control: the same deploy without a patch is held at its first replay."""
    world = World(patched_at(0, None))
    world.start()
    world.crash()

    async def function(session):
        return await call(session, "read-new")

    world.agent.function = function
    world.answer(1)
    assert of(world, Run)[0].state == "held"


def test_patch_is_journaled_once_and_answers_the_same():
    """A run's first answer stays, even where later turns would answer otherwise."""

    async def function(session):
        one = session.patched("p")
        await call(session, "read-a")
        two = session.patched("p")
        await call(session, "read-b")
        return b"%d%d%d" % (one, two, session.patched("q"))

    world = World(function)
    world.start()
    world.answer(1)
    assert [entry.patched for entry in of(world, Entry)] == [("p",), ()]
    world.crash()
    world.answer(2)
    assert world.outcomes() == [("worker.completed", b"111")]


def test_fresh_function_that_ends_at_once_leaves_nothing_to_drain():
    """What was held for a run that ends as it begins goes with it."""
    journals: list[bytes] = []

    async def function(session):
        journals.append(b"x")
        if len(journals) == 1:
            await call(session, "read-a")
            session.continue_as(b"again")
        return b"out"

    world = World(function)
    continuing(world)
    world.control("signal", "late", b"1")
    world.drain()
    assert world.outcomes() == [("worker.completed", b"out")]
    assert len(world.rows) == 0


def test_a_run_that_was_resumed_continues_as_the_attempt_it_is_with_what_it_may_spend():
    """What its function knows of it when it begins afresh is what was true when it continued."""
    broken = True

    async def function(session):
        await call(session, "read-a")
        if broken:
            raise ValueError("the ledger is away")
        session.continue_as(b"again")

    world = World(function, limits=Limits(steps=3, usd_nano=7))
    world.start()
    world.answer(1)
    broken = False
    terms = Resume(slot=world.run, added=Spent(steps=2))
    world.take(Control(target=world.run, verb="resume", resume=terms))
    world.drain()
    (opened,) = of(world, Opened)
    assert (opened.journal, opened.limits) == (1, Limits(steps=3, usd_nano=7))
    begun = opened.info()
    assert (begun.attempt, begun.limits) == (2, Limits(steps=5, usd_nano=7))
    world.answer(2)  # and once more: what was added once is counted once
    world.drain()
    (opened,) = of(world, Opened)
    assert (opened.journal, opened.info().attempt, opened.info().limits.steps) == (2, 2, 5)
