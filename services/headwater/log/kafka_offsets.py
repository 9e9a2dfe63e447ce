"""A group's committed offsets, asked for from outside the group.

Not with the admin client: its questions to a group's coordinator end the whole process with a
failed assertion when that broker hangs up in between (librdkafka issues 3663 and 4605, pull
request 5397). A consumer that never joins asks the same; reading committed it too waits for offsets
that an open transaction carries, reading uncommitted it is told what was committed before.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_watch import WATCHDOG

IDLE_MAX = 8
"""How many consumers are kept for the next question."""


class Offsets:
    """Reads and writes groups' offsets; any thread may ask, several at once.

    Args:
        config: The cluster.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._idle: list[tuple[tuple[str, str], Consumer]] = []

    def stable(
        self, group: str, places: Sequence[TopicPartition], wait_s: float
    ) -> list[TopicPartition] | None:
        """Return next offsets with their metadata, negative where there is none.

        Args:
            group: Whose.
            places: Where.
            wait_s: How long to wait for transactions that carry some of them.

        Returns:
            `None` if a transaction still carries one.

        Raises:
            KafkaException: The cluster is away, or refuses.
        """
        try:
            return self._committed(group, places, wait_s, "read_committed")
        except KafkaException as failure:
            if failure.args[0].code() == KafkaError.UNSTABLE_OFFSET_COMMIT:
                return None
            raise

    def latest(
        self, group: str, places: Sequence[TopicPartition], wait_s: float
    ) -> list[TopicPartition]:
        """Return next offsets as `stable` does, without waiting for transactions that carry some of them.

        Raises:
            KafkaException: The cluster is away, or refuses.
        """
        return self._committed(group, places, wait_s, "read_uncommitted")

    def write(self, group: str, offsets: Sequence[TopicPartition]) -> None:
        """Write offsets of a group that nobody is a member of.

        Raises:
            KafkaException: The cluster refuses, for example because the group has members.
        """
        with (
            self._consumer(group) as consumer,
            WATCHDOG.over(f"commit for {group}", self._config.call_s * 4),
        ):
            written = consumer.commit(offsets=[*offsets], asynchronous=False)
        for place in written:
            if place.error is not None:
                raise KafkaException(place.error)

    def close(self) -> None:
        """Let go of the consumers."""
        with self._lock:
            idle, self._idle = self._idle, []
        for _, consumer in idle:
            consumer.close()

    def _committed(
        self, group: str, places: Sequence[TopicPartition], wait_s: float, isolation: str
    ) -> list[TopicPartition]:
        with (
            self._consumer(group, isolation) as consumer,
            WATCHDOG.over(f"committed of {group}", wait_s + self._config.call_s),
        ):
            found: list[TopicPartition] = consumer.committed([*places], timeout=wait_s)
        for place in found:
            if place.error is not None:
                raise KafkaException(place.error)
        return found

    @contextlib.contextmanager
    def _consumer(self, group: str, isolation: str = "read_committed") -> Iterator[Consumer]:
        consumer = self._take(group, isolation)
        yield consumer  # one that failed is not used again
        with self._lock:
            keep = len(self._idle) < IDLE_MAX
            if keep:
                self._idle.append(((group, isolation), consumer))
        if not keep:
            consumer.close()

    def _take(self, group: str, isolation: str) -> Consumer:
        with self._lock:
            for at, (whose, consumer) in enumerate(self._idle):
                if whose == (group, isolation):
                    del self._idle[at]
                    return consumer
        settings = {**self._config.consumer(), "isolation.level": isolation}
        return Consumer({**settings, "group.id": group})
