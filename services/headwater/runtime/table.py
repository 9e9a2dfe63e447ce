"""The table: one partition's rows as of its last commit, and how rows become records."""

from __future__ import annotations

import functools
import itertools
import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from sortedcontainers import SortedDict

from headwater.contracts.records import Draft, Partition
from headwater.core.decider import Timer
from headwater.core.envelope import Coder
from headwater.core.keys import row_key
from headwater.core.messages import Key
from headwater.core.state import Layer, R, Row
from headwater.errors import HeadwaterError, PoisonError
from headwater.runtime.cold import Cold

_ROWS_MAX = 500
_head: Callable[[bytes], bytes] = operator.itemgetter(slice(10))
"""Returns the bytes that name a row's schema."""


class UnreadableRowError(HeadwaterError):
    """A row of the state topic cannot be read; the process stops, for nothing can go on without it."""


class Table:
    """The rows of one owned partition; only commits and restores change it.

    Restored rows stay as they came until somebody asks for them: most runs of a restored partition
    wait for something, and a partition that is ready sooner matters more than a first read that is
    quicker.
    """

    __slots__ = ("_codec", "_cold", "_rows")

    def __init__(self, rows: Iterable[Row] = ()) -> None:
        self._rows: dict[type, SortedDict] = {}
        self._cold: Cold | None = None
        self._codec: Coder | None = None
        for row in rows:
            self._set(type(row), row.key, row)

    @classmethod
    def restored(cls, cold: Cold, codec: Coder) -> Table:
        """Return a table of restored rows.

        Args:
            cold: The rows; the table's own from now on.
            codec: Decodes them.
        """
        table = cls()
        table._cold, table._codec = cold or None, codec
        return table

    def __len__(self) -> int:
        return sum(map(len, self._rows.values())) + len(self._cold or ())

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return one row."""
        rows = self._rows.get(kind)
        row: R | bytes | None = None if rows is None else rows.get(key)
        if row is None:
            if self._cold is None or (row := self._cold.take(kind.__name__, key)) is None:
                return None
            rows = self._set(kind, key, row)
        return self._read(rows, key, row) if isinstance(row, bytes) else row

    def scan(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return the rows below a prefix, in key order."""
        if self._cold is not None:
            self._file(self._cold, kind, prefix)
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
            rows = self._rows.get(kind)
            if self._cold is not None and (rows is None or key not in rows):
                self._cold.take(kind.__name__, key)
            if row is not None:
                self._set(kind, key, row)
            elif rows is not None:
                rows.pop(key, None)

    def _file(self, cold: Cold, kind: type[Row], prefix: Key) -> None:
        """File the restored rows below a prefix, still encoded."""
        try:
            found = cold.take_below(kind.__name__, prefix)
        except ValueError as error:
            raise UnreadableRowError(str(error)) from error
        if found:
            self._rows.setdefault(kind, SortedDict()).update(found)
        if not cold:
            self._cold = None

    def _set(self, kind: type[Row], key: Key, row: Row | bytes) -> SortedDict:
        rows = self._rows.get(kind)
        if rows is None:
            rows = self._rows[kind] = SortedDict()
        rows[key] = row
        return rows

    def _read(self, rows: SortedDict, key: Key, value: bytes) -> Any:
        """Decode a row and keep it; the keys stay as they are, so a scan may go on meanwhile."""
        assert self._codec is not None, "only a restored table has encoded rows"
        try:
            row = rows[key] = self._codec.decode(value)
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
    """Rows as they come back.

    Whatever can be done with them is done as they come, because the log is still sending others.

    Args:
        codec: Decodes them.
    """

    def __init__(self, codec: Coder) -> None:
        self._codec = codec
        self._cold = Cold(apart=Timer.__name__)
        self._samples: dict[bytes, bytes] = {}
        """A value that was written under each schema."""
        self._timers: tuple[list[bytes], list[bytes]] = [], []
        """The keys and the values of the table's timers."""

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Take what the next records of the state topic hold, in order.

        Raises:
            UnreadableRowError: A key is no row's.
        """
        try:
            self._cold.add(keys, values)
        except ValueError as error:
            raise UnreadableRowError(str(error)) from error
        held = [value for value in values if value is not None]
        if not {*map(_head, held)} <= self._samples.keys():
            self._samples.update(zip(map(_head, held), held, strict=True))

    def begin(self, rows: dict[bytes, bytes]) -> None:
        """Go on from these rows."""
        left = iter(rows.items())
        while some := dict(itertools.islice(left, _ROWS_MAX)):
            self.add([*some], [*some.values()])

    def rows(self) -> dict[bytes, bytes]:
        """Return the rows, encoded."""
        return self._cold.rows()

    def table(self) -> Table:
        """Return the table, once.

        Raises:
            PoisonError: A row's schema is unknown; the partition must not start without it.
        """
        try:
            for value in self._samples.values():
                self._codec.decode(value)
        except PoisonError:  # perhaps of a row that is gone
            rows = self._cold.rows().values()
            for value in {_head(value): value for value in rows}.values():
                self._codec.decode(value)
        self._cold.settle()
        self._timers = self._cold.apart()
        return Table.restored(self._cold, self._codec)

    def dues(self) -> Iterator[tuple[int, bytes]]:
        """Return when the timers of that table are due, each with its key in the state topic.

        Nothing that is the table's is touched: whoever has the table may go on with it meanwhile.
        """
        keys, values = self._timers
        return zip(map(self._due_ms, values), keys, strict=True)

    @functools.cached_property
    def _field(self) -> Callable[[bytes], int]:
        return self._codec.field(Timer, "due_ms")

    def _due_ms(self, value: bytes) -> int:
        try:
            return self._field(value)
        except PoisonError:
            return 0  # its row is read at once, and says what is wrong if it is still so
