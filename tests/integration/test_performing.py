"""Performing on a real broker: members come, stop and die while calls are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError, TopicPartition
from tests.integration.cards import PARTITIONS, Cluster

from headwater.contracts.messages import Ask
from headwater.core.effector import Attempt, Call, Done
from headwater.log.port import Claim

pytestmark = pytest.mark.kafka

REQUESTS = 400
KEYS = 20
POLLS_MAX = 100


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


@pytest.fixture
def cluster(kafka: str) -> Iterator[Cluster]:
    cluster = Cluster(kafka)
    yield cluster
    cluster.log.close()


async def publish(cluster: Cluster) -> None:
    """Publish every request; one order key is always in one partition, and of one tenant."""
    for number in range(REQUESTS):
        own = number % KEYS
        await cluster.ask(
            number, key=f"card-{own}", partition=own % PARTITIONS, tenant=f"t{own % 3}"
        )


async def _all_marked(cluster: Cluster) -> None:
    async with asyncio.timeout(180):
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
        first, second = (cluster.member(name, cards, noted=False) for name in "ab")
        a = asyncio.create_task(first.run(stop_a, leave=True))
        b = asyncio.create_task(second.run(stop_b))
        async with asyncio.timeout(180):
            while not len(first.claims) == len(second.claims) == PARTITIONS // 2:  # noqa: ASYNC110 - the broker tells no one
                await asyncio.sleep(0.01)
        publishing = asyncio.create_task(publish(cluster))
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
    answered = [reply.number for reply in cluster.answers()]
    assert sorted(set(answered)) == list(range(REQUESTS))
    assert _in_order(cards.began)
    repeats = len(cards.began) - REQUESTS
    say(f"{end}: {repeats} of {REQUESTS} calls began twice")
    if end == "drained":
        assert repeats == 0
        assert len(answered) == REQUESTS
    else:
        assert 0 < repeats <= PARTITIONS * 20 + unmarked


def test_a_mark_that_was_refused_is_made_again(cluster):
    """Nothing may come for long after the last mark: lag would stay, and a crash repeat requests."""
    worker = cluster.log.work([cluster.requests], group=cluster.group, instance="a")
    try:
        claims: dict[int, Claim] = {}
        for _ in range(POLLS_MAX):
            poll = worker.poll(records_max=1, wait_ms=100)
            claims |= {claim.partition.number: claim for claim in poll.gained}
            if len(claims) == PARTITIONS:
                break
        place = claims[1].partition
        lost = TopicPartition(place.topic, place.number, 7, "")
        worker._newest[claims[1]] = lost
        worker._on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [lost])
        for _ in range(POLLS_MAX):
            worker.poll(records_max=1, wait_ms=100)
            if cluster.log.committed(cluster.group, place) == (7, ""):
                break
        assert cluster.log.committed(cluster.group, place) == (7, "")
    finally:
        worker.close()
