"""Replays: what is sent again of a kept record, and under which identity."""

from __future__ import annotations

import dataclasses

from headwater.contracts.quarantine import BLOB, FAMILIES, PREFIX, Reason
from headwater.contracts.records import Draft, Headers, Record

MARK = "__replay."
"""What a replay adds: its id, and the place of the kept record."""
WORDS_BYTES_MAX = 256
_MARKS = frozenset(
    {
        MARK + "id",
        MARK + "of",
        PREFIX + "delivery.count",
        PREFIX + "message",
        "error.type",
    }
)
_OURS = PREFIX + "topic"
_DIGEST = PREFIX + "digest"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A kept record that is not sent again, and why; `kind` is the same for all that are alike."""

    kind: str
    why: str


def original(record: Record) -> Headers:
    """Return a kept record's headers as they were before it was put aside.

    Marks of earlier replays go too, and the headers of a foreign dead letter's family.
    """
    headers = record.headers
    for place in range(len(headers) - 1, -1, -1):
        if headers[place][0] == _OURS:
            headers = headers[:place]
            break
    else:
        return tuple(one for one in headers if not one[0].startswith(FAMILIES))
    names = {name for name, _ in headers}
    if MARK + "id" in names:
        headers = tuple(one for one in headers if one[0] not in _MARKS)
    return headers


def whole(record: Record) -> bool:
    """Say whether a kept record has its value; one that was too large was kept by its digest."""
    return not (record.value is None and record.header(_DIGEST) is not None)


def marks(record: Record, why: Reason, replay: str) -> Headers:
    """Return what tells whoever gets the record again how often it failed, and why the last time."""
    place = f"{record.partition.topic}:{record.partition.number}@{record.offset}"
    return (
        (PREFIX + "delivery.count", str(max(0, why.deliveries)).encode()),
        (PREFIX + "message", _words(why.message)),
        ("error.type", _words(why.code)),
        (MARK + "id", replay.encode()),
        (MARK + "of", place.encode()),
    )


def back(
    record: Record,
    why: Reason,
    *,
    replay: str,
    topic: str,
    partition: int | None,
    identity: str,
) -> Draft | Skipped:
    """Return a kept record as it goes back to a topic: key, value and headers byte for byte, and marks.

    Args:
        record: The kept record.
        why: What its headers say.
        replay: The replay's id.
        topic: Where it goes.
        partition: Which partition; `None` for the hash of its key.
        identity: Its `ce_id`, if it has none of its own: the place where it was first, so that a
            second replay is the same task. Empty where nobody asks for one.
    """
    if not whole(record):
        return Skipped(kind="kept by digest", why="it was too large to be kept whole")
    headers = original(record)
    if identity and not any(name == "ce_id" and value for name, value in headers):
        headers = (
            *(one for one in headers if one[0] != "ce_id"),
            ("ce_id", identity.encode()),
        )
    return Draft(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=(*headers, *marks(record, why, replay)),
        partition=partition,
    )


def anew(
    record: Record,
    why: Reason,
    *,
    replay: str,
    topic: str,
    identity: str,
    repeat_writes: bool = False,
) -> Draft | Skipped:
    """Return a dead letter as a new task: another run of the same, with an identity of its own.

    A deadline is left out: who replays a task wants it still.

    Args:
        record: The dead letter.
        why: What its headers say.
        replay: The replay's id.
        topic: The agent's command topic.
        identity: `ce_id` of the new task, made of the old run and the replay.
        repeat_writes: Whether calls that changed the world may be made again.
    """
    if not whole(record):
        return Skipped(kind="kept by digest", why="it was too large to be kept whole")
    if record.value is None and record.header(BLOB) is not None:
        return Skipped(
            kind="by reference",
            why="its task is a child's, in the store of blobs: resume the run, or replay its parent",
        )
    if why.writes and not repeat_writes:
        return Skipped(kind="writes", why=f"it would repeat writes: {why.writes}")
    headers = tuple(one for one in original(record) if one[0] not in _ANEW)
    if why.tenant and not any(name == "ce_tenantid" and value for name, value in headers):
        headers = (*headers, ("ce_tenantid", why.tenant.encode()))
    return Draft(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=(*headers, ("ce_id", identity.encode()), *marks(record, why, replay)),
        partition=why.source.number if why.source.topic == topic else None,
    )


_ANEW = frozenset({"ce_id", "ce_deadline"})


def _words(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:WORDS_BYTES_MAX]
