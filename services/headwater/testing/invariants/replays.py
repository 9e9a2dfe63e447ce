"""Replays: a journal leads to what was asked and published, and to no call."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.contracts.approvals import Decided
from headwater.contracts.messages import Control, InDoubt, Reply, Wake
from headwater.core.blobs import needed_by
from headwater.core.execution import Answer, Delivery, Execution, Returned, RunInfo, Signal, Tick
from headwater.errors import HeadwaterError
from headwater.runs import journal
from headwater.runs.rows import Entry, Opened
from headwater.testing.invariants.book import Book, Read, agent_of


def a_replay_gives_the_same_bytes(book: Book) -> Iterator[str]:
    """Replay gives the same bytes and makes no call."""
    acts = len(book.acts)
    for run, opened in book.opened.items():
        entries = book.journal(run)
        whole = [entry.seq for entry in entries] == [*range(1, len(entries) + 1)]
        if agent_of(run) not in book.agents or not whole or not entries:
            continue
        # What is by reference is in a store that a book does not have.
        near = not any(needed_by(entry.delivery) for entry in entries)
        if near and isinstance(opened.input, bytes):
            yield from _replayed(book, opened, opened.input, entries)
    if len(book.acts) != acts:
        yield f"replays acted on the world {len(book.acts) - acts} times"


def _replayed(book: Book, opened: Opened, task: bytes, entries: list[Entry]) -> Iterator[str]:
    run, start = opened.run, opened.start
    info = RunInfo(
        run=run,
        task_id=start.task_id,
        tenant=opened.tenant,
        actor=opened.actor,
        correlation_id=opened.correlation_id,
        deadline_ms=opened.deadline_ms,
        limits=opened.limits,
        journal=opened.journal,
    )
    execution = book.agents[agent_of(run)].begin(info, task)
    try:
        journal.replay(execution, entries, book.writes)
        value = _result(book, execution, run, entries[-1])
        if value is not None and value != book.outcomes[run][-1].record.value:
            yield f"run {run} published another result than its replay gives"
    except HeadwaterError as error:
        row = book.rows["Run"].get((run,))
        if row is None or row.state != "held":
            yield f"run {run} does not replay: {error}"
    finally:
        execution.close()


def _result(book: Book, execution: Execution, run: str, last: Entry) -> bytes | None:
    """Return what a run returns once it is given what it ended with; `None` where that is not known.

    The rows of a run that completed go in the turn that ends it, and that turn's entry with them. So
    its record is given from the inbox, where nothing else came between.
    """
    outcome = book.outcomes.get(run)
    if not outcome or outcome[-1].header("ce_type") != f"{agent_of(run)}.completed":
        return None
    cause = outcome[-1].header("ce_causationid")
    given = [read for read in book.inboxes.get(run, ()) if _given(read)]
    came = [read for read in given if read.record.offset > last.offset]
    if any(read.header("ce_id") == cause for read in given if read not in came):
        return None  # its journal has its end, because it waited for its children after that
    if not came or came[0].header("ce_id") != cause or _stood(book, run):
        return None
    delivery = _delivery(came[0])
    if delivery is None:
        return None
    now_ms = max(last.time_ms, came[0].record.time_ms)
    step = execution.deliver(delivery, now_ms=now_ms)
    return step.ended.value if isinstance(step.ended, Returned) else None


def _given(read: Read) -> bool:
    """Whether a record is something to the function that it is for."""
    message = read.message
    if isinstance(message, Control):
        return message.verb == "signal"
    return isinstance(message, Reply | Wake | Decided)


def _delivery(read: Read) -> Delivery | None:
    match read.message:
        case Reply(number=number, outcome=outcome) if not isinstance(outcome, InDoubt):
            return Answer(number=number, outcome=outcome)
        case Control(verb="signal", name=name, value=value):
            return Signal(name=name, value=value)
        case Wake():
            return Tick()
    return None


def _stood(book: Book, run: str) -> bool:
    """Whether a run was ever stopped, so that what came is not what it was given next."""
    controls = (read.message for read in book.inboxes.get(run, ()))
    return any(isinstance(m, Control) and m.verb != "signal" for m in controls)
