"""Lives: a task that is published again after its window is a run of the same id, and another run."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.runs.test_people import Careful, Petitioned, pays
from tests.unit.runs.world import World, call

from headwater.contracts.approvals import Petition
from headwater.contracts.messages import Answered, Ask, Reply, Spent, Start, Usage
from headwater.durable.running import Session
from headwater.errors import PoisonError
from headwater.runs.rows import Held, OpenCall, Overrun, Run
from headwater.runs.visit import Visit

CONTROLS = pytest.mark.parametrize("control", [False, True], ids=["", "control"])


def takes_any(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a run take whatever answers a call of its id and number."""
    monkeypatch.setattr(Visit, "asked_for", lambda *_: True)


class Task:
    """An agent that makes one call, of what has this name."""

    name = "read-a"

    async def __call__(self, session: Session) -> bytes:
        return await call(session, self.name)


def second_life(agent: Task, name: str = "read-b", world: World | None = None) -> tuple[World, str]:
    """A run that has made a call, after one that was cancelled before its own was answered; its request."""
    world = world or World(agent)
    world.start()
    before = world.request(Reply(run=world.run, number=1, attempt="", outcome=Answered(value=b"")))
    world.control("cancel")
    assert world.rows.get(Run, world.run) is None
    world.now_ms += 100_000_000
    agent.name = name
    world.start()
    return world, before


@CONTROLS
def test_a_late_answer_to_the_run_before_is_not_taken(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is to another question. The control takes what `read-a` said for what `read-b` says."""
    if control:
        takes_any(monkeypatch)
    world, before = second_life(Task())
    assert [ask.name for ask in world.messages(Ask)] == ["read-a", "read-b"]
    world.answer(1, b"of a", usage=Usage(input_tokens=7), cause=before)
    if not control:
        assert world.outcomes()[1:] == []
        world.crash()
        world.answer(1, b"of b")
        assert [*world.rows.scan(Overrun)] == []
    assert world.outcomes()[1:] == [("worker.completed", b"of a" if control else b"of b")]


@CONTROLS
def test_a_late_answer_to_the_run_before_lets_no_call_pass_that_a_person_is_asked_about(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call was never sent. The control withdraws the petition, and tells the run that it was made."""
    if control:
        takes_any(monkeypatch)

    class Pays(Task):
        async def __call__(self, session: Session) -> bytes:
            return await pays(session, self.name)

    agent = Pays()
    world = Petitioned(agent, judge=Careful())
    world, before = second_life(agent, "irreversible-pay", world)
    world.answer(1, b"of a", cause=before)
    assert [kind for kind, _ in world.outcomes()[1:]] == (["worker.completed"] if control else [])


@CONTROLS
def test_a_failed_run_keeps_no_answer_to_the_run_before(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resume would deliver it. The control keeps it."""
    if control:
        takes_any(monkeypatch)

    class Leaves(Task):
        async def __call__(self, session: Session) -> bytes:
            asked = asyncio.ensure_future(call(session, self.name))
            await asyncio.sleep(0)
            await call(session, "read-other")
            raise ValueError(await asked)

    world, before = second_life(Leaves())
    world.fail(2)
    assert world.rows.get(Run, world.run).state == "failed"
    world.answer(1, b"of a", cause=before)
    assert len([*world.rows.scan(Held)]) == control


@CONTROLS
def test_a_refused_answer_to_the_run_before_fails_no_run(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run was not stuck on it. The control fails it."""
    if control:
        takes_any(monkeypatch)
    world, before = second_life(Task())

    def refuse(*_: object) -> None:
        raise PoisonError("unwritable", "the log refuses what this record leads to")

    with monkeypatch.context() as patched:
        patched.setattr(world.decider, "react", refuse)
        world.answer(1, b"of a", cause=before)
    assert world.rows.get(Run, world.run).state == ("failed" if control else "open")


@CONTROLS
def test_the_answer_of_a_child_of_the_run_before_is_not_taken(
    control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that is dropped leaves its children to end by themselves. The control takes their word."""
    if control:
        takes_any(monkeypatch)

    class Parent(Task):
        broken = True

        async def __call__(self, session: Session) -> bytes:
            child = asyncio.ensure_future(call(session, "clerk", "agent"))
            if self.broken:
                await asyncio.sleep(0)
                raise ValueError
            return await child

    world = World(agent := Parent())
    world.start()
    (old,) = world.messages(Start)
    world.control("discard")
    assert len(world.rows) == 0
    world.now_ms += 1
    agent.broken = False
    world.start()
    answer = Reply(
        run=world.run, number=1, attempt=old.run, outcome=Answered(value=b"of a"), spent=Spent()
    )
    world.take(answer)
    if not control:
        assert world.rows.get(OpenCall, world.run, 1) is not None
        world.answer(1, b"of b", spent=Spent())
    assert world.outcomes()[1:] == [("worker.completed", b"of a" if control else b"of b")]
    world.take(answer)


def test_a_decision_about_the_run_before_lets_no_call_pass() -> None:
    """Its petition has another id, though it asks the same; so it is asked anew, and decided anew."""

    class Pays(Task):
        async def __call__(self, session: Session) -> bytes:
            return await pays(session, "irreversible-pay")

    agent = Pays()
    world = Petitioned(agent, judge=Careful())
    second_life(agent, world=world)
    before, now = world.messages(Petition)
    assert (before.number, before.digest) == (now.number, now.digest)
    world.decided("approved", before)
    assert world.messages(Ask) == []
    world.decided("approved", now)
    assert len(world.messages(Ask)) == 1


def test_an_answer_to_a_request_that_does_not_say_which_run_it_is_from_is_taken() -> None:
    """Code from before requests did has sent it, and its run waits."""
    world = World(Task())
    world.start()
    world.answer(1, b"of a", cause="0123456789abcdef0123456789abcdef")
    assert world.outcomes() == [("worker.completed", b"of a")]


def test_an_answer_to_any_request_of_a_call_is_taken() -> None:
    """Whoever held the lease notes it after all, though a person has had the call made once more."""

    async def main(session: Session) -> bytes:
        return await pays(session)

    world = Petitioned(main)
    world.start()
    world.in_doubt()
    world.decided("not-happened")
    first, second = (sent.meta.id for sent in world.sent if isinstance(sent.message, Ask))
    assert first != second
    world.answer(1, b"receipt", cause=first)
    assert world.result() == b"receipt"
