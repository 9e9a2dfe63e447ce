"""Rest: what must be true once everything had time to settle, and what grew on the way."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.testing.invariants.book import ENDED, Book


def nothing_hangs_and_nothing_is_left(book: Book) -> Iterator[str]:
    """No transaction hangs; no undelivered record stays."""
    for place in book.unfinished:
        yield f"a transaction over {place} has not ended"
    if not book.rested:
        return
    for (group, place), offset in book.offsets.items():
        left = [
            read.record.offset
            for read in book.topics.get(place.topic, ())
            if read.record.partition == place and read.record.offset >= offset
        ]
        if left:
            yield f"{group} stopped at {offset} of {place}: {len(left)} records are left"
    for (run, _), row in book.rows["Held"].items():
        of = book.rows["Run"].get((run,))
        if of is None or of.state == "open":
            yield f"run {run} goes on, and left {type(row.message).__name__} undelivered"


def a_killer_stops_only_its_own(book: Book) -> Iterator[str]:
    """A killer stops only its own key: every other task goes on, and it is kept aside unrun."""
    if not book.killers or not book.rested:
        return
    for task, events in book.life.items():
        if task not in book.killers and task not in book.open and events[-1].status not in ENDED:
            yield f"task {task} is {events[-1].status}, and no killer is of its key"
    for task in sorted(book.killers):
        events = book.life.get(task, [])
        if not events or events[-1].status != "quarantined":
            yield f"killer {task} is {events[-1].status if events else 'unknown'}, not kept aside"


def memory_stays_bounded(book: Book) -> Iterator[str]:
    """Memory stays bounded under overload."""
    for gauge in book.gauges:
        if gauge.most > gauge.bound:
            yield f"{gauge.name} grew to {gauge.most}; its bound is {gauge.bound}"
