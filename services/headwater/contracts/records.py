"""Records of a log, before and after they are written."""

from __future__ import annotations

import dataclasses

from headwater.contracts.frozen import maker, quick

Headers = tuple[tuple[str, bytes | None], ...]


@quick
@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Partition:
    """A topic and the number of one of its partitions."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


@quick
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """A record not yet written.

    Args:
        topic: Full topic name.
        key: Record key; `None` for none.
        value: Record value; `None` is a tombstone.
        headers: In order; names may repeat.
        partition: Number of the partition; `None` means the hash of the key.
    """

    topic: str
    key: bytes | None = None
    value: bytes | None = None
    headers: Headers = ()
    partition: int | None = None


new_draft = maker(Draft)


@quick
@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """A record as the log keeps it; `time_ms` is the log's own append time."""

    partition: Partition
    offset: int
    time_ms: int
    key: bytes | None
    value: bytes | None
    headers: Headers = ()

    def header(self, name: str) -> bytes | None:
        """Return the last value of a header, or `None`."""
        for key, value in reversed(self.headers):
            if key == name:
                return value
        return None


new_record = maker(Record)
