"""Cold rows: those that were restored and that nobody has asked for, as they came."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterator, Sequence

from headwater.core.keys import key_of, parted, row_key
from headwater.core.messages import Key

_TEXT = 2
"""What a text in a row's key begins with."""
_GROUP_MAX = 512
"""How many rows of a group may be parted by kind while somebody waits for some of them."""

Rows = dict[bytes, bytes]


class Cold:
    """Restored rows, encoded, by how their keys' first parts begin: all rows of a run are a group.

    Rows of a run come soon after each other, so they are put where the processor has just been. One
    row is taken by its key; those below a prefix are found in its group, which is parted by kind then.

    Args:
        apart: A kind whose rows are in groups of their own, so that all of them can be told.
    """

    __slots__ = ("_apart", "_groups", "_kind", "_parted")

    def __init__(self, *, apart: str) -> None:
        self._kind = apart.encode()
        self._apart: collections.defaultdict[bytes, Rows] = collections.defaultdict(dict)
        self._groups: collections.defaultdict[bytes, Rows] = collections.defaultdict(dict)
        self._parted: dict[bytes, dict[bytes, Rows]] = {}

    def __bool__(self) -> bool:
        return bool(self._groups or self._parted or self._apart)

    def __len__(self) -> int:
        return sum(map(len, self._all()))

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Take rows as they were written, in order; no value means that a row was dropped.

        Raises:
            ValueError: A key is no row's.
        """
        groups, apart, kept = self._groups, self._apart, self._kind
        for key, value in zip(keys, values, strict=True):
            try:  # written out for the usual key: a call for each would take as long as the rest
                kind, first, _ = key.split(b"\x00", 2)
                if first[0] != _TEXT:
                    raise ValueError
            except (ValueError, IndexError):
                kind, first, _ = parted(key)
            into = apart if kind == kept else groups
            if value is not None:
                into[first][key] = value
            else:
                _take(into, first, key)

    def settle(self) -> None:
        """Whatever there is was added: part the large groups before anybody waits for it."""
        for first in [first for first, rows in self._groups.items() if len(rows) > _GROUP_MAX]:
            self._part(first)

    def apart(self) -> tuple[list[bytes], list[bytes]]:
        """Return the keys and the values of the rows that are apart."""
        keys: list[bytes] = []
        values: list[bytes] = []
        for rows in self._apart.values():
            keys += rows
            values += rows.values()
        return keys, values

    def rows(self) -> Rows:
        """Return all rows."""
        found: Rows = {}
        for rows in self._all():
            found.update(rows)
        return found

    def take(self, kind: str, key: Key) -> bytes | None:
        """Take one row out."""
        return self._pop(row_key(kind, key))

    def take_below(self, kind: str, prefix: Key) -> dict[Key, bytes]:
        """Take out the rows below a prefix, and perhaps some whose keys begin much like it.

        Raises:
            ValueError: A key is no row's.
        """
        start = row_key(kind, prefix[:1])
        if not prefix:
            keys = [key for rows in self._all() for key in rows if key.startswith(start)]
            return {key_of(key)[1]: value for key in keys if (value := self._pop(key)) is not None}
        of, first, _ = parted(start)
        if first in self._groups:
            self._part(first)
        kinds = self._parted.get(first, {})
        rows = self._apart.pop(first, {}) if of == self._kind else kinds.pop(of, {})
        if not kinds:
            self._parted.pop(first, None)
        return {key_of(key)[1]: value for key, value in rows.items()}

    def _all(self) -> Iterator[Rows]:
        parted_ = map(dict[bytes, Rows].values, self._parted.values())
        whole = self._groups.values(), self._apart.values()
        return itertools.chain(*whole, itertools.chain.from_iterable(parted_))

    def _pop(self, key: bytes) -> bytes | None:
        kind, first, _ = parted(key)
        groups = self._apart if kind == self._kind else self._groups
        if first in groups:
            return _take(groups, first, key)
        kinds = self._parted.get(first)
        if kinds is None or kind not in kinds:
            return None
        value = kinds[kind].pop(key, None)
        if not kinds[kind]:
            del kinds[kind]
            if not kinds:
                del self._parted[first]
        return value

    def _part(self, first: bytes) -> None:
        """Part a group by kind."""
        rows = self._groups.pop(first)
        kind = next(iter(rows)).partition(b"\x00")[0]
        kinds = self._parted[first] = {kind: rows}
        if not all(map(bytes.startswith, rows, itertools.repeat(kind + b"\x00"))):
            kinds.clear()
            for key, value in rows.items():
                kinds.setdefault(key.partition(b"\x00")[0], {})[key] = value


def _take(groups: dict[bytes, Rows], first: bytes, key: bytes) -> bytes | None:
    """Take a row out of its group, and the group with its last."""
    rows = groups.get(first)
    if rows is None:
        return None
    value = rows.pop(key, None)
    if not rows:
        del groups[first]
    return value
