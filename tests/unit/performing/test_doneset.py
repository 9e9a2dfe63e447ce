"""The done-set: any window survives its text, fits beside an offset, and damage never goes unseen."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.contracts.records import Partition, Record
from headwater.log.port import Claim
from headwater.runtime import doneset
from headwater.runtime.watermark import Watermark

PLACE = Partition("ns.req.tool.cards.v1", 0)


def bits_of(offsets: set[int], base: int) -> bytes:
    """Return a bitmap."""
    bits = bytearray(doneset.WINDOW // 8)
    for offset in offsets:
        bits[(offset - base) >> 3] |= 1 << ((offset - base) & 7)
    return bytes(bits)


@given(
    base=st.integers(0, 2**63 - 1 - doneset.WINDOW),
    relative=st.sets(st.integers(0, doneset.WINDOW - 1), max_size=200),
)
def test_a_done_set_survives_its_text(base: int, relative: set[int]) -> None:
    """What was done is done for the next owner, and nothing else is."""
    done = {base + offset for offset in relative}
    text = doneset.encode(base, bits_of(done, base))
    assert doneset.decode(base, text) == done
    assert len(text) <= doneset.CHARS_MAX
    assert text.isascii()
    assert text.isprintable()


@pytest.mark.parametrize("share", [0.01, 0.5, 0.99, 1.0])
def test_the_worst_window_fits(share: float) -> None:
    """However a full window is mixed, it takes at most the characters that were promised."""
    choice = random.Random(7)
    done = {5 + n for n in range(doneset.WINDOW) if choice.random() < share}
    text = doneset.encode(5, bits_of(done, 5))
    assert len(text) <= doneset.CHARS_MAX
    assert doneset.decode(5, text) == done


def test_what_is_beyond_the_window_is_left_out() -> None:
    """It is begun again rather than trusted to a text that does not fit."""
    text = doneset.encode(0, b"\xff" * (doneset.WINDOW // 8 + 10))
    assert doneset.decode(0, text) == {*range(doneset.WINDOW)}


@given(data=st.data())
def test_damage_is_never_taken_for_a_done_set(data: st.DataObject) -> None:
    """A changed character, another offset, a cut: each is refused, none crashes, none is believed."""
    done = {n for n in range(300) if n % 3}
    text = doneset.encode(9, bits_of({9 + n for n in done}, 9))
    at = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.characters().filter(lambda char: char != text[at]))
    for broken in (text[:at] + char + text[at + 1 :], text[:at]):
        try:
            found = doneset.decode(9, broken)
        except doneset.UndecodableError:
            continue
        assert found == frozenset()
        assert not broken
    with pytest.raises(doneset.UndecodableError, match="of offset 9, not of 10"):
        doneset.decode(10, text)


@given(text=st.text(max_size=60))
def test_any_text_is_refused_or_read(text: str) -> None:
    """Another program's metadata is ignored, never a crash."""
    try:
        doneset.decode(0, text)
    except doneset.UndecodableError:
        return
    assert not text


@pytest.mark.parametrize(
    "body",
    [
        b"\x02" + bytes(12),
        b"\x01" + bytes(12) + b"junk",
        bytes(5),
        b"\x00" + bytes(12) + b"\x01" * 3000,
    ],
)
def test_forms_that_nobody_writes_are_refused(body: bytes) -> None:
    """An unknown form, a stream that does not inflate, half a head, more than a window."""
    with pytest.raises(doneset.UndecodableError):
        doneset.decode(0, doneset.VERSION + doneset._text(body))


def record(offset: int) -> Record:
    """Return a delivered request."""
    return Record(partition=PLACE, offset=offset, time_ms=0, key=None, value=b"x")


@given(
    done=st.sets(st.integers(0, 60)),
    delivered=st.sets(st.integers(0, 60)),
    answered=st.sets(st.integers(0, 60)),
)
def test_a_successor_takes_exactly_what_was_not_done(
    done: set[int], delivered: set[int], answered: set[int]
) -> None:
    """Offsets below the last delivered one that never came, markers for example, count as done."""
    first = Watermark(Claim(PLACE, 1))
    first.begin(0, done)
    taken = [offset for offset in sorted(delivered) if first.take(record(offset))]
    assert taken == sorted(delivered - done)
    for offset in answered:
        first.done(offset)
    left = {offset for offset in taken if offset not in answered}
    end = max(delivered, default=-1) + 1

    heir = Watermark(Claim(PLACE, 2))
    base = first.value
    heir.begin(base, doneset.decode(base, first.done_set))
    again = {offset for offset in range(base, 70) if heir.take(record(offset))}
    assert {offset for offset in again if offset < end} == left
    assert {offset for offset in again if offset >= end} == {
        offset for offset in range(end, 70) if offset not in done
    }
