"""Rows: a decider's memory, in key order, and layers of writes over it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
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
        for _, row in self.items(kind, prefix):
            if row is not None:
                yield row

    def items(self, kind: type[R], prefix: Key) -> Iterator[tuple[Key, R | None]]:
        """Return keys and values below a prefix, the marks of dropped rows (`None`) included."""
        rows = self._kinds.get(kind)
        if rows is None:
            return
        size = len(prefix)
        for key in rows.irange(prefix) if size else iter(rows):
            if key[:size] != prefix:
                return
            yield key, rows[key]

    def set(self, kind: type[Row], key: Key, row: Row | None) -> None:
        """File a row, or the mark that it was dropped."""
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

    __slots__ = ("_below", "_rows", "written")

    def __init__(self, below: State) -> None:
        self._below = below
        self._rows: dict[tuple[type, Key], Row | None] = {}
        self.written = self._rows
        """What was written, by kind and key, newest wins; `None` marks a dropped row."""

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row, this layer's writes included."""
        place = (kind, key)
        if place in self._rows:
            return self._rows[place]  # type: ignore[return-value] # filed under its own kind by put
        return self._below.get(kind, *key)

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix in key order, this layer's writes included."""
        size = len(prefix)
        mine: dict[Key, R | None] = {
            k: row  # type: ignore[misc] # filed under its own kind by put
            for (of, k), row in self._rows.items()
            if of is kind and k[:size] == prefix
        }
        if not mine:
            yield from self._below.scan(kind, *prefix)
            return
        below = (row for row in self._below.scan(kind, *prefix) if row.key not in mine)
        above = (row for k in sorted(mine) if (row := mine[k]) is not None)
        yield from heapq.merge(below, above, key=_key)

    def put(self, row: Row) -> None:
        """File a row under its own key."""
        self._rows[type(row), row.key] = row

    def drop(self, row: Row) -> None:
        """Remove a row."""
        self._rows[type(row), row.key] = None

    def take(self, other: Layer) -> None:
        """Take over what a layer above this one wrote."""
        self._rows.update(other.written)
