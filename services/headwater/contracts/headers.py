"""Headers of foreign records: which are taken over, and which refuse a record.

CloudEvents binary mode for Kafka 1.0.2 names them `ce_*`; W3C Trace Context names its own.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable

from headwater.contracts.records import Headers
from headwater.contracts.replays import ADDED_BYTES_MAX, added_to
from headwater.errors import PoisonError

HEADERS_MAX = 64
HEADERS_BYTES_MAX = 16 * 1024
KEY_BYTES_MAX = 1024
VALUE_BYTES_MAX = 512 * 1024
ID_BYTES_MAX = 256

_TENANT = re.compile(r"[a-z0-9._-]{1,64}")
_TRACEPARENT = re.compile(rb"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_YEARS_MS = (0, 253_402_300_799_999)
"""1970-01-01T00:00:00Z to 9999-12-31T23:59:59.999Z: what can be written again in UTC."""


def sizes(key: bytes | None, headers: Headers) -> None:
    """Refuse a record whose key or headers are over the limits, beside those that a replay adds.

    These are never counted, or a record that was refused would be taken when it is replayed.

    Raises:
        PoisonError: `too-large`.
    """
    if key is not None and len(key) > KEY_BYTES_MAX:
        raise PoisonError("too-large", f"the key has {len(key)} bytes; at most {KEY_BYTES_MAX}")
    added = added_to(headers)
    count = len(headers) - len(added)
    if count > HEADERS_MAX:
        raise PoisonError("too-large", f"{count} headers; at most {HEADERS_MAX}")
    total = _size(headers) - min(_size(added), ADDED_BYTES_MAX)
    if total > HEADERS_BYTES_MAX:
        raise PoisonError("too-large", f"headers of {total} bytes; at most {HEADERS_BYTES_MAX}")


def _size(headers: Iterable[tuple[str, bytes | None]]) -> int:
    return sum(len(name.encode()) + len(value or b"") for name, value in headers)


def unique(headers: Headers) -> dict[str, bytes | None]:
    """Return headers by name.

    Raises:
        PoisonError: A `ce_` header comes twice with different values (`ambiguous-header`).
    """
    found: dict[str, bytes | None] = {}
    for name, value in headers:
        if name.startswith("ce_") and name in found and found[name] != value:
            raise PoisonError("ambiguous-header", f"header {name} comes twice, with two values")
        found[name] = value
    return found


def text(found: dict[str, bytes | None], name: str) -> str:
    """Return an identifying header; empty if it is absent, empty or null.

    Raises:
        PoisonError: It is too long or has control characters (`invalid-header`).
    """
    value = found.get(name) or b""
    if len(value) > ID_BYTES_MAX:
        raise PoisonError(
            "invalid-header", f"{name} has {len(value)} bytes; at most {ID_BYTES_MAX}"
        )
    try:
        decoded = value.decode()
    except UnicodeDecodeError as error:
        raise PoisonError("invalid-header", f"{name} is not UTF-8") from error
    if _CONTROL.search(decoded):
        raise PoisonError("invalid-header", f"{name} has control characters")
    return decoded


def tenant(found: dict[str, bytes | None], allowed: tuple[str, ...] | None) -> str:
    """Return whose the record is.

    Args:
        found: Headers by name.
        allowed: Tenants that the topic's principals may name; `None` for any.

    Raises:
        PoisonError: No tenant (`missing-tenant`), or none that may be named (`foreign-tenant`).
    """
    name = text(found, "ce_tenantid")
    if not name:
        if allowed is not None and len(allowed) == 1:
            return allowed[0]
        raise PoisonError(
            "missing-tenant", "ce_tenantid is missing, and the topic declares no one tenant"
        )
    if not _TENANT.fullmatch(name):
        raise PoisonError("invalid-header", f"ce_tenantid {name!r}: 1 to 64 of a-z 0-9 . _ -")
    if allowed is not None and name not in allowed:
        raise PoisonError("foreign-tenant", f"ce_tenantid {name!r} may not be named on this topic")
    return name


def valid_tenant(name: str) -> bool:
    """Say whether a name can be a tenant's."""
    return bool(_TENANT.fullmatch(name))


def deadline_ms(found: dict[str, bytes | None]) -> int | None:
    """Return `ce_deadline` in milliseconds since 1970.

    Raises:
        PoisonError: It is not RFC 3339 (`invalid-header`).
    """
    written = text(found, "ce_deadline")
    if not written:
        return None
    if not _RFC3339.fullmatch(written):
        raise PoisonError(
            "invalid-header", f"ce_deadline {written!r} is not RFC 3339 with an offset from UTC"
        )
    try:
        moment = datetime.datetime.fromisoformat(written.upper())
    except ValueError as error:
        raise PoisonError("invalid-header", f"ce_deadline {written!r} is not RFC 3339") from error
    first, last = _YEARS_MS
    time_ms = round(moment.timestamp() * 1000)
    if not first <= time_ms <= last:
        raise PoisonError("invalid-header", f"ce_deadline {written!r} is not from 1970 to 9999")
    return time_ms


def traceparent(found: dict[str, bytes | None]) -> bytes:
    """Return a readable W3C trace context; empty if there is none."""
    value = found.get("traceparent") or b""
    return value if _TRACEPARENT.fullmatch(value) else b""
