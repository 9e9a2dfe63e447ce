"""Approvals: asked once, decided once, by whom may, about what was asked, before it expires."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headwater.approvals.decider import KEPT_S, Approvals, Routes, timer_name
from headwater.approvals.rows import Approval
from headwater.approvals.rules import Rules
from headwater.contracts.approvals import ApprovalEvent, Decide, Decided, Petition, Withdraw
from headwater.contracts.messages import Wake
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Sent, Timer, Turn
from headwater.core.messages import Meta, Position
from headwater.core.state import Rows
from headwater.errors import PoisonError

RUN = "desk.2.t1"
NOW_MS = 1_000_000
HOUR_MS = 3_600_000


class World:
    """One approvals partition: rows, and what was sent."""

    def __init__(self) -> None:
        self.rows = Rows()
        self.sent: list[Sent] = []
        self.offset = 0
        self.now_ms = NOW_MS
        self.decider = Approvals(
            Routes(
                inbox=lambda agent: f"hw.inbox.{agent}.v1",
                events="hw.evt.approvals.v1",
                has=lambda agent, number: agent != "nobody" and number < 9,
            )
        )

    def take(self, message: Any, *, tenant: str = "t", actor: str = "") -> None:
        self.offset += 1
        at = Position("id", "hw.inbox.approvals.v1", 0, self.offset)
        meta = Meta(id=f"m{self.offset}", tenant=tenant, correlation_id="c", actor=actor)
        turn = Turn(self.rows, at=at, meta=meta, now_ms=self.now_ms)
        if isinstance(message, Wake):
            timer = self.rows.get(Timer, *message.name)
            assert timer is not None
            turn.drop(timer)
        self.decider.react(turn, message)
        for kind, key, row in turn.layer.written():
            if row is None:
                self.rows.discard(kind, key)
            else:
                self.rows.set(kind, key, row)
        self.sent += [item for item in turn.sent if isinstance(item, Sent)]

    def ask(self, approval: str = "p1", *, tenant: str = "t", **more: Any) -> None:
        given: dict[str, Any] = {
            "run": RUN,
            "number": 3,
            "about": "tool",
            "name": "pay",
            "words": "call pay",
            "digest": b"d1",
            "shown": b"{}",
            "expires_ms": NOW_MS + HOUR_MS,
            "requester": "kim",
        }
        self.take(Petition(approval=approval, **(given | more)), tenant=tenant, actor="kim")

    def decide(self, verdict: Any = "approve", *, by: str = "ana", **more: Any) -> None:
        given: dict[str, Any] = {"approval": "p1", "digest": b"d1"}
        tenant = more.pop("tenant", "t")
        self.take(Decide(verdict=verdict, **(given | more)), tenant=tenant, actor=by)

    def withdraw(self, *, run: str = RUN, tell: bool = False) -> None:
        self.take(Withdraw(approval="p1", run=run, reason="it ended", tell=tell))

    def pass_time(self, until_ms: int) -> None:
        """Let time pass, answering timers as the loop does."""
        self.now_ms = until_ms
        while dues := [row for row in self.rows.scan(Timer) if row.due_ms <= self.now_ms]:
            self.take(Wake(name=dues[0].name, due_ms=dues[0].due_ms))

    def messages(self, kind: type) -> list[Any]:
        return [sent.message for sent in self.sent if isinstance(sent.message, kind)]

    def told(self) -> list[str]:
        """Return what the run was told."""
        return [decided.decision for decided in self.messages(Decided)]

    def said(self) -> list[str]:
        """Return the statuses of the events."""
        return [event.status for event in self.messages(ApprovalEvent)]

    def why(self) -> str:
        """Return why the newest decision was refused."""
        event = self.messages(ApprovalEvent)[-1]
        assert event.status == "refused"
        return str(event.why)

    def row(self) -> Approval | None:
        return self.rows.get(Approval, "t", "p1")


def test_a_decision_reaches_the_run_that_asked() -> None:
    """At the address in its id, for its call, with who, why and about what."""
    world = World()
    world.ask()
    world.decide(reason="checked")
    (sent,) = [sent for sent in world.sent if isinstance(sent.message, Decided)]
    assert (sent.to.topic, sent.to.key, sent.to.partition) == ("hw.inbox.desk.v1", RUN, 2)
    assert (sent.meta.tenant, sent.meta.actor, sent.meta.correlation_id) == ("t", "ana", "c")
    decided = sent.message
    assert (decided.run, decided.number, decided.approval) == (RUN, 3, "p1")
    assert (decided.decision, decided.by, decided.reason) == ("approved", "ana", "checked")
    assert (decided.digest, decided.at_ms) == (b"d1", NOW_MS)
    assert world.said() == ["asked", "approved"]
    event = world.messages(ApprovalEvent)[-1]
    assert (event.by, event.why, event.digest, event.decision) == ("ana", "checked", b"d1", "m2")


@pytest.mark.parametrize(
    ("about", "verdict", "told"),
    [
        ("agent", "approve", "approved"),
        ("agent", "deny", "denied"),
        ("tool", "deny", "denied"),
        ("doubt", "happened", "happened"),
        ("doubt", "not-happened", "not-happened"),
        ("doubt", "give-up", "given-up"),
    ],
)
def test_every_verdict_has_its_end(about: str, verdict: str, told: str) -> None:
    """What a person says of a doubt carries the value they found."""
    world = World()
    world.ask(about=about)
    world.decide(verdict, value=b"v")
    assert world.told() == [told]
    assert world.messages(Decided)[0].value == b"v"


@pytest.mark.parametrize(
    ("about", "verdict"), [("tool", "happened"), ("agent", "give-up"), ("doubt", "approve")]
)
def test_a_verdict_that_does_not_answer_is_refused(about: str, verdict: str) -> None:
    """A doubt cannot be approved, nor can a call that was never sent have happened."""
    world = World()
    world.ask(about=about)
    world.decide(verdict)
    assert world.told() == []
    assert world.why().startswith(f"{verdict} is no answer to it; these are: ")


def test_a_petition_that_comes_twice_is_one() -> None:
    """A record that lands twice asks once, whatever became of it meanwhile."""
    world = World()
    world.ask()
    world.decide()
    world.ask()
    assert world.said() == ["asked", "approved"]


def test_a_decision_counts_once() -> None:
    """The same again is the same; another is refused, and says who was first."""
    world = World()
    world.ask()
    world.decide()
    world.decide()
    assert (world.told(), world.said()) == (["approved"], ["asked", "approved"])
    world.decide("deny", by="bob")
    world.decide("approve", by="bob")
    assert world.told() == ["approved"]
    assert world.why() == "it was approved by ana already"
    shown = [event.shown for event in world.messages(ApprovalEvent)]
    assert shown == [b"{}", b"{}", b"", b""], "what was shown is remembered until it has ended"


def test_a_decision_is_about_what_was_asked() -> None:
    """A digest of other arguments decides nothing."""
    world = World()
    world.ask()
    world.decide(digest=b"d2")
    assert "other arguments" in world.why()
    world.decide()
    assert world.told() == ["approved"]


def test_who_asked_for_the_run_cannot_decide() -> None:
    """Nor can somebody nobody knows."""
    world = World()
    world.ask()
    world.decide(by="kim")
    assert world.why() == "kim asked for the run, and cannot decide about it"
    world.decide(by="")
    assert "use a token" in world.why()
    assert world.told() == []


@pytest.mark.parametrize(
    ("to", "by", "groups", "may"),
    [
        ("", "ana", (), True),
        ("ana", "ana", (), True),
        ("ana", "bob", (), False),
        ("group:payments", "ana", ("payments",), True),
        ("group:payments", "ana", ("*",), True),
        ("group:payments", "ana", ("audit",), False),
        ("group:payments", "payments", (), False),
    ],
)
def test_only_whom_it_is_put_to_decides(
    to: str, by: str, groups: tuple[str, ...], may: bool
) -> None:
    """A group's members, the actor it names, or anybody else."""
    world = World()
    world.ask(to=to)
    world.decide(by=by, groups=groups)
    assert world.told() == (["approved"] if may else [])
    assert may or "decides this" in world.why()


def test_it_expires_by_its_timer() -> None:
    """Nobody decided in time: the run is told."""
    world = World()
    world.ask()
    world.pass_time(NOW_MS + HOUR_MS)
    assert (world.told(), world.said()) == (["expired"], ["asked", "expired"])
    world.decide()
    assert world.why() == "it was expired already"


def test_a_decision_after_the_end_is_late_even_before_the_timer() -> None:
    """The clock of the log counts, not when the timer comes round."""
    world = World()
    world.ask()
    world.now_ms = NOW_MS + HOUR_MS
    world.decide()
    assert world.said() == ["asked", "expired", "refused"]
    assert (world.told(), world.why()) == (["expired"], "it has expired")
    world.pass_time(world.now_ms)
    assert world.told() == ["expired"]


def test_withdrawn_is_over() -> None:
    """Who withdraws knows, and is told only where it wants to be."""
    world = World()
    world.ask()
    world.withdraw(run="desk.2.other")
    assert world.said() == ["asked"]
    world.withdraw()
    assert (world.told(), world.said()) == ([], ["asked", "withdrawn"])
    world.withdraw()
    world.decide()
    assert world.why() == "it was withdrawn already"
    other = World()
    other.ask()
    other.withdraw(tell=True)
    assert other.told() == ["withdrawn"]


def test_withdrawing_what_was_never_asked_is_nothing() -> None:
    """It was forgotten, or is another tenant's."""
    world = World()
    world.withdraw()
    world.ask(tenant="other")
    world.withdraw()
    assert world.said() == ["asked"]


def test_another_tenants_petition_is_unknown() -> None:
    """A tenant decides about its own."""
    world = World()
    world.ask(tenant="other")
    with pytest.raises(PoisonError, match="tenant t was not asked 'p1'"):
        world.decide()
    assert world.told() == []


@pytest.mark.parametrize("run", ["nowhere", "nobody.0.x", "triage.9.x"])
def test_nobody_is_asked_for_a_run_without_an_address(run: str) -> None:
    """Whatever was decided would have nowhere to go."""
    world = World()
    with pytest.raises(PoisonError, match="has no address here"):
        world.ask(run=run)


def test_a_decision_is_forgotten_after_its_time() -> None:
    """Until then a second one is refused; afterwards nothing is left."""
    world = World()
    world.ask()
    world.decide()
    row = world.row()
    assert row is not None
    (timer,) = world.rows.scan(Timer)
    assert (timer.name, timer.due_ms) == (timer_name(row), NOW_MS + KEPT_S * 1000)
    world.pass_time(timer.due_ms)
    assert world.row() is None
    assert [*world.rows.scan(Timer)] == []


def test_refused_records_change_nothing() -> None:
    """What is asked stays asked."""
    world = World()
    world.ask()
    place = Partition("hw.inbox.approvals.v1", 0)
    record = Record(partition=place, offset=9, time_ms=0, key=b"t", value=b"v")
    turn = Turn(world.rows, at=Position("id", "x", 0, 9), meta=Meta(id="m", tenant="t"), now_ms=0)
    world.decider.refused(turn, record, None, PoisonError("unknown-approval", "?"))
    world.decider.forget(place)
    assert turn.sent == []
    assert world.decider.name == "approvals"


CONTROLS = {
    "single use": ("stale", ["approved"]),
    "digest": ("other", []),
    "requester": ("foreign", []),
    "expiry": ("late", ["expired"]),
}


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("on", [True, False])
def test_each_check_alone_stops_what_it_is_for(
    monkeypatch: pytest.MonkeyPatch, name: str, on: bool
) -> None:
    """The control: with one check off, what it stops comes through."""
    check, told = CONTROLS[name]
    world = World()
    world.ask()
    if not on:
        monkeypatch.setattr(Rules, check, lambda rules, row, said: "")
    if name == "single use":
        world.decide()
        world.decide("deny", by="bob")
    elif name == "expiry":
        world.now_ms = NOW_MS + HOUR_MS
        world.decide()
    else:
        world.decide(
            by="kim" if name == "requester" else "ana",
            digest=b"d1" if name == "requester" else b"d2",
        )
    assert (world.told() == told) is on


class Histories(RuleBasedStateMachine):
    """Petitions, decisions, withdrawals and time in any order, against what may come of each."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.asked: set[str] = set()
        self.ends: dict[str, str] = {}

    @rule(approval=st.sampled_from(["p1", "p2"]))
    def ask(self, approval: str) -> None:
        self.world.ask(approval)
        self.asked.add(approval)

    @rule(
        approval=st.sampled_from(["p1", "p2"]),
        verdict=st.sampled_from(["approve", "deny", "happened"]),
        by=st.sampled_from(["ana", "bob", "kim", ""]),
        digest=st.sampled_from([b"d1", b"d2"]),
    )
    def decide(self, approval: str, verdict: Any, by: str, digest: bytes) -> None:
        if approval not in self.asked:
            return
        may = by in ("ana", "bob") and digest == b"d1" and verdict != "happened"
        late = self.world.now_ms >= NOW_MS + HOUR_MS
        if approval not in self.ends and late:
            self.ends[approval] = "expired"
        elif approval not in self.ends and may:
            self.ends[approval] = {"approve": "approved", "deny": "denied"}[verdict]
        self.world.decide(verdict, by=by, digest=digest, approval=approval)

    @rule(approval=st.sampled_from(["p1", "p2"]))
    def withdraw(self, approval: str) -> None:
        if approval in self.asked:
            self.ends.setdefault(approval, "withdrawn")
        self.world.take(Withdraw(approval=approval, run=RUN, reason="", tell=True))

    @rule(minutes=st.sampled_from([1, 59, 60]))
    def pass_time(self, minutes: int) -> None:
        self.world.pass_time(self.world.now_ms + minutes * 60_000)
        if self.world.now_ms >= NOW_MS + HOUR_MS:
            for approval in self.asked:
                self.ends.setdefault(approval, "expired")

    @invariant()
    def each_ends_once_and_as_it_may(self) -> None:
        told = [(of.approval, of.decision) for of in self.world.messages(Decided)]
        assert sorted(told) == sorted(self.ends.items())


Histories.TestCase.settings = hypothesis_settings(
    max_examples=60, stateful_step_count=20, deadline=None, derandomize=True
)
TestHistories = Histories.TestCase
