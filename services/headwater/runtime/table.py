"""The table: one partition's rows as of its last commit, and how rows become records."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headwater.contracts.records import Draft, Partition, Record
from headwater.core.envelope import Coder
from headwater.core.keys import row_key
from headwater.core.state import Layer, R, Row, Rows


class Table:
    """The rows of one owned partition; only commits and restores change it."""

    __slots__ = ("_rows",)

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows = Rows()
        for row in rows:
            self._rows.set(type(row), row.key, row)

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        return self._rows.get(kind, *key)

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix, in key order."""
        return self._rows.scan(kind, *prefix)

    def apply(self, layer: Layer) -> None:
        """Take over what a committed batch wrote."""
        for kind, key, row in layer.written():
            if row is None:
                self._rows.discard(kind, key)
            else:
                self._rows.set(kind, key, row)


def drafts(layer: Layer, table: Table, state: Partition, codec: Coder) -> Iterator[Draft]:
    """Write a layer's rows as records of the state topic; a dropped row is a tombstone.

    A row that came and went within the batch leaves no record.
    """
    for kind, key, row in layer.written():
        if row is None and table.get(kind, *key) is None:
            continue
        yield Draft(
            topic=state.topic,
            partition=state.number,
            key=row_key(kind.__name__, key),
            value=None if row is None else codec.encode(row),
        )


class Restore:
    """Rows as they come back: newest value per key, decoded once at the end."""

    def __init__(self, codec: Coder) -> None:
        self._codec = codec
        self.values: dict[bytes, bytes] = {}
        """The rows, encoded."""
        self.changes: dict[bytes, bytes | None] = {}
        """What was read, newest per key; `None` where a row was dropped."""
        self.next_offset = 0
        """The offset after the last record."""

    def begin(self, values: dict[bytes, bytes]) -> None:
        """Go on from these rows."""
        self.values = values

    def add(self, records: Sequence[Record]) -> None:
        """Take records of the state topic, in order."""
        values, changes = self.values, self.changes
        for record in records:
            key = record.key or b""
            value = changes[key] = record.value
            if value is None:
                values.pop(key, None)
            else:
                values[key] = value
        if records:
            self.next_offset = records[-1].offset + 1

    def table(self) -> Table:
        """Return the table.

        Raises:
            PoisonError: A row's schema is unknown; the partition must not start without it.
        """
        decode = self._codec.decode
        return Table(decode(value) for value in self.values.values())
