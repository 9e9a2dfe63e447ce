"""A broker for one benchmark, and topics on it."""

from __future__ import annotations

import contextlib
import os
import pathlib
import statistics
import tempfile
import time
import uuid
from collections.abc import Iterator
from typing import NamedTuple

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.log.broker import Broker
from headwater.log.kafka_config import KafkaConfig

REPETITIONS = 7


class Speed(NamedTuple):
    """How fast a loop went, and how much its process worked for it, the client's threads included.

    A machine that others use too makes a loop slow by letting it wait; what it worked stays much
    the same.
    """

    per_s: float
    cpu_us: float
    """Microseconds of processor time for each."""


class Stopwatch:
    """Measures a loop from when it is made."""

    def __init__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def speed(self, count: int) -> Speed:
        """Return how fast so many went."""
        wall_s, cpu_s = time.perf_counter() - self._began[0], time.process_time() - self._began[1]
        return Speed(count / wall_s, cpu_s / count * 1e6)


@contextlib.contextmanager
def config() -> Iterator[KafkaConfig]:
    """Yield a cluster: the one of HEADWATER_KAFKA__BOOTSTRAP, or a fresh local one."""
    given = os.environ.get("HEADWATER_KAFKA__BOOTSTRAP", "")
    if given:
        yield KafkaConfig(bootstrap=given)
        return
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        broker = Broker(pathlib.Path(directory) / "broker")
        try:
            yield KafkaConfig(bootstrap=broker.start())
        finally:
            broker.stop()


def topic(cluster: KafkaConfig, name: str, *, compacted: bool = False) -> str:
    """Create a topic of one partition and return its name."""
    admin = AdminClient({"bootstrap.servers": cluster.bootstrap})
    cleanup = "compact" if compacted else "delete"
    new = NewTopic(
        name, 1, 1, config={"cleanup.policy": cleanup, "message.timestamp.type": "LogAppendTime"}
    )
    admin.create_topics([new])[name].result(30)
    until = time.monotonic() + 30
    while name not in admin.list_topics(timeout=10).topics:
        assert time.monotonic() < until, f"{name} does not appear"
    return name


def fresh(prefix: str) -> str:
    """Return a name that nothing has."""
    return f"{prefix}-{uuid.uuid4().hex[:8]}"


def fill(
    cluster: KafkaConfig, name: str, records: list[tuple[bytes, bytes, list[tuple[str, bytes]]]]
) -> None:
    """Write (key, value, headers) into partition 0, and wait until they are there."""
    producer = Producer({**cluster.producer(), "linger.ms": 20})
    for key, value, headers in records:
        while True:
            try:
                producer.produce(name, key=key, value=value, headers=headers, partition=0)
            except BufferError:
                producer.poll(0.1)
            else:
                break
    left = producer.flush(60)
    assert left == 0, f"{left} records were not written"


def report(name: str, pairs: list[tuple[float, float]], *, unit: str) -> float:
    """Print a question's line: the median of candidate over yardstick, pair by pair.

    Args:
        name: The question.
        pairs: (candidate, yardstick), each in `unit`.
        unit: For example `turns/s against messages/s`.
    """
    ratios = [candidate / yardstick for candidate, yardstick in pairs]
    median = statistics.median(ratios)
    candidate = statistics.median(pair[0] for pair in pairs)
    yardstick = statistics.median(pair[1] for pair in pairs)
    print(f"{name} median ratio {median:.3f}")
    print(
        f"  {candidate:,.1f} against {yardstick:,.1f} ({unit}); ratios {min(ratios):.3f} to "
        f"{max(ratios):.3f} over {len(pairs)} pairs"
    )
    return median
