"""Topics, settings and first offsets, as `topics apply` and `doctor` make and see them."""

from __future__ import annotations

import asyncio
import functools
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headwater.contracts.records import Draft, Partition
from headwater.errors import PoisonError, SettingsError, WorkRefusedError
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_offsets import Offsets
from headwater.log.port import Claim, Work
from headwater.testing.conformance_world import until

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-append")]


@pytest.fixture
def admin(kafka: str) -> KafkaAdmin:
    return KafkaAdmin(KafkaConfig(bootstrap=kafka))


@pytest.fixture
def name() -> str:
    return f"admin-{uuid.uuid4().hex[:8]}"


def test_a_topic_is_seen_as_it_was_made(admin: KafkaAdmin, name: str) -> None:
    """Partitions, replicas and settings; one that is not there is not made up."""
    assert admin.brokers() >= 1
    config = {"cleanup.policy": "compact", "message.timestamp.type": "LogAppendTime"}
    admin.create(name, partitions=3, replication=1, config=config)
    (found,) = admin.topics([name, "nowhere"]).values()
    assert (found.partitions, found.replication) == (3, 1)
    assert config.items() <= found.config.items()
    assert admin.topics(["nowhere"]) == {}


def test_a_topic_grows_and_changes(admin: KafkaAdmin, name: str) -> None:
    """What is not named stays."""
    admin.create(name, partitions=1, replication=1, config={"retention.ms": "60000"})
    admin.grow(name, 4)
    admin.configure(name, {"max.message.bytes": "2000"})

    def changed() -> bool:
        found = admin.topics([name])[name]
        return (found.partitions, found.config["max.message.bytes"]) == (4, "2000")

    until(changed, "the change: a broker tells it a moment after it has taken it")
    assert admin.topics([name])[name].config["retention.ms"] == "60000"


def test_a_partition_is_there_as_soon_as_its_topic_has_grown(
    admin: KafkaAdmin, kafka: str, name: str
) -> None:
    """For a process that counted before, too, which goes on placing as it did."""
    admin.create(name, partitions=1, replication=1, config={})
    log = KafkaLog(KafkaConfig(bootstrap=kafka))
    try:
        assert [log.has(Partition(name, number)) for number in (0, 3)] == [True, False]
        admin.grow(name, 4)
        until(lambda: log.has(Partition(name, 3)), "a look at the topic: one a second")
        assert [log.has(Partition(name, number)) for number in (1, 4)] == [True, False]
        assert log.partitions(name) == 1
    finally:
        log.close()


def test_what_the_cluster_refuses_is_said_in_its_own_words(admin: KafkaAdmin, name: str) -> None:
    """More replicas than brokers, a setting that does not exist, fewer partitions."""
    with pytest.raises(SettingsError, match=f"create topic {name}"):
        admin.create(name, partitions=1, replication=99, config={})
    admin.create(name, partitions=2, replication=1, config={})
    with pytest.raises(SettingsError, match="change the settings"):
        admin.configure(name, {"no.such.setting": "1"})
    with pytest.raises(SettingsError, match="grow topic"):
        admin.grow(name, 1)


def test_a_groups_first_offsets_are_written_once(admin: KafkaAdmin, name: str, kafka: str) -> None:
    """A second time changes nothing, and growth gets what it lacks."""
    admin.create(name, partitions=2, replication=1, config={})
    group = f"{name}.group"
    assert admin.missing_offsets(group, {name: 2}) == 2
    assert admin.begin_group(group, {name: 2}) == 2
    assert admin.begin_group(group, {name: 2}) == 0
    admin.grow(name, 3)
    assert admin.missing_offsets(group, {name: 3}) == 1
    assert admin.begin_group(group, {name: 3}) == 1
    log = KafkaLog(KafkaConfig(bootstrap=kafka))
    assert log.committed(group, Partition(name, 2)) == (0, "")
    log.close()


def test_a_start_does_not_wait_for_what_the_dead_left_open(
    admin: KafkaAdmin, name: str, kafka: str
) -> None:
    """A transaction carries offsets of a group; whoever needs the last ones, as a restore does, waits."""
    admin.create(name, partitions=1, replication=1, config={})
    group = f"{name}.group"
    admin.begin_group(group, {name: 1})
    config = KafkaConfig(bootstrap=kafka)
    offsets = Offsets(config)
    place = TopicPartition(name, 0, 5)
    assert offsets.stable(group, [place], 180.0)  # it knows whom to ask
    dead = Producer(config.transactional(group, "dead") | {"transaction.timeout.ms": 600_000})
    dead.init_transactions(180)
    dead.begin_transaction()
    reader = Consumer({**config.consumer(), "group.id": group})
    dead.send_offsets_to_transaction([place], reader.consumer_group_metadata(), 180)
    try:
        assert admin.missing_offsets(group, {name: 1}) == 0
        with pytest.raises(KafkaException, match="Timed out"):
            offsets.stable(group, [place], 1.0)
    finally:
        dead.abort_transaction(180)
        reader.close()
        offsets.close()


def test_a_group_with_members_keeps_its_offsets(admin: KafkaAdmin, name: str, kafka: str) -> None:
    """Nobody's work is moved under their hands."""
    admin.create(name, partitions=1, replication=1, config={})
    group = f"{name}.group"
    admin.begin_group(group, {name: 1})
    log = KafkaLog(KafkaConfig(bootstrap=kafka))
    owner = log.own([name], group=group, instance="a")
    while not owner.poll(records_max=1, wait_ms=100).gained:
        pass
    admin.grow(name, 2)
    with pytest.raises(SettingsError, match=f"first offsets of group {group}"):
        admin.begin_group(group, {name: 2})
    owner.close()
    log.close()


def test_the_brokers_settings_and_our_rights_can_be_seen(admin: KafkaAdmin, name: str) -> None:
    """What `doctor` compares timeouts and grants with."""
    admin.create(name, partitions=1, replication=1, config={})
    sweep = admin.broker_settings()["transaction.abort.timed.out.transaction.cleanup.interval.ms"]
    assert int(sweep) > 0
    assert {"READ", "WRITE", "DESCRIBE"} <= admin.allowed(name)


def test_an_append_to_a_partition_that_is_new_is_taken(
    admin: KafkaAdmin, kafka: str, name: str
) -> None:
    """A producer knows a topic as it was up to a minute ago; who names a partition may know more."""
    admin.create(name, partitions=1, replication=1, config={})

    async def main() -> Partition:
        log = KafkaLog(KafkaConfig(bootstrap=kafka))
        try:
            await log.append(Draft(topic=name, key=b"k", value=b"v", partition=0))
            admin.grow(name, 4)
            until(lambda: log.has(Partition(name, 3)), "a look at the topic: one a second")
            where, _ = await log.append(Draft(topic=name, key=b"k", value=b"v", partition=3))
            with pytest.raises(PoisonError, match="does not take this record"):
                await log.append(Draft(topic=name, key=b"k", value=b"v", partition=9))
            return where
        finally:
            log.close()

    assert asyncio.run(main()) == Partition(name, 3)


def test_work_for_a_partition_that_is_new_is_taken(
    admin: KafkaAdmin, kafka: str, name: str
) -> None:
    """As what is appended to it is; what goes to no partition is refused."""
    for topic in (f"{name}.inbox", name):
        admin.create(topic, partitions=1, replication=1, config={})
    admin.begin_group(f"{name}.group", {f"{name}.inbox": 1})
    patient = KafkaConfig(bootstrap=kafka, session_ms=120_000, transaction_ms=60_000, call_s=60.0)
    log = KafkaLog(patient)
    owner = log.own([f"{name}.inbox"], group=f"{name}.group", instance="a")
    try:
        gained: list[Claim] = []

        def joined() -> bool:
            gained.extend(owner.poll(records_max=1, wait_ms=50).gained)
            return bool(gained)

        until(joined, "the partition")

        def work(partition: int) -> list[Work]:
            draft = Draft(topic=name, key=b"k", value=b"v", partition=partition)
            return [Work(claim=gained[0], next_offset=0, drafts=[draft])]

        assert owner.commit(work(0)) == {*gained}
        admin.grow(name, 4)
        until(lambda: log.has(Partition(name, 3)), "a look at the topic: one a second")
        assert owner.commit(work(3)) == {*gained}
        with pytest.raises(WorkRefusedError):
            owner.commit(work(9))
    finally:
        owner.close()
        log.close()


@pytest.mark.parametrize(("protocol", "seen"), [("classic", "1.0"), ("consumer", "2.0")])
def test_a_broker_keeps_the_client_id_of_a_name_that_was_taken_over(
    kafka: str, admin: KafkaAdmin, name: str, protocol: str, seen: str
) -> None:
    """Within its session, and not under KIP-848, whose members only the newer question sees."""
    admin.create(name, partitions=1, replication=1, config={})
    found: list[str] = []
    for version in ("1.0", "2.0"):
        config = KafkaConfig(
            bootstrap=kafka, version=version, session_ms=45_000, group_protocol=protocol
        )
        member = Consumer({**config.member(name, "a"), "auto.offset.reset": "latest"})
        joined: list[TopicPartition] = []
        member.subscribe([name], on_assign=functools.partial(_joined, joined))
        until(functools.partial(_joins, member, joined), "the member's partition")
        found += admin.client_ids([name], newer=True)
        member.close()
    assert found == [f"{name}/a/1.0", f"{name}/a/{seen}"]
    assert len(admin.client_ids([name])) == (protocol == "classic")


def _joined(joined: list[TopicPartition], _: Consumer, got: list[TopicPartition]) -> None:
    joined += got


def _joins(member: Consumer, joined: list[TopicPartition]) -> bool:
    member.poll(0.1)
    return bool(joined)
