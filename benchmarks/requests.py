"""Requests to one service's tools on a fresh namespace, a worker that answers them, and what the log says."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

from benchmarks import cluster
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.contracts import quarantine
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask, Reply, ReplyTo
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Sent
from headwater.core.effector import Effector
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.durable import confine
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.runtime.lanes import Bounds
from headwater.runtime.performing import Performing

PARTITIONS = 6
CODEC = Codec(Schemas())
ENVELOPE = Envelope(CODEC, source="bench")
BOUND_S = 300.0


class Desk:
    """Topics, a group, and the log.

    Args:
        config: The cluster.
    """

    def __init__(self, config: KafkaConfig) -> None:
        own = cluster.fresh("desk")
        self.group = f"{own}.tools.bench"
        self.requests = f"{own}.req.tool.bench.v1"
        self.receipts = f"{own}.receipt.tool.bench.v1"
        self.inbox = f"{own}.inbox.desk.v1"
        self.log = KafkaLog(config)
        self._config = config
        admin = AdminClient({"bootstrap.servers": config.bootstrap})
        topics = [
            NewTopic(name, count, 1, config={"message.timestamp.type": "LogAppendTime"})
            for name, count in (
                (self.requests, PARTITIONS),
                (self.receipts, PARTITIONS),
                (self.inbox, 1),
            )
        ]
        for made in admin.create_topics(topics).values():
            made.result(30)
        KafkaAdmin(config).begin_group(self.group, {self.requests: PARTITIONS})

    def worker(self, effector: Effector, bounds: Bounds) -> Performing:
        """Return a loop that answers."""
        return Performing(
            log=self.log,
            worker=self.log.work([self.requests], group=self.group, instance="bench"),
            group=self.group,
            effector=effector,
            envelope=ENVELOPE,
            quarantine=lambda record, error: quarantine.keep(record, error, group=self.group),
            tokens=f"{self.group}.tokens",
            clock=confine.wall_ms,
            bounds=bounds,
            receipts=self.receipts,
            holder="bench",
        )

    @contextlib.asynccontextmanager
    async def answering(self, effector: Effector, bounds: Bounds) -> AsyncIterator[Performing]:
        """Have a worker that owns every partition, until the end of the block."""
        loop, stop = self.worker(effector, bounds), asyncio.Event()
        running = asyncio.create_task(loop.run(stop))
        until = time.monotonic() + BOUND_S
        while len(loop.claims) < PARTITIONS:
            assert time.monotonic() < until, "the partitions do not come"
            await asyncio.sleep(0.05)
        yield loop
        stop.set()
        await running

    async def ask(self, number: int, *, safety: Any = "read", order_key: str = "") -> Record:
        """Publish one request; return it with the time that the log took it."""
        ask = Ask(
            run="desk.0.r",
            number=number,
            name="work",
            arguments=b"",
            safety=safety,
            order_key=order_key,
            not_after_ms=confine.wall_ms() + 3_600_000,
            reply_to=ReplyTo(topic=self.inbox, partition=0, run="desk.0.r", number=number),
        )
        meta = Meta(id=f"ask-{number}", tenant="t")
        place = (sum(order_key.encode()) if order_key else number) % PARTITIONS
        draft = ENVELOPE.seal(
            Sent(message=ask, to=Address(self.requests, order_key or str(number), place), meta=meta)
        )
        partition, offset = await self.log.append(draft)
        return Record(
            partition=partition,
            offset=offset,
            time_ms=confine.wall_ms(),
            key=draft.key,
            value=draft.value,
        )

    async def replies(self, count: int) -> dict[int, int]:
        """Wait for so many answers; return each call's number and when the log took its answer."""
        return await asyncio.to_thread(self._replies, count)

    def close(self) -> None:
        """Let go of the log."""
        self.log.close()

    def _replies(self, count: int) -> dict[int, int]:
        reader = self.log.read({Partition(self.inbox, 0): 0})
        found: dict[int, int] = {}
        until = time.monotonic() + BOUND_S
        while len(found) < count:
            assert time.monotonic() < until, f"{len(found)} of {count} calls were answered"
            for record in reader.poll(records_max=5_000, wait_ms=100):
                reply = CODEC.decode(record.value or b"")
                assert isinstance(reply, Reply)
                found.setdefault(reply.number, record.time_ms)
        reader.close()
        return found


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so great a share of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]
