"""Row keys: bytes that sort as their tuples do, and come back as they were."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.core import keys
from headwater.core.keys import key_of, parted, row_key

_PARTS = st.one_of(
    st.text(alphabet=st.sampled_from("\x00\x01\x02aÿ\U0001f600"), max_size=5),
    st.integers(-(1 << 63), (1 << 63) - 1),
)
_KEYS = st.lists(_PARTS, max_size=4).map(tuple)


@given(_KEYS)
def test_a_key_comes_back_as_it_was(key: tuple[str | int, ...]) -> None:
    """Whatever its parts hold, zero bytes and what follows them included."""
    assert key_of(row_key("Run", key)) == ("Run", key)


def test_parts_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every run has an id of its own; a worker that has seen a million keeps the latest."""
    monkeypatch.setattr(keys, "_KEPT_MAX", 3)
    written = [row_key("Run", (f"run {number}",)) for number in range(9)]
    assert [key_of(data)[1] for data in written] == [(f"run {number}",) for number in range(9)]
    assert len(keys._PARTS) <= 3


@given(_KEYS.filter(bool))
def test_a_key_begins_as_its_first_part_does(key: tuple[str | int, ...]) -> None:
    """Whoever has the first part alone finds all keys that have it."""
    data = row_key("Run", key)
    kind, first, more = parted(data)
    assert parted(row_key("Run", key[:1]))[:2] == (kind, first) == (b"Run", first)
    assert data in {b"Run\x00" + first + more, b"Run\x00" + first + b"\x00" + more}


@given(
    st.tuples(st.text(max_size=4), st.integers(-9, 9)),
    st.tuples(st.text(max_size=4), st.integers(-9, 9)),
)
def test_bytes_sort_as_tuples_do(one: tuple[str, int], other: tuple[str, int]) -> None:
    """So that a state topic's keys could be scanned by prefix as rows are."""
    assert (row_key("Run", one) < row_key("Run", other)) == (one < other)


@pytest.mark.parametrize("data", [b"Run", b"Run\x00\x07", b"Run\x00\x01\x00", b"Run\x00\x02a", b""])
def test_what_is_no_key_is_refused(data: bytes) -> None:
    """A cut or foreign key is never taken for another."""
    with pytest.raises(ValueError, match=r"key|subsection|unpack"):
        key_of(data)
    with pytest.raises(ValueError, match=r"key|unpack"):
        parted(data)
