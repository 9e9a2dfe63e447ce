"""How to talk to a cluster: settings that were measured, in one place."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError

from headwater.errors import SettingsError

client = logging.getLogger("headwater.log.kafka.client")
"""What librdkafka says."""


def _is_news(record: logging.LogRecord) -> bool:
    """Drop what librdkafka repeats for each client of a cluster that is away: who waits says so once."""
    repeats = record.getMessage().startswith(("FAIL ", "ERROR "))
    return not repeats or client.isEnabledFor(logging.DEBUG)


client.addFilter(_is_news)

OURS = frozenset(
    {
        "acks",
        "auto.offset.reset",
        "bootstrap.servers",
        "enable.auto.commit",
        "enable.auto.offset.store",
        "enable.idempotence",
        "enable.partition.eof",
        "group.id",
        "group.instance.id",
        "isolation.level",
        "partition.assignment.strategy",
        "partitioner",
        "transactional.id",
    }
)
"""Properties that the guarantees rest on; nobody may set them."""


_SOCKET_MS = 60_000
"""The client's own default."""
_ONCE_SHARE = 0.8
_UNTOLD_MS = 5_000
"""After how long without metadata a client begins anew. Its default is five minutes, and the other
sign, that all brokers are down, it may miss: librdkafka forgets to begin if metadata come meanwhile."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class KafkaConfig:
    """A cluster and the bounds of talking to it.

    Args:
        bootstrap: `host:port`, comma separated.
        security_protocol: Of librdkafka; empty for its default.
        extra: Any other librdkafka properties; they win.
        session_ms: A member that is silent for this long loses its partitions. At least the
            transaction timeout, the broker's abort sweep, a heartbeat and a second.
        heartbeat_ms: Between heartbeats.
        poll_ms_max: A member that does not poll for this long loses its partitions.
        transaction_ms: The broker aborts a transaction that is open for this long.
        call_s: Longest wait for one answer of the cluster.
        record_bytes_max: Largest record a client sends; a topic's own limit may be lower.
        append_s: How long an append outside transactions is tried.
        version: Of the app; members carry it in their client ids, so that others can see it.
        group_protocol: `classic`, or `consumer` for KIP-848, where the broker sets the session.
    """

    bootstrap: str
    security_protocol: str = ""
    extra: Mapping[str, str] = dataclasses.field(default_factory=dict)
    session_ms: int = 10_000
    heartbeat_ms: int = 2_000
    poll_ms_max: int = 300_000
    transaction_ms: int = 5_000
    call_s: float = 15.0
    record_bytes_max: int = 3 * 1024 * 1024
    append_s: float = 30.0
    version: str = ""
    group_protocol: str = "classic"

    def __post_init__(self) -> None:
        """Refuse what cannot work.

        Raises:
            SettingsError: It names the variable.
        """
        if taken := sorted(OURS & self.extra.keys()):
            raise SettingsError(
                f"HEADWATER_KAFKA__EXTRA sets {', '.join(taken)}, which the guarantees rest on: remove it"
            )
        if self.group_protocol not in {"classic", "consumer"}:
            raise SettingsError(
                f"HEADWATER_KAFKA__GROUP_PROTOCOL is {self.group_protocol!r}: classic or consumer"
            )
        if self.heartbeat_ms * 3 > self.session_ms:
            raise SettingsError(
                f"HEADWATER_KAFKA__SESSION_MS is {self.session_ms}: at least three heartbeats of "
                f"{self.heartbeat_ms} ms"
            )

    def session_ms_min(self, sweep_ms: int) -> int:
        """Return how long a session must be at least.

        A dead owner's transaction has then ended before its partitions move.

        Args:
            sweep_ms: How often the broker aborts transactions that timed out.
        """
        return self.transaction_ms + sweep_ms + self.heartbeat_ms + 1_000

    @property
    def resend_s(self) -> float:
        """After how long without an answer a client that writes transactions sends a request again."""
        socket_ms = int(self.extra.get("socket.timeout.ms", _SOCKET_MS))
        return min(socket_ms, self.transaction_ms) / 1000

    @property
    def once_s(self) -> float:
        """How long a request is waited for that may be sent only once: for less than that."""
        return min(self.call_s, self.resend_s * _ONCE_SHARE)

    @property
    def rejoin_s(self) -> float:
        """By when members have heard of a rebalance, and joined anew."""
        return 2 * self.heartbeat_ms / 1000 + 1

    def common(self) -> dict[str, Any]:
        """Return what every client has."""
        protocol = {"security.protocol": self.security_protocol} if self.security_protocol else {}
        return {
            "bootstrap.servers": self.bootstrap,
            "logger": client,
            # A broker that stood still tells of no brokers at first; without this a client that
            # hears it forgets the last one that it knew, and never asks anybody again.
            "metadata.recovery.strategy": "rebootstrap",
            "metadata.recovery.rebootstrap.trigger.ms": _UNTOLD_MS,
            # Each beginning is a new connection, which starts from this: at 50 ms every client of a
            # cluster that is away takes 3 % of a core, at 250 ms 0.8 %.
            "reconnect.backoff.ms": 250,
            "reconnect.backoff.max.ms": 1_000,
            "topic.metadata.refresh.interval.ms": 60_000,
            **protocol,
            **self.extra,
        }

    def consumer(self) -> dict[str, Any]:
        """Return what every consumer has."""
        return {
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "isolation.level": "read_committed",
            "fetch.wait.max.ms": 100,
            "fetch.error.backoff.ms": 20,
            # the default of 1,000 leaves whoever reads a backlog waiting once its queue has run full
            "fetch.queue.backoff.ms": 10,
            "queued.max.messages.kbytes": 32_768,
            **self.common(),
        }

    def member(self, group: str, instance: str) -> dict[str, Any]:
        """Return what a member of a group has: a stable name, cooperative rebalances."""
        protocol: dict[str, Any] = (
            {"group.protocol": "consumer"}
            if self.group_protocol == "consumer"
            else {
                "partition.assignment.strategy": "cooperative-sticky",
                "session.timeout.ms": self.session_ms,
                "heartbeat.interval.ms": self.heartbeat_ms,
            }
        )
        return {
            "group.id": group,
            "group.instance.id": instance,
            "client.id": "/".join(filter(None, (group, instance, self.version))),
            "auto.offset.reset": "error",
            "max.poll.interval.ms": max(self.poll_ms_max, self.session_ms),
            **protocol,
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
            "delivery.timeout.ms": int(self.append_s * 1000),
            # A record for a topic that is not there is told so before it times out.
            "topic.metadata.propagation.max.ms": int(self.append_s * 400),
            # Back-to-back transactions wait for it: 80-120 ms at the default, 7-18 ms at 2 to 5.
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 5,
            "error_cb": _note,
            **self.common(),
        }

    def transactional(self, group: str, instance: str, writer: str = "") -> dict[str, Any]:
        """Return what an owner's producer has; without a writer's name it writes under its own."""
        return {
            **self.producer(),
            "client.id": f"{group}/{instance}",
            "transactional.id": writer or f"{group}/{instance}",
            "transaction.timeout.ms": self.transaction_ms,
            "delivery.timeout.ms": self.transaction_ms,
            "delivery.report.only.error": True,
            "topic.metadata.propagation.max.ms": min(60_000, self.transaction_ms * 2 // 5),
            # With `rebootstrap`, a closed connection left send_offsets_to_transaction hanging. What
            # is said above costs such a producer its transaction, and another takes its place.
            "metadata.recovery.strategy": "none",
            **self.extra,
            # The client's own default is a little less; more than the transaction's time it refuses.
            "socket.timeout.ms": round(self.resend_s * 1000),
        }


def _note(error: KafkaError) -> None:
    """Note what a producer says of itself; whoever waits for it is told by its own call.

    Without this the client raises a fatal error inside whatever call runs its callbacks.
    """
    client.debug("a producer says: %s", error.str())
