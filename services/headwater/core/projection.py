"""A projection: a view of the log that can be thrown away and rebuilt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from headwater.contracts.records import Partition
from headwater.core.messages import Meta, Position


class Projection(Protocol):
    """A view of the log; it never writes to the log."""

    @property
    def topics(self) -> Sequence[str]:
        """Topics it reads, by full name."""
        ...

    def resume(self) -> Mapping[Partition, int]:
        """Return the next offsets, read from the view itself; a partition not named starts at 0."""
        ...

    def fold(self, batch: Sequence[tuple[Position, Meta, Any]]) -> None:
        """Take records in; values and offsets in one write, so a record that comes twice counts once."""
        ...
