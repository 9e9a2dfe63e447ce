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
        self._values: dict[bytes, bytes] = {}

    def add(self, records: Sequence[Record]) -> None:
        """Take records of the state topic, in order."""
        for record in records:
            key = record.key or b""
            if record.value is None:
                self._values.pop(key, None)
            else:
                self._values[key] = record.value

    def table(self) -> Table:
        """Return the table.

        Raises:
            PoisonError: A row's schema is unknown; the partition must not start without it.
        """
        decode = self._codec.decode
        return Table(decode(value) for value in self._values.values())
