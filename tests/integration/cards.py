"""A cluster for effectors' tests: a topic of requests, their receipts, an inbox, members of one group."""

from __future__ import annotations

import time
import uuid
from typing import Any

from headwater.contracts import quarantine
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask, Reply, ReplyTo
from headwater.contracts.records import Partition
from headwater.core.decider import Sent
from headwater.core.effector import Effector
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.runtime.lanes import Bounds
from headwater.runtime.performing import Lease, Performing

PARTITIONS = 4
CODEC = Codec(Schemas())
ENVELOPE = Envelope(CODEC, source="tests")


LEASE_MS = 18_000
"""Renewed when a third is over: what is left is more than a machine stands still for."""


class Cluster:
    """A topic of requests, an inbox, and members of one group."""

    def __init__(self, bootstrap: str) -> None:
        own = f"p{uuid.uuid4().hex[:8]}"
        self.group = f"{own}.tools.cards"
        self.requests, self.inbox = f"{own}.req.tool.cards.v1", f"{own}.inbox.desk.v1"
        self.receipts = f"{own}.receipt.tool.cards.v1"
        self.config = config = KafkaConfig(
            bootstrap=bootstrap, session_ms=15_000, heartbeat_ms=300, transaction_ms=10_000
        )
        self.log = KafkaLog(config)
        admin = KafkaAdmin(config)
        counts = {self.requests: PARTITIONS, self.receipts: PARTITIONS, self.inbox: 1}
        for topic, count in counts.items():
            stamped = {"message.timestamp.type": "LogAppendTime"}
            admin.create(topic, partitions=count, replication=1, config=stamped)
        admin.begin_group(self.group, {self.requests: PARTITIONS})

    def member(
        self,
        instance: str,
        cards: Effector,
        *,
        noted: bool = True,
        blind_ms: int = 1_000,
        intends: bool = True,
    ) -> Performing:
        """Join; without notes, whatever was under way at a death is begun again."""
        return Performing(
            log=self.log,
            worker=self.log.work(
                [self.requests], group=self.group, instance=instance, intends=intends
            ),
            group=self.group,
            effector=cards,
            envelope=ENVELOPE,
            quarantine=lambda record, error: quarantine.keep(record, error, group=self.group),
            tokens=f"{self.group}.tokens",
            clock=lambda: time.time_ns() // 1_000_000,
            bounds=Bounds(calls_max=20, queued_max=20, poll_max=10),
            receipts=self.receipts if noted else "",
            holder=instance,
            lease=Lease(lease_ms=LEASE_MS, skew_ms=200, blind_ms=blind_ms),
        )

    async def ask(
        self,
        number: int,
        *,
        safety: Any = "write",
        key: str = "",
        partition: int,
        tenant: str = "t",
    ) -> None:
        """Publish one request."""
        ask = Ask(
            run="desk.0.r",
            number=number,
            name="block",
            arguments=b"",
            safety=safety,
            order_key=key,
            not_after_ms=time.time_ns() // 1_000_000 + 600_000,
            reply_to=ReplyTo(topic=self.inbox, partition=0, run="desk.0.r", number=number),
        )
        meta = Meta(id=f"ask-{number}", tenant=tenant)
        to = Address(self.requests, key or str(number), partition)
        await self.log.append(ENVELOPE.seal(Sent(message=ask, to=to, meta=meta)))

    def answers(self) -> list[Reply]:
        """Return the replies, in order."""
        return self._all(Partition(self.inbox, 0))

    def notes(self) -> list[Any]:
        """Return the receipts of every partition."""
        places = [Partition(self.receipts, number) for number in range(PARTITIONS)]
        return [receipt for place in places for receipt in self._all(place)]

    def _all(self, place: Partition) -> list[Any]:
        reader = self.log.read({place: 0})
        found: list[Any] = []
        while not reader.at_end:
            records = reader.poll(records_max=1_000, wait_ms=100)
            found += [CODEC.decode(record.value or b"") for record in records]
        reader.close()
        return found

    def behind(self) -> int:
        """Return how many requests the group has not marked."""
        places = [Partition(self.requests, number) for number in range(PARTITIONS)]
        ends = self.log.ends(places)
        return sum(ends[place] - self.log.committed(self.group, place)[0] for place in places)
