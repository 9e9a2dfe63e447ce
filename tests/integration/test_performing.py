"""Performing on a real broker: members come, stop and die while calls are under way."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator

import pytest
from confluent_kafka import KafkaError, TopicPartition
from tests.integration.cards import PARTITIONS, Cluster

from headwater.contracts.messages import Ask
from headwater.core.effector import Attempt, Call, Done
from headwater.log.port import Claim
from headwater.testing.conformance_world import until

pytestmark = pytest.mark.kafka

REQUESTS = 400
KEYS = 20


class Cards:
    """One member's effector: it remembers what began, in order, and that among what began anywhere.

    Args:
        everywhere: What every member begins.
        stays: Whether calls of the later part go on until they are cut off.
    """

    name = "tool.cards"

    def __init__(self, everywhere: list[tuple[str, int]], *, stays: bool = False) -> None:
        self.began: list[tuple[str, int]] = []
        self.late = asyncio.Event()
        self._everywhere, self._stays = everywhere, stays

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done:
        """Take a little while."""
        for began in (self.began, self._everywhere):
            began.append((ask.order_key, ask.number))
        if len(self._everywhere) > REQUESTS / 4:
            self.late.set()
            if self._stays:
                await asyncio.Event().wait()
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


def _marked(cluster: Cluster, claims: Iterable[Claim]) -> int:
    """Return how many requests of these partitions the group has marked; those before a gap alone."""
    return sum(cluster.log.committed(cluster.group, claim.partition)[0] for claim in claims)


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

    async def scene() -> tuple[list[tuple[str, int]], int]:
        began: list[tuple[str, int]] = []
        cards = Cards(began, stays=end == "dead")
        stop_a, stop_b = asyncio.Event(), asyncio.Event()
        first = cluster.member("a", cards, noted=False)
        second = cluster.member("b", Cards(began), noted=False)
        a = asyncio.create_task(first.run(stop_a, leave=True))
        b = asyncio.create_task(second.run(stop_b))
        async with asyncio.timeout(180):
            while not len(first.claims) == len(second.claims) == PARTITIONS // 2:  # noqa: ASYNC110 - the broker tells no one
                await asyncio.sleep(0.01)
        publishing = asyncio.create_task(publish(cluster))
        await cards.late.wait()
        unmarked = 0
        if end == "drained":
            stop_a.set()
            await a
        else:
            marked = await asyncio.to_thread(_marked, cluster, first.claims)
            a.cancel()
            await asyncio.wait([a])
            unmarked = len(cards.began) - marked  # it may have begun more meanwhile
        await publishing
        await _all_marked(cluster)
        stop_b.set()
        await b
        return began, unmarked

    began, unmarked = asyncio.run(scene())
    answered = [reply.number for reply in cluster.answers()]
    assert sorted(set(answered)) == list(range(REQUESTS))
    assert _in_order(began)
    repeats = len(began) - REQUESTS
    say(f"{end}: {repeats} of {REQUESTS} calls began twice")
    if end == "drained":
        assert repeats == 0
        assert len(answered) == REQUESTS
    else:
        assert 0 < repeats <= unmarked


def test_a_mark_that_was_refused_is_made_again(cluster):
    """Nothing may come for long after the last mark: lag would stay, and a crash repeat requests."""
    worker = cluster.log.work([cluster.requests], group=cluster.group, instance="a")
    try:
        claims: dict[int, Claim] = {}

        def gained() -> bool:
            poll = worker.poll(records_max=1, wait_ms=100)
            claims.update((claim.partition.number, claim) for claim in poll.gained)
            return len(claims) == PARTITIONS

        until(gained, "every partition")
        place = claims[1].partition
        lost = TopicPartition(place.topic, place.number, 7, "")
        worker._newest[claims[1]] = lost
        worker._on_commit(KafkaError(KafkaError.REBALANCE_IN_PROGRESS), [lost])

        def marked() -> bool:
            worker.poll(records_max=1, wait_ms=100)
            return cluster.log.committed(cluster.group, place) == (7, "")

        until(marked, "the mark")
    finally:
        worker.close()
