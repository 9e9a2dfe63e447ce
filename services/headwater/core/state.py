"""Rows: a decider's memory, in key order, and layers of writes over it."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from sortedcontainers import SortedDict

from headwater.core.messages import Key


class Row(Protocol):
    """A frozen value that knows its own key, so it cannot be filed under another."""

    @property
    def key(self) -> Key:
        """Where the row is filed, within its kind."""
        ...


R = TypeVar("R", bound=Row)


class State(Protocol):
    """The rows of one partition, in key order."""

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        ...

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows whose key begins with `prefix`, in key order."""
        ...


class Rows:
    """Rows in memory: the one implementation of storage that tables and layers share."""

    __slots__ = ("_kinds",)

    def __init__(self) -> None:
        self._kinds: dict[type, SortedDict] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kinds.values()))

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        rows = self._kinds.get(kind)
        return None if rows is None else rows.get(key)

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows whose key begins with `prefix`, in key order."""
        rows = self._kinds.get(kind)
        if rows is None:
            return
        size = len(prefix)
        for key in rows.irange(prefix) if size else iter(rows):
            if key[:size] != prefix:
                return
            yield rows[key]

    def set(self, kind: type[Row], key: Key, row: Row) -> None:
        """File a row."""
        rows = self._kinds.get(kind)
        if rows is None:
            rows = self._kinds[kind] = SortedDict()
        rows[key] = row

    def discard(self, kind: type[Row], key: Key) -> None:
        """Forget a row; a row that is not there is no error."""
        rows = self._kinds.get(kind)
        if rows is not None:
            rows.pop(key, None)

    def all(self) -> Iterator[Row]:
        """Return every row, kind by kind."""
        for rows in self._kinds.values():
            yield from rows.values()


def _key(row: Row) -> Key:
    return row.key


class Layer:
    """Writes over a state, not in it until taken: a turn over a batch, a batch over the table."""

    __slots__ = ("_below", "_rows")

    def __init__(self, below: State) -> None:
        self._below = below
        # by kind and first part of the key, because scans ask for the rows of one run or tenant
        self._rows: dict[tuple[type, str | int], dict[Key, Row | None]] = {}

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row, this layer's writes included."""
        place = (kind, key[0])
        layer: Layer = self
        while True:
            group = layer._rows.get(place)
            if group is not None and key in group:
                return group[key]  # type: ignore[return-value] # filed under its own kind by put
            below = layer._below
            if not isinstance(below, Layer):
                return below.get(kind, *key)
            layer = below

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix in key order, this layer's writes included."""
        size = len(prefix)
        mine: dict[Key, R | None] = {}
        layer: Layer = self
        while True:
            for group in layer._groups(kind, prefix):
                for key, row in group.items():
                    if key not in mine and key[:size] == prefix:
                        mine[key] = row  # type: ignore[assignment] # filed under its own kind by put
            below = layer._below
            if not isinstance(below, Layer):
                break
            layer = below
        if not mine:
            yield from below.scan(kind, *prefix)
            return
        left = (row for row in below.scan(kind, *prefix) if row.key not in mine)
        above = (row for k in sorted(mine) if (row := mine[k]) is not None)
        yield from heapq.merge(left, above, key=_key)

    def _groups(self, kind: type[Row], prefix: Key) -> Iterable[dict[Key, Row | None]]:
        if not prefix:
            return [group for (of, _), group in self._rows.items() if of is kind]
        group = self._rows.get((kind, prefix[0]))
        return () if group is None else (group,)

    def written(self, only: type[Row] | None = None) -> Iterator[tuple[type[Row], Key, Row | None]]:
        """Return what was written, or of one kind: kind, key, and the newest row, `None` if dropped."""
        for (kind, _), group in self._rows.items():
            if only is None or kind is only:
                for key, row in group.items():
                    yield kind, key, row

    def put(self, row: Row) -> None:
        """File a row under its own key."""
        self._set(type(row), row.key, row)

    def drop(self, row: Row) -> None:
        """Remove a row."""
        self._set(type(row), row.key, None)

    def take(self, other: Layer) -> None:
        """Take over what a layer above this one wrote; nothing is written into that one any more."""
        mine = self._rows
        for place, group in other._rows.items():
            known = mine.setdefault(place, group)
            if known is not group:
                known.update(group)

    def _set(self, kind: type[Row], key: Key, row: Row | None) -> None:
        place = (kind, key[0])
        group = self._rows.get(place)
        if group is None:
            self._rows[place] = {key: row}
        else:
            group[key] = row
