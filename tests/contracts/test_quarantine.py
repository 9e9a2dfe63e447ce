"""What is kept of a record that nobody could take."""

from __future__ import annotations

import hashlib

import pytest

from headwater.contracts import quarantine
from headwater.contracts.records import Draft, Partition, Record
from headwater.errors import PoisonError

_AT = Partition("hw.cmd.triage.v1", 2)
_ERROR = PoisonError("unknown-schema", "schema 9 is not known")


def record(value: bytes, *headers: tuple[str, bytes | None]) -> Record:
    return Record(partition=_AT, offset=41, time_ms=5, key=b"k", value=value, headers=headers)


def again(draft: Draft) -> Record:
    """Return a draft as its reader gets it."""
    return Record(
        partition=Partition(draft.topic, 0),
        offset=0,
        time_ms=6,
        key=draft.key,
        value=draft.value,
        headers=draft.headers,
    )


def test_a_record_is_kept_byte_for_byte_with_the_reason_behind_it() -> None:
    """Its own headers first and unchanged; ours last, where readers take the last."""
    own = (("ce_id", b"c-1"), ("empty", None), ("ce_id", b"c-1"))
    kept = quarantine.keep(record(b"\x00bad", *own), _ERROR, group="hw.intake")
    assert kept.topic == "hw.quarantine.cmd.triage.v1"
    assert (kept.key, kept.value, kept.headers[:3]) == (b"k", b"\x00bad", own)
    why = quarantine.reason(again(kept))
    assert (why.source, why.offset, why.group) == (_AT, 41, "hw.intake")
    assert (why.code, why.message, why.deliveries) == ("unknown-schema", "schema 9 is not known", 1)


def test_a_record_that_was_kept_before_counts_up() -> None:
    """Foreign dead-letter headers stay; ours, last, say what happened here."""
    first = quarantine.keep(record(b"x"), _ERROR, group="a")
    second = quarantine.keep(record(b"x", *first.headers), _ERROR, group="b")
    assert quarantine.reason(again(second)).deliveries == 2
    assert quarantine.reason(again(second)).group == "b"


def test_a_record_that_does_not_fit_is_kept_by_digest_size_and_position() -> None:
    """A message of two and more megabytes cannot be written whole."""
    value = b"x" * (quarantine.RECORD_BYTES_MAX + 1)
    kept = quarantine.keep(record(value), _ERROR, group="hw.intake")
    assert kept.value is None
    found = dict(kept.headers)
    assert (
        found["__dlq.errors.digest"] == hashlib.blake2b(value, digest_size=16).hexdigest().encode()
    )
    assert int(found["__dlq.errors.size"] or b"") == len(value) + 1
    assert quarantine.reason(again(kept)).offset == 41


def test_a_stack_is_cut_to_its_end() -> None:
    """The innermost frames say the most."""
    kept = quarantine.letter(
        record(b"x"),
        "hw.dlq.triage.v1",
        group="g",
        code="ToolError",
        kind="ToolError",
        message="m" * 10_000,
        stack="a" * 10_000 + "the end",
    )
    found = dict(kept.headers)
    assert (found["error.stacktrace"] or b"").endswith(b"the end")
    assert len(found["error.stacktrace"] or b"") == quarantine.STACK_BYTES_MAX
    assert len(found["__dlq.errors.message"] or b"") == quarantine.STACK_BYTES_MAX


def test_headers_that_are_missing_or_nonsense_are_empty() -> None:
    """A foreign record in a quarantine topic can still be listed."""
    why = quarantine.reason(record(b"x", ("__dlq.errors.offset", b"\xff")))
    assert (why.offset, why.code, why.source) == (-1, "", Partition("", -1))


@pytest.mark.parametrize(
    "count", [b"abc", b"", None, b"-7", b"9" * 5_000, b"1e3", b"\xff", "\u00b2".encode()]
)
def test_a_record_is_kept_whatever_its_own_headers_count(count: bytes | None) -> None:
    """A producer may have written our headers: quarantining that record must not fail."""
    kept = quarantine.keep(record(b"x", ("__dlq.errors.delivery.count", count)), _ERROR, group="g")
    assert quarantine.reason(again(kept)).deliveries == 1
    assert kept.headers[0] == ("__dlq.errors.delivery.count", count)


@pytest.mark.parametrize("offset", [b"--5", b"9" * 5_000, "\u00b2".encode(), b" 5", b"5\n"])
def test_a_reason_is_read_whatever_its_headers_say(offset: bytes) -> None:
    """Foreign dead letters are listed too, and one that lies must not end the list."""
    assert quarantine.reason(record(b"x", ("__dlq.errors.offset", offset))).offset == -1


def test_a_message_that_is_no_utf_8_is_kept() -> None:
    """An error quotes what it was given, half of a surrogate pair too."""
    kept = quarantine.keep(record(b"x"), PoisonError("odd", "a\ud800b"), group="g")
    assert quarantine.reason(again(kept)).message == "a\\ud800b"
