"""Accounts: tasks, outcomes, slots and money add up."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from headwater.contracts.messages import Admit, Ask, Limits, Reply, ReplyTo, RunEvent, Spent, Start
from headwater.contracts.quarantine import reason
from headwater.contracts.records import Partition
from headwater.core.allowance import Allowance, ceiling, minus, plus
from headwater.testing.invariants.book import ENDED, ENDINGS, Book, Read, agent_of

BEGINNINGS = frozenset({"accepted", "started"})
"""What begins another run of an id, if there was one."""
STANDING = frozenset({"held", "paused"})
"""Where a task may stay for as long as people like."""


def every_task_is_accounted_for(book: Book) -> Iterator[str]:
    """Accepted = completed + failed + cancelled + quarantined + held + open; at rest open and slots are 0."""
    yield from _published(book)
    admitted: set[str] = set()
    refused = {
        (reason(read.record).source, reason(read.record).offset)
        for read in book.of("quarantine", "inbox.admission")
    }
    for read in book.of("inbox", "admission"):
        place = read.record.partition
        if isinstance(read.message, Admit) and (place, read.record.offset) not in refused:
            admitted.add(read.message.task_id)
    for task in sorted(admitted):
        events = book.life.get(task)
        if not events:
            if book.rested:
                yield f"task {task} was accepted, and nothing is known of it"
            continue
        status = events[-1].status
        if book.rested and status not in ENDED | STANDING and task not in book.open:
            yield f"task {task} is still {status}"
    for task in sorted({task for task, events in book.life.items() if not events[0].parent}):
        if task not in admitted:
            yield f"task {task} runs, and nobody published it"
    yield from _slots(book)


def _published(book: Book) -> Iterator[str]:
    """Every record of a command topic is admitted or kept aside, never neither and never both."""
    admitted: Counter[tuple[Partition, int]] = Counter()
    for read in book.of("inbox", "admission"):
        if isinstance(read.message, Admit) and not read.replayed:
            task = read.message.task
            admitted[Partition(task.topic, task.partition), task.offset] += 1
    refused: Counter[tuple[Partition, int]] = Counter()
    for read in book.of("quarantine"):
        why = reason(read.record)
        refused[why.source, why.offset] += 1
    for read in book.of("cmd"):
        at = read.record.partition, read.record.offset
        if admitted[at] > 1 or (admitted[at] and refused[at]):
            yield f"{read.at} went on {admitted[at]} times and was refused {refused[at]} times"
        elif book.rested and not admitted[at] and not refused[at]:
            yield f"{read.at} neither went on nor was it refused"


def _slots(book: Book) -> Iterator[str]:
    slots: Counter[str] = Counter()
    for tenant, run in book.rows["Slot"]:
        slots[str(tenant)] += 1
        task = str(run).rpartition(".")[2]
        events = book.life.get(task, [])
        ended = bool(events) and events[-1].status in ENDED
        if book.rested and (ended or task not in book.open) and not _stands(events):
            yield f"the slot of {run} is still open"
    queued = Counter(str(tenant) for tenant, _ in book.rows["Queued"])
    for row in book.rows["Tenant"].values():
        if row.slots != slots[row.tenant] or row.queued != queued[row.tenant]:
            yield (
                f"tenant {row.tenant} counts {row.slots} slots and {row.queued} held tasks; "
                f"it has {slots[row.tenant]} and {queued[row.tenant]}"
            )


def _stands(events: list[RunEvent]) -> bool:
    return bool(events) and events[-1].status in STANDING


def one_outcome_a_run(book: Book) -> Iterator[str]:
    """One committed outcome a run, and the one its life tells; children included."""
    told: dict[str, list[str]] = {}
    for events in book.life.values():
        ended = "", 0
        for event in events:
            # Who speaks to a run that has ended is told once more how it did, while a resume waits too.
            if event.status in ENDINGS:
                if ended != (event.status, event.attempt):
                    told.setdefault(event.run, []).append(event.status)
                ended = event.status, event.attempt
            elif event.status in BEGINNINGS:
                ended = "", 0
    for run in sorted({*told, *book.outcomes}):
        found = [read.header("ce_type").rpartition(".")[2] for read in book.outcomes.get(run, ())]
        if _final(found) > 1 or found != told.get(run, []):
            yield f"run {run} published {found}, and its life tells {told.get(run, [])}"


def _final(statuses: list[str]) -> int:
    """Count outcomes, a failure that was resumed aside: what follows it is the run's own again."""
    return sum(1 for n, one in enumerate(statuses) if one != "failed" or n == len(statuses) - 1)


def no_allowance_is_overdrawn(book: Book) -> Iterator[str]:
    """Allowances: reserved + spent is within the limit at every send; every attempt is charged once.

    A child's open calls are its parent's too: what it tells as it ends leaves none out.
    """
    for events in book.life.values():
        run = events[-1].run
        start = book.starts.get(run)
        if start and agent_of(run) in book.agents:
            yield from _overdrawn(book, run, start[0].message, events)
        yield from _charged(book, run, events)
        if start and start[0].message.reply_to is not None:
            yield from _told(book, run, start[0].message.reply_to, events)


def _overdrawn(book: Book, run: str, start: Start, events: list[RunEvent]) -> Iterator[str]:
    """Go through a run's life as its allowance does: what is asked is reserved, what is answered settled."""
    limits = start.limits or book.agents[agent_of(run)].limits
    open_: dict[int, Spent] = {}
    for event in events:
        sends = False
        for note in event.calls:
            if note.state in {"answered", "failed"}:
                open_.pop(note.number, None)
            elif note.state == "asked" and not note.detail:  # one that is left was sent before
                sends = True
                open_[note.number] = _reserve(book, run, note.number)
        spent = Spent(steps=event.steps, tokens=event.tokens, usd_nano=event.usd_nano)
        reserved = Spent()
        for one in open_.values():
            reserved = plus(reserved, one)
        cleaning = any(e.status == "cancelled" for e in events) or event.reason == "cancelling"
        lacks = Allowance(limits=_stepless(limits, cleaning), reserved=reserved, spent=spent)
        if sends and (lacking := lacks.lacking(Spent())):
            yield f"run {run} sent call {max(open_)} beyond its limit of {lacking}"
            return


def _stepless(limits: Limits, cleaning: bool) -> Limits:
    """Return the limits that hold: steps of cleaning up come from a small budget of their own."""
    if not cleaning or limits.steps is None:
        return limits
    return Limits(
        steps=limits.steps + limits.cleanup_steps,
        tokens=limits.tokens,
        usd_nano=limits.usd_nano,
        wall_ms=limits.wall_ms,
        cleanup_steps=limits.cleanup_steps,
    )


def _reserve(book: Book, run: str, number: int) -> Spent:
    """Return what a call has to set aside."""
    for read in book.asks.get(f"{run}/{number}", ()):
        message = read.message
        if isinstance(message, Start):
            limits = message.limits or book.agents[agent_of(message.run)].limits
            return plus(ceiling(limits), Spent(steps=1))
        if isinstance(message, Ask):
            most = book.ceiling(message) if message.safety == "paid" else Spent()
            return plus(minus(most, Spent(steps=most.steps)), Spent(steps=1))
    return Spent(steps=1)


def _charged(book: Book, run: str, events: list[RunEvent]) -> Iterator[str]:
    """What a run spent is what the first answers to its calls cost, each once."""
    last = events[-1]
    if last.status not in ENDINGS or len([e for e in events if e.status in ENDINGS]) > 1:
        return
    answered = {
        note.number
        for event in events
        for note in event.calls
        if note.state in {"answered", "failed"}
    }
    cost = Spent()
    for number in answered:
        cost = plus(cost, _billed(_first(book.replies.get(f"{run}/{number}", []))))
    if (last.usd_nano, last.tokens) != (cost.usd_nano, cost.tokens):
        yield (
            f"run {run} was charged {last.usd_nano} nano-USD and {last.tokens} tokens; "
            f"its answers cost {cost.usd_nano} and {cost.tokens}"
        )


def _told(book: Book, run: str, to: ReplyTo, events: list[RunEvent]) -> Iterator[str]:
    """What a child tells as it ends is what its calls cost, and may cost where nobody had answered."""
    ends = next((n for n, event in enumerate(events) if event.status in ENDINGS), None)
    replies = [read.message for read in book.replies.get(f"{to.run}/{to.number}", ())]
    told = next((reply.spent for reply in replies if reply.attempt == run), None)
    if ends is None or told is None:
        return
    notes = [note for event in events[: ends + 1] for note in event.calls]
    answered = {note.number for note in notes if note.state in {"answered", "failed"}}
    cost = Spent()
    for number in {note.number for note in notes}:
        if f"{run}/{number}" in book.asks:
            cost = plus(cost, _cost(book, run, number, answered=number in answered))
    if minus(cost, told) != Spent():
        yield f"run {run} told its parent {told}; what it had asked for costs up to {cost}"


def _cost(book: Book, run: str, number: int, *, answered: bool) -> Spent:
    """Return what a call cost; a child's answer counts also where its parent had ended before."""
    reply = _first(book.replies.get(f"{run}/{number}", []))
    if answered or (reply is not None and reply.spent is not None):
        return plus(_billed(reply), Spent(steps=1))
    return _reserve(book, run, number)


def _billed(reply: Reply | None) -> Spent:
    """Return what an answer cost beside its step."""
    if reply is None or reply.usage is None:
        return (reply and reply.spent) or Spent()
    tokens = reply.usage.input_tokens + reply.usage.output_tokens
    return Spent(tokens=tokens, usd_nano=reply.usage.usd_nano)


def _first(reads: list[Read]) -> Reply | None:
    return next((read.message for read in reads if isinstance(read.message, Reply)), None)
