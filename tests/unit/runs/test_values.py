"""Runs with large values: kept before they are sent, whole when delivered, replayed, lost, held."""

from __future__ import annotations

import asyncio
import dataclasses
import json

from headwater.contracts.approvals import Petition
from headwater.contracts.messages import Answered, Ask, Failed, InDoubt, Reply, ReplyTo, Start, Task
from headwater.core.blobs import ref_of
from headwater.core.judge import Deny
from headwater.runs import holds
from headwater.runs.calls import ARGUMENTS_BYTES_MAX
from headwater.runs.people import bound
from headwater.runs.rows import Entry, Held, Opened, Run
from headwater.runs.values import Large

from .world import World, call

BIG = b"b" * 1_000
LARGE = Large(inline_bytes_max=100, bytes_max=5_000)
TO = ReplyTo(topic="hw.inbox.parent.v1", partition=3, run="parent.3.t", number=7)


def world(function, **options):
    return World(function, large=LARGE, **options)


async def ask_big(session):
    answer = await call(session, "read-a", arguments=BIG)
    return await call(session, "read-b", arguments=answer)


async def parent(session):
    return await call(session, "child", "agent", arguments=BIG)


async def big(session):
    return BIG


async def says_what_failed(session):
    outcome = await session.ask("tool", "read-a", b"in")
    if isinstance(outcome, Failed):
        await session.ask("tool", "read-b", outcome.error.encode())
    else:
        await session.ask("tool", "read-b", outcome.value)
    return b"done"


async def after_a_signal(session):
    outcome = await session.ask("tool", "read-a", b"in")
    await session.receive("go")
    return outcome.value[:4]


def test_arguments_and_answers_go_by_reference():
    """What is large is kept in the turn that sends it; the function sees bytes."""
    here = world(ask_big)
    here.start()
    ref = ref_of(BIG)
    assert here.messages(Ask)[0].arguments == ref
    assert here.shelf.puts == [ref.name]
    here.answer(1, here.shelf.put(b"c" * 600))
    assert here.messages(Ask)[1].arguments == ref_of(b"c" * 600)
    assert here.shelf.fetched == [(ref_of(b"c" * 600).name,)]
    entries = [*here.rows.scan(Entry)]
    assert entries[1].delivery.outcome == Answered(value=ref_of(b"c" * 600))
    here.answer(2, b"small")
    assert here.outcomes() == [("worker.completed", b"small")]


def test_small_values_stay_inline():
    """Nobody pays for a store who does not need it."""
    here = world(lambda session: call(session, "read-a", arguments=b"a" * 100))
    here.start()
    assert here.messages(Ask)[0].arguments == b"a" * 100
    assert here.shelf.puts == []


def test_without_a_store_the_bound_stays():
    """Arguments over it are refused before they are sent."""
    here = World(
        lambda session: call(session, "read-a", arguments=b"a" * (ARGUMENTS_BYTES_MAX + 1))
    )
    here.start()
    assert here.messages(Ask) == []
    assert here.outcomes()[0][1].detail == "TooLarge"


def test_arguments_over_the_new_bound_are_refused():
    """A store takes much, and not everything."""
    here = world(lambda session: call(session, "read-a", arguments=b"a" * 5_001))
    here.start()
    assert here.messages(Ask) == []
    assert here.outcomes()[0][1].detail == "TooLarge"


def test_a_child_is_given_and_answers_by_reference():
    """A task and a result are values as others; the outcome on its topic is the type itself."""
    here = world(parent)
    here.start()
    (start,) = here.messages(Start)
    assert start.task.value == ref_of(BIG)
    child = world(big)
    child.shelf.put(BIG)
    child.start(task=start.task, reply_to=TO)
    (reply,) = child.messages(Reply)
    assert reply.outcome == Answered(value=ref_of(BIG))
    assert child.outcomes() == [("worker.completed", BIG)]
    assert child.shelf.puts == [ref_of(BIG).name]


def test_replay_fetches_all_it_needs_at_once():
    """A restart asks for the journal's values together, and the run goes on as if it had not stopped."""
    here = world(after_a_signal)
    here.start(task=Task(value=here.shelf.put(BIG)))
    here.answer(1, here.shelf.put(b"d" * 600))
    here.crash()
    here.shelf.fetched.clear()
    here.control("signal", "go")
    assert here.shelf.fetched == [(ref_of(BIG).name, ref_of(b"d" * 600).name)]
    assert here.outcomes() == [("worker.completed", b"dddd")]


def test_an_answer_that_is_lost_fails_its_call_alone():
    """The agent may catch that; the journal says so, and a replay agrees."""
    here = world(says_what_failed)
    here.start()
    ref = here.shelf.put(BIG)
    here.shelf.lost.add(ref.name)
    here.answer(1, ref)
    assert here.messages(Ask)[1].arguments == b"BlobLost"
    here.shelf.lost.clear()
    here.crash()
    here.answer(2)
    assert here.outcomes() == [("worker.completed", b"done")]


def test_a_lost_value_of_the_journal_holds_the_run_until_it_is_back():
    """Nothing is decided without it; putting it back and resuming is enough."""
    here = world(after_a_signal)
    here.start()
    ref = here.shelf.put(b"d" * 600)
    here.answer(1, ref)
    here.crash()
    here.shelf.lost.add(ref.name)
    here.control("signal", "go")
    row = here.rows.get(Run, here.run)
    assert row.state == "held"
    assert ref.name in row.reason
    here.shelf.lost.clear()
    here.control("resume")
    here.drain()
    assert here.outcomes() == [("worker.completed", b"dddd")]


def test_a_lost_task_holds_its_run_until_it_is_back():
    """A child that cannot begin waits for an operator; resuming begins it."""
    here = world(big)
    ref = here.shelf.put(BIG)
    here.shelf.lost.add(ref.name)
    here.start(task=Task(value=ref), reply_to=TO)
    assert here.rows.get(Run, here.run).state == "held"
    here.shelf.lost.clear()
    here.control("resume")
    here.drain()
    assert here.outcomes() == [("worker.completed", BIG)]


def test_a_large_task_to_continue_as_goes_by_reference():
    """A fresh journal begins with it as any run with its task."""

    async def grows(session):
        if await call(session, "read-a") == b"more":
            session.continue_as(BIG)
        return b"done"

    here = world(grows)
    here.start()
    here.answer(1, b"more")
    assert next(iter(here.rows.scan(Opened))).task == ref_of(BIG)
    here.crash()
    here.shelf.fetched.clear()
    here.drain()
    assert here.shelf.fetched == [(ref_of(BIG).name,)]
    here.answer(2)
    assert here.outcomes() == [("worker.completed", b"done")]


def test_a_failed_childs_letter_names_its_blob():
    """What does not travel is not lost to the operator."""

    async def fails(session):
        raise ValueError("no")

    here = World(fails, large=LARGE)
    ref = here.shelf.put(BIG)
    here.start(task=Task(value=ref), reply_to=TO)
    (letter,) = here.drafts
    assert letter.value is None
    assert here.letters[0].header("headwater_blob") == ref.name.encode()


def test_held_messages_have_their_values_fetched_together_and_bounded(monkeypatch):
    """A drain takes in at most so many bytes of values, and at least one message."""
    monkeypatch.setattr(holds, "DRAIN_BYTES_MAX", 1_300)

    async def three(session):
        answers = await asyncio.gather(
            *(session.ask("tool", "read-a", b"%d" % number) for number in range(3))
        )
        return answers[-1].value[:3]

    here = world(three)
    here.start()
    here.control("pause")
    for number, size in ((1, 600), (2, 600), (3, 1_400)):
        here.answer(number, here.shelf.put(b"%d" % number * size))
    assert len([*here.rows.scan(Held)]) == 3
    here.control("resume")
    here.shelf.fetched.clear()
    here.drain()
    assert [len(names) for names in here.shelf.fetched] == [2, 1]
    assert here.outcomes() == [("worker.completed", b"333")]


def test_a_person_is_shown_where_large_arguments_are_and_bound_to_them():
    """A decision is about the same arguments however they travel."""
    here = world(lambda session: call(session, "irreversible-pay", arguments=BIG))
    here.start()
    doubt = InDoubt(since_ms=1)
    here.take(Reply(run=here.run, number=1, attempt="a1", outcome=doubt))
    (petition,) = here.messages(Petition)
    assert json.loads(petition.shown) == {"blob": ref_of(BIG).name, "bytes": len(BIG)}
    assert bound("irreversible-pay", BIG) == petition.digest


def nodes(*values):
    return {"nodes": tuple(values)}


async def talks(session):
    first, second = b"hwb1l-first", b"hwb1l-second"
    await session.ask("model", "small", b"1", options=nodes(first))
    await session.receive("go")
    await session.ask("model", "small", b"2", options=nodes(second))
    return b"done"


def test_parts_of_conversations_are_kept_with_their_call_and_journaled():
    """The journal names what the run's next calls refer to, so that nobody collects it."""
    here = world(talks)
    here.start()
    first = ref_of(b"hwb1l-first").name
    assert here.shelf.puts == [first]
    (entry,) = here.rows.scan(Entry)
    assert entry.kept == (first,)
    here.answer(1)
    here.crash()
    here.control("signal", "go")
    assert here.shelf.puts == [first, ref_of(b"hwb1l-second").name]


def test_parts_of_a_denied_call_are_kept_too():
    """The function does not know that its call was denied when it cuts the next one's history."""

    class Judge:
        version = "1"

        def judge(self, asked, meta):
            return Deny("no")

    here = world(talks, judge=Judge())
    here.start()
    assert here.shelf.puts == [ref_of(b"hwb1l-first").name]


def test_a_replay_keeps_what_its_journal_does_not_name():
    """A run that began where there was no store goes on where there is one, and loses nothing."""
    here = World(talks)
    here.start()
    here.answer(1)
    here.rows.set(Entry, (here.run, 1), _without_kept(here.rows.get(Entry, here.run, 1)))
    here.shelf.puts.clear()
    here.options["large"] = LARGE
    here.crash()
    here.control("signal", "go")
    first, second = ref_of(b"hwb1l-first").name, ref_of(b"hwb1l-second").name
    assert here.shelf.puts == [first, second]
    assert [*here.rows.scan(Entry)][-1].kept == (first, second)


def _without_kept(entry):
    return dataclasses.replace(entry, kept=())
