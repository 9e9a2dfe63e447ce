"""How fast 100,000 open runs are restored, against a bare consumer of the same topic that keeps nothing."""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import time

from benchmarks import cluster, hop
from confluent_kafka import Consumer, KafkaError, TopicPartition

from headwater.assembly import Parts, Platform
from headwater.contracts.records import Draft, Partition
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.local import LocalLog
from headwater.log.port import Claim
from headwater.runs.rows import Run
from headwater.runtime.restoring import Restorer

RUNS = int(os.environ.get("RUNS", "100000"))
FETCHED_MAX = 5_000
LOOK_S = 0.001
"""How often it is asked whether the partition is ready."""
BARE_WAIT_S = 0.01
"""How long the bare consumer may wait at the end, where there is less than it asks for."""
Written = list[tuple[bytes, bytes, list[tuple[str, bytes]]]]


def of_one_run() -> Written:
    """Return the rows of one run whose first call is open, as the decider wrote them."""
    log = LocalLog()
    platform = Platform(hop.app, log, Parts(clock=confine.wall_ms))
    names = platform.names
    for need in platform.layout.needs(partitions=1, coordinators=1):
        log.create(need.name, partitions=need.partitions, compacted=need.compacted)
    log.begin_group(platform.layout.group("runs.walker"), [names.inbox("walker")])
    key, value, headers = hop.inbox(platform)[0]
    start = Draft(
        topic=names.inbox("walker"), key=key, value=value, headers=tuple(headers), partition=0
    )
    asyncio.run(log.append(start))
    loop = platform.runs("walker")
    while not loop.step(0):
        pass
    reader = log.read({Partition(names.state("runs.walker"), 0): 0})
    written = reader.poll(records_max=FETCHED_MAX, wait_ms=0)
    reader.close()
    loop.close()
    return [(record.key or b"", record.value or b"", []) for record in written]


def of_many(rows: Written, count: int) -> Written:
    """Return the rows of so many runs: the same, each under an id of its own."""
    first = b"%032x" % 0
    return [
        (key.replace(first, own), value.replace(first, own), [])
        for own in (b"%032x" % (number * 7919) for number in range(count))
        for key, value, _ in rows
    ]


def bare(config: KafkaConfig, topic: str) -> float:
    """Return the seconds a consumer takes from its making to the topic's end."""
    began = time.perf_counter()
    consumer = Consumer(
        {**config.consumer(), "group.id": cluster.fresh("bare"), "enable.partition.eof": True}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    while True:
        for message in consumer.consume(FETCHED_MAX, BARE_WAIT_S):
            error = message.error()
            if error is not None and error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name
                seconds = time.perf_counter() - began
                consumer.close()
                return seconds


def restored(
    config: KafkaConfig, platform: Platform, group: str, topic: str, inbox: str
) -> tuple[float, float]:
    """Return the seconds a partition takes from being gained to being ready, and to armed timers."""
    log = KafkaLog(config)
    log.topic_id(topic)
    executor = concurrent.futures.ThreadPoolExecutor(1)
    restorer = Restorer(log, group=group, state=topic, codec=platform.codec, executor=executor)
    claim = Claim(Partition(inbox, 0), 1)
    began = time.perf_counter()
    restorer.begin(claim)
    while not (ready := restorer.done()):
        time.sleep(LOOK_S)
    ready_s = time.perf_counter() - began
    while restorer:
        time.sleep(LOOK_S)
        restorer.done()
    armed_s = time.perf_counter() - began
    executor.shutdown()
    ((_, found),) = ready
    assert found.timers.next_ms() is not None
    last = b"%032x" % ((RUNS - 1) * 7919)
    run = found.table.get(Run, f"walker.0.{last.decode()}")
    assert run is not None
    assert run.state == "open"
    log.close()
    return ready_s, armed_s


def main() -> None:
    """Alternate, and print the ratio of rates."""
    calm_collector()
    rows = of_one_run()
    with cluster.config() as config:
        platform = Platform(hop.app, LocalLog(), Parts(clock=confine.wall_ms))
        group = cluster.fresh("restore")
        inbox = cluster.topic(config, f"{group}.inbox")
        topic = cluster.topic(config, f"{group}.state", compacted=True)
        KafkaAdmin(config).begin_group(group, {inbox: 1})
        many = of_many(rows, RUNS)
        cluster.fill(config, topic, many)
        count = len(many)
        del many
        pairs, until_armed = [], []
        for _ in range(cluster.REPETITIONS):
            yardstick = count / bare(config, topic)
            ready_s, armed_s = restored(config, platform, group, topic, inbox)
            pairs.append((count / ready_s, yardstick))
            until_armed.append((count / armed_s, yardstick))
        cluster.report("restore", pairs, unit="rows/s restored against records/s consumed")
        cluster.report("restore-armed", until_armed, unit="the same until its timers are armed")
        kinds = ", ".join(key.split(b"\0")[0].decode() for key, _, _ in rows)
        print(f"  {RUNS:,} open runs of {len(rows)} rows ({kinds})")


if __name__ == "__main__":
    main()
