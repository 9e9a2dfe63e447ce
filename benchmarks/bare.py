"""Yardsticks: what a careful hand would write with the client alone."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

from benchmarks.cluster import Speed, Stopwatch
from confluent_kafka import Consumer, Producer, TopicPartition

from headwater.log.kafka_config import KafkaConfig

BATCH = 5_000
WAIT_S = 60.0


class Relay:
    """Consume, transform, produce, commit: exactly once, with nothing else.

    Args:
        cluster: The cluster.
        source: Topic of one partition.
        sink: Topic of one partition.
        group: The group.
        beside: Further topics of one partition that each record is written to.
    """

    def __init__(
        self,
        cluster: KafkaConfig,
        source: str,
        sink: str,
        group: str,
        *,
        beside: Sequence[str] = (),
    ) -> None:
        self._source, self._sinks = source, (sink, *beside)
        self._consumer = Consumer(
            {
                **cluster.consumer(),
                "group.id": group,
                "auto.offset.reset": "earliest",
                "session.timeout.ms": 10_000,
            }
        )
        self._consumer.subscribe([source])
        self._producer = Producer(
            {
                **cluster.producer(),
                "transactional.id": group,
                "retry.backoff.ms": 2,
                "retry.backoff.max.ms": 2,
                "linger.ms": 5,
            }
        )
        self._producer.init_transactions(WAIT_S)

    def step(self, wait_s: float = 0.5) -> int:
        """Move one batch; return how many records it had."""
        first = self._consumer.poll(wait_s)
        if first is None:
            return 0
        messages = [first, *self._consumer.consume(BATCH - 1, 0)]
        self._producer.begin_transaction()
        last = 0
        for message in messages:
            assert message.error() is None, message.error()
            value = message.value().upper()
            for sink in self._sinks:
                while True:
                    try:
                        self._producer.produce(sink, value, message.key(), partition=0)
                    except BufferError:
                        self._producer.poll(0.05)
                    else:
                        break
            last = message.offset()
        self._producer.send_offsets_to_transaction(
            [TopicPartition(self._source, 0, last + 1)],
            self._consumer.consumer_group_metadata(),
            WAIT_S,
        )
        self._producer.commit_transaction(WAIT_S)
        return len(messages)

    def ready(self) -> None:
        """Poll until the partition is ours and its first record is here; nothing is committed."""
        until = time.monotonic() + WAIT_S
        while not self._consumer.assignment():
            assert time.monotonic() < until, "no partition came"
            self._consumer.poll(0.05)

    def run(self, stop: threading.Event) -> None:
        """Step until told to stop."""
        while not stop.is_set():
            self.step(0.05)
        self.close()

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def throughput(config: KafkaConfig, source: str, sink: str, group: str, count: int) -> Speed:
    """Return how fast `count` records go that are there already."""
    relay = Relay(config, source, sink, group)
    done, watch = 0, None
    while done < count:
        moved = relay.step(5.0)
        if watch is None and moved:
            watch = Stopwatch()  # joining the group is not what is measured
            count -= moved
            continue
        done += moved
    assert watch is not None, "something was moved"
    speed = watch.speed(done)
    relay.close()
    return speed
