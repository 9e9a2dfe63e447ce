"""Replays: a journal leads to what was asked and published, and to no call."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.contracts.messages import Control, Reply, Wake
from headwater.core import blobs
from headwater.core.execution import Answer, Delivery, Execution, Returned, RunInfo, Signal, Tick
from headwater.errors import HeadwaterError
from headwater.runs import journal
from headwater.runs.rows import Entry, Opened
from headwater.testing.invariants.book import Book, Read, agent_of


def a_replay_gives_the_same_bytes(book: Book) -> Iterator[str]:
    """Replay gives the same bytes and makes no call."""
    opened = {
        read.message.run: read.message
        for read in book.of("state")
        if isinstance(read.message, Opened)
    }
    acts = len(book.acts)
    for run, entries in book.entries.items():
        whole = [entry.seq for entry in entries] == [*range(1, len(entries) + 1)]
        if agent_of(run) in book.agents and whole and run in opened:
            yield from _replayed(book, opened[run], entries)
    if len(book.acts) != acts:
        yield f"replays acted on the world {len(book.acts) - acts} times"


def _replayed(book: Book, opened: Opened, entries: list[Entry]) -> Iterator[str]:
    run, start = opened.run, opened.start
    info = RunInfo(
        run=run,
        task_id=start.task_id,
        tenant=opened.tenant,
        actor=opened.actor,
        correlation_id=opened.correlation_id,
        deadline_ms=opened.deadline_ms,
        limits=opened.limits,
    )
    execution = book.agents[agent_of(run)].begin(info, blobs.inline(start.task.value))
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
    given = [read for read in book.inboxes.get(run, ()) if _delivery(read) is not None]
    came = [read for read in given if read.record.offset > last.offset]
    if any(read.header("ce_id") == cause for read in given if read not in came):
        return None  # its journal has its end, because it waited for its children after that
    if not came or came[0].header("ce_id") != cause or _stood(book, run):
        return None
    delivery = _delivery(came[0])
    assert delivery is not None, "only such came"
    now_ms = max(last.time_ms, came[0].record.time_ms)
    step = execution.deliver(delivery, now_ms=now_ms)
    return step.ended.value if isinstance(step.ended, Returned) else None


def _delivery(read: Read) -> Delivery | None:
    match read.message:
        case Reply(number=number, outcome=outcome):
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
