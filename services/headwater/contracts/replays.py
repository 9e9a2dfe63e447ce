"""Replays: what is sent again of a kept record, and under which identity."""

from __future__ import annotations

import dataclasses

from headwater.contracts.quarantine import BLOB, FAMILIES, PREFIX, Reason
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.errors import ProcessKillerError

MARK = "__replay."
"""What a replay adds: its id, and the place of the kept record."""
WORDS_BYTES_MAX = 256
ADDED_BYTES_MAX = 2_048
"""How many bytes a replay adds at most."""
_MARKS = frozenset(
    {
        MARK + "id",
        MARK + "of",
        PREFIX + "delivery.count",
        PREFIX + "message",
        "error.type",
    }
)
_IDENTITY = frozenset({"ce_id", "ce_tenantid"})
_OURS = PREFIX + "topic"
_DIGEST = PREFIX + "digest"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """A kept record that is not sent again, and why; `kind` is the same for all that are alike."""

    kind: str
    why: str


def added_to(headers: Headers) -> Headers:
    """Return what a replay added, or would: its marks, and the id and tenant of who had none.

    A header that only has the name of a mark is its producer's own, and stands beside the mark.
    """
    replayed = any(name == MARK + "id" for name, _ in headers)
    names = _MARKS | _IDENTITY if replayed else _IDENTITY
    return tuple({name: (name, value) for name, value in headers if name in names}.values())


def original(record: Record) -> Headers:
    """Return a kept record's headers as they were before it was put aside.

    Marks of earlier replays go too, and the headers of a foreign dead letter's family.
    """
    headers = record.headers
    begins = _begins(headers)
    if begins == len(headers):
        headers = tuple(one for one in headers if not one[0].startswith(FAMILIES))
    else:
        headers = headers[:begins]
    names = {name for name, _ in headers}
    if MARK + "id" in names:
        headers = tuple(one for one in headers if one[0] not in _MARKS)
    return headers


def outrun(why: Reason, run: str, status: str) -> Skipped | None:
    """Return why it does no good to send a killer of processes back; `None` if somebody waits for it.

    Args:
        why: What its headers say.
        run: The run that it is for.
        status: What that run is doing; empty if nobody knows it.
    """
    kind = why.source.topic.split(".")[1:2]
    if why.code != ProcessKillerError.CODE or kind not in (["inbox"], ["req"]):
        return None
    if kind == ["req"]:
        return Skipped(
            kind="nobody waits",
            why=f"its call was answered as it was put aside, and {run} waits for it no more: see `headwater "
            f"runs show {run}`; one that failed begins anew with `headwater dlq replay {run}`",
        )
    if status in ("", "quarantined"):
        return None
    if status == "failed":
        return Skipped(
            kind="its run has it", why=f"a resume gives it once more: `headwater runs resume {run}`"
        )
    return Skipped(kind="its run went on", why=f"{run} is {status}, and waits for it no more")


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


class Anew:
    """Makes new tasks of dead letters: other runs of the same tasks, with identities of their own.

    The identity is made of the old run and the replay, so the same replay twice is one task. A
    deadline is left out: who replays a task wants it still. A million of them may wait, so headers
    are gone through once and stay bytes.

    Args:
        replay: The replay's id.
        topic: The agent's command topic.
        repeat_writes: Whether calls that changed the world may be made again.
    """

    __slots__ = ("_mark", "_of", "_place", "_repeat_writes", "_replay", "_source", "_topic")

    def __init__(self, *, replay: str, topic: str, repeat_writes: bool = False) -> None:
        self._replay = replay.encode()
        self._topic = topic
        self._source = topic.encode()
        self._repeat_writes = repeat_writes
        self._mark = (MARK + "id", self._replay)
        self._place: Partition | None = None
        self._of = b""

    def __call__(self, record: Record) -> Draft | Skipped:
        """Return a dead letter as a new task, or why it is none."""
        headers = record.headers
        begins = _begins(headers)
        ours = dict(headers[begins:])
        writes = ours.get(_WRITES)
        if record.value is None and not whole(record):
            return Skipped(kind="kept by digest", why="it was too large to be kept whole")
        if record.value is None and record.header(BLOB) is not None:
            return Skipped(
                kind="by reference",
                why="its task is a child's, in the store of blobs: resume the run, "
                "or replay its parent",
            )
        if writes and not self._repeat_writes:
            why = writes.decode("utf-8", "replace")
            return Skipped(kind="writes", why=f"it would repeat writes: {why}")
        kept: list[tuple[str, bytes | None]] = []
        tenant = ours.get(_TENANT)
        for one in headers[:begins]:
            name = one[0]
            if name in _ANEW:
                continue
            if name == "ce_tenantid":
                if not one[1]:
                    continue
                tenant = None
            kept.append(one)
        if tenant:
            kept.append(("ce_tenantid", tenant))
        place = self._place_of(record)
        kept += (
            ("ce_id", b"%b/%b" % (ours.get(_RUN) or place, self._replay)),
            (_COUNT, ours.get(_COUNT) or b"0"),
            (_MESSAGE, (ours.get(_MESSAGE) or b"")[:WORDS_BYTES_MAX]),
            ("error.type", (ours.get("error.type") or b"")[:WORDS_BYTES_MAX]),
            self._mark,
            (MARK + "of", place),
        )
        home = ours.get(_OURS) == self._source
        return Draft(
            topic=self._topic,
            key=record.key,
            value=record.value,
            headers=tuple(kept),
            partition=int(ours[_PARTITION] or b"0") if home else None,
        )

    def _place_of(self, record: Record) -> bytes:
        place = record.partition
        if place is not self._place:  # a reader of one partition gives every record the same
            self._place = place
            self._of = f"{place.topic}:{place.number}@".encode()
        return b"%b%d" % (self._of, record.offset)


def _begins(headers: Headers) -> int:
    """Return where the headers begin that were added when a record was put aside last; none: its end."""
    size = len(headers)
    if size >= _LETTER and headers[size - _LETTER][0] == _OURS:
        return size - _LETTER  # as our own runs write them
    begins = size
    while begins and headers[begins - 1][0] != _OURS:
        begins -= 1
    return begins - 1 if begins else size


_LETTER = 13
"""How many headers a dead letter of ours has more than its task."""
_COUNT = PREFIX + "delivery.count"
_MESSAGE = PREFIX + "message"
_PARTITION = PREFIX + "partition"
_RUN = PREFIX + "run"
_TENANT = PREFIX + "tenant"
_WRITES = PREFIX + "writes"
_ANEW = frozenset({"ce_id", "ce_deadline", *_MARKS})


def _words(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:WORDS_BYTES_MAX]
