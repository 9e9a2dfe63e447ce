"""Quarantine and dead letters: records kept byte for byte, with what was wrong beside them."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Sequence

from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.errors import PoisonError

PREFIX = "__dlq.errors."
BLOB = "headwater_blob"
"""Names the blob that is a dead letter's value, where a child's task went by reference."""
STACK_BYTES_MAX = 4_096
RECORD_BYTES_MAX = 2 * 1024 * 1024
"""What a quarantine topic takes: a broker's default record and 1 MiB."""
_NUMBER = re.compile(rb"-?[0-9]{1,18}")


def quarantine_topic(topic: str) -> str:
    """Return where a topic's refused records go: `<ns>.quarantine.<kind>.<name>.v<major>`."""
    namespace, kind, name = topic.split(".", 2)
    return f"{namespace}.quarantine.{kind}.{name}"


def keep(record: Record, error: PoisonError, *, group: str) -> Draft:
    """Return the record that keeps a refused one.

    Args:
        record: As it was read.
        error: Why it was refused.
        group: Who refused it.
    """
    return letter(
        record,
        quarantine_topic(record.partition.topic),
        group=group,
        code=error.code,
        kind=type(error).__name__,
        message=str(error),
    )


def letter(
    record: Record,
    topic: str,
    *,
    group: str,
    code: str,
    kind: str,
    message: str,
    stack: str = "",
    more: Sequence[tuple[str, str]] = (),
    deliveries: int = 1,
) -> Draft:
    """Return a record to be kept in `topic`: its own bytes, and ours last, where readers take the last.

    One that would not fit is kept by digest, size and position.

    Args:
        record: As it was read.
        topic: Where it is kept.
        group: Who put it aside.
        code: Class of the error, short.
        kind: The error's type.
        message: Its words.
        stack: Where it was raised.
        more: Further headers of the family.
        deliveries: How often it was tried since it came.
    """
    place = record.partition
    # Such headers may be a producer's own: whatever they say, the record must be kept.
    count = max(_number(record.header(PREFIX + "delivery.count")), 0) + deliveries
    ours: Headers = (
        (PREFIX + "topic", place.topic.encode()),
        (PREFIX + "partition", str(place.number).encode()),
        (PREFIX + "offset", str(record.offset).encode()),
        (PREFIX + "group", group.encode()),
        (PREFIX + "delivery.count", str(count).encode()),
        *((PREFIX + name, _utf8(value)[:STACK_BYTES_MAX]) for name, value in more),
        (PREFIX + "message", _utf8(message)[:STACK_BYTES_MAX]),
        ("error.type", _utf8(code)),
        ("error.class", _utf8(kind)),
        ("error.stacktrace", _utf8(stack)[-STACK_BYTES_MAX:]),
    )
    size = len(record.key or b"") + len(record.value or b"")
    size += sum(len(name) + len(value or b"") for name, value in record.headers)
    if size > RECORD_BYTES_MAX:
        digest = hashlib.blake2b(record.value or b"", digest_size=16).hexdigest()
        kept: Headers = (
            (PREFIX + "digest", digest.encode()),
            (PREFIX + "size", str(size).encode()),
        )
        return Draft(topic=topic, key=(record.key or b"")[:1024], headers=(*kept, *ours))
    return Draft(topic=topic, key=record.key, value=record.value, headers=(*record.headers, *ours))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why and whence a record was put aside, as its last headers say.

    Args:
        source: Where it was read.
        offset: Where there.
        group: Who put it aside.
        deliveries: How often it was tried.
        code: Class of the error.
        message: Its words.
        run: The run that failed, of a dead letter of ours.
        tenant: Whose run.
        attempt: Which of the run's attempts failed.
        writes: Calls of the run that may have changed the world.
    """

    source: Partition
    offset: int
    group: str
    deliveries: int
    code: str
    message: str
    run: str = ""
    tenant: str = ""
    attempt: int = 1
    writes: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """Names of one family of headers; the first that a record has counts."""

    prefix: str
    topic: str
    partition: str
    offset: str
    group: str
    count: str
    code: str
    message: str


_OURS = _Family(
    prefix=PREFIX,
    topic=PREFIX + "topic",
    partition=PREFIX + "partition",
    offset=PREFIX + "offset",
    group=PREFIX + "group",
    count=PREFIX + "delivery.count",
    code="error.type",
    message=PREFIX + "message",
)
_FOREIGN = (
    # Kafka Connect, KIP-298: text.
    _Family(
        prefix="__connect.errors.",
        topic="__connect.errors.topic",
        partition="__connect.errors.partition",
        offset="__connect.errors.offset",
        group="__connect.errors.connector.name",
        count="",
        code="__connect.errors.exception.class.name",
        message="__connect.errors.exception.message",
    ),
    # Kafka Streams, KIP-1034: text.
    _Family(
        prefix="__streams.errors.",
        topic="__streams.errors.topic",
        partition="__streams.errors.partition",
        offset="__streams.errors.offset",
        group="",
        count="",
        code="__streams.errors.exception",
        message="__streams.errors.message",
    ),
    # Spring for Apache Kafka, DeadLetterPublishingRecoverer: numbers are big-endian.
    _Family(
        prefix="kafka_dlt-",
        topic="kafka_dlt-original-topic",
        partition="kafka_dlt-original-partition",
        offset="kafka_dlt-original-offset",
        group="kafka_dlt-original-consumer-group",
        count="retry_topic-attempts",
        code="kafka_dlt-exception-fqcn",
        message="kafka_dlt-exception-message",
    ),
)
FAMILIES = tuple(family.prefix for family in _FOREIGN)
"""Prefixes of foreign families, which are dropped where a record goes back."""


def reason(record: Record) -> Reason:
    """Read a kept record's headers, of whichever family they are; what is missing is empty."""
    found = dict(record.headers)  # the last of several counts
    family = next((one for one in (_OURS, *_FOREIGN) if one.topic in found), _OURS)

    def last(name: str) -> str:
        return (found.get(name) or b"").decode("utf-8", "replace")

    def number(name: str) -> int:
        value = found.get(name)
        return _number(value) if family is _OURS else _foreign(value)

    return Reason(
        source=Partition(last(family.topic), number(family.partition)),
        offset=number(family.offset),
        group=last(family.group),
        deliveries=number(family.count),
        code=last(family.code),
        message=last(family.message),
        run=last(PREFIX + "run"),
        tenant=last(PREFIX + "tenant"),
        attempt=max(1, _number(found.get(PREFIX + "attempt"))),
        writes=last(PREFIX + "writes"),
    )


def _foreign(value: bytes | None) -> int:
    """Return a foreign number: as text, or big-endian as Java writes ints and longs; -1 if it is none.

    Four or eight bytes that read as a number in text are text.
    """
    found = _number(value)
    if found < 0 and value is not None and len(value) in (4, 8):
        found = max(-1, int.from_bytes(value, "big", signed=True))
    return found


def _number(value: bytes | None) -> int:
    """Return what a header counts; -1 if it is missing or no number."""
    return int(value) if value and _NUMBER.fullmatch(value) else -1


def _utf8(text: str) -> bytes:
    """Return text as bytes, half of a surrogate pair escaped: errors quote what they were given."""
    return text.encode("utf-8", "backslashreplace")
