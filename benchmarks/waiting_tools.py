"""How close one-second calls come to the ideal, which is their number over how many may go on at once.

1,000 calls, 100 at once, and 10,000 calls, 1,000 at once, on 6 partitions: ideally 10 s each. They
are writes, so each notes its answer before it sends it. The clock runs from the first call's
beginning to when the log has the last answer.
"""

from __future__ import annotations

import asyncio

from benchmarks import cluster, requests

from headwater.contracts.messages import Ask
from headwater.core.effector import Attempt, Call, Done
from headwater.durable import confine
from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaConfig
from headwater.runtime.lanes import Bounds

SIZES = ((1_000, 100, 1.05), (10_000, 1_000, 1.2))


class Waits:
    """A tool that waits for a second, and nothing else."""

    name = "tool.bench"

    def __init__(self) -> None:
        self.began_ms = 0

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        """Wait."""
        self.began_ms = self.began_ms or confine.wall_ms()
        await asyncio.sleep(1)
        return Done(value=b"x")


async def seconds(config: KafkaConfig, count: int, at_once: int) -> float:
    """Return how long so many calls take."""
    desk, tool = requests.Desk(config), Waits()
    for start in range(0, count, 500):
        await asyncio.gather(*(desk.ask(start + n, safety="write") for n in range(500)))
    bounds = Bounds(calls_max=at_once, tenant_max=at_once, name_max=at_once)
    async with desk.answering(tool, bounds):
        replies = await desk.replies(count)
    desk.close()
    return (max(replies.values()) - tool.began_ms) / 1000


def main() -> None:
    """Print how long the calls take, over the ideal."""
    calm_collector()
    with cluster.config() as config:
        for count, at_once, bound in SIZES:
            ideal_s = count / at_once
            pairs = [
                (asyncio.run(seconds(config, count, at_once)), ideal_s)
                for _ in range(cluster.REPETITIONS)
            ]
            cluster.report(
                f"waiting-tools-{count}", pairs, unit=f"s against ideal s; at most {bound}"
            )


if __name__ == "__main__":
    main()
