"""Appends from several event loops share one producer, and each is told of its own record."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import KafkaError

from headwater.contracts.records import Draft, Partition
from headwater.errors import PoisonError, SettingsError
from headwater.log import kafka_append
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.testing.conformance_world import put, read_all

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-append")]


@pytest.fixture
def topic(kafka: str) -> str:
    name = f"append-{uuid.uuid4().hex[:8]}"
    KafkaAdmin(KafkaConfig(bootstrap=kafka)).create(name, partitions=1, replication=1, config={})
    return name


@pytest.fixture
def log(kafka: str) -> Iterator[KafkaLog]:
    log = KafkaLog(KafkaConfig(bootstrap=kafka, append_s=60.0))
    yield log
    log.close()


def test_loops_in_several_threads_append_at_once(log: KafkaLog, topic: str) -> None:
    """Each future is settled on its own loop, with its own record's offset."""
    found: dict[bytes, int] = {}

    async def some(who: int) -> None:
        drafts = [Draft(topic=topic, value=b"%d/%d" % (who, n)) for n in range(50)]
        places = await asyncio.gather(*(log.append(draft) for draft in drafts))
        found.update((d.value or b"", at) for d, (_, at) in zip(drafts, places, strict=True))

    threads = [threading.Thread(target=lambda n=n: asyncio.run(some(n))) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    records = read_all(log, Partition(topic, 0))
    assert {record.value: record.offset for record in records} == found
    assert len(found) == 150


def test_whoever_stops_waiting_disturbs_nobody(log: KafkaLog, topic: str) -> None:
    """A cancelled append may still be written; its loop may even have ended."""

    async def gone() -> None:
        asyncio.get_running_loop().create_task(log.append(Draft(topic=topic, value=b"gone")))
        await asyncio.sleep(0)

    asyncio.run(gone())
    put(log, Draft(topic=topic, value=b"here"))
    assert [r.value for r in read_all(log, Partition(topic, 0))] == [b"gone", b"here"]


def test_a_topic_that_is_not_there_is_a_matter_of_settings(log: KafkaLog) -> None:
    """It says what to run."""
    with pytest.raises(SettingsError, match="topics apply"):
        put(log, Draft(topic="nowhere", value=b"x"))


def test_a_partition_that_is_not_there_is_poison(log: KafkaLog, topic: str) -> None:
    """Nothing that an operator does will make this record fit."""
    put(log, Draft(topic=topic, value=b"x"))
    with pytest.raises(PoisonError) as refused:
        put(log, Draft(topic=topic, value=b"x", partition=9))
    assert refused.value.code == "unwritable"


def test_a_full_queue_is_waited_for(kafka: str, topic: str) -> None:
    """Nobody loses a record because others were faster."""
    config = KafkaConfig(bootstrap=kafka, extra={"queue.buffering.max.messages": "5"})
    log = KafkaLog(config)

    async def many() -> int:
        drafts = [Draft(topic=topic, value=b"%d" % n) for n in range(40)]
        return len(await asyncio.gather(*(log.append(draft) for draft in drafts)))

    assert asyncio.run(many()) == 40
    log.close()


def test_a_producer_that_will_never_write_again_is_replaced(log: KafkaLog, topic: str) -> None:
    """A fatal error ends one producer, not the process's appends."""
    put(log, Draft(topic=topic, value=b"before"))
    appender = log._appender
    first = appender._producer
    assert first is not None
    appender._replace(first)
    put(log, Draft(topic=topic, value=b"after"))
    assert appender._producer is not first
    assert len(read_all(log, Partition(topic, 0))) == 2


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._TRANSPORT, "TransientError"),
        (KafkaError.MSG_SIZE_TOO_LARGE, "PoisonError"),
        (KafkaError.TOPIC_AUTHORIZATION_FAILED, "SettingsError"),
    ],
)
def test_each_error_means_one_thing(code: int, kind: str) -> None:
    """Retried, quarantined, or a message to an operator."""
    assert type(kafka_append._meaning(KafkaError(code))).__name__ == kind
