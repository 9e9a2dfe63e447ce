"""Life: how a run ends, and what its end tells the world, its parent and admission."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Sequence

from headwater.contracts import quarantine
from headwater.contracts.messages import (
    Answered,
    BlobRef,
    Closed,
    Control,
    Failed,
    Outcome,
    Reply,
    ReplyTo,
    Resume,
    RunFailed,
    Spent,
    Status,
)
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.core.allowance import minus, plus
from headwater.core.decider import Encoded
from headwater.core.execution import AgentFunction, Continued, Raised, Released, Returned
from headwater.core.messages import Address, RunId
from headwater.runs.people import People
from headwater.runs.retention import Retention
from headwater.runs.routes import Routes
from headwater.runs.rows import Entry, Held, OpenCall, Overrun
from headwater.runs.spending import bill, settle
from headwater.runs.values import Large, shortened
from headwater.runs.visit import Visit

WRITES_MAX = 100
"""How many calls that changed the world are named; more than that nobody reads."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """What a dead letter says of the run that failed.

    Args:
        run: Its id.
        tenant: Whose it is.
        attempt: Which of its attempts failed.
        writes: Calls that may have changed the world, of all its attempts.
    """

    run: str
    tenant: str
    attempt: int
    writes: tuple[str, ...]


CANCELLED = "Cancelled"
"""Name of the error of a run that was cancelled."""

DeadLetter = Callable[[Record, str, Raised, Facts], Draft]
"""Builds the dead letter of a failed run's task: (the task as a record, topic, error, the run)."""


class Life:
    """Ends and closes runs.

    Args:
        agents: The agents hosted here, by name.
        routes: Where things go.
        dead_letter: Builds dead letters.
        people: Told when nobody waits for them any more.
        wrote: Names the calls of an entry that may have changed the world.
        large: When a child's result goes by reference; `None` for never.
        retention: Notes until when failed runs are kept.
    """

    def __init__(
        self,
        agents: dict[str, AgentFunction],
        routes: Routes,
        dead_letter: DeadLetter,
        people: People,
        wrote: Callable[[Entry, Collection[int]], Sequence[str]],
        retention: Retention,
        *,
        large: Large | None = None,
    ) -> None:
        self._retention = retention
        self._wrote = wrote
        self._agents = agents
        self._people = people
        self._routes = routes
        self._dead_letter = dead_letter
        self._large = large

    def end(self, visit: Visit, ended: Returned | Raised, *, cut: int = 0) -> None:
        """Publish the outcome, cancel live children, and close as soon as they have replied.

        Args:
            visit: The run.
            ended: How it ended.
            cut: If it failed without an entry that led to it: the next entry's number.
        """
        status = self._outcome(visit, ended)
        visit.set_timer(None)
        if status == "failed":
            assert isinstance(ended, Raised)
            visit.change(cut=visit.run.cut or cut or visit.run.seq)
            visit.turn.relay(self._letter(visit, ended))
            self._retention.keep(visit)
        self._people.ended(visit, f"its run {status}", kept=status == "failed")
        children = self._live(visit, kept=status == "failed")
        for call in children:
            self.cancel_child(visit, call, "its parent has ended")
        visit.change(
            ending=status,
            error=ended.error if isinstance(ended, Raised) else "",
            detail=ended.detail if isinstance(ended, Raised) else "",
            value=self._value(visit, ended),
            state="failed" if status == "failed" else "closing",
            reason="",
        )
        visit.say(status)
        if not children:
            self.close(visit)

    def continue_as(self, visit: Visit, continued: Continued) -> None:
        """Drop the journal and have the function begin again, with another task and all else as it is.

        The calls that are open stay booked until they are answered, which nobody waits for any more.
        """
        for call in [*visit.scan(OpenCall)]:
            if call.child and not call.unsent:
                self.cancel_child(visit, call, "its parent continued as another task")
                self._people.leave(visit, call, "its run continued as another task")
            else:
                self._people.abandon(visit, call, "its run continued as another task")
        wrote = [*visit.opened.wrote, *self.writes(visit)]
        for entry in [*visit.scan(Entry)]:
            visit.drop(entry)
        opened = dataclasses.replace(
            visit.opened,
            task=shortened(visit.turn, self._large, continued.task),
            signals=continued.signals,
            journal=visit.opened.journal + 1,
            wrote=tuple(wrote[:WRITES_MAX]),
            attempt=visit.run.attempt,
            added=visit.opened.added if visit.run.again is None else visit.run.again.added,
        )
        visit.reopen(opened)
        visit.change(seq=0, journal_bytes=0, reason="it continues as another task")
        visit.say("waiting")

    def child_replied(self, visit: Visit, call: OpenCall, spent: Spent) -> None:
        """A child of a run that has ended has ended too; after the last one the run closes.

        A failed run keeps the call, settled: its answer is delivered if the run is resumed.
        """
        _book(visit, call, spent, kept=visit.run.state == "failed")
        if not self.awaits_children(visit):
            self.close(visit)

    def awaits_children(self, visit: Visit) -> bool:
        """Say whether children of a run that has ended go on, so that it is not closed yet."""
        return bool(self.children(visit))

    def children(self, visit: Visit) -> list[OpenCall]:
        """Return the calls of children that were started and have not replied."""
        calls = visit.scan(OpenCall)
        return [call for call in calls if call.child and not call.unsent and not call.settled]

    def writes(self, visit: Visit, *, since: int = 0) -> tuple[str, ...]:
        """Name the calls of a journal, from an entry on, that may have changed the world."""
        entries = [entry for entry in visit.scan(Entry) if entry.seq >= since]
        released = {e.delivery.number for e in entries if isinstance(e.delivery, Released)}
        unsent = {call.number for call in visit.scan(OpenCall) if call.unsent}
        unsent |= {
            made.number
            for entry in entries
            for made in entry.calls
            if made.approval and made.number not in released
        }
        return tuple(name for entry in entries for name in self._wrote(entry, unsent))

    def discard(self, visit: Visit) -> None:
        """Drop a failed run's rows, and say so; whoever calls this records who wanted it.

        Admission is told too: the run may have asked it for a slot to go on with. So are the people
        who were still asked, about a call in doubt: nothing can come of what they decide.
        """
        self._people.ended(visit, "its run was discarded", kept=False)
        if self.awaits_children(visit):
            self.close(visit)
        visit.say("discarded")
        run = visit.run
        visit.send(
            Control(target=run.run, verb="discard", reason=run.reason, resume=Resume(slot=run.run)),
            self._routes.admission(visit.opened.tenant),
        )
        self._drop_rows(visit)

    def revive(self, visit: Visit) -> None:
        """A failed run goes on."""
        self._retention.release(visit)

    def close(self, visit: Visit) -> None:
        """Answer the parent or give the slot back, with the bill; drop the rows of all but failed runs.

        A resumed run answers no parent: that was told when the run failed.
        """
        run, start = visit.run, visit.opened.start
        if start.reply_to is None or run.again is not None:
            told = Spent() if run.again is None else run.again.told
            visit.send(
                Closed(slot=visit.slot, spent=minus(bill(visit), told)),
                self._routes.admission(visit.opened.tenant),
            )
        else:
            self._reply(visit, start.reply_to, bill(visit))
        if run.ending != "failed":
            self._drop_rows(visit)

    def asked_again(self, visit: Visit, to: ReplyTo) -> None:
        """Answer a parent that asks for a run which has told its own, or never will; it costs nothing.

        Only code asks so whose children have the ids of those that the run of that id before it had.
        """
        run = visit.run
        over = run.state == "failed" and not self.awaits_children(visit)
        if over or run.again is not None:
            self._reply(visit, to, Spent())

    def _reply(self, visit: Visit, to: ReplyTo, spent: Spent) -> None:
        visit.send(
            Reply(
                run=to.run,
                number=to.number,
                attempt=visit.run.run,
                outcome=self._answer(visit),
                spent=spent,
            ),
            Address(to.topic, to.run, to.partition),
            (("ce_runid", to.run.encode()),),
        )

    def cancel_child(self, visit: Visit, call: OpenCall, reason: str) -> None:
        """Tell a child to stop."""
        child = RunId.parse(call.child)
        assert child is not None, call.child
        visit.send(
            Control(target=call.child, verb="cancel", reason=reason),
            Address(self._routes.inbox(child.agent), call.child, child.partition),
        )

    def _live(self, visit: Visit, *, kept: bool) -> list[OpenCall]:
        """Return the calls of children that are still to reply; a reply that is held has come."""
        held = {
            row.message.number: row.message
            for row in visit.scan(Held)
            if isinstance(row.message, Reply)
        }
        live = []
        for call in self.children(visit):
            reply = held.get(call.number)
            if reply is None:
                live.append(call)
                continue
            _book(visit, call, reply.spent or Spent(), kept=kept)
        return live

    def _outcome(self, visit: Visit, ended: Returned | Raised) -> Status:
        agent, run = visit.id.agent, visit.run
        address = Address(self._routes.events(agent), run.run)
        headers: Headers = (("ce_runid", run.run.encode()),)
        if run.again is not None:
            headers = (*headers, ("ce_attempt", str(run.attempt).encode()))
        if isinstance(ended, Returned):
            visit.send(Encoded(type=f"{agent}.completed", value=ended.value), address, headers)
            visit.outcome = self._agents[agent].outcome_json(ended.value)
            return "completed"
        status: Status = "cancelled" if ended.cancelled and not _failing(visit) else "failed"
        failed = RunFailed(
            run=run.run,
            task_id=visit.opened.start.task_id,
            agent=agent,
            error=ended.error,
            detail=ended.detail,
            steps=run.spent.steps,
            tokens=run.spent.tokens,
            usd_nano=run.spent.usd_nano,
        )
        visit.send(Encoded(type=f"{agent}.{status}", value=failed), address, headers)
        return status

    def _value(self, visit: Visit, ended: Returned | Raised) -> bytes | BlobRef:
        """Return what a parent will be told."""
        if isinstance(ended, Raised) or visit.opened.start.reply_to is None:
            return b""
        return shortened(visit.turn, self._large, ended.value)

    def _answer(self, visit: Visit) -> Outcome:
        run = visit.run
        if run.ending == "completed":
            return Answered(value=run.value)
        if not run.ending:
            return Failed(error="Resumed", detail=f"{run.run} had failed, and goes on by itself")
        return Failed(
            error=run.error or run.ending, detail=run.detail or f"the run was {run.ending}"
        )

    def _letter(self, visit: Visit, ended: Raised) -> Draft:
        """Return the task's own record, byte for byte, with the error."""
        task, at = visit.opened.start.task, visit.turn.at
        published = bool(task.topic)
        # A child's task by reference stays where it is; the letter says its name.
        value, blob = (
            (task.value, ()) if isinstance(task.value, bytes) else (None, _blob(task.value))
        )
        record = Record(
            partition=Partition(task.topic, task.partition)
            if published
            else Partition(at.topic, at.number),
            offset=task.offset if published else at.offset,
            time_ms=visit.opened.started_ms,
            key=task.key if published else visit.run.run.encode(),
            value=value,
            headers=(*((header.name, header.value) for header in task.headers), *blob),
        )
        visit.writes = self.writes(visit, since=visit.run.cut)[:WRITES_MAX]
        facts = Facts(
            run=visit.run.run,
            tenant=visit.opened.tenant,
            attempt=visit.run.attempt,
            writes=(*visit.opened.wrote, *self.writes(visit))[:WRITES_MAX],
        )
        return self._dead_letter(record, self._routes.dead(visit.id.agent), ended, facts)

    def _drop_rows(self, visit: Visit) -> None:
        for kind in (Entry, OpenCall, Held, Overrun):
            for row in [*visit.scan(kind)]:
                visit.drop(row)
        self._retention.release(visit)
        visit.drop(visit.opened)
        visit.drop(visit.run)
        visit.gone = True


def _book(visit: Visit, call: OpenCall, spent: Spent, *, kept: bool) -> None:
    """Book what a child of a run that has ended spent; of a failed run (`kept`), keep the call."""
    settle(visit, call, plus(spent, Spent(steps=1)))
    if kept:
        visit.put(dataclasses.replace(call, reserved=Spent(), settled=True))
    else:
        visit.drop(call)


def _blob(ref: BlobRef) -> Headers:
    return ((quarantine.BLOB, ref.name.encode()),)


def _failing(visit: Visit) -> bool:
    """Whether the cancellation came from a limit, so that the run failed and was not cancelled."""
    return bool(visit.run.cancelling)
