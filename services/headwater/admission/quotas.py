"""Quotas: how much of the fleet each tenant may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    """How many runs a tenant may have open, as a versioned snapshot.

    Args:
        version: Version of the table.
        default: For tenants that are not named.
        of: By tenant.
    """

    version: int = 1
    default: int = 10_000
    of: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def runs(self, tenant: str) -> int:
        """Return how many runs a tenant may have open."""
        return self.of.get(tenant, self.default)
