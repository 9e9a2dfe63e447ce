"""W3C trace context as bytes: what is asked of it on every hop, without an object of any kind."""

from __future__ import annotations

import hashlib

_LENGTH = 55
_FLAGS_END = 54
_TRACE = slice(3, 35)
_SPAN = slice(36, 52)
_ODD = frozenset(b"13579bdf")
_HEX = frozenset(b"0123456789abcdef")


def sampled(traceparent: bytes) -> bool:
    """Whether someone records this trace: the lowest bit of the last hex digit.

    Args:
        traceparent: Of version 00, as it stands in a record's header; anything else is unsampled.
    """
    return len(traceparent) == _LENGTH and traceparent[_FLAGS_END] in _ODD


def read(traceparent: bytes) -> tuple[int, int] | None:
    """Return a context's trace id and span id, or `None` if it cannot be read.

    Args:
        traceparent: `00-<32 hex>-<16 hex>-<2 hex>`, lower case.
    """
    if len(traceparent) != _LENGTH or traceparent[:3] != b"00-":
        return None
    trace, span = traceparent[_TRACE], traceparent[_SPAN]
    if traceparent[35:36] + traceparent[52:53] != b"--" or not _HEX.issuperset(
        trace + span + traceparent[53:]
    ):
        return None
    ids = int(trace, 16), int(span, 16)
    return ids if all(ids) else None


def below(traceparent: bytes, span_id: bytes) -> bytes:
    """Return the context of what a span causes: same trace, the span as its parent.

    Args:
        traceparent: The span's own context; returned as it is if nobody records the trace.
        span_id: The span's id, 8 bytes.
    """
    if not sampled(traceparent):
        return traceparent
    return b"%b-%b-%b" % (traceparent[:35], span_id.hex().encode(), traceparent[53:])


def chosen(trace_id: bytes, *, ratio: float) -> bool:
    """Whether a trace that begins here is recorded: by its id, as `TraceIdRatioBased` does.

    Args:
        trace_id: 16 bytes.
        ratio: Share of traces to record, from 0 to 1.
    """
    return int.from_bytes(trace_id[8:16], "big") < round(ratio * 2**64)


def call_span_id(call_id: str, attempt: str) -> bytes:
    """Return the id of the span that an attempt at a call is, 8 bytes.

    Args:
        call_id: `run/number`.
        attempt: Id of the attempt.
    """
    return hashlib.blake2b(f"{call_id}\0{attempt}".encode(), digest_size=8).digest()
