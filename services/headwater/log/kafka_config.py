"""How to talk to a cluster: settings that were measured, in one place."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

logger = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """A cluster and the bounds of talking to it.

    Args:
        bootstrap: `host:port`, comma separated.
        extra: Any librdkafka properties; they win.
        session_ms: A member that is silent for this long loses its partitions. At least the
            transaction timeout, the broker's abort sweep, a heartbeat and a second.
        heartbeat_ms: Between heartbeats.
        poll_ms_max: A member that does not poll for this long loses its partitions.
        transaction_ms: The broker aborts a transaction that is open for this long.
        call_s: Longest wait for one answer of the cluster.
        record_bytes_max: Largest record a client sends.
    """

    bootstrap: str
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)
    session_ms: int = 10_000
    heartbeat_ms: int = 2_000
    poll_ms_max: int = 300_000
    transaction_ms: int = 5_000
    call_s: float = 15.0
    record_bytes_max: int = 3 * 1024 * 1024

    def common(self) -> dict[str, Any]:
        """Return what every client has."""
        return {
            "bootstrap.servers": self.bootstrap,
            "logger": logger,
            # with `rebootstrap`, a closed connection left send_offsets_to_transaction hanging
            "metadata.recovery.strategy": "none",
            "reconnect.backoff.max.ms": 1_000,
            **self.extra,
        }

    def consumer(self) -> dict[str, Any]:
        """Return what every consumer has."""
        return {
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "queued.max.messages.kbytes": 32_768,
            **self.common(),
        }

    def member(self, group: str, instance: str) -> dict[str, Any]:
        """Return what a member of a group has: a stable name, cooperative rebalances."""
        return {
            "group.id": group,
            "group.instance.id": instance,
            "client.id": f"{group}/{instance}",
            "auto.offset.reset": "error",
            "partition.assignment.strategy": "cooperative-sticky",
            "session.timeout.ms": self.session_ms,
            "heartbeat.interval.ms": self.heartbeat_ms,
            "max.poll.interval.ms": self.poll_ms_max,
            **self.consumer(),
        }

    def producer(self) -> dict[str, Any]:
        """Return what every producer has; the partitioner is the one other languages have."""
        return {
            "acks": "all",
            "enable.idempotence": True,
            "partitioner": "murmur2_random",
            "message.max.bytes": self.record_bytes_max,
            "queue.buffering.max.messages": 500_000,
            "linger.ms": 1,
            # back-to-back transactions wait for it: 80-120 ms at the default, 7-18 ms at 2 to 5
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 5,
            **self.common(),
        }

    def transactional(self, group: str, instance: str) -> dict[str, Any]:
        """Return what an owner's producer has."""
        return {
            **self.producer(),
            "transactional.id": f"{group}/{instance}",
            "transaction.timeout.ms": self.transaction_ms,
            "delivery.timeout.ms": self.transaction_ms,
            "linger.ms": 5,
        }
