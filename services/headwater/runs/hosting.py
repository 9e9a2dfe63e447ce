"""Hosting: one delivery to a run's function, what it asks and tells, and the journal of it."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from headwater.contracts.approvals import Decided
from headwater.contracts.messages import (
    CallNote,
    Control,
    Failed,
    InDoubt,
    Limits,
    Reply,
    Spent,
    Start,
    Wake,
)
from headwater.contracts.records import Partition
from headwater.core.allowance import NOTHING, plus
from headwater.core.blobs import ref_of
from headwater.core.decider import Encoded
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
from headwater.core.messages import Address
from headwater.errors import (
    BlobLostError,
    ConfinementError,
    LivelockError,
    NonDeterminismError,
    PoisonError,
)
from headwater.runs import journal, spending, values
from headwater.runs.bounds import Bounds
from headwater.runs.calls import Calls, nodes_of
from headwater.runs.holds import Holds
from headwater.runs.life import CANCELLED, Life
from headwater.runs.people import DENIALS
from headwater.runs.routes import Routes
from headwater.runs.rows import Entry, Held, Made, OpenCall, Overrun, Redelivery
from headwater.runs.visit import Visit

logger = logging.getLogger(__name__)

_LEFT = "the run no longer waits for it"
_SHORTER = "begin a fresh journal with ctx.continue_as(...), or split the task among children"


class Hosting:
    """Hosts the functions of one agent's runs: the suspended ones in memory, the others by replay.

    Args:
        agent: The agent.
        calls: Makes what is asked.
        life: Ends runs.
        holds: Keeps what cannot be delivered.
        routes: Where things go.
        version: The app's version, noted in every run it writes.
        bounds: Of journals and of what is kept in memory.
        by_reference: Whether there is a store of blobs, so that conversations go by reference.
        going_on: Told at each delivery of a turn that makes many.
    """

    def __init__(
        self,
        agent: AgentFunction,
        *,
        calls: Calls,
        life: Life,
        holds: Holds,
        routes: Routes,
        version: str,
        bounds: Bounds,
        by_reference: bool,
        going_on: Callable[[], None],
    ) -> None:
        self._agent = agent
        self._calls = calls
        self._people = calls.people
        self._life = life
        self._holds = holds
        self._routes = routes
        self._version = version
        self._bounds = bounds
        self._by_reference = by_reference
        self._going_on = going_on
        self._cache = journal.Cache(bounds.executions_max)

    def forget(self, partition: Partition) -> None:
        """Drop the suspended executions of a partition."""
        self._cache.forget(partition)

    def deliver(self, visit: Visit, message: Any, held: Held | None = None) -> bool:
        """Deliver a message to the function; `False` if the run had to be held with it."""
        before = visit.run
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
        if isinstance(message, Reply):
            return self._answer(visit, message)
        if message is None or isinstance(message, Released):
            return message, None
        if isinstance(message, Start):
            return Begin(signals=visit.opened.signals), None
        if isinstance(message, Redelivery):
            if isinstance(message.delivery, Cancel):
                visit.change(cleanup=visit.limits.cleanup_steps)
            return message.delivery, None
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
        due_ms, deadline_ms = self._wall_ms(visit), visit.deadline_ms
        if due_ms is not None and (deadline_ms is None or due_ms <= deadline_ms):
            wall_s = (visit.limits.wall_ms or 0) / 1000
            words = f"the run's limit of {wall_s:g} s of wall clock has passed"
            return due_ms, "BudgetExceeded", words
        if deadline_ms is None:
            return None
        return deadline_ms, "DeadlineExceeded", "the task's deadline has passed"

    def _wall_ms(self, visit: Visit) -> int | None:
        """Return when the run's limit of wall clock passes, which waits while a person is asked."""
        wall_ms = visit.limits.wall_ms
        if wall_ms is None or visit.run.asking:
            return None
        return visit.since_ms + wall_ms + visit.run.waited_ms

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
            last = journal.replay(
                execution,
                self._each(entries),
                self._calls.writes,
                whole=functools.partial(values.whole, turn),
                told=lambda asked: nodes.extend(nodes_of(asked)),
            )
            if last is not None and last.ended is not None:
                ended = "nothing: it has ended, where the run goes on"
                raise NonDeterminismError(run.number + 1, "yet to come", ended)
        except BaseException:
            execution.close()
            raise
        recorded = {name for entry in entries for name in entry.kept}
        return execution, values.keep_again(turn, nodes, recorded)

    def _each(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """Return the entries of a journal, saying at each that the turn goes on."""
        for entry in entries:
            self._going_on()
            yield entry

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
            one = self._calls.make(visit, asked)
            made.append(one)
            for node in nodes_of(asked):
                nodes.append(ref_of(node).name)  # noqa: PERF401 - most calls have none
            return one

        told: list[Limits] = []

        def left() -> Limits:
            if not told:
                told.append(spending.left(visit))
            return told[0]

        above = 0 if visit.run.seq else visit.run.number
        if above:
            execution.recall(above=above)
        steps = journal.deliver(execution, values.whole(visit.turn, delivery), now_ms, make, left)
        patched: list[str] = []
        for step in steps:
            patched += step.patched
        self._write_entry(
            visit,
            delivery,
            made,
            charged,
            patched=tuple(patched),
            above=above,
            kept=tuple(nodes),
            left=told[0] if told else None,
        )
        for step in steps:
            self._emit(visit, step)
        if steps[-1].ended is None:  # what a run that has ended leaves is withdrawn by its end
            self._withdraw(visit, [number for step in steps for number in step.withdrawn])
        self._come_to_rest(visit, execution, delivery, steps[-1])

    def _come_to_rest(
        self, visit: Visit, execution: Execution, delivery: Delivery, last: Step
    ) -> None:
        """End the run, or keep its execution and note what it waits for."""
        if last.ended is not None:
            visit.sleeps_ms = None
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
        visit.sleeps_ms = last.wake_ms
        reason = _waits_for(visit, last)
        if reason != visit.run.reason:
            visit.change(reason=reason)
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
        left: Limits | None,
    ) -> None:
        run = visit.run
        size = values.size(delivery) + sum([len(call.name) + 32 for call in made])
        seq, journal_bytes = run.seq + 1, run.journal_bytes + size
        if seq > self._bounds.entries_max or journal_bytes > self._bounds.journal_bytes_max:
            raise PoisonError(
                "journal-full",
                f"run {run.run} has {run.seq} entries and {run.journal_bytes} bytes of journal: "
                f"{_SHORTER}",
            )
        if (
            seq == self._bounds.entries_warn
            or run.journal_bytes <= self._bounds.journal_bytes_warn < journal_bytes
        ):
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
                left=left,
            )
        )

    def _settle(self, visit: Visit, reply: Reply, call: OpenCall) -> None:
        usage, steps = reply.usage, 0 if call.unsent else 1
        if usage is not None:
            tokens = usage.input_tokens + usage.output_tokens
            spent = Spent(steps=steps, tokens=tokens, usd_nano=usage.usd_nano)
        else:
            spent = plus(reply.spent or NOTHING, Spent(steps=steps))
        if not call.settled:
            spending.settle(visit, call, spent)
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

    def _emit(self, visit: Visit, step: Step) -> None:
        """Publish what the function emitted."""
        run = visit.run.run
        for emitted in step.emitted:
            visit.send(
                Encoded(type=emitted.type, value=emitted.value),
                Address(self._routes.events(visit.id.agent), run),
                (("ce_runid", run.encode()),),
            )

    def _withdraw(self, visit: Visit, numbers: Sequence[int]) -> None:
        """Cancel the children that the function no longer waits for, and have nobody asked for it.

        A resume takes back what a limit cancelled, so that it waits again for what it asked before.
        """
        for number in numbers:
            call = visit.get(OpenCall, visit.run.run, number)
            if call is None:
                continue
            if call.child and not call.unsent:
                self._life.cancel_child(visit, call, "its parent no longer waits for it")
            if visit.run.cancelling and not _asked_since_cut(visit, number):
                self._people.suspend(visit, call, _LEFT)
            else:
                self._people.abandon(visit, call, _LEFT)

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
        """Return when the run is to be woken: by its function's timer, or by one of its limits."""
        if visit.run.cleanup is not None:
            return wake_ms
        dues = (wake_ms, self._wall_ms(visit), visit.deadline_ms)
        return min([due for due in dues if due is not None], default=None)


def _as_cancelled(visit: Visit, delivery: Delivery, ended: Raised) -> Raised:
    """Name a cancellation by what caused it: a person's reason, or the limit that passed."""
    error = visit.run.cancelling or CANCELLED
    reason = delivery.reason if isinstance(delivery, Cancel) else ""
    return Raised(
        error=error, detail=reason or ended.detail or "cancelled", stack=ended.stack, cancelled=True
    )


def _asked_since_cut(visit: Visit, number: int) -> bool:
    """Say whether a resume would take back the very call."""
    entries = (entry for entry in visit.scan(Entry) if entry.seq >= visit.run.cut)
    return any(made.number == number for entry in entries for made in entry.calls)


def _waits_for(visit: Visit, step: Step) -> str:
    """Return what from outside the run waits for, for people who look for such runs."""
    if not step.receiving and not visit.run.asking:
        return ""
    waits = []
    if step.receiving:
        waits.append("signal " + ", ".join(name or "any" for name in step.receiving))
    if visit.run.asking:
        asking = [call.asking for call in visit.scan(OpenCall) if call.asking is not None]
        waits += [f"approval {of.approval} ({of.words})" for of in asking]
    return "; ".join(waits)
