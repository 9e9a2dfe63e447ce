"""How long three hops take with one task in flight, against three relays written by hand.

A task's three hops are intake, admission and the run, each an exactly-once transaction of its own;
the yardstick moves a record through three bare relays. A second one writes to as many partitions as
the duties do: the client sends a request for each, and a broker answers one of a connection at a time.
"""

from __future__ import annotations

import concurrent.futures
import statistics
import threading
import time
import uuid
from collections.abc import Sequence

from benchmarks import bare, cluster
from confluent_kafka import Consumer, Producer, TopicPartition

from headwater.assembly import Parts, Platform
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.sdk.app import App
from headwater.sdk.context import Context

TASKS = 150
WARM = 10
WARM_ROUNDS = 5
"""Rounds that are not counted: a broker just started compiles what it runs for about a minute, and
until then both sides take up to twice as long as later."""
BESIDE = (0, 2, 2)
"""Admission writes rows and an event beside its message; a run its close and an event beside its outcome."""

app = App("bench", namespace="bench")


@app.agent
async def echo(ctx: Context, task: str) -> str:
    """Answer at once."""
    return task


class Probe:
    """Sends one record and waits for the one it leads to.

    Args:
        config: The cluster.
        source: Where to send.
        sink: Where to wait.
    """

    def __init__(self, config: KafkaConfig, source: str, sink: str) -> None:
        self._source = source
        self._producer = Producer({**config.producer(), "linger.ms": 0})
        self._consumer = Consumer({**config.consumer(), "group.id": uuid.uuid4().hex})
        self._consumer.assign([TopicPartition(sink, 0, 0)])

    def seconds(self, value: bytes, headers: list[tuple[str, bytes]]) -> float:
        """Return how long one record took."""
        began = time.perf_counter()
        self._producer.produce(self._source, value, b"key", partition=0, headers=headers)
        self._producer.flush(30)
        until = began + 60
        while time.perf_counter() < until:
            message = self._consumer.poll(1.0)
            if message is not None and message.error() is None:
                return time.perf_counter() - began
        raise TimeoutError(f"nothing came of a record in {self._source}")

    def close(self) -> None:
        """Leave."""
        self._consumer.close()


def measure(probe: Probe, value: bytes, *, named: bool) -> list[float]:
    """Return the seconds of each task, one in flight, after some to warm up."""
    seconds = []
    for number in range(WARM + TASKS):
        headers = [("ce_id", f"{number}".encode()), ("ce_tenantid", b"t")] if named else []
        took = probe.seconds(value, headers)
        if number >= WARM:
            seconds.append(took)
    probe.close()
    return seconds


def relays(config: KafkaConfig, beside: Sequence[int] = (0, 0, 0)) -> list[float]:
    """Return the seconds of three bare relays in a row.

    Args:
        config: The cluster.
        beside: How many further partitions each of them writes to.
    """
    name = cluster.fresh("relay")
    topics = [cluster.topic(config, f"{name}-{n}") for n in range(4)]
    hops = [
        bare.Relay(
            config,
            topics[n],
            topics[n + 1],
            f"{name}-{n}",
            beside=[cluster.topic(config, f"{name}-{n}-{m}") for m in range(count)],
        )
        for n, count in enumerate(beside)
    ]
    stop = threading.Event()
    threads = [threading.Thread(target=hop.run, args=(stop,), daemon=True) for hop in hops]
    for thread in threads:
        thread.start()
    try:
        return measure(Probe(config, topics[0], topics[3]), b"x" * 40, named=False)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)


def hops(config: KafkaConfig) -> list[float]:
    """Return the seconds of a task through intake, admission and its run."""
    log = KafkaLog(config)
    executor = concurrent.futures.ThreadPoolExecutor(2)
    parts = Parts(clock=confine.wall_ms, instance="bench", executor=executor)
    platform = Platform(app, log, parts, namespace=cluster.fresh("latency"))
    for need in platform.layout.needs(partitions=1, coordinators=1):
        cluster.topic(config, need.name, compacted=need.compacted)
    for group, topics in platform.layout.groups().items():
        KafkaAdmin(config).begin_group(group, dict.fromkeys(topics, 1))
    loops = [platform.intake(), platform.admission(), platform.runs("echo")]
    stop = threading.Event()
    threads = [threading.Thread(target=loop.run, args=(stop,), daemon=True) for loop in loops]
    for thread in threads:
        thread.start()
    names = platform.names
    try:
        value = app.agents["echo"].input.encode("x" * 30)
        return measure(Probe(config, names.cmd("echo"), names.evt("echo")), value, named=True)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
        log.close()
        executor.shutdown()


def main() -> None:
    """Alternate, and print the ratio of medians, and of the 99th percentiles."""
    calm_collector()
    with cluster.config() as config:
        medians, tails, alike = [], [], []
        for number in range(-WARM_ROUNDS, cluster.REPETITIONS):
            yardstick, candidate, beside = relays(config), hops(config), relays(config, BESIDE)
            if number < 0:
                continue
            took = statistics.median(candidate) * 1e3
            medians.append((took, statistics.median(yardstick) * 1e3))
            tails.append((_p99(candidate) * 1e3, _p99(yardstick) * 1e3))
            alike.append((took, statistics.median(beside) * 1e3))
        cluster.report("latency", medians, unit="ms at the median")
        cluster.report("latency-p99", tails, unit="ms at the 99th percentile")
        cluster.report("latency-alike", alike, unit="ms at the median, as many partitions written")


def _p99(seconds: list[float]) -> float:
    return sorted(seconds)[min(len(seconds) - 1, round(len(seconds) * 0.99))]


if __name__ == "__main__":
    main()
