"""Turns: whole or not at all, and in order."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator
from typing import Any

from headwater.contracts.approvals import Decided
from headwater.contracts.messages import Admit, Control, Reply, Start, Wake
from headwater.contracts.quarantine import reason
from headwater.core.execution import Answer, Begin, Delivery, Released, Signal
from headwater.core.messages import RunId
from headwater.runs.rows import Entry
from headwater.testing.invariants import decisions
from headwater.testing.invariants.book import Book, Read


def nothing_of_an_aborted_turn_is_readable(book: Book) -> Iterator[str]:
    """Nothing of an aborted turn is readable: a turn's messages are there once, and their cause with them."""
    seen: Counter[str] = Counter()
    ids: set[str] = set()
    caused: list[Read] = []
    for read in (*book.of("inbox"), *book.of("req"), *book.of("evt")):
        own = read.header("ce_id")
        ids.add(own)
        source = read.header("ce_source")
        if isinstance(read.message, Wake) or read.replayed or not _decided(source):
            continue
        seen[own] += 1
        if source != "intake" and read.header("ce_causationid"):
            caused.append(read)
    for own, count in seen.items():
        if count > 1:
            yield f"message {own} was committed {count} times"
    for read in caused:
        if read.header("ce_causationid") not in ids:
            yield f"{read.at} was caused by {read.header('ce_causationid')}, which nobody can read"
    kept: Counter[Any] = Counter()
    for read in book.of("quarantine"):
        if not read.record.partition.topic.startswith(f"{book.namespace}.quarantine.req."):
            why = reason(read.record)
            kept[why.source, why.offset, why.group] += 1
    for (source, offset, group), count in kept.items():
        if count > 1:
            yield f"{source}@{offset} was kept aside {count} times by {group}"


def _decided(source: str) -> bool:
    return source in {"intake", "admission", "approvals"} or source.startswith("runs.")


def outputs_rows_and_offset_commit_together(book: Book) -> Iterator[str]:
    """Outputs, rows and offset commit together: a turn is journaled once, each of its calls sent once."""
    words = decisions.said(book)
    for call, reads in book.asks.items():
        if len(reads) > decisions.sendings(words.get(call, [])):
            yield f"call {call} was sent {len(reads)} times"
    sent: dict[str, set[int]] = defaultdict(set)
    for call in book.asks:
        run, _, number = call.rpartition("/")
        sent[run].add(int(number))
    for run, entries in book.entries.items():
        for chapter in book.chapters(run):
            for seq, count in Counter(entry.seq for entry in chapter).items():
                if count > 1:
                    yield f"run {run} took turn {seq} {count} times"
        seqs = [entry.seq for entry in book.journal(run)]
        whole = bool(seqs) and seqs == [*range(1, len(seqs) + 1)]
        calls = [m for entry in entries for m in entry.calls if m.denied is None]
        made = {m.number for m in calls}
        released = {e.delivery.number for e in entries if isinstance(e.delivery, Released)}
        unsent = {m.number for m in calls if m.approval} - released
        if whole and (missing := made - unsent - sent[run]):
            yield f"run {run} has calls {sorted(missing)} in its journal that were never sent"
        last = book.rows["Run"].get((run,))
        if whole and last is not None:
            if last.seq != len(seqs):
                yield f"run {run} is at turn {last.seq} and has {len(seqs)} entries"
            if extra := sent[run] - made:
                yield f"run {run} sent calls {sorted(extra)} that its journal does not have"


def order_is_kept(book: Book) -> Iterator[str]:
    """Order holds per run and per key: what came for a run is taken as it came, tasks go on as published."""
    for run in book.entries:
        for chapter in book.chapters(run):
            yield from _deliveries(book, run, chapter)
        yield from _overtaken(book, run)
    newest: dict[Any, tuple[int, str]] = {}
    for read in book.of("inbox", "admission"):
        if not isinstance(read.message, Admit) or read.replayed:
            continue
        task = read.message.task
        lane = read.header("ce_tenantid"), task.topic, task.partition
        before = newest.get(lane, (-1, ""))
        if task.offset <= before[0]:
            yield f"{task.topic}[{task.partition}]@{task.offset} went on after {before[1]}"
        newest[lane] = task.offset, f"@{before[0]}"


def _deliveries(book: Book, run: str, entries: list[Entry]) -> Iterator[str]:
    """Compare what a run was given with what its inbox has, in order."""
    came = [
        read
        for read in book.inboxes.get(run, ())
        if isinstance(read.message, Start | Reply | Control | Decided)
    ]
    at = -1
    for entry in entries:
        if not isinstance(entry.delivery, Begin | Answer | Signal):
            continue
        place = _find(came, entry.delivery, at + 1)
        if place < 0:
            yield (
                f"run {run} took {_words(entry.delivery)} in turn {entry.seq}, "
                "which its inbox has earlier or not at all"
            )
            return
        at = place


def _overtaken(book: Book, run: str) -> Iterator[str]:
    """What people say to a task never overtakes it; who speaks to an address speaks at their own risk."""
    for read in book.inboxes.get(run, ()):
        if isinstance(read.message, Start):
            return
        if isinstance(read.message, Control):
            said = book.said.get(read.header("ce_causationid"))
            if said is not None and RunId.parse(said.target) is None and run in book.starts:
                yield f"run {run} was told to {read.message.verb} before it was started"
                return


def _find(came: list[Read], delivery: Delivery, start: int) -> int:
    """Return where a delivery's record is, from a place on; -1 if it is not there."""
    for place in range(start, len(came)):
        message = came[place].message
        match delivery:
            case Begin():
                found = isinstance(message, Start)
            case Answer():
                answers = isinstance(message, Reply | Decided)
                found = answers and message.number == delivery.number
            case Signal():
                found = (
                    isinstance(message, Control)
                    and message.verb == "signal"
                    and (message.name, message.value) == (delivery.name, delivery.value)
                )
            case _:
                found = False
        if found:
            return place
    return -1


def _words(delivery: Delivery) -> str:
    match delivery:
        case Answer():
            return f"the answer to call {delivery.number}"
        case Signal():
            return f"signal {delivery.name}"
    return "its start"
