"""Placement: which of an agent's partitions a tenant may use, as data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from headwater.core.messages import digest


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """A static table of placements.

    Args:
        version: Version of the table.
        spread: Tenant to how many partitions it may use (shuffle sharding); others use them all.
        fixed: Tenant to the partitions it has for itself, for those who pay; while others are left,
            nobody else uses these.
    """

    version: int = 1
    spread: Mapping[str, int] = dataclasses.field(default_factory=dict)
    fixed: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def partitions(self, tenant: str, count: int) -> tuple[int, ...]:
        """Return the partitions a tenant may use, of `count`."""
        fixed = tuple(n for n in self.fixed.get(tenant, ()) if n < count)
        if fixed:
            return fixed
        taken = {number for numbers in self.fixed.values() for number in numbers}
        pool = [number for number in range(count) if number not in taken] or [*range(count)]
        some = self.spread.get(tenant)
        if some is None or some >= len(pool):
            return tuple(pool)
        dealt = sorted(pool, key=lambda n: digest(tenant, n))
        return tuple(sorted(dealt[: max(1, some)]))

    def place(self, tenant: str, task_id: str, count: int) -> int:
        """Return the partition of one task."""
        mine = self.partitions(tenant, count)
        return mine[int.from_bytes(digest(task_id, size=8), "big") % len(mine)]
