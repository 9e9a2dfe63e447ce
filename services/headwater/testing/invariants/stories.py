"""Stories: what a run comes to where nothing goes wrong, against what it came to."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from headwater.contracts.messages import Answered, Ask, BlobRef, Control, Failed, RunFailed, Start
from headwater.core.blobs import ref_of
from headwater.core.execution import Answer
from headwater.runs.rows import Made
from headwater.testing.invariants.book import Book, Read, Story, Told

WORDS_MAX = 300
STOPPING = frozenset({"cancel", "discard"})


def outcomes_are_those_without_faults(book: Book) -> Iterator[str]:
    """Whatever breaks, a run comes to what it comes to without faults: status, result, requests, journal.

    Runs are left out that a person stopped or resumed, and those whose task has no one story.
    """
    for run, starts in book.starts.items():
        task = starts[0].message.task.value
        if run not in book.outcomes or not isinstance(task, bytes) or _touched(book, run):
            continue
        first = ""
        tenant = starts[0].header("ce_tenantid")
        for story in book.stories(run, tenant, task, book.children):
            found = next(_differences(book, run, story), "")
            if not found:
                break
            first = first or found
        else:
            if first:
                yield f"run {run} {first}"


def _touched(book: Book, run: str) -> bool:
    """Whether somebody stopped a run, or had it go on after it failed."""
    stopped = any(
        isinstance(read.message, Control) and read.message.verb in STOPPING
        for read in book.inboxes.get(run, ())
    )
    return stopped or any(
        event.attempt > 1 for event in book.life.get(run.rpartition(".")[2], ()) if event.run == run
    )


def _differences(book: Book, run: str, story: Story) -> Iterator[str]:
    yield from _outcome(book.outcomes[run][-1], story)
    sent = {
        int(call.rpartition("/")[2]): reads
        for call, reads in book.asks.items()
        if call.rpartition("/")[0] == run
    }
    for number, call in story.calls.items():
        if call.sent:
            yield from _request(number, call, sent.pop(number, []))
    for number in sent:
        yield f"sent call {number}, which is not sent without faults"
    for entry in book.entries.get(run, ()):
        for made in entry.calls:
            yield from _made(made, story.calls.get(made.number))
        if isinstance(entry.delivery, Answer):
            yield from _answer(entry.delivery, story.calls.get(entry.delivery.number))


def _made(made: Made, told: Told | None) -> Iterator[str]:
    if told is None:
        yield f"noted call {made.number}, {made.kind} {made.name}, which is not made without faults"
    elif (told.kind, told.name, told.digest) != (made.kind, made.name, made.digest):
        yield f"noted call {made.number} as {made.kind} {made.name}, and without faults as {told.name}"
    elif told.sent is not (made.denied is None):
        yield f"noted call {made.number} as denied: {made.denied}"


def _outcome(read: Read, story: Story) -> Iterator[str]:
    status = read.header("ce_type").rpartition(".")[2]
    if status != story.status:
        yield f"is {status}, and without faults {story.status}"
    elif isinstance(read.message, RunFailed):
        if read.message.error != story.error:
            yield f"failed: {read.message.error}, and without faults: {story.error}"
    elif read.record.value != story.value:
        yield f"came to {_brief(read.record.value)}, and without faults to {_brief(story.value)}"


def _request(number: int, call: Told, reads: list[Read]) -> Iterator[str]:
    if not reads:
        yield f"never sent call {number}, {call.kind} {call.name}"
    for read in reads:
        message: Ask | Start = read.message
        name, value = (
            (message.name, message.arguments)
            if isinstance(message, Ask)
            else (message.run.partition(".")[0], message.task.value)
        )
        if name != call.name or not _same(value, call.arguments):
            yield f"sent call {number} as {name} {_brief(value)}, and without faults as {call.name}"


def _answer(answer: Answer, told: Told | None) -> Iterator[str]:
    if told is None or not told.sent:
        return
    found, expected = answer.outcome, told.outcome
    if isinstance(found, Answered) and isinstance(expected, Answered):
        assert isinstance(expected.value, bytes), "a story has its values"
        same = _same(found.value, expected.value)
    else:
        same = (
            isinstance(found, Failed)
            and isinstance(expected, Failed)
            and found.error == expected.error
        )
    if not same:
        had = f"had {_brief(found)} for an answer to call {answer.number}"
        yield f"{had}, and without faults {_brief(expected)}"


def _same(found: bytes | BlobRef, told: bytes) -> bool:
    """Whether a value means the same: when a model answered is left out; a blob's name is its content's."""
    if isinstance(found, BlobRef):
        return found == ref_of(told) or told.startswith(b"{")
    if found == told:
        return True
    return told.startswith(b"{") and _meaning(found) == _meaning(told)


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= WORDS_MAX else f"{text[:WORDS_MAX]}..."


def _meaning(value: bytes) -> Any:
    def timeless(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return {key: item for key, item in pairs if key != "timestamp"}

    try:
        return json.loads(value, object_pairs_hook=timeless)
    except ValueError:
        return value
