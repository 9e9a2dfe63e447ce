"""Records of a log, before and after they are written."""

from __future__ import annotations

from headwater.contracts.frozen import Frozen

Headers = tuple[tuple[str, bytes | None], ...]


class Partition(Frozen, order=True):
    """A topic and the number of one of its partitions."""

    topic: str
    number: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.number}]"


class Draft(Frozen, kw_only=True):
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


class Record(Frozen, kw_only=True):
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
