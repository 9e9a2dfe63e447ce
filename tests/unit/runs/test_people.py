"""People: a run waits for a decision, takes it once, and sends only what was decided about, in time."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.runs.world import World, call

from headwater.contracts.approvals import Decided, Petition, Withdraw
from headwater.contracts.messages import (
    Answered,
    Ask,
    Control,
    Failed,
    InDoubt,
    Limits,
    Reply,
    RunEvent,
    Spent,
)
from headwater.core.decider import Timer
from headwater.core.execution import Asked, Released
from headwater.core.judge import Allow, AskPerson
from headwater.core.messages import Meta
from headwater.durable.running import Session
from headwater.runs import people
from headwater.runs.rows import Entry, Held, OpenCall, Run

HOUR_MS = 3_600_000
ASKS = AskPerson("pay 12,000", to="group:payments", expires_s=3_600)


class Careful:
    """A judge that has people decide about everything but reads."""

    version = "careful"

    def judge(self, call: Asked, meta: Meta) -> Allow | AskPerson:
        return Allow() if call.name.startswith("read") or call.kind == "person" else ASKS


async def approve(session: Session, expires_s: float = 3_600) -> bytes:
    """Ask a person, and tell what came of it."""
    asks = AskPerson("go on?", to="ana", expires_s=expires_s)
    outcome = await session.ask("person", "approve", b'{"x":1}', options={"ask": asks})
    if isinstance(outcome, Answered):
        return outcome.value
    assert isinstance(outcome, Failed)
    return f"{outcome.error}: {outcome.detail}".encode()


async def pays(session: Session, name: str = "irreversible-pay", kind: Any = "tool") -> bytes:
    """Make a call that a person has to let go, and tell what came of it."""
    outcome = await session.ask(kind, name, b"12000", options={"timeout_ms": 10_000})
    if isinstance(outcome, Answered):
        return outcome.value
    return (
        b"in doubt"
        if isinstance(outcome, InDoubt)
        else f"{outcome.error}: {outcome.detail}".encode()
    )


class Petitioned(World):
    """A world whose petitions are answered by the test."""

    @property
    def petition(self) -> Petition:
        return self.messages(Petition)[-1]

    def decided(self, decision: Any, petition: Petition | None = None, **more: Any) -> None:
        of = petition or self.petition
        given = {"by": "ana", "reason": "checked", "at_ms": self.now_ms, "digest": of.digest}
        self.take(
            Decided(
                run=of.run,
                number=of.number,
                approval=of.approval,
                decision=decision,
                **(given | more),
            )
        )

    def in_doubt(self, number: int = 1, attempt: str = "a1") -> None:
        self.take(Reply(run=self.run, number=number, attempt=attempt, outcome=InDoubt(since_ms=5)))

    @property
    def row(self) -> Run:
        row = self.rows.get(Run, self.run)
        assert row is not None
        return row

    def result(self) -> Any:
        (kind, value), *rest = self.outcomes()
        assert not rest
        assert kind == "worker.completed", value
        return value


def waiting(function: Any = approve, **more: Any) -> Petitioned:
    world = Petitioned(function, judge=Careful(), **more)
    world.start()
    return world


def test_an_agent_waits_for_a_persons_yes() -> None:
    """It is a numbered call of its own kind, costs no step, and says who, when and why."""
    world = waiting()
    petition = world.petition
    assert (petition.about, petition.words, petition.to, petition.number) == (
        "agent",
        "go on?",
        "ana",
        1,
    )
    assert petition.expires_ms == world.now_ms + HOUR_MS
    assert petition.digest == people.bound("approve", b'{"x":1}')
    assert world.asked() == []
    assert world.messages(RunEvent)[-1].reason == f"approval {petition.approval} (go on?)"
    world.crash()
    world.decided("approved")
    assert json.loads(world.result()) == {"by": "ana", "at_ms": 1_000_000, "reason": "checked"}
    events = world.messages(RunEvent)
    assert [(of.kind, of.state, of.by, of.verdict) for of in events[-1].calls] == [
        ("person", "waiting", "ana", "approved: checked"),
        ("person", "answered", "", ""),
    ]
    assert events[-1].steps == 0


@pytest.mark.parametrize(
    ("decision", "more", "words"),
    [
        ("denied", {}, "Denied: go on?: denied by ana: checked"),
        ("denied", {"reason": ""}, "Denied: go on?: denied by ana"),
        (
            "expired",
            {"by": "", "reason": ""},
            "Expired: go on?: nobody decided before 1970-01-01T01:16:40.000Z",
        ),
        (
            "withdrawn",
            {"by": "", "reason": "its run failed"},
            "Withdrawn: go on?: withdrawn: its run failed",
        ),
        ("approved", {"digest": b"other"}, "Denied: go on?: the decision is about other arguments"),
    ],
)
def test_a_no_is_denied_and_says_why(decision: Any, more: dict[str, Any], words: str) -> None:
    """Who said no, what expired, what was withdrawn, or what the yes was not about."""
    world = waiting()
    world.decided(decision, **more)
    assert world.result().decode() == words
    assert world.messages(RunEvent)[-1].calls[-1].state == "denied"


def test_a_call_is_sent_only_once_a_person_has_let_it() -> None:
    """By the run itself, under the same number, with what was asked about, and its time begins then."""
    world = waiting(pays)
    petition = world.petition
    assert (petition.about, petition.name, petition.shown) == (
        "tool",
        "irreversible-pay",
        b'"12000"',
    )
    assert world.asked() == []
    assert world.row.reserved == Spent(steps=1)
    world.now_ms += HOUR_MS // 2
    world.crash()
    world.decided("approved")
    (ask,) = world.messages(Ask)
    assert (ask.number, ask.arguments, ask.name) == (1, b"12000", "irreversible-pay")
    assert ask.not_after_ms == world.now_ms + 10_000
    entries = [*world.rows.scan(Entry)]
    assert entries[0].calls[0].approval == petition.approval
    assert entries[-1].delivery == Released(
        number=1, approval=petition.approval, by="ana", reason="checked", at_ms=world.now_ms
    )
    world.decided("approved")
    world.crash()
    assert len(world.messages(Ask)) == 1
    world.answer(1, b"receipt")
    assert world.result() == b"receipt"
    assert world.messages(RunEvent)[-1].steps == 1


def test_a_call_begins_no_later_than_its_approval() -> None:
    """However long it then waits for its turn."""
    world = waiting(pays)
    world.now_ms += HOUR_MS - 1
    world.decided("approved")
    assert world.messages(Ask)[0].not_after_ms == world.petition.expires_ms
    hasty = Petitioned(pays, judge=Careful())
    hasty.start(deadline_ms=hasty.now_ms + 5_000)
    hasty.decided("approved")
    assert hasty.messages(Ask)[0].not_after_ms == hasty.now_ms + 5_000


@pytest.mark.parametrize(
    ("kind", "name"), [("tool", "irreversible-pay"), ("agent", "child"), ("model", "small")]
)
def test_a_yes_to_what_is_gone_sends_nothing(
    kind: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The app was changed while the call waited: no effector of another kind gets it."""
    world = waiting(functools.partial(pays, name=name, kind=kind))
    monkeypatch.setattr(world.catalogue, "tool", lambda name: None)
    monkeypatch.setattr(world.catalogue, "model", lambda name: False)
    monkeypatch.setattr(world.catalogue, "limits", lambda name: None)
    world.decided("approved")
    assert world.asked() == []
    assert b"Denied: " in world.result()
    assert f"this app has no {kind} named {name} any more".encode() in world.result()


def test_a_call_in_doubt_whose_tool_is_gone_stays_in_doubt(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """That it did not happen cannot be acted upon."""
    world = waiting(pays)
    world.decided("approved")
    world.in_doubt()
    monkeypatch.setattr(world.catalogue, "tool", lambda name: None)
    world.decided("not-happened")
    assert world.asked() == [1]
    assert world.result().startswith(b"InDoubt: ")


def expired_while_paused() -> Petitioned:
    """A yes comes while the run is paused, and the run goes on after it has expired."""
    world = waiting(pays)
    world.control("pause")
    world.decided("approved")
    assert world.asked() == []
    world.now_ms += HOUR_MS
    world.control("resume")
    world.drain()
    return world


def test_a_yes_that_expired_before_the_send_sends_nothing() -> None:
    """None after its approval expired."""
    world = expired_while_paused()
    assert world.asked() == []
    assert world.result().startswith(b"Expired: pay 12,000: expired at 1970-01-01T01:16:40.000Z")
    assert world.messages(RunEvent)[-1].steps == 0


def test_without_the_check_at_the_send_it_would_be_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the expiry, and of the digest, at the send."""
    monkeypatch.setattr(people.People, "unfit", lambda *_: "")
    assert expired_while_paused().asked() == [1]
    assert tampered().asked() == [1]


def tampered() -> Petitioned:
    """The arguments that wait are not those that were asked about."""
    world = waiting(pays)
    row = world.rows.get(OpenCall, world.run, 1)
    assert row is not None
    assert isinstance(row.ask, Ask)
    other = dataclasses.replace(row, ask=dataclasses.replace(row.ask, arguments=b"99999"))
    world.rows.set(OpenCall, row.key, other)
    world.decided("approved")
    return world


def test_other_arguments_are_never_sent() -> None:
    """The digest is taken of what is about to be sent."""
    world = tampered()
    assert world.asked() == []
    assert world.result() == b"Denied: pay 12,000: the decision is about other arguments"


def test_a_denied_call_was_never_sent_and_costs_nothing() -> None:
    """Its reserve goes back."""
    world = waiting(pays)
    world.decided("denied")
    assert world.result().startswith(b"Denied: pay 12,000: denied by ana")
    assert (world.asked(), world.messages(RunEvent)[-1].steps) == ([], 0)


@pytest.mark.parametrize(("kind", "name"), [("agent", "child"), ("model", "small")])
def test_a_judge_may_have_people_decide_about_any_call(kind: Any, name: str) -> None:
    """A child is not begun, a model not asked, before a person has said so."""

    async def main(session: Session) -> bytes:
        return await pays(session, name, kind)

    world = waiting(main)
    assert world.asked() == []
    world.crash()
    world.decided("approved")
    assert world.asked() == [1]
    row = world.rows.get(OpenCall, world.run, 1)
    assert row is not None
    assert (row.ask, row.unsent, row.asking) == (None, False, None)
    world.answer(1, b"ok", spent=Spent())
    assert world.result() == b"ok"


def test_a_child_that_was_never_begun_is_not_waited_for() -> None:
    """Its parent ends, and closes at once."""

    async def main(session: Session) -> bytes:
        session.ask("agent", "child", b"x", options={})
        return b"done"

    world = waiting(main)
    assert world.result() == b"done"
    assert (world.messages(Control), world.asked()) == ([], [])
    (withdrawn,) = world.messages(Withdraw)
    assert (withdrawn.approval, withdrawn.reason, withdrawn.tell) == (
        world.petition.approval,
        "its run completed",
        False,
    )
    assert world.rows.get(Run, world.run) is None


def test_a_wait_that_is_given_up_is_withdrawn() -> None:
    """A decision that comes later is nobody's."""

    async def main(session: Session) -> bytes:
        try:
            async with asyncio.timeout(60):
                return await pays(session)
        except TimeoutError:
            return await call(session)

    world = waiting(main)
    world.wake()
    assert world.messages(Withdraw)[0].reason == "the run no longer waits for it"
    assert world.row.reserved == Spent(steps=1), "of the read alone"
    assert (world.row.asking, world.row.waited_ms) == (0, 60_000)
    world.decided("approved")
    assert world.asked() == [2]
    world.answer(2)
    assert world.result() == b"ok"


def test_a_cancelled_run_withdraws_what_it_asked() -> None:
    """Nobody is left to decide for."""
    world = waiting()
    world.control("cancel")
    assert [of.reason for of in world.messages(Withdraw)] == ["its run cancelled"]
    assert world.outcomes()[-1][0] == "worker.cancelled"


def test_a_failed_run_hears_that_its_petition_was_withdrawn() -> None:
    """It may be resumed, and then knows; a doubt stays a person's to settle."""

    async def main(session: Session) -> bytes:
        session.ask("tool", "irreversible-pay", b"12000", options={})
        await call(session)
        raise ValueError("boom")

    world = waiting(main)
    world.answer(2)
    (withdrawn,) = world.messages(Withdraw)
    assert withdrawn.tell
    world.decided("withdrawn", by="")
    assert [type(held.message) for held in world.rows.scan(Held)] == [Decided]
    doubtful = Petitioned(main)
    doubtful.start()
    doubtful.in_doubt()
    doubtful.answer(2)
    assert doubtful.messages(Withdraw) == []
    assert doubtful.row.state == "failed"
    doubtful.decided("happened", value=b"v")
    assert len([*doubtful.rows.scan(Held)]) == 1


def doubtful_and_failed() -> Petitioned:
    """A failed run that left one call in doubt, and one that waits for a yes."""

    async def main(session: Session) -> bytes:
        session.ask("tool", "irreversible-pay", b"12000", options={})
        session.ask("person", "approve", b"{}", options={"ask": ASKS})
        await call(session)
        raise ValueError("boom")

    world = Petitioned(main)
    world.start()
    world.in_doubt()
    world.answer(3)
    assert world.row.state == "failed"
    return world


@pytest.mark.parametrize(
    "heard", [False, True], ids=["", "the word that it was withdrawn has come"]
)
def test_a_run_that_is_discarded_leaves_nobody_asked(heard: bool) -> None:
    """A doubt stays a person's to settle while the run may be resumed, and no longer."""
    world = doubtful_and_failed()
    yes, doubt = (
        next(p for p in world.messages(Petition) if p.about == of) for of in ("agent", "doubt")
    )
    assert [of.approval for of in world.messages(Withdraw)] == [yes.approval]
    if heard:
        world.decided("withdrawn", yes, by="")
    world.control("discard")
    (withdrawn,) = [of for of in world.messages(Withdraw) if of.approval == doubt.approval]
    assert (withdrawn.reason, withdrawn.tell) == ("its run was discarded", False)
    assert len(world.rows) == 0
    world.decided("not-happened", doubt)
    assert world.asked() == [1, 3]


def test_a_run_that_has_been_kept_for_its_time_leaves_nobody_asked() -> None:
    """Nobody says so then, but it is the same: no one could act on what they decide."""
    world = doubtful_and_failed()
    world.wake()
    assert {of.approval for of in world.messages(Withdraw)} == {
        of.approval for of in world.messages(Petition)
    }


def test_a_decision_for_a_run_that_is_closed_is_nobodys() -> None:
    """It was withdrawn as the run ended."""
    world = waiting()
    world.control("cancel")
    before = len(world.sent)
    world.decided("approved")
    assert len(world.sent) == before


def test_the_wall_clock_stands_while_a_person_is_asked() -> None:
    """Afterwards it goes on; a task's own deadline does not wait."""

    async def main(session: Session) -> bytes:
        await approve(session, 86_400)
        return await call(session)

    limits = Limits(wall_ms=60_000)
    world = waiting(main, limits=limits)
    assert [*world.rows.scan(Timer)] == []
    world.now_ms += 5 * HOUR_MS
    world.decided("approved")
    (timer,) = world.rows.scan(Timer)
    assert timer.due_ms == 1_000_000 + 60_000 + 5 * HOUR_MS
    world.wake()
    assert world.outcomes()[-1][1].error == "BudgetExceeded"
    late = Petitioned(main, limits=limits)
    late.start(deadline_ms=late.now_ms + 1_000)
    late.wake()
    assert late.outcomes()[-1][1].error == "DeadlineExceeded"


def test_several_people_may_be_asked_at_once() -> None:
    """Each petition is its own; time counts again after the last."""

    async def main(session: Session) -> bytes:
        return b"|".join(await asyncio.gather(approve(session), pays(session)))

    world = waiting(main)
    one, two = world.messages(Petition)
    assert one.approval in world.messages(RunEvent)[-1].reason
    assert two.approval in world.messages(RunEvent)[-1].reason
    world.now_ms += 1_000
    world.decided("denied", two)
    assert (world.row.asking, world.row.waited_ms) == (1, 0)
    world.now_ms += 1_000
    world.decided("denied", one)
    assert world.result().count(b"denied by ana") == 2


def test_what_nobody_could_read_is_not_asked() -> None:
    """A person who cannot see it all approves something else."""

    async def main(session: Session) -> bytes:
        outcome = await session.ask("tool", "irreversible-pay", b"x" * 300_000, options={})
        assert isinstance(outcome, Failed)
        return outcome.error.encode()

    world = waiting(main)
    assert (world.result(), world.messages(Petition)) == (b"TooLarge", [])


async def doubtful(session: Session) -> bytes:
    return await pays(session)


def in_doubt(function: Any = doubtful) -> Petitioned:
    """An irreversible call whose end nobody knows."""
    world = Petitioned(function)
    world.start()
    world.in_doubt()
    return world


def test_a_call_in_doubt_is_put_to_a_person() -> None:
    """Once, to whoever decides about the tool; the run waits."""
    world = in_doubt()
    petition = world.petition
    assert (petition.about, petition.to, petition.name) == (
        "doubt",
        "group:payments",
        "irreversible-pay",
    )
    assert petition.words.startswith("did irreversible-pay happen? It was begun at 1970-01-01")
    assert petition.expires_ms == world.now_ms + 7 * 24 * HOUR_MS
    assert world.outcomes() == []
    world.in_doubt()
    assert len(world.messages(Petition)) == 1
    assert world.messages(RunEvent)[-1].calls[-1].state == "waiting"


def test_a_person_says_that_it_happened() -> None:
    """What they found is the answer."""
    world = in_doubt()
    world.crash()
    world.decided("happened", value=b"receipt")
    assert world.result() == b"receipt"
    assert world.asked() == [1]
    assert world.messages(RunEvent)[-1].steps == 1


def test_a_person_says_that_it_did_not_happen() -> None:
    """Only then is it made again, under the same number, knowing which attempt came to nothing."""
    world = in_doubt()
    world.crash()
    world.decided("not-happened")
    first, second = world.messages(Ask)
    assert (first.undone, second.undone) == ((), ("a1",))
    assert dataclasses.replace(second, undone=(), not_after_ms=0) == dataclasses.replace(
        first, not_after_ms=0
    )
    world.in_doubt(attempt="a1")
    assert len(world.messages(Petition)) == 1, "what comes once more of the old doubt is nothing"
    world.in_doubt(attempt="a2")
    assert len({of.approval for of in world.messages(Petition)}) == 2
    world.decided("not-happened")
    assert world.messages(Ask)[-1].undone == ("a1", "a2")
    world.answer(1, b"receipt")
    assert world.result() == b"receipt"


@pytest.mark.parametrize(
    ("decision", "more", "words"),
    [
        ("given-up", {}, "ana could say, given-up: checked"),
        ("expired", {"by": "", "reason": ""}, "nobody could say, expired"),
        ("not-happened", {"digest": b"x"}, "the decision is about other arguments"),
    ],
)
def test_a_doubt_that_stays_is_an_error(decision: Any, more: dict[str, Any], words: str) -> None:
    """And is never repeated."""
    world = in_doubt()
    world.decided(decision, **more)
    assert (
        world.result().decode()
        == f"InDoubt: nobody knows whether irreversible-pay happened; {words}"
    )
    assert world.asked() == [1]


def test_an_answer_that_comes_after_all_settles_the_doubt() -> None:
    """Whoever held the lease noted it; nobody need look."""
    world = in_doubt()
    world.answer(1, b"receipt")
    assert world.result() == b"receipt"
    assert world.messages(Withdraw)[0].reason == "it was answered after all"


def test_a_doubt_that_nobody_waits_for_asks_nobody() -> None:
    """The function went on without the call; what it asked is withdrawn with it."""

    async def main(session: Session) -> bytes:
        try:
            async with asyncio.timeout(60):
                return await pays(session)
        except TimeoutError:
            return await call(session)

    world = Petitioned(main)
    world.start()
    world.wake()
    world.in_doubt()
    assert world.messages(Petition) == []
    doubted = Petitioned(main)
    doubted.start()
    doubted.in_doubt()
    doubted.wake()
    assert doubted.messages(Withdraw)[0].reason == "the run no longer waits for it"
    assert doubted.row.spent == Spent(steps=1)


def test_a_doubt_of_a_call_that_is_not_kept_is_the_answer() -> None:
    """Only an irreversible call's request is kept to be made again."""

    async def main(session: Session) -> bytes:
        return await pays(session, "read-thing")

    world = Petitioned(main)
    world.start()
    world.in_doubt()
    assert world.result() == b"in doubt"


def test_a_run_stuck_on_a_decision_keeps_it() -> None:
    """Code that cannot be replayed holds the run, and sends nothing meanwhile."""
    names = iter(["irreversible-pay", "irreversible-other", "irreversible-pay"])

    async def main(session: Session) -> bytes:
        return await pays(session, next(names))

    world = waiting(main)
    world.crash()
    world.decided("approved")
    assert world.row.state == "held"
    assert (world.asked(), [type(held.message) for held in world.rows.scan(Held)]) == (
        [],
        [Decided],
    )
    world.control("resume")
    world.drain()
    assert world.asked() == [1]


def test_another_digest_of_an_approval_holds_the_run() -> None:
    """What a person approved cannot be replayed as something else."""
    subjects = iter([b"one", b"two"])

    async def main(session: Session) -> bytes:
        outcome = await session.ask("person", "approve", next(subjects), options={"ask": ASKS})
        return b"" if isinstance(outcome, Failed) else b"yes"

    world = waiting(main)
    world.crash()
    world.decided("approved")
    assert world.row.state == "held"


ACTS = [
    "approve",
    "deny",
    "expire",
    "cancel",
    "pause",
    "resume",
    "crash",
    "wait",
    "answer",
    "doubt",
]


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(ACTS), max_size=10), st.booleans())
def test_every_order_sends_at_most_what_was_approved(acts: list[str], sudden: bool) -> None:
    """A call is sent once for each yes that counts, never after an expiry; a closed run asks nobody."""
    world = Petitioned(pays, judge=Careful())
    world.start()
    first = world.petition
    yes: list[int] = []
    for act in acts:
        closed = world.rows.get(Run, world.run) is None
        if act in ("approve", "deny", "expire") and world.messages(Petition):
            decision = {"approve": "approved", "deny": "denied", "expire": "expired"}[act]
            of = world.petition
            if of.about == "doubt":
                decision = {"approve": "not-happened", "deny": "given-up"}.get(act, "expired")
            if act == "approve":
                yes.append(world.now_ms)
            world.decided(decision)
        elif act in ("cancel", "pause", "resume"):
            world.control(act)
            world.drain()
        elif act == "crash" or sudden:
            world.crash()
        if act == "wait":
            world.now_ms += HOUR_MS // 2
        if act in ("answer", "doubt") and world.messages(Ask) and not closed:
            if act == "answer":
                world.answer(1, b"receipt")
            else:
                world.in_doubt(attempt=f"a{len(world.messages(Ask))}")
    world.control("resume")
    world.drain()
    asks = world.messages(Ask)
    assert len(asks) <= len(yes)
    assert {ask.arguments for ask in asks} <= {b"12000"}
    for ask in asks[:1]:
        assert ask.not_after_ms <= first.expires_ms
    if world.rows.get(Run, world.run) is None:
        assert len(world.outcomes()) == 1
        assert [*world.rows.scan(OpenCall)] == []
