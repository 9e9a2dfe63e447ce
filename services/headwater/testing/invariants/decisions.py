"""Decisions: what people said, against what was sent and made."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from headwater.contracts.approvals import ApprovalEvent
from headwater.contracts.messages import Ask
from headwater.runs.people import bound
from headwater.testing.invariants.book import Book, Read

Said = dict[str, list[ApprovalEvent]]


def said(book: Book) -> Said:
    """Return what was asked and said of each call: `run/number`, in order."""
    found: Said = defaultdict(list)
    for read in book.of("evt", "approvals"):
        if isinstance(read.message, ApprovalEvent):
            found[f"{read.message.run}/{read.message.number}"].append(read.message)
    return found


def sendings(events: list[ApprovalEvent]) -> int:
    """Return how often a call may be sent: once, and once for each word that it did not happen."""
    return 1 + sum(event.status == "not-happened" for event in events)


def nothing_is_made_that_nobody_approved(book: Book) -> Iterator[str]:
    """None after approval expired or on other arguments."""
    for call, events in said(book).items():
        asked = next((e for e in events if e.status == "asked" and e.about == "tool"), None)
        asks = book.asks.get(call, [])
        if asked is not None and asks:
            yield from _sent(book, call, asked, events, asks)
        if asked is None:
            continue
        until_ms = max(e.expires_ms for e in events if e.status in ("asked", "not-happened"))
        until_ms += book.slack_ms + book.skew_ms
        for act in book.acts:
            began_ms = act.at_ms if act.began_ms is None else act.began_ms
            if act.key == call and not act.late and began_ms > until_ms:
                yield f"{act.name} of {call} was made after its approval expired"


def _sent(
    book: Book, call: str, asked: ApprovalEvent, events: list[ApprovalEvent], asks: list[Read]
) -> Iterator[str]:
    ask = asks[0].message
    ends = [e for e in events if e.approval == asked.approval and e.status == "approved"]
    if not ends:
        yield f"{call} was sent, and nobody approved it"
    # A commit may take its time: what counts is until when the call may begin.
    if isinstance(ask, Ask) and ask.not_after_ms > asked.expires_ms:
        yield f"{call} was sent to begin after its approval expired"
    if any(e.by in ("", asked.requester) for e in ends):
        yield f"{call} was approved by who asked for it, or by nobody"
    if isinstance(ask, Ask) and bound(ask.name, ask.arguments) != asked.digest:
        yield f"{call} was sent with other arguments than were approved"
