"""The table: one partition's rows as of its last commit, and how rows become records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sortedcontainers import SortedDict

from headwater.contracts.records import Draft, Partition, Record
from headwater.core.envelope import Coder
from headwater.core.keys import key_of, row_key
from headwater.core.messages import Key
from headwater.core.state import Layer, R, Row
from headwater.errors import HeadwaterError, PoisonError

_HEAD = 10
"""Bytes that name a row's schema."""


class UnreadableRowError(HeadwaterError):
    """A row of the state topic cannot be read; the process stops, for nothing can go on without it."""


class Table:
    """The rows of one owned partition; only commits and restores change it.

    Restored rows stay encoded until somebody reads them: most runs of a restored partition wait for
    something, and a partition that is ready sooner matters more than a first read that is quicker.
    """

    __slots__ = ("_decode", "_rows")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[type, SortedDict] = {}
        self._decode: Callable[[bytes], Any] | None = None
        for row in rows:
            self._set(type(row), row.key, row)

    @classmethod
    def encoded(cls, values: Mapping[bytes, bytes], codec: Coder) -> Table:
        """Return a table of encoded rows, by their keys in the state topic.

        Raises:
            PoisonError: A row's schema is unknown.
            UnreadableRowError: A key is no row's.
        """
        table = cls()
        table._decode = codec.decode
        of_kind: dict[str, dict[Key, bytes]] = {}
        schemas: dict[tuple[str, bytes], bytes] = {}
        for data, value in values.items():
            try:
                name, key = key_of(data)
            except ValueError as error:
                raise UnreadableRowError(str(error)) from error
            group = of_kind.get(name)
            if group is None:
                group = of_kind[name] = {}
            group[key] = value
            schemas[name, value[:_HEAD]] = value
        kinds = {name: type(codec.decode(value)) for (name, _), value in schemas.items()}
        for name, group in of_kind.items():
            table._rows[kinds[name]] = SortedDict(group)
        return table

    def __len__(self) -> int:
        return sum(map(len, self._rows.values()))

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        rows = self._rows.get(kind)
        if rows is None:
            return None
        row: R | bytes | None = rows.get(key)
        return self._read(rows, key, row) if isinstance(row, bytes) else row

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix, in key order."""
        rows = self._rows.get(kind)
        if rows is None:
            return
        size = len(prefix)
        for key in rows.irange(prefix) if size else iter(rows):
            if key[:size] != prefix:
                return
            row: R | bytes = rows[key]
            yield self._read(rows, key, row) if isinstance(row, bytes) else row

    def apply(self, layer: Layer) -> None:
        """Take over what a committed batch wrote."""
        for kind, key, row in layer.written():
            if row is not None:
                self._set(kind, key, row)
            elif (rows := self._rows.get(kind)) is not None:
                rows.pop(key, None)

    def _set(self, kind: type[Row], key: Key, row: Row) -> None:
        rows = self._rows.get(kind)
        if rows is None:
            rows = self._rows[kind] = SortedDict()
        rows[key] = row

    def _read(self, rows: SortedDict, key: Key, value: bytes) -> Any:
        """Decode a row and keep it; the keys stay as they are, so a scan may go on meanwhile."""
        assert self._decode is not None, "only a restored table has encoded rows"
        try:
            row = rows[key] = self._decode(value)
        except PoisonError as error:
            raise UnreadableRowError(f"row {key} cannot be read: {error}") from error
        return row


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
    """Rows as they come back: newest value per key, decoded when they are read."""

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
        return Table.encoded(self.values, self._codec)
