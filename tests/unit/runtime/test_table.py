"""Rows in memory, as records of the state topic, and back."""

from __future__ import annotations

import dataclasses

import pytest

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Timer
from headwater.core.keys import row_key
from headwater.core.messages import Key, Meta
from headwater.core.state import Layer
from headwater.errors import PoisonError
from headwater.runtime.table import Restore, Table, UnreadableRowError, drafts

_STATE = Partition("hw.state.counts.v1", 3)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Count:
    """A row."""

    name: str
    number: int = 0

    @property
    def key(self) -> Key:
        """By its name."""
        return (self.name,)


def test_a_row_that_came_and_went_in_one_batch_leaves_no_record() -> None:
    """Only what outlives its batch is written; dropping what was there is a tombstone."""
    table = Table([Count(name="old")])
    layer = Layer(table)
    layer.put(Count(name="brief"))
    layer.drop(Count(name="brief"))
    layer.drop(Count(name="old"))
    layer.put(Count(name="new", number=1))
    codec = Codec(Schemas(), (Count,))
    written = {draft.key: draft.value for draft in drafts(layer, table, _STATE, codec)}
    assert len(written) == 2
    assert sorted(value is None for value in written.values()) == [False, True]


def test_what_was_written_is_restored_newest_last() -> None:
    """The newest value of a key counts, and a tombstone is its end."""
    codec = Codec(Schemas(), (Count,))
    table, restore = Table(()), Restore(codec)
    offset = 0
    for rows, dropped in (
        ([Count(name="a"), Count(name="b")], []),
        ([Count(name="a", number=2)], [Count(name="b")]),
    ):
        layer = Layer(table)
        for row in rows:
            layer.put(row)
        for row in dropped:
            layer.drop(row)
        for draft in drafts(layer, table, _STATE, codec):
            record = Record(
                partition=_STATE, offset=offset, time_ms=0, key=draft.key, value=draft.value
            )
            restore.add([record])
            offset += 1
        table.apply(layer)
    restored = restore.table()
    assert restored.get(Count, "a") == table.get(Count, "a") == Count(name="a", number=2)
    assert restored.get(Count, "b") is None


def _restored(*rows: tuple[bytes, bytes]) -> Restore:
    restore = Restore(Codec(Schemas(), (Count,)))
    for offset, (key, value) in enumerate(rows):
        restore.add([Record(partition=_STATE, offset=offset, time_ms=0, key=key, value=value)])
    return restore


def test_restored_rows_are_decoded_when_they_are_read_and_once() -> None:
    """A partition is ready before its rows are decoded, and reads them as if they had been."""
    codec = Codec(Schemas(), (Count,))
    rows = [Count(name=name, number=n) for n, name in enumerate(("b", "a", "c"))]
    table = _restored(*((row_key("Count", row.key), codec.encode(row)) for row in rows)).table()
    assert len(table) == 3
    first = table.get(Count, "a")
    assert first == rows[1]
    assert table.get(Count, "a") is first
    assert [row.name for row in table.scan(Count)] == ["a", "b", "c"]
    assert [row.name for row in table.scan(Count, "b")] == ["b"]


def test_a_row_of_an_unknown_schema_keeps_a_partition_from_starting() -> None:
    """A version that does not know its rows must not go on without them."""
    unknown = b"\xc3\x01" + b"\x07" * 8
    with pytest.raises(PoisonError, match="schema"):
        _restored((row_key("Count", ("a",)), unknown)).table()


def test_a_row_that_cannot_be_read_is_never_taken_for_a_bad_message() -> None:
    """It stops the process: a message put in quarantine for it would be a good one."""
    codec = Codec(Schemas(), (Count,))
    whole = codec.encode(Count(name="a"))
    table = _restored(
        (row_key("Count", ("a",)), whole[:10]), (row_key("Count", ("b",)), whole)
    ).table()
    with pytest.raises(UnreadableRowError, match="'a'") as caught:
        table.get(Count, "a")
    assert not isinstance(caught.value, PoisonError)


def test_a_key_that_is_no_rows_stops_the_restore() -> None:
    """Nobody else writes into a state topic."""
    with pytest.raises(UnreadableRowError, match="no row's key"):
        _restored((b"Count\x00\x09", b"")).table()


def test_rows_written_over_restored_ones_stay() -> None:
    """A row that is filed later, because its neighbour is asked for, does not come back from before."""
    codec = Codec(Schemas(), (Count,))
    table = _restored((row_key("Count", ("a",)), codec.encode(Count(name="a")))).table()
    layer = Layer(table)
    layer.put(Count(name="a", number=2))
    table.apply(layer)
    assert table.get(Count, "a") == Count(name="a", number=2)
    assert len(table) == 1


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row of several below one name."""

    name: str
    number: int

    @property
    def key(self) -> Key:
        """By its name, in order."""
        return (self.name, self.number)


@pytest.mark.parametrize("name", ["a", "a\x00b", "\x00"])
def test_a_scan_goes_on_while_other_rows_are_filed(name: str) -> None:
    """Reading a neighbour in the middle of a scan neither ends it nor has it begin again."""
    codec = Codec(Schemas(), (Item,))
    rows = [Item(name=of, number=n) for of in ("0", name, "z") for n in range(3)]
    values = {row_key("Item", row.key): codec.encode(row) for row in rows}
    table = Table.encoded(values, codec)
    found = []
    for row in table.scan(Item, name):
        found.append(row.number)
        assert table.get(Item, "0", 0) == rows[0]
        assert table.get(Item, "z", 2) == rows[-1]
    assert found == [0, 1, 2]
    everything = [row.key for row in Table.encoded(values, codec).scan(Item)]
    assert everything == sorted(row.key for row in rows)


def test_timers_are_filed_at_once() -> None:
    """The loop must know when they are due before anybody asks for one by name."""
    timer = Timer(name=("run", "r"), due_ms=5, meta=Meta(id="i", tenant="t"))
    codec = Codec(Schemas(), (Timer,))
    table = Table.encoded({row_key("Timer", timer.key): codec.encode(timer)}, codec)
    assert [*table.scan(Timer)] == [timer]
    assert table.get(Timer, "run", "r") == timer


@pytest.mark.parametrize("rest", [b"\x02a\x00\x09", b"\x02a\x00\x01\x00"])
def test_a_key_whose_later_parts_are_no_rows_stops_whoever_asks(rest: bytes) -> None:
    """Nobody else writes into a state topic, so nothing can go on without it."""
    value = Codec(Schemas(), (Count,)).encode(Count(name="a"))
    table = _restored((b"Count\x00" + rest, value)).table()
    with pytest.raises(UnreadableRowError, match="no row's key"):
        table.get(Count, "a")
