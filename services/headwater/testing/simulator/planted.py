"""Planted bugs: protections taken out one at a time, which the simulator has to miss.

Each is put into the running program and taken out again; production code has no switch for any.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from headwater.admission.decider import Admission
from headwater.admission.rows import Slot, Tenant
from headwater.contracts.messages import Answered, Closed, Control, Failed, Intent, Reply, Result
from headwater.contracts.records import Partition
from headwater.core.decider import Turn
from headwater.core.messages import digest, life_of
from headwater.log.local_member import LocalOwner
from headwater.log.port import Claim, Work
from headwater.runs import calls, journal, life
from headwater.runs.holds import Holds
from headwater.runs.life import Life
from headwater.runs.rows import Held
from headwater.runtime import restoring, table
from headwater.runtime.answering import Item
from headwater.runtime.deciding import Deciding
from headwater.runtime.noting import Noting
from headwater.runtime.owned import Owned
from headwater.runtime.performing import Performing
from headwater.runtime.receipts import Known, call_of
from headwater.runtime.table import Table
from headwater.runtime.timers import Heap, Timers
from headwater.runtime.values import Puts

Planting = Callable[[], contextlib.AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """A program with one protection out.

    Args:
        name: What is wrong with it.
        plant: Puts it in for as long as the context lasts.
        log: Protections of the log that are off instead.
    """

    name: str
    plant: Planting = contextlib.nullcontext
    log: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@contextlib.contextmanager
def instead(of: Any, name: str, other: Any) -> Iterator[None]:
    """Have another function in a function's place."""
    before = vars(of)[name]
    setattr(of, name, other)
    try:
        yield
    finally:
        setattr(of, name, before)


def offset_before_output() -> contextlib.AbstractContextManager[None]:
    """An owner marks its offsets, and only then writes what they stand for."""
    real = LocalOwner.commit

    def commit(self: Any, work: Sequence[Work]) -> frozenset[Claim]:
        for (_, place), marked in self._reached([w for w in work if self._holds(w.claim)]).items():
            self._group.offsets[place] = marked
        return real(self, work)

    return instead(LocalOwner, "commit", commit)


def lost_tombstone() -> contextlib.AbstractContextManager[None]:
    """A row that is dropped leaves no record."""
    real = table.drafts

    def drafts(*args: Any) -> Iterator[Any]:
        return (draft for draft in real(*args) if draft.value is not None)

    return instead(table, "drafts", drafts)


def reused_number() -> contextlib.AbstractContextManager[None]:
    """After a replay, numbers of calls go on one too low."""
    real = journal.replay

    def replay(execution: Any, entries: Any, *args: Any, **more: Any) -> Any:
        result = real(execution, entries, *args, **more)
        session = execution._session  # noqa: SLF001 - that is the bug
        session.calls_made = max(0, session.calls_made - 1)
        return result

    return instead(journal, "replay", replay)


def dedupe_off() -> contextlib.AbstractContextManager[None]:
    """A task that is published twice is two tasks."""
    real = Admission.__dict__["_admit"]

    def admit(self: Any, turn: Turn, message: Any) -> None:
        other = digest(message.task_id, turn.at.number, turn.at.offset).hex()
        real(self, turn, dataclasses.replace(message, task_id=other))

    return instead(Admission, "_admit", admit)


def reply_before_result() -> contextlib.AbstractContextManager[None]:
    """An answer is sent first, and noted later."""
    notes = Noting.__dict__["_note"]
    sends = Performing.__dict__["_send"]

    async def note(self: Any, item: Any, reply: Reply) -> Reply:
        return reply

    async def send(self: Any, item: Any, reply: Reply) -> None:
        await sends(self, item, reply)
        if self._noting.topic:
            await notes(self._noting, item, reply)

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with instead(Noting, "_note", note), instead(Performing, "_send", send):
            yield

    return both()


def stale_cache() -> contextlib.AbstractContextManager[None]:
    """An execution is used again though the turn that it took was aborted."""

    def take(self: Any, run: Any) -> Any:
        kept = self._kept.pop(run.run, None)
        return None if kept is None else kept[1]

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with (
            instead(journal.Cache, "take", take),
            instead(journal.Cache, "forget", lambda *_: None),
        ):
            yield

    return both()


def no_precedence() -> contextlib.AbstractContextManager[None]:
    """The latest receipt counts, whatever it is."""

    def note(self: Any, receipt: Intent | Result, request: str) -> None:
        if receipt.offset < self.next_offset or receipt.offset in self.done:
            return
        if isinstance(receipt, Result):
            reply, life = receipt.reply, life_of(request)
            self._results[reply.run, reply.number] = [(life, receipt)]
            self._intents.pop((reply.run, reply.number, life), None)
        else:
            self._results.pop((receipt.run, receipt.number), None)
            self._intents[call_of(receipt, request)] = receipt

    return instead(Known, "note", note)


def intent_outside() -> contextlib.AbstractContextManager[None]:
    """Whoever believes in a claim notes that a call begins, and begins it."""

    async def note(self: Any, wanted: Sequence[Any]) -> None:
        for one in wanted:
            await self._append(self._noting.draft(one.item, one.intent))
        self._noting.written(wanted, frozenset(one.item.claim for one in wanted))

    return instead(Performing, "_intend", note)


def held_dropped() -> contextlib.AbstractContextManager[None]:
    """The first message that a run cannot take is counted and not kept."""
    real = Holds.keep

    def keep(self: Any, visit: Any, message: Any) -> None:
        before = visit.run.held_next
        real(self, visit, message)
        if before == 0:
            visit.drop(Held(run=visit.run.run, seq=before, message=message))

    return instead(Holds, "keep", keep)


def timer_lost() -> contextlib.AbstractContextManager[None]:
    """Who takes a partition up forgets the timers that were set before."""

    def timers(table: Table, restored: concurrent.futures.Future[Heap]) -> Timers:
        del table
        return Timers(Table(), restored)

    return instead(restoring, "Timers", timers)


def cancel_overtaking() -> contextlib.AbstractContextManager[None]:
    """Control for a task that waits for a slot goes straight to where it will run."""

    def held(self: Any, turn: Turn, control: Control, seen: Any, row: Any) -> None:
        del row
        self._forward(turn, dataclasses.replace(control, target=seen.run), turn.meta)

    return instead(Admission, "_control_held", held)


def no_reserve() -> contextlib.AbstractContextManager[None]:
    """A call is sent without anything set aside for it."""
    return instead(calls, "reserve", lambda visit, cost: None)


def open_calls_untold() -> contextlib.AbstractContextManager[None]:
    """A child that ends tells what it has settled, and not what it may yet be billed."""
    return instead(life, "bill", lambda visit: visit.run.spent)


def slot_closed_twice() -> contextlib.AbstractContextManager[None]:
    """A run gives its slot back twice, and nobody looks whether it has it."""
    closes = Life.close

    def close(self: Any, visit: Any) -> None:
        closes(self, visit)
        if visit.opened.start.reply_to is None:
            message = Closed(slot=visit.opened.start.slot, spent=visit.run.spent)
            visit.send(message, self._routes.admission(visit.opened.tenant))

    def closed(self: Any, turn: Turn, message: Closed) -> None:
        tenant = turn.meta.tenant
        slot, counts = turn.get(Slot, tenant, message.slot), turn.get(Tenant, tenant)
        if counts is None:
            return
        if slot is not None:
            turn.drop(slot)
        counts = dataclasses.replace(counts, slots=counts.slots - 1)
        turn.put(counts)
        self._release(turn, counts)

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with instead(Life, "close", close), instead(Admission, "_closed", closed):
            yield

    return both()


def value_not_stored() -> contextlib.AbstractContextManager[None]:
    """A value by reference is sent before the store has it, and then never given to it."""
    return instead(Puts, "begin", lambda self, blobs, turn: None)


def answer_of_another() -> contextlib.AbstractContextManager[None]:
    """Who takes a call over answers it with whatever answer to its run is noted."""
    real = Known.answer

    def answer(self: Any, item: Item) -> Reply | None:
        noted = (one.reply for results in self._results.values() for _, one in results)
        others = (reply for reply in noted if reply.run == item.ask.run)
        other = real(self, item) or next(others, None)
        return None if other is None else dataclasses.replace(other, number=item.ask.number)

    return instead(Known, "answer", answer)


def held_answer_lost() -> contextlib.AbstractContextManager[None]:
    """An answer that comes while its run is paused is kept as a failure."""
    real = Holds.keep

    def keep(self: Any, visit: Any, message: Any) -> None:
        if isinstance(message, Reply) and isinstance(message.outcome, Answered):
            failed = Failed(error="Lost", detail="it came while the run stood still")
            message = dataclasses.replace(message, outcome=failed)
        real(self, visit, message)

    return instead(Holds, "keep", keep)


def tables_kept() -> contextlib.AbstractContextManager[None]:
    """Who gets a partition back goes on with the rows it had, whatever was written since."""
    forgets, takes = Deciding.__dict__["_forget"], Deciding.__dict__["_take_up"]
    kept: dict[tuple[int, Partition], Owned] = {}

    def forget(self: Any, claim: Claim) -> None:
        if (owned := self._owned.get(claim)) is not None:
            kept[id(self), claim.partition] = owned
        forgets(self, claim)

    def take_up(self: Any, claim: Claim, restored: restoring.Restored) -> None:
        before = kept.get((id(self), claim.partition))
        if before is not None:
            before.timers.again()
            restored = dataclasses.replace(restored, table=before.table, timers=before.timers)
        takes(self, claim, restored)

    @contextlib.contextmanager
    def both() -> Iterator[None]:
        with instead(Deciding, "_forget", forget), instead(Deciding, "_take_up", take_up):
            yield
        kept.clear()

    return both()


CONTROLS: Sequence[Bug] = (
    Bug(name="no claim check", log={"check_claims": False}),
    Bug(name="tables kept across claims", plant=tables_kept),
    Bug(name="claims kept after an unknown outcome", log={"lose_claims": False}),
)
"""Programs that fail in most stormy histories."""
SOUND = Bug(name="nothing is taken out")

BUGS: Sequence[Bug] = (
    Bug(name="offset before output", plant=offset_before_output),
    *CONTROLS,
    Bug(name="lost tombstone", plant=lost_tombstone),
    Bug(name="reused call number", plant=reused_number),
    Bug(name="dedupe off", plant=dedupe_off),
    Bug(name="reply before RESULT durable", plant=reply_before_result),
    Bug(name="stale cache after abort", plant=stale_cache),
    Bug(name="receipts without precedence", plant=no_precedence),
    Bug(name="INTENT outside the transaction", plant=intent_outside),
    Bug(name="held message dropped", plant=held_dropped),
    Bug(name="timer lost at rebalance", plant=timer_lost),
    Bug(name="cancel overtaking", plant=cancel_overtaking),
    Bug(name="allowance without reserve", plant=no_reserve),
    Bug(name="open calls untold", plant=open_calls_untold),
    Bug(name="slot closed twice", plant=slot_closed_twice),
    Bug(name="answer of another call", plant=answer_of_another),
    Bug(name="held answer lost", plant=held_answer_lost),
    Bug(name="value not stored", plant=value_not_stored),
    Bug(name="offsets after their transaction", log={"offsets_inside": False}),
)
"""Every bug that is planted."""
