"""Filed: a view in SQLite, with how far it has read; values and offsets are one write."""

from __future__ import annotations

import abc
import sqlite3
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.contracts.records import Partition
from headwater.core.messages import Meta, Position

_OFFSETS = """
create table if not exists offsets (
  topic text, number integer, next_offset integer, primary key (topic, number)
);
"""


class Filed(abc.ABC):
    """A view in SQLite; delete its file and it is built again from the log.

    Args:
        topic: The topic it is folded from.
        path: Its file; `:memory:` forgets at exit.
        tables: Its tables, by name, and what makes each.
        version: Of the tables; a file with another is emptied, and built again.
    """

    def __init__(self, topic: str, path: str, *, tables: Mapping[str, str], version: int) -> None:
        self.topics = (topic,)
        self._lock = threading.Lock()
        self._db = sqlite3.connect(path, check_same_thread=False)
        (found,) = self._db.execute("pragma user_version").fetchone()
        stale = [] if found == version else [*tables, "offsets"]
        gone = "".join(f"drop table if exists {name};" for name in stale)
        made = "".join(tables.values())
        self._db.executescript(
            f"pragma journal_mode=wal; begin; {gone} {made} {_OFFSETS} pragma user_version={version}; commit;"
        )

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def resume(self) -> Mapping[Partition, int]:
        """Return the next offsets, as the view has them."""
        rows = self._rows("select topic, number, next_offset from offsets")
        return {Partition(topic, number): offset for topic, number, offset in rows}

    def fold(self, batch: Sequence[tuple[Position, Meta, Any]]) -> None:
        """Take messages in; values and offsets in one write, so what comes twice counts once."""
        with self._lock, self._db:
            for at, meta, message in batch:
                place = (at.topic, at.number)
                known = self._db.execute(
                    "select next_offset from offsets where topic = ? and number = ?", place
                ).fetchone()
                if known is not None and at.offset < known[0]:
                    continue
                self._db.execute(
                    "insert or replace into offsets values (?, ?, ?)", (*place, at.offset + 1)
                )
                self._take(message, meta)

    @abc.abstractmethod
    def _take(self, message: Any, meta: Meta) -> None:
        """Take one message in, within the write; what is not of the view's kind changes nothing."""

    def _rows(
        self, query: str, values: Sequence[Any] | Mapping[str, Any] = ()
    ) -> list[tuple[Any, ...]]:
        """Return what a query finds."""
        with self._lock:
            return self._db.execute(query, values).fetchall()
