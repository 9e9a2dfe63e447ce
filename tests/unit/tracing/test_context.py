"""Trace context as bytes."""

import timeit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from headwater.tracing import context

_TRACE, _SPAN = b"0af7651916cd43dd8448eb211c80319c", b"b7ad6b7169203331"
_SEEN = b"00-%b-%b-01" % (_TRACE, _SPAN)
_UNSEEN = b"00-%b-%b-00" % (_TRACE, _SPAN)


@pytest.mark.parametrize(
    ("traceparent", "expected"),
    [
        (_SEEN, True),
        (_UNSEEN, False),
        (_SEEN[:-2] + b"03", True),
        (_SEEN[:-2] + b"02", False),
        (b"", False),
        (_SEEN + b"-x", False),
    ],
)
def test_sampling_is_the_lowest_flag(traceparent: bytes, expected: bool) -> None:
    """Only the sampled bit counts; the random bit and garbage do not."""
    assert context.sampled(traceparent) is expected


@pytest.mark.parametrize(
    "traceparent",
    [
        b"",
        _SEEN.upper(),
        _SEEN.replace(_SPAN, b"0" * 16),
        _SEEN.replace(_TRACE, b"0" * 32),
        b"01" + _SEEN[2:],
        _SEEN.replace(b"-b7", b"xb7"),
    ],
)
def test_unreadable_contexts_have_no_ids(traceparent: bytes) -> None:
    """What W3C forbids is not read, so no span hangs on a false parent."""
    assert context.read(traceparent) is None


def test_a_span_is_the_parent_of_what_it_causes() -> None:
    """Trace and flags stay, the span changes; an unrecorded context is passed on as it is."""
    assert context.below(_SEEN, b"\x01" * 8) == b"00-%b-%b-01" % (_TRACE, b"01" * 8)
    assert context.below(_UNSEEN, b"\x01" * 8) is _UNSEEN


@given(st.binary(min_size=16, max_size=16))
def test_the_choice_is_the_one_opentelemetry_makes(trace_id: bytes) -> None:
    """A collector that samples by the same ratio keeps whole traces."""
    theirs = TraceIdRatioBased(0.1).should_sample(None, int.from_bytes(trace_id, "big"), "x")
    assert context.chosen(trace_id, ratio=0.1) is theirs.decision.is_sampled()
    assert context.chosen(trace_id, ratio=1.0)
    assert not context.chosen(trace_id, ratio=0.0)


def test_looking_at_an_unsampled_context_costs_a_fifth_of_reading_one_at_most() -> None:
    """An unsampled hop costs well under a microsecond: the bytes are looked at, nothing is built."""
    looks, reads = [], []
    for _ in range(7):  # in turn, as a machine may be slow for a while
        looks.append(timeit.timeit(lambda: context.sampled(_UNSEEN), number=5_000))
        reads.append(timeit.timeit(lambda: context.read(_UNSEEN), number=5_000))
    assert min(looks) < min(reads) / 5
