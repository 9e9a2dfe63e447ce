"""Headers: names of tenants as every door takes them, and how much a record may carry."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.contracts import headers, quarantine
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.contracts.replays import back
from headwater.errors import PoisonError


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("t1", True),
        ("a.b_c-9", True),
        ("", False),
        ("T1", False),
        ("a" * 65, False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_a_tenants_name_can_stand_in_a_header_and_a_key(name: str, valid: bool) -> None:
    """1 to 64 of `a-z 0-9 . _ -`, and nothing behind them."""
    assert headers.valid_tenant(name) is valid


@pytest.mark.parametrize(
    ("key", "given", "what"),
    [
        (b"k" * (headers.KEY_BYTES_MAX + 1), (), "key"),
        (b"k", (("x", b"?"),) * (headers.HEADERS_MAX + 1), "headers; at most"),
        (b"k", (("x", b"?" * headers.HEADERS_BYTES_MAX),), "headers of"),
    ],
)
def test_a_record_over_a_limit_is_refused(key: bytes, given: Headers, what: str) -> None:
    """Just over; what a replay adds is not counted, so a replay is refused and taken as its record was."""
    added = (("__replay.id", b"1"), ("ce_id", b"2"), ("ce_tenantid", b"t"))
    for more in ((), added):
        with pytest.raises(PoisonError, match=what) as refused:
            headers.sizes(key, (*given, *more))
        assert refused.value.code == "too-large"
        headers.sizes(
            key[:-1], tuple((name, (value or b"")[:-1]) for name, value in given[:-1]) + more
        )


def test_what_a_replay_adds_is_bounded() -> None:
    """Anybody can give a header such a name."""
    with pytest.raises(PoisonError, match="headers; at most"):
        headers.sizes(b"k", (("__replay.id", b""),) * (headers.HEADERS_MAX + 8))
    with pytest.raises(PoisonError, match="headers of"):
        headers.sizes(b"k", (("__replay.id", b"?" * (headers.HEADERS_BYTES_MAX + 4_096)),))


@pytest.mark.parametrize("count", range(headers.HEADERS_MAX - 2, headers.HEADERS_MAX + 2))
@pytest.mark.parametrize("name", ["error.type", "__dlq.errors.message"])
def test_a_producers_own_header_with_a_marks_name_has_no_replay_refused(
    name: str, count: int
) -> None:
    """It stays beside the mark: what was taken is taken again, and what was refused is refused."""
    place = Partition("hw.cmd.desk.v1", 0)
    more = tuple((f"x-{n}", b"?") for n in range(count))
    given: Headers = (("ce_id", b"1"), ("ce_tenantid", b"t"), (name, b"mine"), *more)
    record = Record(partition=place, offset=5, time_ms=1, key=b"k", value=b"v", headers=given)
    kept = quarantine.keep(record, PoisonError("no-schema", "later"), group="g")
    letter = dataclasses.replace(record, headers=kept.headers)
    why = quarantine.reason(letter)
    draft = back(letter, why, replay="r1", topic=place.topic, partition=0, identity="i")
    assert isinstance(draft, Draft)
    assert _refused(draft.headers) == _refused(given)


def _refused(given: Headers) -> bool:
    try:
        headers.sizes(b"k", given)
    except PoisonError:
        return True
    return False
