"""Rows in memory, as records of the state topic, and back."""

from __future__ import annotations

import dataclasses

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.records import Partition, Record
from headwater.core.messages import Key
from headwater.core.state import Layer
from headwater.runtime.table import Restore, Table, drafts

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
