"""The decider of runs: it hosts agents, one inbox record a turn, one turn an entry."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from headwater.contracts.approvals import Decided, Decision
from headwater.contracts.messages import (
    Closed,
    Control,
    Drain,
    Failed,
    Reply,
    ReplyTo,
    RunEvent,
    Spent,
    Start,
    Wake,
)
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Turn
from headwater.core.execution import AgentFunction, Raised
from headwater.core.judge import Judge
from headwater.core.messages import Address, RunId
from headwater.core.versions import Versions
from headwater.errors import UNKEEPABLE, PoisonError, ProcessKillerError
from headwater.runs import later, values
from headwater.runs.bounds import Bounds
from headwater.runs.calls import Calls
from headwater.runs.cuts import Cuts
from headwater.runs.holds import Holds, needs
from headwater.runs.hosting import Hosting
from headwater.runs.life import CANCELLED, DeadLetter, Life
from headwater.runs.retention import Retention
from headwater.runs.routes import Catalogue, Routes
from headwater.runs.rows import Held, OpenCall, Opened, Run
from headwater.runs.visit import RUN_TIMER, Visit

logger = logging.getLogger(__name__)

Message = Start | Reply | Control | Wake | Drain | Decided
_SWITCHES = frozenset({"pause", "resume", "discard"})
"""Words that are not delivered to a run's function."""


class Runs:
    """Hosts the runs of one agent.

    Args:
        agent: The agent.
        catalogue: What the app declares.
        judge: Who may deny calls.
        routes: Where things go.
        dead_letter: Builds dead letters.
        version: The app's version, noted in every run it writes.
        versions: What is known of the app's versions now.
        bounds: How much runs may grow, and how much is kept.
        large: When values go by reference; `None` where there is no store of blobs.
        going_on: Told at each delivery of a turn that makes many, so that it is not taken for endless.
    """

    def __init__(
        self,
        agent: AgentFunction,
        *,
        catalogue: Catalogue,
        judge: Judge,
        routes: Routes,
        dead_letter: DeadLetter,
        version: str,
        versions: Callable[[], Versions] = Versions,
        bounds: Bounds | None = None,
        large: values.Large | None = None,
        going_on: Callable[[], None] | None = None,
    ) -> None:
        bounds = bounds or Bounds()
        self.name = f"runs.{agent.name}"
        self.takes = Message
        self._agent = agent
        self._catalogue = catalogue
        self._routes = routes
        self._version = version
        self._going_on = going_on or _nothing
        calls = Calls(catalogue, judge, routes, call_ms_max=bounds.call_ms_max, large=large)
        self._retention = Retention(keep_ms=bounds.failed_ms_max, at_most=bounds.drain_max)
        self._life = Life(
            {agent.name: agent},
            routes,
            dead_letter,
            calls.people,
            calls.wrote,
            self._retention,
            large=large,
        )
        self._holds = Holds(bounds.drain_max)
        self._cuts = Cuts(self._life, calls.people, self._holds, routes)
        self._later = later.Later(version, versions, at_most=bounds.drain_max)
        self._hosting = Hosting(
            agent,
            calls=calls,
            life=self._life,
            holds=self._holds,
            routes=routes,
            version=version,
            bounds=bounds,
            by_reference=large is not None,
            going_on=self._going_on,
        )
        self._events = routes.life

    def react(self, turn: Turn, message: Message) -> None:
        """Take one message of the inbox."""
        if isinstance(message, Start):
            self._check(turn, message)
            self._start(turn, message)
            return
        if isinstance(message, Wake) and message.name[0] != RUN_TIMER:
            self._bucket(turn, message)
            return
        run_id = _run_of(message)
        visit = self._visit_of(turn, message)
        if visit is None:
            if isinstance(message, Control):
                logger.warning("%s for %s, which is not here, is ignored", message.verb, run_id)
                self._cuts.give_back(turn, message)
            return
        if isinstance(message, Control):
            visit.actor = turn.meta.actor
        if isinstance(message, Drain):
            self._drain(visit)
        elif isinstance(message, Control) and message.verb in _SWITCHES:
            self._switch(visit, message)
        elif visit.run.ending:
            if isinstance(message, (Reply, Decided)):
                self._late(visit, message)
            elif isinstance(message, Control) and visit.run.state == "failed":
                self._cuts.unheard(visit, message)
        elif self._holds.must(visit.run) or self._later.holds(visit.run):
            self._holds.keep(visit, message)
            self._unlock(visit, message)
            self._wait_for_version(visit)
        else:
            self._hosting.deliver(visit, message)
        visit.write(Address(self._events, run_id))

    def refused(
        self, turn: Turn, record: Record, message: Message | None, error: PoisonError
    ) -> None:
        """A start that is refused gives its slot back or answers its parent; a run stuck on a message fails.

        A word that its function never hears leaves the run as it is.
        """
        if isinstance(message, Start):
            self._refuse_start(turn, message, error)
            return
        visit = None if message is None else self._visit_of(turn, message)
        kept = _unkept(message, error) if message and error.code == UNKEEPABLE else message
        switch = isinstance(message, Control) and message.verb in _SWITCHES
        if message is None or visit is None or visit.run.ending or switch:
            logger.warning("record %s@%d is refused: %s", record.partition, record.offset, error)
            if visit is not None and isinstance(kept, Reply | Decided):
                self._late_refused(visit, kept, error)
            elif isinstance(message, Control):
                self._cuts.give_back(turn, message, visit)
                if visit is not None and switch:
                    self._cuts.refused(visit, message, error)
                    visit.write(Address(self._events, visit.run.run))
            return
        if kept is not None and not isinstance(kept, Drain):
            self._holds.keep(visit, kept)  # a resume delivers it again
        ended = Raised(error=error.name, detail=str(error))
        self._life.end(visit, ended, cut=visit.run.seq + 1)
        visit.write(Address(self._events, visit.run.run))

    def _late_refused(self, visit: Visit, reply: Reply | Decided, error: PoisonError) -> None:
        """A run that has ended waits for its children, and a refused answer of one is its last.

        A failed run waits for answers and decisions once it is resumed, and each comes once.

        Where it was the word to the parent that cannot be written, the parent is told that.
        """
        last = [call.number for call in self._life.children(visit)] == [reply.number]
        closing = visit.run.state == "closing" and last
        if closing and not isinstance(error, ProcessKillerError):
            visit.change(ending="cancelled", value=b"", error=error.name, detail=str(error))
        self._late(visit, reply)
        visit.write(Address(self._events, visit.run.run))

    def forget(self, partition: Partition) -> None:
        """Drop the suspended executions of a partition."""
        self._hosting.forget(partition)

    def _visit(self, turn: Turn, run_id: str) -> Visit | None:
        run, opened = turn.get(Run, run_id), turn.get(Opened, run_id)
        if run is None or opened is None:
            return None
        return Visit(turn, opened, run)

    def _visit_of(
        self, turn: Turn, message: Reply | Control | Wake | Drain | Decided
    ) -> Visit | None:
        """Return the run that a message is for; none for an answer to the run of its id before it.

        Nor is there any for another tenant, whatever becomes of the message.
        """
        visit = self._visit(turn, _run_of(message))
        if visit is not None and turn.meta.tenant != visit.opened.tenant:
            logger.warning("tenant %r has no run %s", turn.meta.tenant, visit.run.run)
            return None
        if visit is None or not isinstance(message, Reply) or visit.asked_for(message):
            return visit
        logger.warning(
            "an answer to call %d of the run %s before this one is ignored",
            message.number,
            message.run,
        )
        return None

    def _bucket(self, turn: Turn, wake: Wake) -> None:
        """A timer of many runs is due."""
        if wake.name[0] == later.TIMER:
            self._later.look(turn, wake)
            return
        for run_id in self._retention.over(turn, wake):
            visit = self._visit(turn, run_id)
            assert visit is not None, "who resumes or drops a run releases it"
            visit.change(reason="it failed longer ago than failed runs are kept", kept_until_ms=0)
            self._life.discard(visit)
            visit.write(Address(self._events, run_id))

    def _wait_for_version(self, visit: Visit) -> bool:
        """Have a run that is open wait, if later code than this took it last; whether it does."""
        if visit.run.state != "open" or not self._later.holds(visit.run):
            return False
        self._later.keep(visit)
        return True

    def _start(self, turn: Turn, start: Start) -> None:
        known = self._visit(turn, start.run)
        if known is not None:
            self._cuts.started_again(known, start)
            known.write(Address(self._events, start.run))
            return
        meta = turn.meta
        opened = Opened(
            run=start.run,
            start=start,
            tenant=meta.tenant,
            actor=meta.actor,
            correlation_id=meta.correlation_id,
            causation_id=meta.causation_id,
            traceparent=meta.traceparent,
            deadline_ms=meta.deadline_ms,
            carried=meta.carried,
            limits=start.limits or self._agent.limits,
            started_ms=turn.now_ms,
        )
        run = Run(run=start.run, now_ms=turn.now_ms, version=self._version)
        turn.put(opened)
        turn.put(run)
        visit = Visit(turn, opened, run)
        visit.say("started")
        if meta.deadline_ms is not None and meta.deadline_ms <= turn.now_ms:
            self._life.end(
                visit,
                Raised(error="DeadlineExceeded", detail="the deadline passed before it began"),
                cut=1,
            )
        else:
            self._hosting.deliver(visit, start)
        visit.write(Address(self._events, start.run))

    def _check(self, turn: Turn, start: Start) -> None:
        """Refuse a start that is not for here: its run's outcome would have nowhere to go."""
        run = RunId.parse(start.run)
        if run is None or (run.agent, run.partition) != (self._agent.name, turn.at.number):
            raise PoisonError("misplaced", f"run {start.run!r} has no place here")
        if start.reply_to is not None and not self._answerable(start.reply_to):
            raise PoisonError(
                "misplaced", f"{start.reply_to.run!r} is no run that could have asked"
            )

    def _answerable(self, to: ReplyTo) -> bool:
        """Say whether there is such an inbox: what is refused must not be answered elsewhere."""
        run = RunId.parse(to.run)
        return (
            run is not None
            and self._catalogue.limits(run.agent) is not None
            and (to.topic, to.partition) == (self._routes.inbox(run.agent), run.partition)
        )

    def _refuse_start(self, turn: Turn, start: Start, error: PoisonError) -> None:
        if start.reply_to is None:
            turn.send(Closed(slot=start.slot), self._routes.admission(turn.meta.tenant))
        elif self._answerable(start.reply_to):
            to = start.reply_to
            turn.send(
                Reply(
                    run=to.run,
                    number=to.number,
                    attempt=start.run,
                    outcome=Failed(error=error.name, detail=str(error)),
                    spent=Spent(),
                ),
                Address(to.topic, to.run, to.partition),
            )
        turn.send(
            RunEvent(
                run=start.run,
                task_id=start.task_id,
                agent=self._agent.name,
                tenant=turn.meta.tenant,
                status="quarantined",
                error=error.name,
                detail=str(error),
                at_ms=turn.now_ms,
                version=self._version,
            ),
            Address(self._events, start.run),
        )

    def _switch(self, visit: Visit, message: Control) -> None:
        """Pause or resume; or resume or discard what has failed."""
        run = visit.run
        if message.verb == "pause":
            if run.state == "open":
                visit.change(state="paused", reason=message.reason)
                visit.say("paused")
            elif run.state == "failed":
                self._cuts.unheard(visit, message)
        elif message.verb == "resume" and run.state in {"paused", "held"}:
            if self._cuts.is_stale(visit, message):
                return
            visit.change(state="open", reason="")
            visit.say("waiting")
            self._holds.drain_later(visit)
            self._cuts.give_back(visit.turn, message, visit)
        elif message.verb == "resume":
            self._cuts.resume(visit, message)
        else:
            self._cuts.discard(visit, message)

    def _unlock(self, visit: Visit, message: Message) -> None:
        """A cancellation waits its turn behind what is held, but not for a person to resume."""
        if not isinstance(message, Control) or message.verb != "cancel":
            return
        if visit.run.state == "paused":
            visit.change(state="open", reason="")
            self._holds.drain_later(visit)
        elif visit.run.state == "held":
            self._life.end(
                visit,
                Raised(error=CANCELLED, detail=message.reason or "cancelled", cancelled=True),
            )

    def _late(self, visit: Visit, message: Reply | Decided) -> None:
        """An answer for a run that has ended: a failed one keeps it, and its children's still count."""
        call = visit.get(OpenCall, message.run, message.number)
        if call is None or call.settled:
            return
        if visit.run.state == "failed":
            self._holds.keep(visit, message)
        if call.child and isinstance(message, Reply):
            self._life.child_replied(visit, call, message.spent or Spent())

    def _drain(self, visit: Visit) -> None:
        if visit.run.state != "open" or self._wait_for_version(visit):
            return
        if not visit.run.seq and not self._go_through(visit, visit.opened.start):
            return
        waiting = self._holds.next(visit)
        visit.turn.need(ref.name for held in waiting for ref in needs(held))
        for held in waiting:
            if not self._go_through(visit, held.message, held):
                return
        self._holds.drain_later(visit)

    def _go_through(self, visit: Visit, message: Any, held: Held | None = None) -> bool:
        """Deliver one message of a drain and write it; whether the next one may follow."""
        self._going_on()
        if not self._hosting.deliver(visit, message, held):
            return False
        visit.write(Address(self._events, visit.run.run))
        return not visit.run.ending and bool(visit.run.seq)


def _run_of(message: Reply | Control | Wake | Drain | Decided) -> str:
    match message:
        case Reply() | Drain() | Decided():
            return message.run
        case Control():
            return message.target
    return str(message.name[-1])


def _unkept(message: Message, error: PoisonError) -> Reply | Decided | None:
    """Return what a resume delivers instead of a message that cannot be kept: no call waits for ever."""
    detail = f"the answer, or what it led to, could not be written, and is in quarantine: {error}"
    if isinstance(message, Reply):
        return dataclasses.replace(message, outcome=Failed(error=error.name, detail=detail))
    if isinstance(message, Decided):
        said = message.decision
        decision: Decision = "given-up" if said == "happened" else said
        return dataclasses.replace(message, decision=decision, value=b"", reason=detail)
    return None


def _nothing() -> None:
    """Nobody watches."""
