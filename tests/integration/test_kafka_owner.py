"""What an owner does about everything that a real cluster answers."""

from __future__ import annotations

import contextlib
import logging
import threading
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
)

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError, WorkRefusedError
from headwater.log.broker import Broker
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.port import Claim, Work
from headwater.testing.conformance_world import Follower, put, read_all, until, values

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-owner")]

COMMITS_MAX = 50_000
PATIENT = {"session_ms": 120_000, "transaction_ms": 30_000, "call_s": 60.0}
"""A machine that stands still for a while loses no claim, nor the answer to a commit."""
UNTOLD = {"topic.metadata.propagation.max.ms": "2000"}
"""After how long a topic that is not there is known not to be."""


class Desk:
    """An inbox, an output, and an owner of the inbox."""

    def __init__(self, bootstrap: str, name: str, **settings: object) -> None:
        self.bootstrap = bootstrap
        self.inbox, self.out, self.group = f"{name}.inbox", f"{name}.out", f"{name}.group"
        given: dict[str, Any] = {**PATIENT, "extra": UNTOLD, **settings}
        self.log = KafkaLog(KafkaConfig(bootstrap=bootstrap, **given))
        self.admin = KafkaAdmin(self.log.config)
        for topic in (self.inbox, self.out):
            self.admin.create(topic, partitions=1, replication=1, config={})
        self.admin.begin_group(self.group, {self.inbox: 1})
        self.owner = self.log.own([self.inbox], group=self.group, instance="a")
        assert isinstance(self.owner, KafkaOwner)
        self.follower = Follower(self.owner, self.log, self.group)

    def claim(self) -> Claim:
        self.follower.until_owning(1)
        (claim,) = self.follower.claims.values()
        return claim

    def outputs(self) -> list[bytes | None]:
        return values(read_all(self.log, Partition(self.out, 0)))

    def close(self) -> None:
        self.owner.close()
        self.log.close()


@pytest.fixture
def desk(kafka: str, request: pytest.FixtureRequest) -> Iterator[Desk]:
    desk = Desk(kafka, f"own-{uuid.uuid4().hex[:8]}", **getattr(request, "param", {}))
    yield desk
    desk.close()


def test_work_of_stale_claims_alone_is_not_even_begun(desk: Desk) -> None:
    """Nothing holds, so nothing is written."""
    claim = desk.claim()
    stale = Claim(claim.partition, claim.epoch - 1)
    assert desk.owner.commit([Work(claim=stale, next_offset=1)]) == frozenset()
    assert not desk.owner.poll(records_max=1, wait_ms=0).lost


@pytest.mark.parametrize(
    ("topic", "partition"), [("nowhere", None), ("nowhere", 0), (None, 7)], ids=str
)
def test_a_record_for_a_place_that_is_not_there_is_refused(
    desk: Desk, topic: str | None, partition: int | None
) -> None:
    """The loop halves down to it and quarantines it; the rest of the work is not to blame."""
    claim = desk.claim()
    bad = Draft(topic=topic or desk.out, value=b"bad", partition=partition)
    good = Draft(topic=desk.out, value=b"good")
    with pytest.raises(WorkRefusedError):
        desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[good, bad])])
    assert desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[good])]) == {claim}
    assert desk.outputs() == [b"good"]


def test_a_commit_without_a_producer_loses_the_claims_and_they_come_back(desk: Desk) -> None:
    """Lost, then gained under another epoch: the one path for everything that goes wrong."""
    claim = desk.claim()
    desk.owner._discard()
    assert desk.owner.commit([Work(claim=claim, next_offset=1)]) == frozenset()
    until(lambda: claim in desk.owner.poll(records_max=1, wait_ms=50).lost, "the loss")


def test_a_producer_that_cannot_be_had_again_loses_the_claims(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a refusal the producer is replaced; when that fails, nothing is promised."""
    claim = desk.claim()
    with monkeypatch.context() as patch:
        patch.setattr(desk.owner, "_open", lambda: False)
        bad = Draft(topic="nowhere", value=b"bad", partition=0)
        held = desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[bad])])
        assert held == frozenset()
        assert desk.owner.poll(records_max=1, wait_ms=0).gained == frozenset()
    desk.follower.until_owning(1)


def test_a_commit_whose_requests_may_have_been_sent_twice_starts_over(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late twin belongs to a producer that is fenced by then, whatever the answer was."""
    claim = desk.claim()
    draft = Draft(topic=desk.out, value=b"once")
    with monkeypatch.context() as patch:
        patch.setattr(KafkaConfig, "once_s", 5.0)
        patch.setattr(KafkaConfig, "resend_s", 0.0)
        assert desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[draft])]) == frozenset()
    gained: set[Claim] = set()

    def came_back() -> bool:
        gained.update(desk.owner.poll(records_max=1, wait_ms=50).gained)
        return bool(gained)

    until(came_back, "the claim")
    (again,) = gained
    assert again != claim
    assert desk.owner.commit([Work(claim=again, next_offset=1, drafts=[draft])]) == {again}
    assert desk.outputs() == [b"once"]


@pytest.mark.parametrize("desk", [{"extra": {"queue.buffering.max.messages": "10"}}], indirect=True)
def test_work_larger_than_the_clients_queue_is_written(desk: Desk) -> None:
    """A full queue is waited for."""
    claim = desk.claim()
    drafts = [Draft(topic=desk.out, value=b"%d" % n) for n in range(50)]
    assert desk.owner.commit([Work(claim=claim, next_offset=1, drafts=drafts)]) == {claim}
    assert len(desk.outputs()) == 50


@pytest.mark.parametrize("desk", [{"transaction_ms": 2_000_000_000}], indirect=True)
def test_a_transaction_timeout_over_the_brokers_is_a_message(desk: Desk) -> None:
    """It names the variable, instead of waiting for ever."""
    with pytest.raises(SettingsError, match="HEADWATER_KAFKA__TRANSACTION_MS"):
        desk.claim()


def test_a_claim_resumed_without_an_offset_goes_on_where_the_group_is(desk: Desk) -> None:
    """The group's own offset, not the beginning."""
    put(desk.log, *(Draft(topic=desk.inbox, value=b"%d" % n) for n in range(3)))
    claim = desk.claim()
    assert desk.owner.commit([Work(claim=claim, next_offset=2)]) == {claim}
    desk.owner.close()
    again = desk.log.own([desk.inbox], group=desk.group, instance="a")
    seen: list[bytes | None] = []

    def came() -> bool:
        poll = again.poll(records_max=10, wait_ms=100)
        again.resume(dict.fromkeys(poll.gained))
        seen.extend(record.value for _, record in poll.records)
        return bool(seen)

    until(came, "a record")
    assert seen == [b"2"]
    again.close()


def test_records_that_expired_before_they_were_read_stop_the_member(desk: Desk) -> None:
    """Going on at the first that is left would lose them in silence."""
    put(desk.log, *(Draft(topic=desk.inbox, value=b"%d" % n) for n in range(3)))
    desk.claim()
    client = AdminClient({"bootstrap.servers": desk.bootstrap})
    cut = TopicPartition(desk.inbox, 0, 2)
    client.delete_records([cut])[cut].result(180)
    desk.owner.resume(dict.fromkeys(desk.follower.claims.values(), 0))

    def polled() -> bool:
        desk.owner.poll(records_max=10, wait_ms=100)
        return False

    with pytest.raises(SettingsError, match="expired"):
        until(polled, "the refusal")


def test_a_group_protocol_of_the_brokers_own_works_too(kafka: str) -> None:
    """KIP-848, behind its setting."""
    desk = Desk(kafka, f"own-848-{uuid.uuid4().hex[:8]}", group_protocol="consumer")
    claim = desk.claim()
    draft = Draft(topic=desk.out, value=b"new")
    assert desk.owner.commit([Work(claim=claim, next_offset=1, drafts=[draft])]) == {claim}
    assert desk.outputs() == [b"new"]
    desk.close()


@pytest.fixture
def guarded(tmp_path: object) -> Iterator[str]:
    """A broker that checks grants, and grants everything that nothing forbids."""
    broker = Broker(
        tmp_path / "guarded",  # type: ignore[operator] # pytest's own path
        docker=False,
        settings={
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "allow.everyone.if.no.acl.found": "true",
        },
    )
    yield broker.start()
    broker.kill()


def deny(bootstrap: str, kind: ResourceType, name: str, operation: AclOperation) -> None:
    """Forbid one operation to everyone."""
    binding = AclBinding(
        kind,
        name,
        ResourcePatternType.PREFIXED,
        "User:ANONYMOUS",
        "*",
        operation,
        AclPermissionType.DENY,
    )
    client = AdminClient({"bootstrap.servers": bootstrap})
    client.create_acls([binding])[binding].result(180)


def test_a_principal_without_a_right_is_told_which(guarded: str) -> None:
    """To write, to join, to hold a transactional id: each stops the start with what to grant."""
    desk = Desk(guarded, "rights")
    desk.claim()
    deny(guarded, ResourceType.TOPIC, desk.out, AclOperation.WRITE)

    def refused() -> bool:
        drafts = [Draft(topic=desk.out, value=b"x")]
        desk.owner.commit([Work(claim=desk.claim(), next_offset=1, drafts=drafts)])
        desk.follower.poll(wait_ms=20)  # what a slow machine cost it, it takes back
        return False

    with pytest.raises(SettingsError, match="grant it"):
        until(refused, "the grant to be gone")
    assert "WRITE" not in desk.admin.allowed(desk.out)
    assert "WRITE" in desk.admin.allowed(desk.inbox)
    desk.close()
    deny(guarded, ResourceType.TRANSACTIONAL_ID, "second.", AclOperation.WRITE)
    second = Desk(guarded, "second", session_ms=10_000)  # its name has the partition for so long
    with pytest.raises(SettingsError, match=r"write as second\.group/a"):
        second.claim()
    second.owner.close()
    # A worker that never notes anything beforehand needs no such right; one that may is told at once.
    told = pytest.raises(SettingsError, match=r"write as second\.group/w")
    for intends, words in ((False, contextlib.nullcontext()), (True, told)):
        worker = second.log.work([second.inbox], group=second.group, instance="w", intends=intends)
        with words:
            until(lambda: bool(worker.poll(records_max=1, wait_ms=100).gained), "a claim")  # noqa: B023 - done by then
        worker.close(leave=True)
    second.log.close()
    deny(guarded, ResourceType.GROUP, desk.group, AclOperation.READ)
    third = desk.log.own([desk.inbox], group=desk.group, instance="b")

    def joined() -> bool:
        third.poll(records_max=1, wait_ms=100)
        return False

    with pytest.raises(SettingsError, match=r"read for rights\.group"):
        until(joined, "the refusal")
    third.close()


def test_a_cluster_that_is_away_is_said_once(
    own_kafka: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    """One line a death, not one a client and second."""
    running = own_kafka.status()
    assert running is not None
    desk = Desk(running.bootstrap, "away")
    desk.claim()
    caplog.clear()
    own_kafka.kill()

    def said() -> list[str]:
        return [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]

    with caplog.at_level(logging.WARNING):
        until(lambda: bool(desk.owner.poll(records_max=1, wait_ms=100).lost or said()), "the words")
        for _ in range(30):
            desk.owner.poll(records_max=1, wait_ms=100)
    assert len(said()) == 1, said()
    assert "away.group waits for the cluster" in said()[0]
    own_kafka.start()
    desk.close()


def test_a_commit_that_meets_a_new_generation_goes_through_for_what_stays(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever joins costs the others nothing of what they keep: neither their claims nor their tables."""
    name = f"own-{uuid.uuid4().hex[:8]}"
    inbox, out, group = f"{name}.inbox", f"{name}.out", f"{name}.group"
    monkeypatch.setattr(
        KafkaConfig, "rejoin_s", 120.0
    )  # however late the other is with its part of it
    log = KafkaLog(KafkaConfig(bootstrap=kafka, heartbeat_ms=200, **PATIENT))
    admin = KafkaAdmin(log.config)
    admin.create(inbox, partitions=2, replication=1, config={})
    admin.create(out, partitions=1, replication=1, config={})
    admin.begin_group(group, {inbox: 2})
    first = Follower(log.own([inbox], group=group, instance="a"), log, group)
    first.until_owning(2)
    claims = {*first.claims.values()}
    other = Follower(log.own([inbox], group=group, instance="b"), log, group)
    joining = threading.Thread(target=other.until_owning, args=(1,))
    joining.start()
    owner = first.member
    assert isinstance(owner, KafkaOwner)
    written = 0
    for written in range(COMMITS_MAX):
        drafts = [Draft(topic=out, value=b"%d" % written)]
        works = [Work(claim=claim, next_offset=0, drafts=drafts) for claim in claims]
        held = owner.commit(works)
        if held != claims:
            break
    assert len(held) == 1
    assert held < claims
    poll = owner.poll(records_max=1, wait_ms=0)
    assert (poll.lost, poll.gained) == (claims - held, frozenset())
    expected = [b"%d" % n for n in range(written) for _ in claims] + [b"%d" % written]
    assert values(read_all(log, Partition(out, 0))) == expected
    until(lambda: not owner.poll(records_max=1, wait_ms=50).gained and not joining.is_alive(), "b")
    joining.join()
    for follower in (first, other):
        follower.member.close()
    log.close()
