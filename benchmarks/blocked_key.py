"""What a blocked order key costs the others: their 99th percentile with it, over that without it.

Twenty keys share six partitions; calls of 20 ms come at a steady rate. In one run of each pair the
first key's first call does not end, so everything behind it waits. A call's time is from the log's
time of its request to the log's time of its answer.
"""

from __future__ import annotations

import asyncio

from benchmarks import cluster, requests

from headwater.contracts.messages import Ask
from headwater.core.effector import Attempt, Call, Done
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig
from headwater.runtime.lanes import Bounds

KEYS = 20
CALLS = 1_000
EVERY_S = 0.005
CALL_S = 0.02
BLOCKED = "key-00"
SHARE = 0.99


class Blocks:
    """A tool whose calls take a while, and those of one key until they are let go."""

    name = "tool.bench"

    def __init__(self, blocked: str) -> None:
        self._blocked = blocked
        self.free = asyncio.Event()

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        """Wait."""
        if ask.order_key == self._blocked:
            await self.free.wait()
        await asyncio.sleep(CALL_S)
        return Done(value=b"x")


async def p99_ms(config: KafkaConfig, blocked: str) -> float:
    """Return the other keys' 99th percentile in milliseconds."""
    desk, tool = requests.Desk(config), Blocks(blocked)
    async with desk.answering(tool, Bounds(calls_max=200)):
        asked: dict[int, int] = {}
        for number in range(CALLS):
            key = f"key-{number % KEYS:02}"
            record = await desk.ask(number, safety="read", order_key=key)
            asked[number] = record.time_ms
            await asyncio.sleep(EVERY_S)
        others = {n for n in asked if f"key-{n % KEYS:02}" != BLOCKED}
        if blocked:
            early = await desk.replies(len(others))
            tool.free.set()
            replies = early
        else:
            replies = await desk.replies(CALLS)
    desk.close()
    return requests.percentile([replies[n] - asked[n] for n in others if n in replies], SHARE)


def main() -> None:
    """Alternate, and print the ratio."""
    calm_collector()
    with cluster.config() as config:
        pairs = []
        for _ in range(cluster.REPETITIONS):
            without = asyncio.run(p99_ms(config, ""))
            pairs.append((asyncio.run(p99_ms(config, BLOCKED)), without))
        cluster.report(
            "blocked-key", pairs, unit="ms with a blocked key against ms without; at most 1.1"
        )


if __name__ == "__main__":
    main()
