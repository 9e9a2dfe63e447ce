"""Admission: seen once, counted, placed, held in order, closed once, controlled behind the task."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from headwater.admission.decider import ASKED_MAX, CONTROLS_MAX, Admission
from headwater.admission.placement import Placement
from headwater.admission.quotas import Quotas
from headwater.admission.rows import Expiry, Queued, Reopening, Seen, Slot, Tenant
from headwater.admission.shards import SHARDS, partition, shard, table
from headwater.admission.telling import Routes
from headwater.contracts.messages import (
    Admit,
    Closed,
    Control,
    Reopen,
    Resume,
    RunEvent,
    Spent,
    Start,
    Task,
    Wake,
)
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Encoded, Sent, Timer, Turn
from headwater.core.messages import Meta, Position, RunId
from headwater.core.state import Rows
from headwater.errors import PoisonError

DAY_MS = 86_400_000


class World:
    """One admission partition: rows, and what was sent."""

    def __init__(self, *, quota: int = 10, **more):
        self.rows = Rows()
        self.sent: list[Sent] = []
        self.aside: list[Draft] = []
        self.offset = 0
        self.now_ms = 1_000_000
        self.more = more
        self.agents = {"a": 86_400, "b": 60}
        self.partitions = 4
        self.employ(quota)

    def employ(self, quota):
        """Start a decider with this quota over the rows that are there."""
        more = dict(self.more)
        self.decider = Admission(
            Routes(
                inbox=lambda agent: f"hw.inbox.{agent}.v1",
                events=lambda agent: f"hw.evt.{agent}.v1",
                life="hw.evt.runs.v1",
                partitions=lambda agent: self.partitions,
                has=lambda agent, number: number < 4,
                dedupe_s=self.agents,
            ),
            placement=more.pop("placement", Placement()),
            quotas=Quotas(default=quota, of={"small": 1}),
            aside=lambda record, tenant, error: Draft(
                topic="aside", key=tenant.encode(), value=record.value
            ),
            **more,
        )

    def take(self, message, tenant="t", **more):
        self.offset += 1
        at = Position("id", "hw.inbox.admission.v1", 0, self.offset)
        named = {"correlation_id": "c", "actor": "ana"} | more
        meta = Meta(id=f"m{self.offset}", tenant=tenant, **named)
        turn = Turn(self.rows, at=at, meta=meta, now_ms=self.now_ms)
        if isinstance(message, Wake):
            turn.drop(self.rows.get(Timer, *message.name))
        self.decider.react(turn, message)
        for kind, key, row in turn.layer.written():
            if row is None:
                self.rows.discard(kind, key)
            else:
                self.rows.set(kind, key, row)
        self.aside += [sent for sent in turn.sent if isinstance(sent, Draft)]
        self.sent += [sent for sent in turn.sent if isinstance(sent, Sent)]

    def admit(self, task, *, tenant="t", digest=b"d", agent="a"):
        self.take(Admit(agent=agent, task_id=task, digest=digest, task=Task(value=b"v")), tenant)

    def close(self, run, tenant="t"):
        self.take(Closed(slot=run), tenant)

    def control(self, target, verb, tenant="t", **more):
        self.take(Control(target=target, verb=verb, **more), tenant)

    def expire(self, *, until_ms):
        """Let time pass, answering timers as the loop does."""
        self.now_ms = until_ms
        while dues := [row for row in self.rows.scan(Timer) if row.due_ms <= self.now_ms]:
            self.take(Wake(name=dues[0].name, due_ms=dues[0].due_ms))

    def messages(self, kind):
        return [sent.message for sent in self.sent if isinstance(sent.message, kind)]

    def started(self):
        return [start.task_id for start in self.messages(Start)]

    def runs(self):
        return [start.run for start in self.messages(Start)]

    def statuses(self):
        return [event.status for event in self.messages(RunEvent)]


def test_task_is_placed_and_started_with_its_address_in_its_id():
    """The run's id carries its partition; the start goes there and nowhere else."""
    world = World()
    world.admit("t1")
    (sent,) = [sent for sent in world.sent if isinstance(sent.message, Start)]
    run = RunId.parse(sent.message.run)
    assert (sent.to.topic, sent.to.partition, sent.to.key) == (
        "hw.inbox.a.v1",
        run.partition,
        sent.message.run,
    )
    assert sent.message.slot == sent.message.run
    assert sent.meta.actor == "ana"
    assert world.statuses() == ["accepted"]


def test_duplicate_is_dropped_and_a_conflict_refused():
    """The same id is the same task; with another payload it is a mistake that somebody must see."""
    world = World()
    world.admit("t1")
    world.admit("t1")
    assert world.started() == ["t1"]
    with pytest.raises(PoisonError, match="another payload") as caught:
        world.admit("t1", digest=b"other")
    assert caught.value.code == "conflict"
    world.admit("t1", tenant="u")
    assert world.started() == ["t1", "t1"]


def test_unknown_agent_is_refused():
    """A task for nobody is kept where an operator sees it."""
    with pytest.raises(PoisonError, match="no agent"):
        World().admit("t1", agent="z")


def test_over_quota_is_held_and_goes_on_by_itself_in_order():
    """Held tasks start as slots close, oldest first; a newcomer does not overtake."""
    world = World(quota=1)
    for task in ("t1", "t2", "t3"):
        world.admit(task)
    assert world.started() == ["t1"]
    assert world.statuses() == ["accepted", "held", "held"]
    assert "1 runs open" in world.messages(RunEvent)[1].reason
    world.close(world.runs()[0])
    assert world.started() == ["t1", "t2"]
    world.admit("t4")
    world.close(world.runs()[1])
    world.close(world.runs()[2])
    assert world.started() == ["t1", "t2", "t3", "t4"]


def test_slot_is_closed_exactly_once():
    """A second close, or one of a slot nobody has, frees nothing."""
    world = World(quota=1)
    for task in ("t1", "t2", "t3"):
        world.admit(task)
    for _ in range(3):
        world.close(world.runs()[0])
    world.close("a.0.nobody")
    world.close("a.0.nobody", tenant="stranger")
    assert world.started() == ["t1", "t2"]


def test_a_slot_that_nobody_waits_for_may_be_given_back_later():
    """A held task starts as soon as there is a slot; of other tenants' slots it knows nothing."""
    world = World(quota=1)
    meta = Meta(id="m", tenant="t", correlation_id="c")
    assert world.decider.patient(world.rows, meta), "it has no slots at all"
    world.admit("one")
    assert world.decider.patient(world.rows, meta)
    world.admit("two")
    assert not world.decider.patient(world.rows, meta)
    assert world.decider.patient(world.rows, dataclasses.replace(meta, tenant="u"))


def test_slot_closed_twice_would_break_the_quota():
    """Control: were the slot's own row not looked at, a repeated close would start too much."""
    world = World(quota=1)
    for task in ("t1", "t2", "t3"):
        world.admit(task)
    run = world.runs()[0]
    for _ in range(2):
        world.rows.set(Slot, ("t", run), Slot(tenant="t", slot=run))
        world.close(run)
    assert world.started() == ["t1", "t2", "t3"]


def test_raised_quota_serves_those_who_wait_first():
    """After a restart with a higher quota a newcomer does not overtake held tasks."""
    world = World(quota=1)
    for task in ("t1", "t2", "t3"):
        world.admit(task)
    world.employ(10)
    world.admit("t4")
    assert world.started() == ["t1", "t2", "t3", "t4"]


def test_many_held_tasks_start_in_bounded_turns_and_in_order():
    """A turn starts so many; a timer goes on with the rest, and newcomers queue behind them."""
    world = World(quota=1, releases_max=2)
    for number in range(6):
        world.admit(f"t{number}")
    world.employ(100)
    world.close(world.runs()[0])
    assert world.started() == ["t0", "t1", "t2"]
    (timer,) = [row for row in world.rows.scan(Timer) if row.name[0] == "release"]
    world.admit("t6")
    assert world.started() == ["t0", "t1", "t2", "t3", "t4"]
    world.take(Wake(name=timer.name, due_ms=timer.due_ms))
    assert world.started() == [f"t{number}" for number in range(7)]
    assert [row for row in world.rows.scan(Timer) if row.name[0] == "release"] == []


def test_task_seen_by_nobody_would_run_twice():
    """Control: were what was seen not kept, the same task would start twice."""
    world = World()
    world.admit("t1")
    for kind in (Seen, Slot):
        for row in list(world.rows.scan(kind)):
            world.rows.discard(kind, row.key)
    world.admit("t1")
    assert world.started() == ["t1", "t1"]


def test_quota_by_tenant():
    """A tenant that is named has its own number."""
    world = World()
    for task in ("t1", "t2"):
        world.admit(task, tenant="small")
    assert world.started() == ["t1"]


def test_forgotten_after_its_window_and_not_before():
    """A task is remembered for its agent's window, and one timer ends many."""
    world = World()
    for task in ("t1", "t2"):
        world.admit(task, agent="b")
    assert len(list(world.rows.scan(Timer))) == 1
    world.expire(until_ms=world.now_ms + 59_000)
    world.admit("t1", agent="b")
    for run in world.runs():
        world.close(run)
    world.expire(until_ms=world.now_ms + 200_000)
    assert list(world.rows.scan(Seen)) == []
    assert list(world.rows.scan(Expiry)) == []
    world.admit("t1", agent="b")
    assert world.started() == ["t1", "t2", "t1"]


def test_expiries_are_ended_in_bounded_turns():
    """Many ends of one bucket take several turns, each of which asks for the next."""
    world = World(quota=100, expiries_max=2)
    for number in range(5):
        world.admit(f"t{number}", agent="b")
    world.expire(until_ms=world.now_ms + 200_000)
    assert list(world.rows.scan(Seen)) == []


def test_held_task_is_remembered_for_as_long_as_it_is_held():
    """A window that ends while the task waits is begun again; an open run is never doubled."""
    world = World(quota=1)
    world.admit("t1", agent="b")
    world.admit("t2", agent="b")
    world.expire(until_ms=world.now_ms + 130_000)
    assert [seen.task_id for seen in world.rows.scan(Seen)] == ["t2"]
    world.admit("t1", agent="b")
    assert world.started() == ["t1"]


def test_control_goes_behind_its_task():
    """By task id through what was seen; by run id to the address in it."""
    world = World()
    world.admit("t1")
    world.control("t1", "pause", reason="why")
    world.control(world.runs()[0], "resume")
    world.control("b.2.unseen", "cancel")
    targets = [
        (sent.message.target, sent.to.topic)
        for sent in world.sent
        if isinstance(sent.message, Control)
    ]
    run = world.runs()[0]
    assert targets == [
        (run, "hw.inbox.a.v1"),
        (run, "hw.inbox.a.v1"),
        ("b.2.unseen", "hw.inbox.b.v1"),
    ]


def test_held_task_is_controlled_by_its_run_id_too():
    """The index shows a held task's run id: control by it must not go to a run that is not there."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    run = world.messages(RunEvent)[1].run
    world.control(run, "cancel", reason="no more")
    assert [word.verb for word in world.messages(Control)] == ["cancel"], "for one kept of its id"
    assert world.statuses() == ["accepted", "held", "cancelled"]
    world.control(run, "cancel", tenant="stranger")
    assert [message.target for message in world.messages(Control)] == [run, run]


@pytest.mark.parametrize("target", ["nothing", "z.0.task", "a.9.task"])
def test_control_for_nothing_is_refused(target):
    """A typo is said, not swallowed."""
    with pytest.raises(PoisonError) as caught:
        World().control(target, "cancel")
    assert caught.value.code == "unknown-target"


def test_control_of_a_held_task():
    """Cancel ends it with an outcome, pause keeps it back, signals wait for it."""
    world = World(quota=1)
    for task in ("t1", "t2", "t3", "t4"):
        world.admit(task)
    world.control("t2", "cancel", reason="no more")
    (outcome,) = world.messages(Encoded)
    assert (outcome.type, outcome.value.detail) == ("a.cancelled", "no more")
    world.control("t2", "resume")
    world.control("t3", "pause")
    world.control("t4", "signal", name="go", value=b"1")
    world.close(world.runs()[0])
    assert world.started() == ["t1", "t4"]
    assert [c.name for c in world.messages(Control) if c.verb == "signal"] == ["go"]
    world.close(world.runs()[1])
    assert world.started() == ["t1", "t4"]
    world.control("t3", "resume")
    assert world.started() == ["t1", "t4", "t3"]
    world.admit("t2")
    assert "t2" not in world.started()[1:]


def test_paused_task_holds_nobody_else_up():
    """A task that a person keeps back does not make newcomers wait for a slot that is free."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    world.control("t2", "pause")
    world.close(world.runs()[0])
    world.admit("t3")
    assert world.started() == ["t1", "t3"]


def test_signals_of_a_held_task_are_bounded():
    """Nobody fills a row without end."""
    world = World(quota=0)
    world.admit("t1")
    world.control("t1", "signal", name="go")
    row = next(world.rows.scan(Queued))
    full = type(row)(
        **{f: getattr(row, f) for f in row.__slots__} | {"controls": row.controls * CONTROLS_MAX}
    )
    world.rows.set(Queued, full.key, full)
    with pytest.raises(PoisonError, match="wait for"):
        world.control("t1", "signal", name="go")


def test_refusals_and_lost_partitions_leave_nothing_behind():
    """Nothing is open before a start, and nothing is cached."""
    world = World()
    turn = Turn(world.rows, at=Position("i", "t", 0, 1), meta=Meta(id="", tenant=""), now_ms=0)
    record = Record(partition=Partition("t", 0), offset=1, time_ms=0, key=None, value=b"")
    for message in (None, Closed(slot="s"), Reopen(run="no run", resume=Resume())):
        world.decider.refused(turn, record, message, PoisonError("x", "y"))
    world.decider.forget(Partition("t", 0))
    assert turn.sent == []


def test_placement_is_data():
    """All partitions that nobody has for itself, some, or a tenant's own; the same for the same task."""
    assert Placement().partitions("any", 4) == (0, 1, 2, 3)
    placement = Placement(spread={"two": 2, "many": 9}, fixed={"own": (1, 7)})
    assert placement.partitions("any", 4) == (0, 2, 3)
    assert placement.partitions("many", 4) == (0, 2, 3)
    assert len(placement.partitions("two", 4)) == 2
    assert {placement.place("two", str(n), 4) for n in range(50)} < {0, 2, 3}
    assert placement.partitions("own", 4) == (1,)
    assert placement.place("own", "task", 4) == 1
    assert {placement.place("any", str(n), 4) for n in range(50)} == {0, 2, 3}
    assert Placement(fixed={"own": (0, 1)}).partitions("any", 2) == (0, 1), "nothing else is left"


def test_shards_are_fixed_and_all_used():
    """A tenant's shard never changes; the table maps it."""
    shards = table("topic", 3)
    assert len(shards.partitions) == SHARDS
    assert {partition(shards, str(n)) for n in range(100)} == {0, 1, 2}
    assert shard("t") == shard("t")


def reopen(world, run="a.1.old", *, because="", **more):
    resume = Resume(attempt=1, **more)
    world.take(Reopen(run=run, reason="fixed", resume=resume), causation_id=because)


def test_a_failed_run_that_is_resumed_takes_a_slot_again():
    """It counts against the quota like any open run, under its own name; the same word twice, once."""
    world = World(quota=1)
    reopen(world, added=Spent(steps=5))
    (control,) = world.messages(Control)
    assert (control.verb, control.target, control.reason) == ("resume", "a.1.old", "fixed")
    assert control.resume == Resume(attempt=1, added=Spent(steps=5), slot="a.1.old")
    assert world.sent[-1].to.partition == 1
    reopen(world)
    (_, again) = world.messages(Control)
    assert again.resume.slot == "", "its run says what it is of it"
    world.admit("t1")
    assert world.statuses()[-1] == "held"
    world.close("a.1.old")
    assert world.started() == ["t1"]


def test_a_resume_over_quota_waits_in_its_turn():
    """It is visible as held, goes on by itself behind what waited before, and is queued once."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    reopen(world)
    reopen(world)
    assert [type(row.wanted) for row in world.rows.scan(Queued)] == [Admit, Reopen]
    event = world.messages(RunEvent)[-1]
    assert (event.status, event.run, event.task_id) == ("held", "a.1.old", "old")
    assert event.reason == "resume, quota: 1 runs open"
    world.close(world.runs()[0])
    assert world.started() == ["t1", "t2"]
    world.close(world.runs()[1])
    assert [control.verb for control in world.messages(Control)] == ["resume"]
    assert not [*world.rows.scan(Reopening)]
    world.close("a.1.old")
    assert [row.slots for row in world.rows.scan(Tenant)] == [0]


def test_a_resume_that_waits_names_the_attempt_that_failed():
    """A run that failed twice was told of as held in its first attempt."""
    world = World(quota=1)
    world.admit("t1")
    world.take(Reopen(run="a.1.old", reason="fixed", resume=Resume(attempt=2)))
    told = world.messages(RunEvent)[-1]
    assert (told.run, told.status, told.attempt) == ("a.1.old", "held", 2)


@pytest.mark.parametrize("paused", [False, True])
def test_a_second_resume_on_other_terms_is_told_of(paused):
    """It was dropped without a word, and who had given it more to spend waited for that."""
    world = World(quota=1)
    world.admit("t1")
    reopen(world)
    if paused:
        world.control("a.1.old", "pause", reason="wait")
    said = len(world.messages(RunEvent))
    reopen(world)
    assert len(world.messages(RunEvent)) == said, "the same word twice is one"
    reopen(world, added=Spent(steps=5))
    (told,) = world.messages(RunEvent)[said:]
    assert (told.run, told.status) == ("a.1.old", "paused" if paused else "held")
    waits = "paused" if paused else "quota: 1 runs open"
    assert told.reason == f"resume, {waits}; one on other terms was dropped"
    assert len([*world.rows.scan(Queued)]) == 1


def test_a_held_task_of_an_agent_that_is_gone_stops_nobody():
    """Its time is over while it waits, and the app was rolled to one without its agent."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2", agent="b")
    del world.agents["b"]
    world.expire(until_ms=world.now_ms + 2 * 60_000)
    assert [seen.task_id for seen in world.rows.scan(Seen) if seen.queued >= 0] == ["t2"]


def test_a_held_task_of_an_agent_that_is_gone_takes_no_slot():
    """Nobody would give it back. The task is put aside, and who waits behind it goes on in the same turn."""
    world = World(quota=1)
    for task, agent in (("t1", "a"), ("t2", "b"), ("t3", "b"), ("t4", "a")):
        world.admit(task, agent=agent)
    world.control("t3", "signal", name="go")
    del world.agents["b"]
    world.close(world.runs()[0])
    assert world.started() == ["t1", "t4"]
    assert [(draft.key, draft.value) for draft in world.aside] == [(b"t", b"v")] * 2
    told = [event for event in world.messages(RunEvent) if event.status == "quarantined"]
    assert [(event.task_id, event.error) for event in told] == [
        ("t2", "unknown-target"),
        ("t3", "unknown-target"),
    ]
    assert told[0].detail.endswith("has no address here: this app has no agent named 'b'")
    assert told[1].detail.endswith("; 1 signals or resumes that waited with it are dropped")
    (counts,) = world.rows.scan(Tenant)
    assert (counts.slots, counts.queued) == (1, 0)


def test_a_task_that_was_put_aside_while_it_was_held_may_come_again():
    """Once its agent is back it is no repeat; while it is gone it is refused as any task of nobody."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2", agent="b")
    del world.agents["b"]
    world.close(world.runs()[0])
    with pytest.raises(PoisonError, match="has no agent named 'b'"):
        world.admit("t2", agent="b")
    with pytest.raises(PoisonError, match="this app has no agent named 'b'"):
        world.control("t2", "cancel")
    world.agents["b"] = 60
    for _ in range(2):
        world.admit("t2", agent="b")
    assert world.started() == ["t1", "t2"]
    with pytest.raises(PoisonError, match="another payload"):
        world.admit("t2", agent="b", digest=b"other")
    world.expire(until_ms=world.now_ms + 2 * DAY_MS)
    assert not [*world.rows.scan(Expiry), *world.rows.scan(Seen)]


def test_a_task_that_was_put_aside_and_comes_again_has_a_window_of_its_own():
    """It ended where the window of the time before did: a repeat soon after the run was a second run."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2", agent="b")
    del world.agents["b"]
    world.now_ms += 58_000
    world.close(world.runs()[0])
    world.agents["b"] = 120
    world.admit("t2", agent="b")
    world.close(world.runs()[1])
    again_ms = world.now_ms
    world.expire(until_ms=again_ms + 120_000)
    world.admit("t2", agent="b")
    assert world.started() == ["t1", "t2"]
    world.expire(until_ms=again_ms + 180_000)
    world.admit("t2", agent="b")
    assert world.started() == ["t1", "t2", "t2"]


def test_a_resume_that_waits_for_an_agent_that_is_gone_is_refused():
    """Its run stays failed, and can be resumed when the agent is back."""
    world, run = forgotten()
    reopen(world, run)
    del world.agents["b"]
    world.close(world.runs()[1])
    told = world.messages(RunEvent)[-1]
    assert (told.status, told.run, told.attempt) == ("failed", run, 1)
    assert told.reason.startswith(f"resume refused: run {run!r} has no address here")
    assert not [*world.rows.scan(Reopening), *world.rows.scan(Queued)]
    assert [row.slots for row in world.rows.scan(Tenant)] == [1]
    world.agents["b"] = 60
    reopen(world, run)
    assert [control.verb for control in world.messages(Control)] == ["resume"]


@pytest.mark.parametrize("waits", ["task", "resume"])
def test_what_waits_goes_on_where_its_inbox_is_known_as_it_was_before_it_grew(waits):
    """Another coordinator placed it, which had begun later; its agent is there, and so is its partition."""
    world, run = forgotten()
    if waits == "task":
        world.admit("t1", agent="b")
    else:
        reopen(world, run)
    world.control(run, "signal", name="go")
    world.partitions = 1
    assert RunId.parse(run).partition
    world.close(world.runs()[1])
    assert world.aside == []
    sent = [one for one in world.sent if isinstance(one.message, Start | Control)][-2:]
    assert [one.to.partition for one in sent] == [RunId.parse(run).partition] * 2
    assert world.messages(Control)[-1].name == "go"


def test_a_run_is_found_where_its_inbox_was_counted_before_it_grew():
    """It runs there, so it hears what is said to it, and may ask for a slot."""
    world = World()
    world.partitions = 1
    world.control("a.3.x", "signal", name="go")
    reopen(world, "a.3.x")
    assert [(sent.message.verb, sent.to.partition) for sent in world.sent] == [
        ("signal", 3),
        ("resume", 3),
    ]


def test_tasks_that_are_put_aside_count_towards_what_a_turn_may_do():
    """However many wait for an agent that is gone, a turn stays bounded, and a timer goes on."""
    world = World(quota=1, releases_max=2)
    world.admit("t0")
    for number in range(1, 6):
        world.admit(f"t{number}", agent="b")
    world.admit("t6")
    del world.agents["b"]
    world.close(world.runs()[0])
    assert len(world.aside) == 2
    world.expire(until_ms=world.now_ms)
    assert (len(world.aside), world.started()) == (5, ["t0", "t6"])


def forgotten(**more):
    """A world in which the run of `t1` failed so long ago that its task is forgotten, and two are open."""
    world = World(quota=2, **more)
    world.admit("t1", agent="b")
    run = world.runs()[0]
    world.close(run)
    world.expire(until_ms=world.now_ms + DAY_MS)
    world.admit("t2")
    world.admit("t3")
    return world, run


@pytest.mark.parametrize("resumed_first", [True, False])
def test_a_run_that_waits_to_go_on_takes_one_slot_if_its_task_comes_again(resumed_first):
    """One row can give one slot back: a second one would be lost to the tenant for good."""
    world, run = forgotten()
    if resumed_first:
        reopen(world, run)
    world.admit("t1", agent="b")
    reopen(world, run)
    assert [row.queued for row in world.rows.scan(Tenant)] == [1]
    for other in world.runs()[1:3]:
        world.close(other)
    assert world.started() == ["t1", "t2", "t3"]
    assert [control.verb for control in world.messages(Control)] == ["resume"]
    world.close(run)
    (counts,) = world.rows.scan(Tenant)
    assert (counts.slots, counts.queued) == (0, 0)
    assert not [*world.rows.scan(Queued)]
    world.expire(until_ms=world.now_ms + 2 * DAY_MS)
    assert not [*world.rows.scan(Seen)], "nobody waits, so all are forgotten"


def test_a_resume_whose_task_came_first_goes_back_to_its_run():
    """The task's slot is no slot of the resume's: its run gives it back, and asks for one again."""
    world, run = forgotten()
    world.close(world.runs()[1])
    world.admit("t1", agent="b")
    assert world.started()[-1] == "t1"
    reopen(world, run, added=Spent(steps=5))
    (control,) = world.messages(Control)
    assert control.resume == Resume(attempt=1, added=Spent(steps=5)), "without a slot"
    assert isinstance(world.sent[-1].message, Control), "behind the start"
    assert (world.sent[-1].meta.actor, world.sent[-1].to.key) == ("ana", run)
    world.close(run)
    reopen(world, run)
    assert [word.resume.slot for word in world.messages(Control)] == ["", run]
    assert [row.slots for row in world.rows.scan(Tenant)] == [2]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_resume_that_finds_a_slot_which_nobody_gives_back_has_it(control):
    """It went to and fro without end. Each of two resumes goes back once; the control forgets who did."""
    world = World()
    for kind, row in (
        (Slot, Slot(tenant="t", slot="a.1.old")),
        (Tenant, Tenant(tenant="t", slots=1)),
    ):
        world.rows.set(kind, row.key, row)
    reopen(world)
    reopen(world, added=Spent(steps=5))
    first, second = [sent.meta.id for sent in world.sent]
    if control:
        world.rows.set(Slot, ("t", "a.1.old"), Slot(tenant="t", slot="a.1.old"))
    reopen(world, because=first)
    reopen(world, because=second, added=Spent(steps=5))
    slots = [word.resume.slot for word in world.messages(Control)]
    assert slots == ["", "", "" if control else "a.1.old", ""]
    assert [row.slots for row in world.rows.scan(Tenant)] == [1]
    world.close("a.1.old")
    assert not [*world.rows.scan(Slot)]


def test_resumes_that_go_back_to_their_run_are_bounded():
    """A row is as small as it was, whoever resumes a run that has a slot, and however often."""
    world = World()
    world.rows.set(Slot, ("t", "a.1.old"), Slot(tenant="t", slot="a.1.old"))
    for _ in range(ASKED_MAX + 1):
        reopen(world)
    (slot,) = world.rows.scan(Slot)
    assert slot.asked == tuple(sent.meta.id for sent in world.sent[1:])


def test_a_resume_of_a_held_task_waits_with_it():
    """Its run may have failed so long ago that its task was taken for a new one; if not, it says so."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    world.control(run, "pause")
    world.control(run, "resume", reason="no longer paused")
    world.control(run, "resume", reason="mended", resume=Resume(attempt=1))
    assert (world.statuses()[-1], world.messages(RunEvent)[-1].reason) == ("held", "mended")
    assert world.messages(Control) == []
    world.close(world.runs()[1])
    (control,) = world.messages(Control)
    assert (control.target, control.reason, control.resume) == (run, "mended", Resume(attempt=1))
    sent = [sent.message for sent in world.sent if isinstance(sent.message, Start | Control)]
    assert sent.index(control) == len(sent) - 2, "ahead of the start: not for what that begins"


@pytest.mark.parametrize("terms", [Resume(attempt=1), Resume(added=Spent(steps=5))])
def test_a_resume_on_terms_of_a_paused_task_waits_with_it(terms):
    """It ended the pause, and its terms were lost: the run that it was for stayed failed."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    world.control(run, "pause")
    world.control(run, "resume", resume=terms)
    world.close(world.runs()[1])
    assert world.started()[-1] == "t1"
    assert [word.resume for word in world.messages(Control)] == [terms]


@pytest.mark.parametrize("room", [False, True])
def test_words_to_what_waits_for_a_slot_wait_with_it(room):
    """Those to the task that came again, and those to the resume that took its place, in order, once."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    world.control(run, "signal", name="one")
    if room:
        world.employ(3)
    reopen(world, run)
    world.control(run, "signal", name="two")
    for other in world.runs()[1:3]:
        world.close(other)
    world.control("t1", "signal", name="three")
    words = [(word.verb, word.name, word.target) for word in world.messages(Control)]
    assert words == [
        ("resume", "", run),
        ("signal", "one", run),
        ("signal", "two", run),
        ("signal", "three", run),
    ]


@pytest.mark.parametrize("reopened", [False, True])
def test_words_that_waited_go_on_in_the_name_of_who_said_them(reopened):
    """They went on in the name, and until the deadline, of whichever run gave its slot back."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    go = Control(target=run, verb="signal", name="go")
    ben = {"actor": "ben", "correlation_id": "d", "deadline_ms": 7, "traceparent": b"ben's"}
    world.take(go, carried=(("ce_subject", b"s"),), **ben)
    if reopened:
        reopen(world, run)
    world.take(Closed(slot=world.runs()[1]), actor="mallory", correlation_id="x", deadline_ms=5)
    (meta,) = [sent.meta for sent in world.sent if getattr(sent.message, "name", "") == "go"]
    assert (meta.actor, meta.correlation_id, meta.deadline_ms) == ("ben", "d", 7)
    assert (meta.carried, meta.tenant) == ((("ce_subject", b"s"),), "t")
    assert meta.traceparent == b"ben's"


@pytest.mark.parametrize("wanted", ["task", "resume"])
def test_what_waited_goes_on_in_the_name_of_who_asked_for_it(wanted):
    """Not in that of the run whose slot it gets, nor for its time."""
    world, run = forgotten()
    named = {"actor": "ben", "correlation_id": "d", "deadline_ms": 7}
    if wanted == "task":
        task = Task(value=b"v")
        world.take(Admit(agent="a", task_id="t4", digest=b"d", task=task), **named)
    else:
        world.take(Reopen(run=run, resume=Resume()), **named)
    before = len(world.sent)
    world.take(Closed(slot=world.runs()[1]), actor="mallory", deadline_ms=5)
    metas = [sent.meta for sent in world.sent[before:]]
    assert metas
    assert {(meta.actor, meta.correlation_id, meta.deadline_ms) for meta in metas} == {
        ("ben", "d", 7)
    }


def test_a_quota_that_was_raised_serves_who_waits_before_a_resume():
    """As it does before a task."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    world.employ(2)
    reopen(world)
    assert (world.started(), world.messages(Control)) == (["t1", "t2"], [])
    world.close(world.runs()[0])
    assert [word.resume.slot for word in world.messages(Control)] == ["a.1.old"]


def test_words_that_older_code_kept_go_on_in_nobodys_name():
    """It kept them without who sent them; those that came since have their own."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    for name in ("one", "two"):
        world.control("t2", "signal", name=name)
    (row,) = world.rows.scan(Queued)
    world.rows.set(Queued, row.key, dataclasses.replace(row, senders=row.senders[1:]))
    world.take(Closed(slot=world.runs()[0]), actor="mallory", correlation_id="x")
    sent = [sent for sent in world.sent if isinstance(sent.message, Control)]
    assert [(one.message.name, one.meta.actor) for one in sent] == [("one", ""), ("two", "ana")]
    assert {one.meta.correlation_id for one in sent} == {"c"}


@pytest.mark.parametrize("how", ["its agent is gone", "it is no more", "an operator discards it"])
def test_words_that_are_dropped_with_a_resume_are_told_of(how):
    """They were lost without a word."""
    world, run = forgotten()
    reopen(world, run)
    for name in ("one", "two"):
        world.control(run, "signal", name=name)
    if how == "its agent is gone":
        del world.agents["b"]
        world.close(world.runs()[1])
    else:
        terms = Resume(slot=run) if how == "it is no more" else None
        world.control(run, "discard", resume=terms)
    told = world.messages(RunEvent)[-1]
    assert (told.run, told.status) == (run, "discarded" if how == "it is no more" else "failed")
    assert told.reason.endswith("2 signals or resumes that waited with it are dropped")
    assert not [*world.rows.scan(Queued)]


def test_words_that_are_dropped_with_a_held_task_are_told_of():
    """One of them may be a resume of the run that failed before; nobody else says what became of it."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    world.control(run, "signal", name="one")
    world.control(run, "resume", resume=Resume(attempt=1))
    world.control(run, "cancel", reason="no more")
    told = world.messages(RunEvent)[-1]
    assert (told.run, told.status) == (run, "cancelled")
    assert told.reason == "no more; 2 signals or resumes that waited with it are dropped"


def test_a_resume_that_waits_is_cancelled():
    """The cancel went to the run, which has failed and hears none, and the run went on later."""
    world, run = forgotten()
    reopen(world, run)
    world.control(run, "signal", name="go")
    world.control(run, "cancel", reason="no more")
    told = world.messages(RunEvent)[-1]
    assert (told.run, told.status, told.attempt) == (run, "failed", 1)
    assert told.reason.startswith("resume cancelled: no more; 1 signals")
    world.close(world.runs()[1])
    assert world.messages(Control) == []
    (counts,) = world.rows.scan(Tenant)
    assert (counts.slots, counts.queued) == (1, 0)
    reopen(world, run)
    assert [word.verb for word in world.messages(Control)] == ["resume"], "it may be resumed again"


def test_a_resume_that_waits_is_paused_until_it_is_resumed():
    """The pause went to the run, which has failed and hears none, and the run went on later."""
    world, run = forgotten()
    world.take(Reopen(run=run, resume=Resume(attempt=3)))
    world.control(run, "resume", reason="again")
    assert [word.reason for word in world.messages(Control)] == ["again"], "its run says what it is"
    world.control(run, "pause", reason="wait")
    told = world.messages(RunEvent)[-1]
    assert (told.run, told.status, told.reason, told.attempt) == (run, "paused", "wait", 3)
    world.close(world.runs()[1])
    assert len(world.messages(Control)) == 1
    world.control(run, "resume", reason="now")
    assert world.statuses()[-1] == "held"
    assert world.messages(Control)[-1].resume.slot == run


def test_a_resume_on_terms_of_a_paused_resume_is_told_of():
    """It ended the pause and its terms were dropped without a word: the run went on with nothing more."""
    world, run = forgotten()
    reopen(world, run)
    world.control(run, "pause", reason="wait")
    said = len(world.sent)
    world.control(run, "resume", reason="more", resume=Resume(added=Spent(steps=5)))
    words = [sent.message for sent in world.sent[said:] if isinstance(sent.message, Control)]
    told = [sent.message for sent in world.sent[said:] if isinstance(sent.message, RunEvent)]
    asked = [word for word in words if word.resume and word.resume.added.steps == 5]
    assert asked or any("other terms" in event.reason for event in told), (words, told)
    world.control(run, "pause")
    said = len(world.messages(Control))
    world.control(run, "resume")
    assert len(world.messages(Control)) == said, "a plain one ends the pause, and is all"


def test_a_held_task_that_is_cancelled_hides_no_failed_run_of_its_id():
    """It was told of as cancelled, so no door would resume, replay or discard the failed run any more.

    That runs before the task was forgotten, is kept for a month, and says itself that it has failed.
    """
    world, run = forgotten()
    world.admit("t1", agent="b")
    assert world.statuses()[-1] == "held"
    world.control(run, "cancel", reason="no")
    assert world.statuses()[-1] == "cancelled"
    (word,) = world.messages(Control)
    assert (word.target, word.verb) == (run, "cancel")


def test_signals_of_a_resume_that_waits_are_bounded():
    """As those of a held task are."""
    world, run = forgotten()
    reopen(world, run)
    world.control(run, "signal", name="go")
    (row,) = world.rows.scan(Queued)
    full = dataclasses.replace(row, controls=row.controls * CONTROLS_MAX)
    world.rows.set(Queued, full.key, full)
    with pytest.raises(PoisonError, match="wait for"):
        world.control(run, "signal", name="go")


def test_a_run_that_is_discarded_no_longer_waits_to_go_on():
    """Its task, published again, is a new one; it was taken for the one that waits, and never ran."""
    world, run = forgotten()
    reopen(world, "b.0.other")
    reopen(world, run)
    for discarded in (run, "b.0.third"):
        world.control(discarded, "discard")
    assert [row.run for row in world.rows.scan(Reopening)] == ["b.0.other"]
    assert [row.queued for row in world.rows.scan(Tenant)] == [1]
    world.admit("t1", agent="b")
    for other in world.runs()[1:3]:
        world.close(other)
    assert world.started() == ["t1", "t2", "t3", "t1"]
    assert [control.verb for control in world.messages(Control)] == ["discard"] * 2 + ["resume"]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_a_task_whose_discarded_run_waited_to_go_on_is_taken(control, monkeypatch):
    """The control has the run wait on: its task is taken for it, and then there is nobody to resume."""
    if control:
        monkeypatch.setattr(Admission, "_stop_waiting", lambda *_: None)
    world, run = forgotten()
    reopen(world, run)
    world.control(run, "discard")
    world.admit("t1", agent="b")
    for other in world.runs()[1:3]:
        world.close(other)
    resumed = [control.verb for control in world.messages(Control)].count("resume")
    assert (world.started().count("t1"), resumed) == ((1, 1) if control else (2, 0))


def test_a_run_that_says_that_it_is_no_more_no_longer_waits_to_go_on():
    """It asked for a slot before it was dropped; it is told of as what it is, and not sent back to it."""
    world, run = forgotten()
    reopen(world, run)
    before = len(world.sent)
    for _ in range(2):
        world.control(run, "discard", reason="its time is over", resume=Resume(slot=run))
    (told,) = [sent.message for sent in world.sent[before:]]
    assert (told.status, told.run, told.reason) == ("discarded", run, "its time is over")
    assert not [*world.rows.scan(Reopening), *world.rows.scan(Queued)]
    assert [row.queued for row in world.rows.scan(Tenant)] == [0]


def test_a_resume_leaves_a_task_alone_that_waits_for_another_run():
    """The same task of another agent is another run."""
    world, _ = forgotten()
    world.admit("t1", agent="a")
    (seen,) = [seen for seen in world.rows.scan(Seen) if seen.task_id == "t1"]
    reopen(world, f"b.{RunId.parse(seen.run).partition}.t1")
    assert [type(row.wanted) for row in world.rows.scan(Queued)] == [Admit, Reopen]


@pytest.mark.parametrize("room", [False, True])
def test_a_resume_whose_task_came_first_and_is_paused_waits_for_who_paused_it(room):
    """It took the task's place and its signals, and went on though a person had said that it wait."""
    world, run = forgotten()
    world.admit("t1", agent="b")
    world.control(run, "pause")
    if room:
        world.employ(3)
    reopen(world, run)
    assert (world.statuses()[-1], world.messages(RunEvent)[-1].reason) == (
        "paused",
        "resume, paused",
    )
    for other in world.runs()[1:3]:
        world.close(other)
    assert world.messages(Control) == []
    world.control(run, "resume")
    (word,) = world.messages(Control)
    assert word.resume.slot == run


@pytest.mark.parametrize("run", ["nobody.0.x", "a.9.x"])
def test_a_run_whose_request_for_a_slot_is_refused_says_so(run):
    """Its operator was told that it is resumed, and looks at its events."""
    world = World()
    meta = Meta(id="m", tenant="t")
    turn = Turn(world.rows, at=Position("i", "t", 0, 1), meta=meta, now_ms=0)
    record = Record(partition=Partition("t", 0), offset=1, time_ms=0, key=None, value=b"")
    wanted = Reopen(run=run, resume=Resume(attempt=2))
    world.decider.refused(turn, record, wanted, PoisonError("unknown-target", "no such place"))
    (sent,) = turn.sent
    told = sent.message
    assert (told.run, told.status, told.attempt) == (run, "failed", 2)
    assert told.reason == "resume refused: no such place"


@pytest.mark.parametrize("run", ["no run", "nobody.0.x", "a.9.x"])
def test_a_resume_of_a_run_without_an_address_is_refused(run):
    """No slot is taken for what can never give it back."""
    world = World()
    with pytest.raises(PoisonError, match="has no address here"):
        reopen(world, run)
    assert not [*world.rows.scan(Slot)]


def test_a_task_whose_id_makes_no_run_is_refused():
    """A run's id is its address, and must be readable as one."""
    with pytest.raises(PoisonError, match="has no address here"):
        World().admit("a.b")


def test_a_held_task_is_not_discarded_but_cancelled():
    """Nothing of it has failed."""
    world = World(quota=1)
    world.admit("t1")
    world.admit("t2")
    with pytest.raises(PoisonError, match="has not begun: cancel it instead"):
        world.control("t2", "discard")


class Admitting(RuleBasedStateMachine):
    """Any order of tasks, repeats, closes, pauses and cancels, against counting by hand."""

    def __init__(self):
        super().__init__()
        self.world = World(quota=3)
        self.tasks: list[str] = []
        self.cancelled: set[str] = set()
        self.closed: set[str] = set()
        self.paused: set[str] = set()
        self.quota = 3

    @rule(number=st.integers(0, 20))
    def admit(self, number):
        task = f"{number:02d}"
        if task not in self.tasks:
            self.tasks.append(task)
        self.world.admit(task)

    @rule(place=st.integers(0, 9))
    def close(self, place):
        runs = self.world.runs()
        if runs:
            run = runs[place % len(runs)]
            self.closed.add(run)
            self.world.close(run)

    @rule(number=st.integers(0, 20))
    def conflict(self, number):
        task = f"{number:02d}"
        if task in self.tasks:
            with pytest.raises(PoisonError, match="another payload"):
                self.world.admit(task, digest=b"other")

    @rule(quota=st.integers(1, 6))
    def restart_with_another_quota(self, quota):
        open_ = [row.slot for row in self.world.rows.scan(Slot)]
        if open_ and quota >= self.quota:
            self.quota = quota
            self.world.employ(quota)
            self.closed.add(open_[0])
            self.world.close(open_[0])

    @rule(place=st.integers(0, 9), verb=st.sampled_from(["pause", "resume", "cancel"]))
    def control(self, place, verb):
        if self.tasks:
            task = self.tasks[place % len(self.tasks)]
            if verb == "cancel" and task not in self.world.started():
                self.cancelled.add(task)
            if verb == "pause":
                self.paused.add(task)
            self.world.control(task, verb)

    @invariant()
    def every_task_is_somewhere_and_the_quota_holds(self):
        started = self.world.started()
        held = [row.wanted.task_id for row in self.world.rows.scan(Queued)]
        assert len(set(started)) == len(started)
        assert sorted([*started, *held, *self.cancelled]) == sorted(self.tasks)
        open_ = [*self.world.rows.scan(Slot)]
        assert len(open_) == len(set(self.world.runs()) - self.closed) <= self.quota
        ordered = [task for task in started if task not in self.paused]
        assert ordered == [task for task in self.tasks if task in ordered], "oldest first"
        counts = next(self.world.rows.scan(Tenant), Tenant(tenant="t"))
        assert (counts.slots, counts.queued) == (len(open_), len(held))
        running = [row for row in self.world.rows.scan(Queued) if not row.paused]
        assert not running or len(open_) == self.quota, "nothing waits while a slot is free"


TestAdmitting = Admitting.TestCase
TestAdmitting.settings = hypothesis_settings(max_examples=60, stateful_step_count=40, deadline=None)
