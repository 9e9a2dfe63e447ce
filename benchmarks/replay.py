"""How fast dead letters are replayed, against a bare transactional copy of the same records.

The copy reads records, writes them with their headers and commits its offset with them, and does
nothing else. A replay reads why each failed, gives it the identity of a new task, takes the headers of
its failure off, marks it, skips what was done before, and notes what it did; order is compared.

Each side has a process of its own, which begins with nothing, so what either holds at most can be
told. `BENCH_LETTERS=1000000 make bench BENCH=replay` asks about a million; `python -m
benchmarks.replay --letters 1000000 --repetitions 3` does, too.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import multiprocessing
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

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

LETTERS = int(os.environ.get("BENCH_LETTERS") or 200_000)
CHUNK = 20_000
"""Letters that are made at a time."""
BARE_BATCH = 5_000
"""Records of one transaction of the copy: the size at which it was fastest."""
WAIT_S = 60.0
LONGEST_S = 3_600.0

app = App("bench", namespace="bench")


@app.agent
async def triage(ctx: Context, task: str) -> str:
    """Never run here."""
    return task


Row = tuple[bytes, bytes, list[tuple[str, bytes]]]


class Seen(NamedTuple):
    """What one side did in a process of its own."""

    speed: cluster.Speed
    peak_mib: int
    """Most memory that was resident."""


def letters(platform: Platform, first: int, count: int) -> list[Row]:
    """Return some dead letters as runs write them."""
    value = triage.input.encode("a claim of the usual length, which nobody could decide about")
    found: list[Row] = []
    for number in range(first, first + count):
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


def copied(config: KafkaConfig, source: str, sink: str, count: int, batch: int) -> Seen:
    """Copy records as a careful hand would, with the client alone; the first batch is not timed."""
    calm_collector()
    group = cluster.fresh("copy")
    consumer = Consumer({**config.consumer(), "group.id": group, "auto.offset.reset": "earliest"})
    producer = Producer({**config.transactional(group, "copy")})
    producer.init_transactions(WAIT_S)
    consumer.assign([TopicPartition(source, 0, 0)])
    done, first, watch = 0, 0, cluster.Stopwatch()
    while done < count:
        messages = consumer.consume(batch, 0.2)
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
        if not first:
            first, watch = done, cluster.Stopwatch()
    seen = Seen(watch.speed(count - first), peak_mib())
    consumer.close()
    return seen


def replayed(config: KafkaConfig, namespace: str, count: int) -> Seen:
    """Replay dead letters; joining and the first batch are not timed."""
    calm_collector()
    log = KafkaLog(config)
    operating, operation = begun(log, namespace, cluster.fresh("bench"))
    while not (first := done(operating, operation)):
        time.sleep(0.002)
    watch = cluster.Stopwatch()
    operating.join(operation, timeout_s=LONGEST_S)
    seen = Seen(watch.speed(count - first), peak_mib())
    assert done(operating, operation) == count, operating.state(operation)
    log.close()
    return seen


def whole(log: KafkaLog, namespace: str, name: str) -> int:
    """Replay dead letters under a name; return how many that did."""
    operating, operation = begun(log, namespace, name)
    operating.join(operation, timeout_s=LONGEST_S)
    return done(operating, operation)


def gateway(log: KafkaLog, namespace: str) -> Operating:
    """Return what carries operations out; it knows no runs."""
    return _platform(log, namespace).operating(lambda run: None)


def begun(log: KafkaLog, namespace: str, name: str) -> tuple[Operating, str]:
    """Begin to replay every dead letter."""
    platform, operating = _platform(log, namespace), gateway(log, namespace)
    wish = Wish(
        verb="replay",
        letters=True,
        topics=(platform.names.dlq("triage"),),
        wanted=Wanted(),
        again=True,
        name=name,
    )
    return operating, operating.begin(wish)


def done(operating: Operating, operation: str) -> int:
    """Return how many it has done."""
    state = operating.state(operation)
    assert state is not None, "it was begun here"
    assert state["state"] in {"running", "done"}, state
    return int(state["done"])


def peak_mib() -> int:
    """Return how much of this process was resident at most.

    `getrusage` would tell the parent's peak where that was higher: it outlives the start of a program.
    """
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith("VmHWM:"))


def apart(work: Callable[..., Seen], *arguments: Any) -> Seen:
    """Do some work in a process of its own."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(work, *arguments).result(LONGEST_S)


def order_kept(log: KafkaLog, place: Partition, start: int, count: int) -> bool:
    """Say whether every letter was written from an offset on, once and in order."""
    reader = log.read({place: start})
    seen, last = 0, -1
    while not reader.at_end:
        for record in reader.poll(records_max=CHUNK, wait_ms=200):
            of = int((record.header("__replay.of") or b"@-1").rpartition(b"@")[2])
            if of <= last:
                return False
            seen, last = seen + 1, of
    reader.close()
    return seen == count


def replayed_of(log: KafkaLog, place: Partition) -> collections.Counter[bytes]:
    """Count how often each letter was replayed to a partition."""
    with contextlib.closing(log.read({place: 0})) as reader:
        found: collections.Counter[bytes] = collections.Counter()
        while not reader.at_end:
            found.update(
                record.header("__replay.of") or b""
                for record in reader.poll(records_max=CHUNK, wait_ms=200)
            )
    return found


def prepared(config: KafkaConfig, log: KafkaLog, namespace: str, count: int) -> Platform:
    """Create the topics of a namespace, and dead letters."""
    platform = _platform(log, namespace)
    for need in platform.layout.needs(partitions=1, coordinators=1):
        cluster.topic(config, need.name, compacted=need.compacted)
    for first in range(0, count, CHUNK):
        made = letters(platform, first, min(CHUNK, count - first))
        cluster.fill(config, platform.names.dlq("triage"), made)
    return platform


def pairs(
    config: KafkaConfig, count: int, repetitions: int, batch: int
) -> Iterator[tuple[Seen, Seen, bool]]:
    """Yield what a replay and a copy came to, in turn, and whether order was kept."""
    namespace, log = cluster.fresh("replay"), KafkaLog(config)
    platform = prepared(config, log, namespace, count)
    source, sink = platform.names.dlq("triage"), cluster.topic(config, cluster.fresh("sink"))
    place = Partition(platform.names.cmd("triage"), 0)
    for _ in range(repetitions):
        yardstick = apart(copied, config, source, sink, count, batch)
        start = log.ends([place])[place]
        candidate = apart(replayed, config, namespace, count)
        yield candidate, yardstick, order_kept(log, place, start, count)
    log.close()


def _platform(log: KafkaLog, namespace: str) -> Platform:
    return Platform(app, log, Parts(clock=confine.wall_ms, instance="bench"), namespace=namespace)


def main(
    letters: int = LETTERS, repetitions: int = cluster.REPETITIONS, batch: int = BARE_BATCH
) -> None:
    """Alternate, and print the ratio."""
    with cluster.config() as config:
        seen = [*pairs(config, letters, repetitions, batch)]
    ours, bare, kept = zip(*seen, strict=True)
    rates = [(one.speed.per_s, other.speed.per_s) for one, other in zip(ours, bare, strict=True)]
    cluster.report("replay", rates, unit="letters/s against records/s; at least 0.7")
    work = [statistics.median(one.speed.cpu_us for one in side) for side in (ours, bare)]
    peaks = [", ".join(str(one.peak_mib) for one in side) for side in (ours, bare)]
    print(f"  {work[0]:.1f} us of processor time a letter against {work[1]:.1f} us a record")
    print(
        f"  {letters:,} letters; order {'kept' if all(kept) else 'LOST'}; most memory "
        f"{peaks[0]} MiB against {peaks[1]} MiB"
    )


if __name__ == "__main__":
    given = argparse.ArgumentParser()
    given.add_argument("--letters", type=int, default=LETTERS)
    given.add_argument("--repetitions", type=int, default=cluster.REPETITIONS)
    given.add_argument("--batch", type=int, default=BARE_BATCH, help="of the copy")
    main(**vars(given.parse_args()))
