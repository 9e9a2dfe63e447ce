"""Cold rows: those that were restored and that nobody has asked for, as they came."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from headwater.core.keys import key_of, parted, row_key
from headwater.core.messages import Key

_TEXT = 2
"""What a text in a row's key begins with."""
_STALE_SHARE = 8


class Cold:
    """Restored rows, encoded, by their keys in the state topic.

    One row is taken by its key; those below a prefix are listed by kind and by how their keys begin.
    A row whose key has one part is in no list, for its key is the prefix that finds it.
    """

    __slots__ = ("_listed", "_stale", "rows")

    def __init__(self) -> None:
        self.rows: dict[bytes, bytes] = {}
        self._listed: dict[bytes, dict[bytes, bytes | list[bytes]]] = {}
        self._stale = 0

    def __len__(self) -> int:
        return len(self.rows)

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Take rows as they were written, in order; no value means that a row was dropped.

        Raises:
            ValueError: A key is no row's.
        """
        rows: dict[bytes, bytes | None] = self.rows  # type: ignore[assignment] # nothing stays `None`
        before = len(rows)
        rows.update(dict(zip(keys, values, strict=True)))  # a small one first takes less time
        new = len(rows) - before  # whatever is new is last
        self._list(keys if new == len(keys) else itertools.islice(reversed(rows), new))
        if not all(values):
            for key in [key for key, value in zip(keys, values, strict=True) if value is None]:
                if rows.get(key, b"") is None:
                    del rows[key]
                    self._stale += 1

    def settle(self) -> None:
        """Whatever there is was added: keep no lists of rows that are gone."""
        if self._stale * _STALE_SHARE > len(self.rows):
            self._listed, self._stale = {}, 0
            self._list(self.rows)

    def take(self, kind: str, key: Key) -> bytes | None:
        """Take one row out."""
        return self.rows.pop(row_key(kind, key), None)

    def take_below(self, kind: str, prefix: Key) -> dict[Key, bytes]:
        """Take out the rows below a prefix, and perhaps some whose keys begin much like it.

        Raises:
            ValueError: A key is no row's.
        """
        start = row_key(kind, prefix[:1])
        if prefix:
            of, first, _ = parted(start)
            listed = self._listed.get(of, {}).pop(first, [])
            keys = [start, *listed] if isinstance(listed, list) else [start, listed]
        else:
            self._listed.pop(kind.encode(), None)
            keys = [key for key in self.rows if key.startswith(start)]
        rows = self.rows
        return {key_of(key)[1]: value for key in keys if (value := rows.pop(key, None)) is not None}

    def _list(self, keys: Iterable[bytes]) -> None:
        listed = self._listed
        for key in keys:
            try:  # written out for the usual key: a call for each would take as long as the rest
                kind, first, more = key.split(b"\x00", 2)
                if first[0] != _TEXT:
                    raise ValueError
            except (ValueError, IndexError):
                kind, first, more = parted(key)
            if not more:
                continue
            below = listed.get(kind)
            if below is None:
                below = listed[kind] = {}
            found = below.setdefault(first, key)  # a list for one would take more than its key
            if found is key:
                continue
            if isinstance(found, list):
                found.append(key)
            else:
                below[first] = [found, key]
