"""How many agent turns a second, against bare exactly-once messages a second on the same broker.

A turn here has all its duties: a reply is decoded and matched, the durable function goes on, the next
call is reserved, judged and sent, rows and a life-cycle event are written, and everything commits with
the offset in one transaction.
"""

from __future__ import annotations

import collections
import concurrent.futures
import functools
import statistics
import time
from typing import Any

from benchmarks import bare, cluster

from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Answered, Reply, Start, Task
from headwater.core.decider import Sent
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, RunId
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_owner import KafkaOwner
from headwater.runs.decider import Runs
from headwater.runtime.committing import Batch
from headwater.sdk.app import App
from headwater.sdk.context import Context
from headwater.sdk.types import Budget

RUNS = 600
CALLS = 9
WAVES = 5
"""How often so many runs go from their start to their end: ten transactions and more, for the last one,
of the few turns that are left, waits for the broker as long as one of 2,500."""
BARE = 300_000
"""A second's messages: of 60,000, a third of a second's, one run took twice what the next did."""
WARM = 0.2
"""Share of the turns that go before the clock starts: joining, restoring and the first fetch."""

app = App("bench", namespace="bench")


@app.tool(effect="read")
async def look(key: str) -> str:
    """Answered by the benchmark itself."""
    return key


@app.agent(budget=Budget(steps=1_000))
async def walker(ctx: Context, task: str) -> str:
    """Make calls, one after another."""
    for _ in range(CALLS):
        task = await look(task)
    return task


class Stages:
    """Seconds per stage, by wrapping the functions where each begins and ends."""

    def __init__(self) -> None:
        self.seconds: collections.defaultdict[str, float] = collections.defaultdict(float)
        self._undo: list[tuple[Any, str, Any]] = []

    def watch(self, of: Any, name: str, stage: str, *, less: str = "") -> None:
        """Count the time of `of.name` for a stage, less what `less` took within it."""
        real = getattr(of, name)
        seconds = self.seconds

        @functools.wraps(real)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began, inner = time.perf_counter(), seconds[less]
            try:
                return real(*args, **kwargs)
            finally:
                seconds[stage] += (
                    time.perf_counter() - began - (seconds[less] - inner if less else 0)
                )

        self._undo.append((of, name, real))
        setattr(of, name, timed)

    def undo(self) -> None:
        """Put everything back."""
        for of, name, real in self._undo:
            setattr(of, name, real)


def inbox(platform: Platform) -> list[tuple[bytes, bytes, list[tuple[str, bytes]]]]:
    """Return every record of the inbox: a wave's starts, then all its first replies, and so on."""
    envelope = platform.envelope("bench")
    topic = platform.names.inbox("walker")
    task = app.agents["walker"].input.encode("x")
    answer = app.tools["look"].result.encode("x")
    messages: list[tuple[str, Any]] = []
    for wave in range(WAVES):
        runs = [str(RunId("walker", 0, f"{wave * RUNS + n:032x}")) for n in range(RUNS)]
        messages += [
            (run, Start(run=run, task_id=run[-32:], slot=run, task=Task(value=task)))
            for run in runs
        ]
        for number in range(1, CALLS + 1):
            messages += [
                (run, Reply(run=run, number=number, attempt="a", outcome=Answered(value=answer)))
                for run in runs
            ]
    records = []
    for place, (run, message) in enumerate(messages):
        meta = Meta(id=f"{place:032x}", tenant="t", correlation_id=run[-32:])
        draft = envelope.seal(Sent(message=message, to=Address(topic, run, 0), meta=meta))
        records.append((draft.key or b"", draft.value or b"", [*draft.headers]))
    return records  # type: ignore[return-value] # our own headers have values


def turns(
    config: KafkaConfig, stages: Stages | None = None, *, of: type[KafkaLog] = KafkaLog
) -> cluster.Speed:
    """Return how fast one agents' worker takes its turns on a fresh namespace.

    Args:
        config: The cluster.
        stages: Counts where the time goes.
        of: How the cluster is used.
    """
    namespace = cluster.fresh("hop")
    log = of(config)
    executor = concurrent.futures.ThreadPoolExecutor(2)
    parts = Parts(clock=confine.wall_ms, instance="bench", executor=executor)
    platform = Platform(app, log, parts, namespace=namespace)
    for need in platform.layout.needs(partitions=1, coordinators=1):
        cluster.topic(config, need.name, compacted=need.compacted)
    KafkaAdmin(config).begin_group(
        platform.layout.group("runs.walker"), {platform.names.inbox("walker"): 1}
    )
    records = inbox(platform)
    cluster.fill(config, platform.names.inbox("walker"), records)
    loop = platform.runs("walker")
    done, first = 0, 0
    watch = None if WARM else cluster.Stopwatch()
    while done < len(records):
        done += loop.step(200)
        if watch is None and done >= WARM * len(records):
            watch, first = cluster.Stopwatch(), done
            if stages is not None:
                stages.seconds.clear()
    assert watch is not None, "turns were taken"
    speed = watch.speed(done - first)
    loop.close()
    log.close()
    executor.shutdown()
    return speed


def breakdown(config: KafkaConfig) -> None:
    """Print where a turn's time goes, from one run with stopwatches in it."""
    stages = Stages()
    stages.watch(Envelope, "open", "decode")
    stages.watch(Runs, "react", "turn")
    stages.watch(Envelope, "seal", "encode")
    stages.watch(Batch, "work", "encode")
    stages.watch(KafkaOwner, "_transact", "commit")
    try:
        speed = turns(config, stages)
    finally:
        stages.undo()
    count = (1 - WARM) * WAVES * RUNS * (CALLS + 1)
    parts = ", ".join(
        f"{stage} {s / count * 1e6:.0f}" for stage, s in stages.seconds.items() if stage
    )
    print(f"  us a turn, of {1e6 / speed.per_s:.0f} with stopwatches: {parts}")


def main() -> None:
    """Alternate, and print the ratio."""
    calm_collector()
    with cluster.config() as config:
        source, sink = (cluster.topic(config, cluster.fresh(name)) for name in ("source", "sink"))
        cluster.fill(config, source, [(b"key", b"x" * 100, [])] * BARE)
        pairs = []
        for _ in range(cluster.REPETITIONS):
            yardstick = bare.throughput(config, source, sink, cluster.fresh("bare"), BARE)
            pairs.append((turns(config), yardstick))
        rates = [(turn.per_s, message.per_s) for turn, message in pairs]
        cluster.report("hop", rates, unit="turns/s against messages/s; at least 0.05")
        turn_us, message_us = (
            statistics.median(side.cpu_us for side in sides) for sides in zip(*pairs, strict=True)
        )
        print(
            f"  {turn_us:.0f} us of processor time a turn against {message_us:.1f} us a message: "
            f"{message_us / turn_us:.3f}"
        )
        breakdown(config)


if __name__ == "__main__":
    main()
