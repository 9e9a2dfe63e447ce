"""What an owner keeps out of the way of a commit, on a real cluster: it asks for nothing twice."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator

import pytest
from tests.integration.test_kafka_owner import Desk

from headwater.contracts.records import Draft, Partition
from headwater.errors import WorkRefusedError
from headwater.log import kafka_transactor
from headwater.log.kafka_generation import Generation
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.port import Work
from headwater.testing.conformance_world import Follower, until

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-commits")]

TRANSACTION_MS = 8_000
"""Longer than a machine stands still in the midst of a commit."""
IDLE_S = 12.0
"""Longer than a transaction's time, and the broker's look at it a second later."""
QUICK = {"heartbeat_ms": 200}


@pytest.fixture
def desk(kafka: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(kafka, f"commits-{uuid.uuid4().hex[:8]}", **getattr(request, "param", {}))
    yield desk
    desk.close()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[Generation]:
    """Note whenever a client is asked for its group's generation."""
    looks: list[Generation] = []
    real = Generation.look

    def look(self: Generation) -> None:
        looks.append(self)
        real(self)

    monkeypatch.setattr(Generation, "look", look)
    return looks


def idle(owner: KafkaOwner, seconds: float) -> None:
    """Poll for so long; nothing comes."""
    until_s = time.monotonic() + seconds
    while time.monotonic() < until_s:
        owner.poll(records_max=1, wait_ms=100)


def join(desk: Desk) -> Follower:
    """Have another member join, which gets nothing; the first is in the group's new generation then."""
    before = desk.owner._generation.number
    other = Follower(desk.log.own([desk.inbox], group=desk.group, instance="b"), desk.log, "")
    until(
        lambda: (
            bool(desk.follower.poll(wait_ms=20))
            and bool(other.poll(wait_ms=20))
            and other.member._generation.number > before
        ),  # type: ignore[attr-defined] # it is an owner
        "the other",
    )

    def told() -> bool:
        desk.follower.poll(wait_ms=20)
        return desk.owner._generation.number > before and desk.owner._generation.told

    until(told, "the first")
    return other


@pytest.mark.parametrize("desk", [QUICK], indirect=True)
def test_the_generation_is_asked_for_where_the_group_has_moved_on_and_nowhere_else(
    desk: Desk, looks: list[Generation], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A generation begins with a callback, even for those whose partitions stay."""
    claim = desk.claim()
    desk.owner.poll(records_max=1, wait_ms=0)
    looks.clear()
    for _ in range(20):
        desk.owner.poll(records_max=1, wait_ms=1)
    assert not looks
    other = join(desk)
    assert desk.owner._generation in looks
    monkeypatch.setattr(desk.owner, "_catch_up", pytest.fail)
    assert desk.owner.commit([Work(claim=claim, next_offset=0)]) == {claim}
    other.member.close()


@pytest.mark.parametrize("desk", [QUICK], indirect=True)
def test_control_a_commit_of_an_older_generation_is_refused_and_follows(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So asking too seldom costs time and no more."""
    claim = desk.claim()
    desk.owner.poll(records_max=1, wait_ms=0)
    old = desk.owner._generation.metadata
    other = join(desk)
    desk.owner._generation.metadata = old
    caught_up = []
    real = desk.owner._catch_up
    monkeypatch.setattr(desk.owner, "_catch_up", lambda: caught_up.append(1) or real())
    desk.owner.commit([Work(claim=claim, next_offset=0)])
    assert caught_up
    other.member.close()


@pytest.mark.parametrize("desk", [{"transaction_ms": TRANSACTION_MS}], indirect=True)
def test_the_broker_knows_nothing_of_a_transaction_that_was_begun_ahead(desk: Desk) -> None:
    """Otherwise it would end it when its time is over, and fence whoever idles."""
    claim = desk.claim()
    idle(desk.owner, IDLE_S)
    assert desk.owner._begun
    work = Work(claim=claim, next_offset=0, drafts=[Draft(topic=desk.out, value=b"late")])
    assert desk.owner.commit([work]) == {claim}
    assert desk.outputs() == [b"late"]


@pytest.mark.parametrize("desk", [{"transaction_ms": TRANSACTION_MS}], indirect=True)
def test_control_a_transaction_with_a_record_in_it_does_not_outlive_its_time(desk: Desk) -> None:
    """The same wait, and until the broker has ended it: readers get past it then."""
    claim = desk.claim()
    desk.owner.poll(records_max=1, wait_ms=0)
    assert desk.owner._begun
    producer = desk.owner._producer
    assert producer is not None
    producer.produce(desk.out, b"early")
    assert producer.flush(60) == 0
    idle(desk.owner, IDLE_S)
    assert desk.outputs() == []
    work = Work(claim=claim, next_offset=0, drafts=[Draft(topic=desk.out, value=b"late")])
    assert desk.owner.commit([work]) == frozenset()
    assert desk.outputs() == []


def test_a_transaction_that_cannot_be_begun_loses_the_claims_and_they_come_back(desk: Desk) -> None:
    """As everything else that goes wrong."""
    claim = desk.claim()
    desk.owner.poll(records_max=1, wait_ms=0)
    desk.owner._begun = False  # its client has begun it already, and says so
    assert claim in desk.follower.poll(wait_ms=0).lost
    desk.follower.until_owning(1)
    (claim,) = desk.follower.claims.values()
    assert desk.owner.commit([Work(claim=claim, next_offset=0)]) == {claim}


@pytest.mark.parametrize("count", [1, kafka_transactor._FEW, kafka_transactor._FEW + 1])
def test_few_records_are_written_by_the_end_itself_and_refused_as_many_are(
    desk: Desk, count: int
) -> None:
    """The record is to blame, whichever request found out."""
    claim = desk.claim()
    good = [Draft(topic=desk.out, value=b"%d" % n) for n in range(count)]
    bad = Draft(topic=desk.out, value=b"bad", partition=7)
    with pytest.raises(WorkRefusedError):
        desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[*good, bad])])
    assert desk.owner.commit([Work(claim=claim, next_offset=1, drafts=good)]) == {claim}
    assert len(desk.outputs()) == count
    assert desk.log.committed(desk.group, Partition(desk.inbox, 0))[0] == 1


def test_offsets_alone_are_committed_too(desk: Desk) -> None:
    """There is no record whose partition is to be added."""
    claim = desk.claim()
    assert desk.owner.commit([Work(claim=claim, next_offset=1)]) == {claim}
    assert desk.log.committed(desk.group, Partition(desk.inbox, 0))[0] == 1
