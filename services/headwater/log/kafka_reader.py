"""Committed records of some partitions on Kafka, without a group."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition

from headwater.contracts.records import Partition, Record
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_member import record_of


class KafkaReader:
    """Reads; see `log.port.Reader`.

    Args:
        config: The cluster.
        starts: Next offset per partition; one that has expired means the first there is.
        ends: Uncommitted end per partition, taken before this.
    """

    def __init__(
        self, config: KafkaConfig, starts: Mapping[Partition, int], ends: Mapping[Partition, int]
    ) -> None:
        self._next = {place: max(0, start) for place, start in starts.items()}
        self._ends = dict(ends)
        self._consumer = Consumer(
            {
                **config.consumer(),
                "group.id": f"headwater-reader-{uuid.uuid4().hex}",
                "enable.partition.eof": True,
                "auto.offset.reset": "earliest",
            }
        )
        self._consumer.assign(
            [TopicPartition(p.topic, p.number, offset) for p, offset in self._next.items()]
        )

    def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records; empty when none came in time."""
        first = self._consumer.poll(wait_ms / 1000)
        if first is None:
            return ()
        messages = [first]
        if records_max > 1:
            messages += self._consumer.consume(records_max - 1, 0)
        found: list[Record] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._reached(error, message)
                continue
            place = Partition(message.topic(), message.partition())
            self._next[place] = message.offset() + 1
            found.append(record_of(message, place))
        return found

    @property
    def at_end(self) -> bool:
        """Whether everything begun before the reader was opened was delivered or aborted."""
        return all(self._next[place] >= end for place, end in self._ends.items())

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _reached(self, error: KafkaError, message: object) -> None:
        """Take the end of a partition for what it is: markers leave offsets that never come."""
        if error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name
            if error.fatal() or not error.retriable():
                raise KafkaException(error)
            return
        topic, number, offset = message.topic(), message.partition(), message.offset()  # type: ignore[attr-defined] # a client's message
        place = Partition(topic, number)
        self._next[place] = max(self._next[place], offset)
