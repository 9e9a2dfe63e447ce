"""The decider of runs: it hosts agents, one inbox record a turn, one turn an entry."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from headwater.contracts.approvals import Decided
from headwater.contracts.messages import (
    CallNote,
    Closed,
    Control,
    Drain,
    Failed,
    InDoubt,
    Reply,
    ReplyTo,
    RunEvent,
    Spent,
    Start,
    Wake,
)
from headwater.contracts.records import Partition, Record
from headwater.core.allowance import plus
from headwater.core.blobs import ref_of
from headwater.core.decider import Encoded, Turn
from headwater.core.execution import (
    AgentFunction,
    Answer,
    Asked,
    Begin,
    Cancel,
    Continued,
    Delivery,
    Execution,
    Raised,
    Released,
    Signal,
    Step,
    Tick,
)
from headwater.core.judge import Judge
from headwater.core.messages import Address, RunId
from headwater.core.versions import Versions
from headwater.errors import (
    BlobLostError,
    ConfinementError,
    LivelockError,
    NonDeterminismError,
    PoisonError,
)
from headwater.runs import journal, later, values
from headwater.runs.calls import Calls, Catalogue, Routes, nodes_of
from headwater.runs.cuts import Cuts
from headwater.runs.holds import Holds, needs
from headwater.runs.life import DeadLetter, Life
from headwater.runs.people import DENIALS
from headwater.runs.retention import KEEP_MS, Retention
from headwater.runs.rows import (
    Entry,
    Held,
    Made,
    OpenCall,
    Opened,
    Overrun,
    Redelivery,
    Run,
)
from headwater.runs.spending import settle
from headwater.runs.visit import RUN_TIMER, Visit

logger = logging.getLogger(__name__)

Message = Start | Reply | Control | Wake | Drain | Decided
CANCELLED = "Cancelled"
_SHORTER = "begin a fresh journal with ctx.continue_as(...), or split the task among children"
UNWRITABLE = "unwritable"
"""What a message leads to cannot be written, so it cannot be kept either."""


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
        executions_max: Suspended executions kept in memory.
        entries_max: A run with a longer journal fails.
        entries_warn: A run with a journal of this length is named in a warning.
        journal_bytes_warn: Likewise, in bytes of what was delivered and asked.
        journal_bytes_max: Likewise.
        call_ms_max: How long after it was asked a call may still be started.
        drain_max: Held messages delivered in one turn.
        large: When values go by reference; `None` where there is no store of blobs.
        failed_ms_max: How long the rows of a failed run are kept.
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
        executions_max: int = 10_000,
        entries_warn: int = 1_000,
        entries_max: int = 10_000,
        journal_bytes_warn: int = 4 * 1024 * 1024,
        journal_bytes_max: int = 64 * 1024 * 1024,
        call_ms_max: int = 3_600_000,
        drain_max: int = 100,
        large: values.Large | None = None,
        failed_ms_max: int = KEEP_MS,
        going_on: Callable[[], None] | None = None,
    ) -> None:
        self._going_on = going_on or _nothing
        self.name = f"runs.{agent.name}"
        self.takes = Message
        self._agent = agent
        self._catalogue = catalogue
        self._routes = routes
        self._version = version
        self._cache = journal.Cache(executions_max)
        self._calls = Calls(catalogue, judge, routes, call_ms_max=call_ms_max, large=large)
        self._people = self._calls.people
        self._retention = Retention(keep_ms=failed_ms_max, at_most=drain_max)
        self._life = Life(
            {agent.name: agent},
            routes,
            dead_letter,
            self._people,
            self._calls.wrote,
            self._retention,
            large=large,
        )
        self._by_reference = large is not None
        self._holds = Holds(drain_max)
        self._cuts = Cuts(self._life, self._people, self._holds, routes)
        self._later = later.Later(version, versions, at_most=drain_max)
        self._entries_warn = entries_warn
        self._entries_max = entries_max
        self._bytes_warn = journal_bytes_warn
        self._journal_bytes_max = journal_bytes_max
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
        visit = self._visit(turn, run_id)
        if visit is None:
            if isinstance(message, Control):
                logger.warning("%s for %s, which is not here, is ignored", message.verb, run_id)
                self._cuts.give_back(turn, message)
            return
        if turn.meta.tenant != visit.opened.tenant:
            logger.warning("a message of tenant %r for %s is ignored", turn.meta.tenant, run_id)
            return
        if isinstance(message, Control):
            visit.actor = turn.meta.actor
        if isinstance(message, Drain):
            self._drain(visit)
        elif isinstance(message, Control) and message.verb in {"pause", "resume", "discard"}:
            self._switch(visit, message)
        elif visit.run.ending:
            if isinstance(message, (Reply, Decided)):
                self._late(visit, message)
        elif self._holds.must(visit.run) or self._later.holds(visit.run):
            self._holds.keep(visit, message)
            self._unlock(visit, message)
            self._wait_for_version(visit)
        else:
            self._deliver(visit, message)
        visit.write(Address(self._events, run_id))

    def refused(
        self, turn: Turn, record: Record, message: Message | None, error: PoisonError
    ) -> None:
        """A start that is refused gives its slot back or answers its parent; a run stuck on it fails."""
        if isinstance(message, Start):
            self._refuse_start(turn, message, error)
            return
        visit = None if message is None else self._visit(turn, _run_of(message))
        if message is None or visit is None or visit.run.ending:
            logger.warning("record %s@%d is refused: %s", record.partition, record.offset, error)
            return
        if not isinstance(message, Drain) and error.code != UNWRITABLE:
            self._holds.keep(visit, message)  # a resume delivers it again
        ended = Raised(error=error.name, detail=str(error))
        self._life.end(visit, ended, cut=visit.run.seq + 1)
        visit.write(Address(self._events, visit.run.run))

    def _each(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Return the entries of a journal, saying at each that the turn goes on."""
        for entry in entries:
            self._going_on()
            yield entry

    def forget(self, partition: Partition) -> None:
        """Drop the suspended executions of a partition."""
        self._cache.forget(partition)

    def _visit(self, turn: Turn, run_id: str) -> Visit | None:
        run, opened = turn.get(Run, run_id), turn.get(Opened, run_id)
        if run is None or opened is None:
            return None
        return Visit(turn, opened, run)

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
        known = turn.get(Run, start.run)
        if known is not None:
            self._cuts.started_again(turn, known, start)
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
            self._deliver(visit, start)
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
        elif message.verb == "resume" and run.state in {"paused", "held"}:
            visit.change(state="open", reason="")
            visit.say("waiting")
            self._holds.drain_later(visit)
            self._cuts.give_back(visit.turn, message)
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
        if not self._deliver(visit, message, held):
            return False
        visit.write(Address(self._events, visit.run.run))
        return not visit.run.ending and bool(visit.run.seq)

    def _deliver(self, visit: Visit, message: Any, held: Held | None = None) -> bool:
        """Deliver a message to the function; `False` if the run had to be held with it."""
        before = visit.save()
        if held is not None:
            self._holds.taken(visit, held)
        taken = self._people.decided(visit, message) if isinstance(message, Decided) else message
        delivery, call = self._delivery(visit, taken)
        if delivery is None:
            return True
        delivery = values.arrived(visit.turn, delivery)
        execution: Execution | None = None
        try:
            execution, kept = self._execution(visit)
            self._go_on(visit, execution, delivery, taken, call, kept)
        except (NonDeterminismError, ConfinementError, LivelockError, BlobLostError) as error:
            visit.undo(before)
            if held is None and not isinstance(message, Start):
                self._holds.keep(visit, message)
            self._holds.stop(visit, error)
            logger.warning("%s is held: %s", before.run, error)
            if execution is not None:
                execution.close()
            return False
        except BaseException:
            if execution is not None:
                execution.close()
            raise
        return True

    def _delivery(self, visit: Visit, message: Any) -> tuple[Delivery | None, OpenCall | None]:
        """Return what a message is to the function; `None` if it is nothing to it."""
        run = visit.run
        if message is None or isinstance(message, Released):
            return message, None
        if isinstance(message, Start):
            return Begin(signals=visit.opened.signals), None
        if isinstance(message, Redelivery):
            if isinstance(message.delivery, Cancel):
                visit.change(cleanup=visit.limits.cleanup_steps)
            return message.delivery, None
        if isinstance(message, Reply):
            return self._answer(visit, message)
        if isinstance(message, Wake):
            visit.change(wake_ms=None)
            return self._wake(visit), None
        assert isinstance(message, Control), message
        if message.verb == "signal":
            return Signal(name=message.name, value=message.value), None
        if run.cleanup is None:
            visit.change(cleanup=visit.limits.cleanup_steps)
        return Cancel(reason=message.reason), None

    def _answer(self, visit: Visit, reply: Reply) -> tuple[Delivery | None, OpenCall | None]:
        """Return an answer, or the wait for a person who can say what the answer is."""
        call = visit.get(OpenCall, reply.run, reply.number)
        if call is None:
            self._overrun(visit, reply)
            return None, None
        if isinstance(reply.outcome, InDoubt):
            delivery = self._people.doubt(visit, call, reply)
            return delivery, call if isinstance(delivery, Answer) else None
        if call.asking is not None:
            call = self._people.withdraw(visit, call, "it was answered after all")
        return Answer(number=reply.number, outcome=reply.outcome), call

    def _wake(self, visit: Visit) -> Delivery:
        """A run's timer is due: its function's own, or one of its limits."""
        limit = self._limit(visit)
        if limit is None or visit.run.cleanup is not None or visit.turn.now_ms < limit[0]:
            return Tick()
        visit.change(cancelling=limit[1], cleanup=visit.limits.cleanup_steps, cut=visit.run.seq + 1)
        return Cancel(reason=limit[2])

    def _limit(self, visit: Visit) -> tuple[int, str, str] | None:
        """Return when the run's time is up, the error that is, and its words."""
        wall_ms = visit.limits.wall_ms
        limits: list[tuple[int, str, str]] = []
        if wall_ms is not None and not visit.run.asking:
            wall_s = wall_ms / 1000
            limits.append(
                (
                    visit.since_ms + wall_ms + visit.run.waited_ms,
                    "BudgetExceeded",
                    f"the run's limit of {wall_s:g} s of wall clock has passed",
                )
            )
        if visit.deadline_ms is not None:
            limits.append((visit.deadline_ms, "DeadlineExceeded", "the task's deadline has passed"))
        return min(limits, default=None)

    def _execution(self, visit: Visit) -> tuple[Execution, tuple[str, ...]]:
        """Return the run's suspended execution, and what a replay found that has yet to be kept.

        It is the cached one if that is where the row says, else replayed.
        """
        run, turn = visit.run, visit.turn
        cached = self._cache.take(run)
        if cached is not None:
            return cached, ()
        opened = visit.opened
        entries = [*visit.scan(Entry)]
        values.for_replay(turn, opened.input, entries)
        info = opened.info(by_reference=self._by_reference)
        execution = self._agent.begin(info, turn.load(opened.input))
        nodes: list[bytes] = []
        try:
            journal.replay(
                execution,
                self._each(entries),
                self._calls.writes,
                whole=functools.partial(values.whole, turn),
                told=lambda asked: nodes.extend(nodes_of(asked)),
            )
        except BaseException:
            execution.close()
            raise
        recorded = {name for entry in entries for name in entry.kept}
        return execution, values.keep_again(turn, nodes, recorded)

    def _go_on(
        self,
        visit: Visit,
        execution: Execution,
        delivery: Delivery,
        message: Any,
        call: OpenCall | None,
        kept: tuple[str, ...],
    ) -> None:
        reply = message if isinstance(message, Reply) and call is not None else None
        charged = message if isinstance(message, Redelivery) else reply
        now_ms = max(visit.run.now_ms, visit.turn.now_ms)
        visit.change(now_ms=now_ms)
        if reply is not None and call is not None:
            self._settle(visit, reply, call)
        made: list[Made] = []
        nodes = [*kept]

        def make(asked: Asked) -> Made:
            made.append(self._calls.make(visit, asked))
            nodes.extend(ref_of(node).name for node in nodes_of(asked))
            return made[-1]

        above = 0 if visit.run.seq else visit.run.number
        if above:
            execution.recall(above=above)
        steps = journal.deliver(execution, values.whole(visit.turn, delivery), now_ms, make)
        self._write_entry(
            visit,
            delivery,
            made,
            charged,
            patched=tuple(one for step in steps for one in step.patched),
            above=above,
            kept=tuple(nodes),
        )
        for step in steps:
            self._effects(visit, step)
        last = steps[-1]
        if last.ended is not None:
            execution.close()
            ended = last.ended
            if isinstance(ended, Continued):
                self._life.continue_as(visit, ended)
                visit.set_timer(self._next_ms(visit, None))
                self._holds.drain_later(visit)
                return
            if isinstance(ended, Raised) and ended.cancelled:
                ended = _as_cancelled(visit, delivery, ended)
            self._life.end(visit, ended)
            return
        visit.set_timer(self._next_ms(visit, last.wake_ms))
        visit.change(reason=_waits_for(visit, last))
        self._cache.keep(visit.run, execution)

    def _write_entry(
        self,
        visit: Visit,
        delivery: Delivery,
        made: list[Made],
        charged: Reply | Redelivery | None,
        *,
        patched: tuple[str, ...],
        above: int,
        kept: tuple[str, ...],
    ) -> None:
        run = visit.run
        size = values.size(delivery) + sum(len(call.name) + 32 for call in made)
        seq, journal_bytes = run.seq + 1, run.journal_bytes + size
        if seq > self._entries_max or journal_bytes > self._journal_bytes_max:
            raise PoisonError(
                "journal-full",
                f"run {run.run} has {run.seq} entries and {run.journal_bytes} bytes of journal: "
                f"{_SHORTER}",
            )
        if seq == self._entries_warn or run.journal_bytes <= self._bytes_warn < journal_bytes:
            logger.warning(
                "run %s has %d entries and %d bytes of journal: %s",
                run.run,
                seq,
                journal_bytes,
                _SHORTER,
            )
        visit.change(
            seq=seq,
            offset=visit.turn.at.offset,
            journal_bytes=journal_bytes,
            version=self._version,
        )
        visit.put(
            Entry(
                run=run.run,
                seq=seq,
                offset=visit.turn.at.offset,
                time_ms=run.now_ms,
                delivery=delivery,
                calls=tuple(made),
                attempt="" if charged is None else charged.attempt,
                usage=None if charged is None else charged.usage,
                judged=self._calls.rules if made else "",
                patched=patched,
                above=above,
                kept=kept,
            )
        )

    def _settle(self, visit: Visit, reply: Reply, call: OpenCall) -> None:
        usage = reply.usage
        spent = reply.spent or Spent()
        if usage is not None:
            spent = Spent(tokens=usage.input_tokens + usage.output_tokens, usd_nano=usage.usd_nano)
        if not call.settled:
            settle(visit, call, plus(spent, Spent(steps=0 if call.unsent else 1)))
        visit.drop(call)
        failed = reply.outcome if isinstance(reply.outcome, Failed) else None
        unfit = "denied" if failed is not None and failed.error in DENIALS else "failed"
        visit.notes.append(
            CallNote(
                number=call.number,
                kind=call.kind,
                name=call.name,
                state="answered" if failed is None else unfit,  # type: ignore[arg-type] # one of its states
                child=call.child,
                detail="" if failed is None else failed.detail,
                usage=usage,
            )
        )

    def _effects(self, visit: Visit, step: Step) -> None:
        """Publish what the function emitted; cancel the children it no longer waits for."""
        run = visit.run.run
        for emitted in step.emitted:
            visit.send(
                Encoded(type=emitted.type, value=emitted.value),
                Address(self._routes.events(visit.id.agent), run),
                (("ce_runid", run.encode()),),
            )
        for number in step.withdrawn:
            call = visit.get(OpenCall, run, number)
            if call is None or step.ended is not None:
                continue
            if call.child and not call.unsent:
                self._life.cancel_child(visit, call, "its parent no longer waits for it")
            else:
                self._people.abandon(visit, call, "the run no longer waits for it")

    def _overrun(self, visit: Visit, reply: Reply) -> None:
        """A second attempt was paid for: record its bill apart, once an attempt."""
        if reply.usage is None or visit.get(Overrun, reply.run, reply.attempt):
            return
        for entry in visit.scan(Entry):
            answer = entry.delivery
            if isinstance(answer, Answer) and answer.number == reply.number:
                if entry.attempt != reply.attempt:
                    visit.put(Overrun(run=reply.run, attempt=reply.attempt, usage=reply.usage))
                return

    def _next_ms(self, visit: Visit, wake_ms: int | None) -> int | None:
        limit = None if visit.run.cleanup is not None else self._limit(visit)
        dues = [due for due in (wake_ms, limit[0] if limit else None) if due is not None]
        return min(dues, default=None)


def _run_of(message: Reply | Control | Wake | Drain | Decided) -> str:
    match message:
        case Reply() | Drain() | Decided():
            return message.run
        case Control():
            return message.target
    return str(message.name[-1])


def _as_cancelled(visit: Visit, delivery: Delivery, ended: Raised) -> Raised:
    """Name a cancellation by what caused it: a person's reason, or the limit that passed."""
    error = visit.run.cancelling or CANCELLED
    reason = delivery.reason if isinstance(delivery, Cancel) else ""
    return Raised(
        error=error, detail=reason or ended.detail or "cancelled", stack=ended.stack, cancelled=True
    )


def _waits_for(visit: Visit, step: Step) -> str:
    """Return what from outside the run waits for, for people who look for such runs."""
    waits = []
    if step.receiving:
        waits.append("signal " + ", ".join(name or "any" for name in step.receiving))
    if visit.run.asking:
        asking = [call.asking for call in visit.scan(OpenCall) if call.asking is not None]
        waits += [f"approval {of.approval} ({of.words})" for of in asking]
    return "; ".join(waits)


def _nothing() -> None:
    """Nobody watches."""
