"""Committed records of some partitions on Kafka, without a group."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headwater.contracts.records import Partition, Record
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_member import record_of
from headwater.log.kafka_watch import WATCHDOG
from headwater.log.port import Pairs

logger = logging.getLogger(__name__)

Ends = Callable[[Collection[Partition]], dict[Partition, int]]


class KafkaReader:
    """Reads; see `log.port.Reader`.

    Args:
        config: The cluster.
        starts: Next offset per partition; one that has expired means the first there is.
        ends: Looks the uncommitted end of each partition up.
    """

    def __init__(self, config: KafkaConfig, starts: Mapping[Partition, int], ends: Ends) -> None:
        self._config = config
        self._next = {place: max(0, start) for place, start in starts.items()}
        self._look_up = ends
        self._ends: dict[Partition, int] = {}
        self._only = next(iter(self._next)) if len(self._next) == 1 else None
        """The one partition that is read, if it is one: a message's own is slow to tell."""
        self._said_away = False
        self._consumer = Consumer(
            {
                **config.consumer(),
                "group.id": f"headwater-reader-{uuid.uuid4().hex}",  # it never joins nor commits
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign(
            [TopicPartition(p.topic, p.number, offset) for p, offset in self._next.items()]
        )
        try:
            self.until_now()  # while the client fetches
        except BaseException:
            self.close()
            raise

    def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records; empty when none came in time.

        Raises:
            SettingsError: This principal may not read there.
            KafkaException: Something that waiting does not cure.
        """
        only = self._only
        return [
            record_of(message, only or Partition(message.topic(), message.partition()))
            for message in self._messages(records_max, wait_ms)
        ]

    def pairs(self, *, records_max: int, wait_ms: int) -> Pairs:
        """Return the keys and values of the next records, as `poll` would."""
        messages = self._messages(records_max, wait_ms)
        keys = [*map(Message.key, messages)]
        if not all(keys):
            keys = [key or b"" for key in keys]
        return keys, [*map(Message.value, messages)]

    def next_offset(self, partition: Partition) -> int:
        """Return where reading a partition goes on."""
        return self._next[partition]

    @property
    def at_end(self) -> bool:
        """Whether everything begun before the reader was opened was delivered or aborted."""
        return all(self._next[place] >= end for place, end in self._ends.items())

    def until_now(self) -> None:
        """Have `at_end` speak of the ends there are now, not of those when the reader was opened."""
        self._ends = self._look_up(self._next)

    def close(self) -> None:
        """Stop reading."""
        with WATCHDOG.over("close of a reader", self._config.call_s):
            self._consumer.close()

    def _messages(self, records_max: int, wait_ms: int) -> list[Message]:
        """Return the next records as the client has them."""
        with WATCHDOG.over("poll of a reader", wait_ms / 1000 + self._config.call_s):
            first = self._consumer.poll(wait_ms / 1000)
            if first is None:
                return []
            messages = [first]
            if records_max > 1:
                messages += self._consumer.consume(records_max - 1, 0)
        if not any(map(Message.error, messages)):
            self._passed(messages)
            return messages
        records = [message for message in messages if message.error() is None]
        self._passed(records)
        for message in messages:
            if (error := message.error()) is not None:
                self._trouble(error, message)
        return records

    def _passed(self, messages: Sequence[Message]) -> None:
        """Note how far these go."""
        if messages:
            self._said_away = False
        if self._only is None:
            for message in messages:
                place = Partition(message.topic(), message.partition())
                self._next[place] = message.offset() + 1
        elif messages:
            self._next[self._only] = messages[-1].offset() + 1

    def _trouble(self, error: KafkaError, message: Message) -> None:
        if error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name
            # Markers and compaction leave offsets that never come; the end passes over them.
            place = Partition(message.topic(), message.partition())
            self._next[place] = max(self._next[place], message.offset())
        elif error.code() in kafka_errors.FORBIDDEN:
            raise kafka_errors.forbidden(f"read {message.topic()}", error)
        elif error.fatal() or not kafka_errors.is_away(error):
            raise KafkaException(error)
        elif not self._said_away:
            logger.warning("a reader waits for the cluster: %s", error.str())
            self._said_away = True
