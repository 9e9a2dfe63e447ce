"""How fast dead letters are replayed, against a bare transactional copy of the same records.

The copy reads records, writes them with their headers and commits its offset with them, and does
nothing else. A replay reads why each failed, gives it the identity of a new task, takes the headers of
its failure off, marks it, skips what was done before, and notes what it did; order is compared.

`python -m benchmarks.replay --records 1000000` asks about a million, and says how memory went.
"""

from __future__ import annotations

import argparse
import resource
import time

from benchmarks import cluster
from confluent_kafka import Consumer, Producer, TopicPartition

from headwater.assembly import Parts, Platform
from headwater.contracts.quarantine import letter
from headwater.contracts.records import Partition, Record
from headwater.contracts.wanted import Wanted
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.runtime.operating import Operating, Wish
from headwater.sdk.app import App
from headwater.sdk.context import Context

RECORDS = 60_000
BATCH = 5_000
WAIT_S = 60.0

app = App("bench", namespace="bench")


@app.agent
async def triage(ctx: Context, task: str) -> str:
    """Never run here."""
    return task


Row = tuple[bytes, bytes, list[tuple[str, bytes]]]


def letters(platform: Platform, count: int) -> list[Row]:
    """Return dead letters as runs write them."""
    value = triage.input.encode("a claim of the usual length, which nobody could decide about")
    found: list[Row] = []
    for number in range(count):
        record = Record(
            partition=Partition(platform.names.cmd("triage"), 0),
            offset=number,
            time_ms=0,
            key=b"key-%d" % (number % 1_000),
            value=value,
            headers=(
                ("ce_id", b"event-%d" % number),
                ("ce_source", b"claims"),
                ("ce_tenantid", b"t1"),
                ("traceparent", b"00-%032x-%016x-00" % (number + 1, number + 1)),
            ),
        )
        run = f"triage.0.{number:032x}"
        draft = letter(
            record,
            platform.names.dlq("triage"),
            group="bench.runs.triage",
            code="ToolError",
            kind="ToolError",
            message="the ledger is away",
            stack='File "app.py", line 7, in triage\n' * 5,
            more=(("run", run), ("tenant", "t1"), ("attempt", "1"), ("writes", "")),
        )
        found.append((draft.key or b"", draft.value or b"", [*draft.headers]))  # type: ignore[list-item] # ours have values
    return found


def bare(config: KafkaConfig, source: str, sink: str, count: int) -> float:
    """Return records a second of a copy that a careful hand would write with the client alone."""
    group = cluster.fresh("copy")
    consumer = Consumer({**config.consumer(), "group.id": group, "auto.offset.reset": "earliest"})
    producer = Producer({**config.transactional(group, "copy")})
    producer.init_transactions(WAIT_S)
    consumer.assign([TopicPartition(source, 0, 0)])
    done, began = 0, 0.0
    while done < count:
        messages = consumer.consume(BATCH, 0.2)
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            assert message.error() is None, message.error()
            while True:
                try:
                    producer.produce(
                        sink,
                        message.value(),
                        message.key(),
                        partition=0,
                        headers=message.headers(),
                    )
                except BufferError:
                    producer.poll(0.05)
                else:
                    break
        last = messages[-1].offset()
        producer.send_offsets_to_transaction(
            [TopicPartition(source, 0, last + 1)], consumer.consumer_group_metadata(), WAIT_S
        )
        producer.commit_transaction(WAIT_S)
        done += len(messages)
        if not began:
            began, first = time.perf_counter(), done
    seconds = time.perf_counter() - began
    consumer.close()
    return (count - first) / seconds


def replayed(log: KafkaLog, platform: Platform, count: int, rss: list[int]) -> float:
    """Return records a second of one replay, from its first batch on: joining comes before."""
    operating = platform.operating(lambda run: [])
    wish = Wish(
        verb="replay",
        letters=True,
        topics=(platform.names.dlq("triage"),),
        wanted=Wanted(),
        again=True,
        name=cluster.fresh("bench"),
    )
    operation = operating.begin(wish)
    first = 0
    while not first:
        time.sleep(0.002)
        first = _done(operating, operation)
    began = time.perf_counter()
    operating.join(operation, timeout_s=3_600)
    seconds = time.perf_counter() - began
    state = operating.state(operation)
    assert state is not None
    assert (state["state"], state["done"]) == ("done", count), state
    rss.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    return (count - first) / seconds


def _done(operating: Operating, operation: str) -> int:
    state = operating.state(operation)
    assert state is not None
    return int(state["done"])


def in_order(log: KafkaLog, topic: str, count: int) -> bool:
    """Say whether the last replay wrote the letters in their order."""
    end = log.ends([Partition(topic, 0)])[Partition(topic, 0)]
    reader = log.read({Partition(topic, 0): max(0, end - count - 100)})
    seen: list[bytes] = []
    while not reader.at_end:
        for record in reader.poll(records_max=BATCH, wait_ms=200):
            seen.append(record.header("__replay.of") or b"")  # noqa: PERF401 - it grows from poll to poll
    reader.close()
    places = [int(of.rpartition(b"@")[2]) for of in seen[-count:]]
    return places == sorted(places) and len(set(places)) == count


def main(records: int = RECORDS, repetitions: int = cluster.REPETITIONS) -> None:
    """Alternate, and print the ratio."""
    calm_collector()
    with cluster.config() as config:
        namespace = cluster.fresh("replay")
        log = KafkaLog(config)
        platform = Platform(
            app, log, Parts(clock=confine.wall_ms, instance="bench"), namespace=namespace
        )
        for need in platform.needs(partitions=1, coordinators=1):
            cluster.topic(config, need.name, compacted=need.compacted)
        source, sink = platform.names.dlq("triage"), cluster.topic(config, cluster.fresh("sink"))
        for start in range(0, records, 50_000):
            cluster.fill(config, source, letters(platform, records)[start : start + 50_000])
        pairs, rss = [], list[int]()
        for _ in range(repetitions):
            yardstick = bare(config, source, sink, records)
            pairs.append((replayed(log, platform, records, rss), yardstick))
        cluster.report("replay", pairs, unit="letters/s against records/s")
        order = in_order(log, platform.names.cmd("triage"), records)
        print(
            f"  {records:,} letters; order {'kept' if order else 'LOST'}; most memory after each "
            f"repetition: {', '.join(map(str, rss))} MiB"
        )
        log.close()


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("--records", type=int, default=RECORDS)
    given.add_argument("--repetitions", type=int, default=cluster.REPETITIONS)
    main(**vars(given.parse_args()))
