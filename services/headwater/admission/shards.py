"""Shards: a fixed number of virtual ones for tenants, mapped to partitions by a versioned table."""

from __future__ import annotations

from headwater.contracts.ctl import ShardTable
from headwater.core.messages import digest

SHARDS = 256


def shard(tenant: str) -> int:
    """Return a tenant's virtual shard: it never changes."""
    return int.from_bytes(digest(tenant, size=8), "big") % SHARDS


def table(topic: str, partitions: int) -> ShardTable:
    """Return the first table of a topic: shards dealt to partitions in turn."""
    return ShardTable(
        topic=topic, version=1, partitions=tuple(n % partitions for n in range(SHARDS))
    )


def partition(shards: ShardTable, tenant: str) -> int:
    """Return the partition that a tenant's records go to."""
    return shards.partitions[shard(tenant)]
