"""Topics, settings and first offsets, as `topics apply` and `doctor` make and see them."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

from headwater.contracts.records import Partition
from headwater.errors import SettingsError
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_offsets import Offsets
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
    dead = Producer(config.transactional(group, "dead"))
    dead.init_transactions(30)
    dead.begin_transaction()
    reader = Consumer({**config.consumer(), "group.id": group})
    place = TopicPartition(name, 0, 5)
    dead.send_offsets_to_transaction([place], reader.consumer_group_metadata(), 30)
    offsets = Offsets(config)
    try:
        assert admin.missing_offsets(group, {name: 1}) == 0
        with pytest.raises(KafkaException, match="Timed out"):
            offsets.stable(group, [place], 1.0)
    finally:
        dead.abort_transaction(30)
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
