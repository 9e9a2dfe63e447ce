"""Rows and layers: what is written over what, and in which order it reads."""

from __future__ import annotations

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from headwater.core.keys import row_key
from headwater.core.messages import Key
from headwater.core.state import Layer, Rows


@dataclasses.dataclass(frozen=True, slots=True)
class Note:
    group: str
    number: int
    text: str = ""

    @property
    def key(self) -> Key:
        return (self.group, self.number)


def filled(*notes: Note) -> Rows:
    rows = Rows()
    for note in notes:
        rows.set(Note, note.key, note)
    return rows


def test_scan_reads_a_prefix_in_key_order():
    """Rows come in key order, those of other prefixes not at all."""
    rows = filled(Note("b", 1), Note("a", 10), Note("a", 2))
    assert [note.number for note in rows.scan(Note, "a")] == [2, 10]
    assert len(list(rows.scan(Note))) == len(rows) == 3
    assert list(rows.scan(Timerless)) == []
    assert rows.get(Timerless, "a") is None
    assert sorted(note.key for note in rows.all()) == [("a", 2), ("a", 10), ("b", 1)]
    rows.discard(Note, ("a", 2))
    rows.discard(Note, ("a", 2))
    rows.discard(Timerless, ("a",))
    assert rows.get(Note, "a", 2) is None


class Timerless:
    key: Key = ("x",)


def test_layer_reads_its_own_writes_and_leaves_the_state_alone():
    """A turn sees what it wrote; the table does not, until someone takes it."""
    rows = filled(Note("a", 1), Note("a", 2), Note("a", 3))
    batch = Layer(rows)
    turn = Layer(batch)
    turn.drop(Note("a", 2))
    turn.put(Note("a", 0))
    turn.put(Note("a", 3, "new"))
    assert [note.number for note in turn.scan(Note, "a")] == [0, 1, 3]
    assert turn.get(Note, "a", 2) is None
    assert turn.get(Note, "a", 3).text == "new"
    assert [note.number for note in batch.scan(Note, "a")] == [1, 2, 3]
    batch.take(turn)
    assert [note.number for note in batch.scan(Note, "a")] == [0, 1, 3]
    assert rows.get(Note, "a", 2) is not None


KEYS = st.tuples(st.text(max_size=4), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(KEYS, max_size=8))
def test_row_keys_sort_as_their_tuples(keys):
    """Bytes of keys compare as the keys do, text with zeros in it included."""
    by_bytes = sorted(keys, key=lambda key: row_key("Note", key))
    assert by_bytes == sorted(keys, key=lambda key: (key[0].encode(), key[1]))


@given(st.lists(KEYS, unique=True, max_size=8))
def test_row_keys_are_one_to_one(keys):
    """Two rows never share a key, whatever their parts."""
    assert len({row_key("Note", key) for key in keys}) == len(keys)


@given(
    st.dictionaries(st.integers(0, 9), st.booleans()),
    st.dictionaries(st.integers(0, 9), st.booleans()),
)
def test_layer_scans_like_a_dictionary(below, above):
    """A layer over a state reads as if its writes had been applied."""
    rows = filled(*(Note("a", n) for n in below))
    layer = Layer(rows)
    model = {n: Note("a", n) for n in below}
    for number, keep in above.items():
        if keep:
            layer.put(Note("a", number, "over"))
            model[number] = Note("a", number, "over")
        else:
            layer.drop(Note("a", number))
            model.pop(number, None)
    expected = [model[n] for n in sorted(model)]
    assert list(layer.scan(Note, "a")) == list(layer.scan(Note)) == expected
    assert list(layer.scan(Note, "a", 3)) == [note for note in expected if note.number == 3]


@given(
    st.dictionaries(st.integers(0, 9), st.booleans()),
    st.dictionaries(st.integers(0, 9), st.booleans()),
    st.dictionaries(st.integers(0, 9), st.booleans()),
)
def test_layers_over_layers_read_as_if_each_had_been_taken(below, middle, top):
    """What a layer above wrote hides what those below did, in scans as where one row is asked for."""
    rows = filled(*(Note("a", n) for n in below))
    upper = Layer(Layer(rows))
    taken = Layer(rows)
    for layer, writes in ((upper._below, middle), (upper, top)):
        copy = Layer(taken)
        for number, keep in writes.items():
            for one in (layer, copy):
                (one.put if keep else one.drop)(Note("a", number, f"{keep} {len(writes)}"))
        taken.take(copy)
    assert list(upper.scan(Note, "a")) == list(taken.scan(Note, "a"))
    for number in range(10):
        assert upper.get(Note, "a", number) == taken.get(Note, "a", number)
    assert {(kind, key) for kind, key, _ in taken.written()} == {
        (kind, key) for kind, key, _ in taken.written(Note)
    }
    assert list(taken.written(Timerless)) == []
