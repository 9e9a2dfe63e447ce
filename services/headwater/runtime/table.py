"""The table: one partition's rows as of its last commit, and how rows become records."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from sortedcontainers import SortedDict

from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Timer
from headwater.core.envelope import Coder
from headwater.core.keys import first_of, key_of, row_key
from headwater.core.messages import Key
from headwater.core.state import Layer, R, Row
from headwater.errors import HeadwaterError, PoisonError

_TIMER = row_key(Timer.__name__, ())
_HEAD = 10
"""Bytes that name a row's schema."""


class UnreadableRowError(HeadwaterError):
    """A row of the state topic cannot be read; the process stops, for nothing can go on without it."""


class Table:
    """The rows of one owned partition; only commits and restores change it.

    Restored rows stay as they came until somebody asks for one whose key begins alike, and encoded
    until somebody reads them: most runs of a restored partition wait for something, and a partition
    that is ready sooner matters more than a first read that is quicker. Timers alone are filed at
    once, because the loop must know when they are due.
    """

    __slots__ = ("_cold", "_decode", "_kinds", "_rows")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[type, SortedDict] = {}
        self._cold: dict[str | int, list[tuple[bytes, bytes]]] = {}
        """Restored rows that nobody has asked for, by the first part of their keys."""
        self._kinds: dict[bytes, type[Row]] = {}
        """What the restored rows are, by how their values begin."""
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
        kinds, cold = table._kinds, collections.defaultdict(list)
        timers: dict[Key, bytes] = {}
        for data, value in values.items():
            try:
                if data.startswith(_TIMER):
                    timers[key_of(data)[1]] = value
                else:
                    cold[first_of(data)].append((data, value))
            except (ValueError, IndexError) as error:
                raise UnreadableRowError(f"{data!r} is no row's key") from error
        for head, value in {value[:_HEAD]: value for value in values.values()}.items():
            kinds[head] = type(codec.decode(value))
        table._cold = dict(cold)
        table._rows[Timer] = SortedDict(timers)
        return table

    def __len__(self) -> int:
        return sum(map(len, self._rows.values())) + sum(map(len, self._cold.values()))

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        if key[0] in self._cold:
            self._file(key[0])
        rows = self._rows.get(kind)
        if rows is None:
            return None
        row: R | bytes | None = rows.get(key)
        return self._read(rows, key, row) if isinstance(row, bytes) else row

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix, in key order."""
        if kind is not Timer:
            for first in prefix[:1] or [*self._cold]:
                self._file(first)
        rows = self._rows.get(kind)
        if rows is None:
            return
        last: Key | None = None
        while True:
            count, beyond = len(rows), rows.irange(last or prefix, inclusive=(last is None, True))
            for last in beyond:
                if last[: len(prefix)] != prefix:
                    return
                row: R | bytes = rows[last]
                yield self._read(rows, last, row) if isinstance(row, bytes) else row
                if len(rows) != count:
                    break  # whoever takes the rows asked for others, which were filed among these
            else:
                return

    def apply(self, layer: Layer) -> None:
        """Take over what a committed batch wrote."""
        for kind, key, row in layer.written():
            if key[0] in self._cold:
                self._file(key[0])
            if row is not None:
                self._set(kind, key, row)
            elif (rows := self._rows.get(kind)) is not None:
                rows.pop(key, None)

    def _file(self, first: str | int) -> None:
        """File the restored rows whose keys begin so."""
        for data, value in self._cold.pop(first, ()):
            try:
                _, key = key_of(data)
            except ValueError as error:
                raise UnreadableRowError(str(error)) from error
            self._set(self._kinds[value[:_HEAD]], key, value)

    def _set(self, kind: type[Row], key: Key, row: Row | bytes) -> None:
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
