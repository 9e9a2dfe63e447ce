"""A message in its envelope: CloudEvents binary mode, our extensions, and trace context, as headers."""

from __future__ import annotations

import datetime
import functools
from collections.abc import Callable
from typing import Any, Protocol

from headwater.contracts.messages import Header
from headwater.contracts.records import Draft, Headers, Record
from headwater.core.decider import Encoded, Sent
from headwater.core.messages import Meta
from headwater.errors import PoisonError

CARRIED = ("ce_subject", "ce_time", "tracestate", "baggage")
VALUE_BYTES_MAX = 900 * 1024
"""Largest value a turn may send: a broker's default record limit, less room for key and headers."""


class Coder(Protocol):
    """Turns messages into bytes and back (`contracts.codec.Codec`)."""

    def encode(self, value: Any) -> bytes:
        """Return single-object Avro."""
        ...

    def decode(self, data: bytes) -> Any:
        """Return the message; `PoisonError` if it is none that we know."""
        ...

    def field(self, kind: type, name: str) -> Callable[[bytes], Any]:
        """Return what reads one field of encoded values of a type, sooner than all of them."""
        ...


class Envelope:
    """Seals messages into drafts and opens records.

    Args:
        codec: Encodes and decodes the values.
        source: `ce_source` of what is sealed here: the process's role.
        takes: The messages that may be opened here; none means any.
    """

    def __init__(self, codec: Coder, *, source: str, takes: tuple[type, ...] = ()) -> None:
        self.codec = codec
        self._takes = takes
        self._fixed: Headers = (
            ("ce_specversion", b"1.0"),
            ("content-type", b"application/avro"),
            ("ce_source", source.encode()),
        )

    def seal(self, sent: Sent) -> Draft:
        """Return the record of a message.

        Raises:
            PoisonError: The value is over what a record may hold (`too-large`).
        """
        message, meta = sent.message, sent.meta
        if isinstance(message, Encoded):
            kind, value = message.type.encode(), message.value
            if not isinstance(value, bytes):
                value = self.codec.encode(value)
        else:
            (_, kind), value = kind_header(message.__class__), self.codec.encode(message)
        if len(value) > VALUE_BYTES_MAX:
            raise PoisonError(
                "too-large",
                f"a {kind.decode()} of {len(value)} bytes is over {VALUE_BYTES_MAX}: pass less, "
                "or a reference to where it is",
            )
        headers = (
            *self._fixed,
            ("ce_id", meta.id.encode()),
            ("ce_type", kind),
            ("ce_tenantid", meta.tenant.encode()),
            ("ce_correlationid", meta.correlation_id.encode()),
            ("ce_causationid", meta.causation_id.encode()),
            *_further(meta),
            *sent.headers,
        )
        to = sent.to
        return Draft(
            topic=to.topic,
            key=to.key.encode(),
            value=value,
            headers=headers,
            partition=to.partition,
        )

    def open(self, record: Record) -> tuple[Meta, Any]:
        """Return a record's meta and message.

        Raises:
            PoisonError: No message of ours can be read from it.
        """
        if record.value is None:
            raise PoisonError("tombstone", "the record has no value")
        meta, message = self.meta(record), self.codec.decode(record.value)
        if self._takes and not isinstance(message, self._takes):
            kind = type(message).__name__
            raise PoisonError("unexpected-message", f"a {kind} has no business in this topic")
        return meta, message

    def meta(self, record: Record) -> Meta:
        """Return what a record's headers say; the last of two headers with one name counts."""
        found = dict(record.headers)
        get = found.get
        try:
            deadline = get("ce_deadline")
            return Meta(
                id=(get("ce_id") or b"").decode(),
                tenant=(get("ce_tenantid") or b"").decode(),
                correlation_id=(get("ce_correlationid") or b"").decode(),
                causation_id=(get("ce_causationid") or b"").decode(),
                actor=(get("ce_actorid") or b"").decode(),
                traceparent=get("traceparent") or b"",
                deadline_ms=milliseconds(deadline.decode()) if deadline else None,
                carried=()
                if found.keys().isdisjoint(CARRIED)
                else tuple(
                    Header(name=name, value=value)
                    for name in CARRIED
                    if (value := found.get(name)) is not None
                ),
            )
        except ValueError as error:
            raise PoisonError("invalid-header", f"a header cannot be read: {error}") from error


def _further(meta: Meta) -> Headers:
    """Return the headers of what not every message has."""
    if not (meta.actor or meta.deadline_ms is not None or meta.traceparent or meta.carried):
        return ()
    headers: list[tuple[str, bytes | None]] = []
    if meta.actor:
        headers.append(("ce_actorid", meta.actor.encode()))
    if meta.deadline_ms is not None:
        headers.append(("ce_deadline", rfc3339(meta.deadline_ms).encode()))
    if meta.traceparent:
        headers.append(("traceparent", meta.traceparent))
    headers += ((header.name, header.value) for header in meta.carried)
    return tuple(headers)


def rfc3339(time_ms: int) -> str:
    """Write a time as RFC 3339, in UTC, to the millisecond."""
    moment = datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def milliseconds(text: str) -> int:
    """Read RFC 3339 as milliseconds since 1970.

    Raises:
        ValueError: It is not RFC 3339, or names no offset from UTC.
    """
    moment = datetime.datetime.fromisoformat(text)
    if moment.tzinfo is None:
        raise ValueError(f"{text!r} has no offset from UTC")
    return round(moment.timestamp() * 1000)


@functools.cache
def kind_header(of: type[object]) -> tuple[str, bytes]:
    """Return the header that tells a message of ours by its type."""
    return ("ce_type", f"headwater.{of.__name__.lower()}".encode())
