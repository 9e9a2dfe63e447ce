"""Performing on a real broker: members come, stop and die while calls are under way."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Iterator

import pytest

from headwater.contracts import quarantine
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask, ReplyTo
from headwater.contracts.records import Partition
from headwater.core.decider import Sent
from headwater.core.effector import Attempt, Call, Done
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.runtime.lanes import Bounds
from headwater.runtime.performing import Performing

pytestmark = pytest.mark.kafka

PARTITIONS = 4
REQUESTS = 400
KEYS = 20
CODEC = Codec(Schemas())
ENVELOPE = Envelope(CODEC, source="tests")


class Cards:
    """An effector shared by every member: it remembers what began, in order."""

    name = "tool.cards"

    def __init__(self) -> None:
        self.began: list[tuple[str, int]] = []
        self.half = asyncio.Event()

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        """Take a little while."""
        self.began.append((ask.order_key, ask.number))
        if len(self.began) > REQUESTS / 4:
            self.half.set()
        await asyncio.sleep(0.01)
        return Done(value=b"%d" % ask.number)


class Cluster:
    """A topic of requests, an inbox, and members of one group."""

    def __init__(self, bootstrap: str) -> None:
        own = f"p{uuid.uuid4().hex[:8]}"
        self.group = f"{own}.tools.cards"
        self.requests, self.inbox = f"{own}.req.tool.cards.v1", f"{own}.inbox.desk.v1"
        config = KafkaConfig(
            bootstrap=bootstrap, session_ms=1_500, heartbeat_ms=300, transaction_ms=1_000
        )
        self.log = KafkaLog(config)
        admin = KafkaAdmin(config)
        for topic, count in ((self.requests, PARTITIONS), (self.inbox, 1)):
            stamped = {"message.timestamp.type": "LogAppendTime"}
            admin.create(topic, partitions=count, replication=1, config=stamped)
        admin.begin_group(self.group, {self.requests: PARTITIONS})

    def member(self, instance: str, cards: Cards) -> Performing:
        """Join."""
        return Performing(
            log=self.log,
            worker=self.log.work([self.requests], group=self.group, instance=instance),
            group=self.group,
            effector=cards,
            envelope=ENVELOPE,
            quarantine=lambda record, error: quarantine.keep(record, error, group=self.group),
            tokens=f"{self.group}.tokens",
            clock=lambda: time.time_ns() // 1_000_000,
            bounds=Bounds(calls_max=20, queued_max=20, poll_max=10),
        )

    async def publish(self) -> None:
        """Publish every request; one order key is always of one tenant and in one partition."""
        until_ms = time.time_ns() // 1_000_000 + 600_000
        for number in range(REQUESTS):
            key = f"card-{number % KEYS}"
            ask = Ask(
                run="desk.0.r",
                number=number,
                name="block",
                arguments=b"",
                safety="write",
                order_key=key,
                not_after_ms=until_ms,
                reply_to=ReplyTo(topic=self.inbox, partition=0, run="desk.0.r", number=number),
            )
            meta = Meta(id=f"ask-{number}", tenant=f"t{number % KEYS % 3}")
            to = Address(self.requests, key, number % KEYS % PARTITIONS)
            await self.log.append(ENVELOPE.seal(Sent(message=ask, to=to, meta=meta)))

    def replies(self) -> list[int]:
        """Return the numbers that were answered, in order."""
        reader = self.log.read({Partition(self.inbox, 0): 0})
        found: list[int] = []
        while not reader.at_end:
            records = reader.poll(records_max=1_000, wait_ms=100)
            found += [CODEC.decode(record.value or b"").number for record in records]
        reader.close()
        return found

    def behind(self) -> int:
        """Return how many requests the group has not marked."""
        places = [Partition(self.requests, number) for number in range(PARTITIONS)]
        ends = self.log.ends(places)
        return sum(ends[place] - self.log.committed(self.group, place)[0] for place in places)


@pytest.fixture
def cluster(kafka: str) -> Iterator[Cluster]:
    cluster = Cluster(kafka)
    yield cluster
    cluster.log.close()


async def _all_marked(cluster: Cluster) -> None:
    async with asyncio.timeout(60):
        while await asyncio.to_thread(cluster.behind):  # noqa: ASYNC110 - the broker tells no one
            await asyncio.sleep(0.05)


def _in_order(began: list[tuple[str, int]]) -> bool:
    """Say whether each key's calls began in order, repeats aside."""
    first: dict[str, list[int]] = {}
    for key, number in began:
        seen = first.setdefault(key, [])
        if number not in seen:
            seen.append(number)
    return all(numbers == sorted(numbers) for numbers in first.values())


@pytest.mark.parametrize("end", ["drained", "dead"])
def test_every_request_is_answered_whoever_goes(cluster, end, say):
    """Of two members one stops or dies half-way: no request is lost, no key overtaken.

    A member that stops finishes and marks its calls, so nothing is begun twice; the death is the
    control, after which what it had under way, or had not yet marked, is begun again.
    """

    async def scene() -> tuple[Cards, int]:
        cards, stop_a, stop_b = Cards(), asyncio.Event(), asyncio.Event()
        first, second = cluster.member("a", cards), cluster.member("b", cards)
        a = asyncio.create_task(first.run(stop_a, leave=True))
        b = asyncio.create_task(second.run(stop_b))
        async with asyncio.timeout(30):
            while not len(first.claims) == len(second.claims) == PARTITIONS // 2:  # noqa: ASYNC110 - the broker tells no one
                await asyncio.sleep(0.01)
        publishing = asyncio.create_task(cluster.publish())
        await cards.half.wait()
        unmarked = 0
        if end == "drained":
            stop_a.set()
            await a
        else:
            unmarked = first.busy
            a.cancel()
            await asyncio.wait([a])
        await publishing
        await _all_marked(cluster)
        stop_b.set()
        await b
        return cards, unmarked

    cards, unmarked = asyncio.run(scene())
    answered = cluster.replies()
    assert sorted(set(answered)) == list(range(REQUESTS))
    assert _in_order(cards.began)
    repeats = len(cards.began) - REQUESTS
    say(f"{end}: {repeats} of {REQUESTS} calls began twice")
    if end == "drained":
        assert repeats == 0
        assert len(answered) == REQUESTS
    else:
        assert 0 < repeats <= PARTITIONS * 20 + unmarked
