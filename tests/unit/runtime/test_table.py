"""Rows in memory, as records of the state topic, and back."""

from __future__ import annotations

import dataclasses
from concurrent.futures import Future

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.records import Partition
from headwater.core.decider import Timer
from headwater.core.keys import row_key
from headwater.core.messages import Key, Meta
from headwater.core.state import Layer, Row
from headwater.errors import PoisonError
from headwater.runtime.cold import Cold
from headwater.runtime.table import Restore, Table, UnreadableRowError, drafts
from headwater.runtime.timers import Heap, Timers, armed

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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A row of several below one name."""

    name: str
    number: int

    @property
    def key(self) -> Key:
        """By its name, in order."""
        return (self.name, self.number)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Bucket:
    """A row whose key begins with a number."""

    number: int
    name: str

    @property
    def key(self) -> Key:
        """By its number, then its name."""
        return (self.number, self.name)


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
            restore.add([draft.key or b""], [draft.value])
        table.apply(layer)
    restored = restore.table()
    assert restored.get(Count, "a") == table.get(Count, "a") == Count(name="a", number=2)
    assert restored.get(Count, "b") is None


def _restored(*rows: tuple[bytes, bytes | None]) -> Restore:
    restore = Restore(Codec(Schemas(), (Count, Item, Bucket, Timer)))
    for key, value in rows:
        restore.add([key], [value])
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


@pytest.mark.parametrize(
    "key", [b"Count\x00\x09", b"Count\x00\x09\x00", b"Count\x00\x00", b"Count\x00"]
)
def test_a_key_that_is_no_rows_stops_the_restore(key: bytes) -> None:
    """Nobody else writes into a state topic."""
    with pytest.raises(UnreadableRowError, match="no row's key"):
        _restored((key, b"x"))


def test_rows_written_over_restored_ones_stay() -> None:
    """A row that is filed later, because its neighbour is asked for, does not come back from before."""
    codec = Codec(Schemas(), (Count,))
    table = _restored((row_key("Count", ("a",)), codec.encode(Count(name="a")))).table()
    layer = Layer(table)
    layer.put(Count(name="a", number=2))
    table.apply(layer)
    assert table.get(Count, "a") == Count(name="a", number=2)
    assert len(table) == 1


@pytest.mark.parametrize("name", ["a", "a\x00b", "\x00"])
def test_a_scan_goes_on_while_other_rows_are_filed(name: str) -> None:
    """Reading a neighbour in the middle of a scan neither ends it nor has it begin again."""
    codec = Codec(Schemas(), (Item,))
    rows = [Item(name=of, number=n) for of in ("0", name, "z") for n in range(3)]
    values = [(row_key("Item", row.key), codec.encode(row)) for row in rows]
    table = _restored(*values).table()
    found = []
    for row in table.scan(Item, name):
        found.append(row.number)
        assert table.get(Item, "0", 0) == rows[0]
        assert table.get(Item, "z", 2) == rows[-1]
    assert found == [0, 1, 2]
    everything = [row.key for row in _restored(*values).table().scan(Item)]
    assert everything == sorted(row.key for row in rows)


_NAMES = st.sampled_from(["a", "a\x00b", "\x00", "b", "\U0001f600"])
_ROWS = st.one_of(
    st.builds(Count, name=_NAMES, number=st.integers(0, 9)),
    st.builds(Item, name=_NAMES, number=st.integers(-2, 2)),
    st.builds(Bucket, number=st.integers(-300, 1 << 62), name=_NAMES),
    st.builds(
        lambda name, due_ms: Timer(name=name, due_ms=due_ms, meta=Meta(id="i", tenant="t")),
        st.lists(_NAMES, min_size=1, max_size=2).map(tuple),
        st.integers(0, 1 << 41),
    ),
)
_WRITES = st.lists(st.lists(st.tuples(_ROWS, st.booleans()), max_size=6), max_size=6)


@given(_WRITES, _WRITES, st.lists(st.tuples(_ROWS, st.sampled_from([0, 1, 9]))))
def test_a_restored_table_is_the_table_that_was_written(
    written: list[list[tuple[Row, bool]]],
    later: list[list[tuple[Row, bool]]],
    asked: list[tuple[Row, int]],
) -> None:
    """Whatever was dropped, written again, asked for and written later, in whatever order."""
    codec = Codec(Schemas(), (Count, Item, Bucket, Timer))
    restore, plain = Restore(codec), Table()
    for batch in written:
        _write(plain, batch)
        restore.add(
            [row_key(type(row).__name__, row.key) for row, _ in batch],
            [codec.encode(row) if kept else None for row, kept in batch],
        )
    rows = restore.rows()
    table = restore.table()
    assert len(table) == len(plain)
    again = Restore(codec)
    again.begin(rows)
    again.table()
    due = [(row.due_ms, row_key("Timer", row.key)) for row in plain.scan(Timer)]
    assert sorted(again.dues()) == sorted(due)
    for row, size in asked:
        kind = type(row)
        assert table.get(kind, *row.key) == plain.get(kind, *row.key)
        prefix = row.key[:size]
        assert [*table.scan(kind, *prefix)] == [*plain.scan(kind, *prefix)]
    for batch in later:
        _write(table, batch)
        _write(plain, batch)
    assert len(table) == len(plain)
    for kind in (Count, Item, Bucket, Timer):
        assert [*table.scan(kind)] == [*plain.scan(kind)]


def _write(table: Table, batch: list[tuple[Row, bool]]) -> None:
    layer = Layer(table)
    for row, kept in batch:
        (layer.put if kept else layer.drop)(row)
    table.apply(layer)


def test_nothing_is_kept_of_rows_that_are_gone() -> None:
    """A state topic that was not compacted for long leaves nothing in memory of what it no longer says."""
    cold = Cold(apart="Timer")
    keys = [row_key("Item", (str(n), m)) for n in range(100) for m in range(2)]
    cold.add(keys, [b"x"] * len(keys))
    cold.add(keys[2:], [None] * len(keys[2:]))
    cold.settle()
    assert len(cold) == 2
    assert [*cold._groups] == [b"\x020"]
    assert cold.take_below("Item", ("0",)).keys() == {("0", 0), ("0", 1)}
    assert not cold


def test_a_large_group_is_parted_before_anybody_waits_for_it() -> None:
    """A turn that asks for one kind of a tenant's rows does not look through all of the others."""
    cold = Cold(apart="Timer")
    keys = [row_key(kind, ("t", n)) for kind in ("Item", "Seen") for n in range(600)]
    cold.add(keys, [b"x"] * len(keys))
    cold.add([row_key("Timer", ("run", str(n))) for n in range(600)], [b"x"] * 600)
    cold.settle()
    assert not cold._groups
    assert len(cold.apart()[0]) == 600
    assert cold.take("Item", ("t", 3)) == b"x"
    assert cold.take("Item", ("t", 3)) is None
    assert {cold.take("Seen", ("t", n)) for n in range(600)} == {b"x"}
    assert len(cold.take_below("Item", ("t",))) == 599
    assert len(cold.take_below("Timer", ("run",))) == len(cold.rows()) + 600
    assert not cold


def test_timers_are_known_before_they_are_decoded() -> None:
    """The loop must know when they are due before anybody asks for one by name."""
    timer = Timer(name=("run", "r"), due_ms=5, meta=Meta(id="i", tenant="t"))
    value = Codec(Schemas(), (Timer,)).encode(timer)
    restore = _restored((row_key("Timer", timer.key), value))
    table = restore.table()
    assert [*restore.dues()] == [(5, row_key("Timer", timer.key))]
    assert table.get(Timer, "run", "r") == timer


def test_timers_are_told_while_the_table_is_used() -> None:
    """The loop takes rows out of a table whose timers are still being read."""
    meta = Meta(id="i", tenant="t")
    timers = [Timer(name=("run", str(n)), due_ms=n, meta=meta) for n in range(3)]
    codec = Codec(Schemas(), (Timer,))
    restore = _restored(*((row_key("Timer", row.key), codec.encode(row)) for row in timers))
    table = restore.table()
    dues = restore.dues()
    assert next(dues)[0] == 0
    assert [*table.scan(Timer)] == timers
    layer = Layer(table)
    layer.drop(timers[1])
    table.apply(layer)
    assert [due_ms for due_ms, _ in dues] == [1, 2]


def test_a_timer_that_cannot_be_read_stops_the_process_unless_it_is_gone() -> None:
    """Nobody waits for ever for a wake that nobody can write."""
    timer = Timer(name=("run", "r"), due_ms=5, meta=Meta(id="i", tenant="t"))
    key, value = row_key("Timer", timer.key), Codec(Schemas(), (Timer,)).encode(timer)
    whole = (row_key("Timer", ("whole",)), value)
    restore = _restored((key, value[:12]), whole)
    later = Future[Heap]()
    timers = Timers(restore.table(), later)
    later.set_result(armed(restore.dues()))
    with pytest.raises(UnreadableRowError, match="run"):
        timers.next_ms()
    for end, left in ((value, [(5, key)]), (None, [])):
        restore = _restored((key, value[:12]), (key, end))
        restore.table()
        assert [*restore.dues()] == left


def test_a_schema_that_only_rows_of_before_had_is_no_reason_to_stop() -> None:
    """What was dropped or written anew since is not missing."""
    unknown, key = b"\xc3\x01" + b"\x07" * 8, row_key("Count", ("a",))
    value = Codec(Schemas(), (Count,)).encode(Count(name="a"))
    assert len(_restored((key, unknown), (key, None)).table()) == 0
    assert _restored((key, unknown), (key, value)).table().get(Count, "a") == Count(name="a")


@pytest.mark.parametrize("rest", [b"\x02a\x00\x09", b"\x02a\x00\x01\x00"])
def test_a_key_whose_later_parts_are_no_rows_stops_whoever_asks(rest: bytes) -> None:
    """Nobody else writes into a state topic, so nothing can go on without it."""
    value = Codec(Schemas(), (Count,)).encode(Count(name="a"))
    table = _restored((b"Count\x00" + rest, value)).table()
    with pytest.raises(UnreadableRowError, match="no row's key"):
        next(table.scan(Count, "a"))
