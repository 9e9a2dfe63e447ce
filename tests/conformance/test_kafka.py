"""Kafka keeps every promise of the port, through the adapter that production uses."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import uuid
from collections.abc import Collection, Iterator, Sequence

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_member import KafkaMember
from headwater.log.port import Log, Member
from headwater.testing import conformance
from headwater.testing import conformance_world as world

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("conformance-kafka")]

_numbers = itertools.count(1)
COMPACTING = {
    "cleanup.policy": "compact",
    "segment.ms": "100",
    "min.cleanable.dirty.ratio": "0.01",
    "delete.retention.ms": "0",
    "max.compaction.lag.ms": "100",
    "min.compaction.lag.ms": "0",
}
COMPACTION_TRIES = 150
CALL_S = 120
"""How long the cluster may take to answer, on a machine that is busy."""
BOUNDS: dict[str, int] = {"session_ms": 60_000, "heartbeat_ms": 300, "transaction_ms": 60_000}
"""No test waits for a dead member or its transaction, so neither ends while a machine stands still."""


class Patient(KafkaConfig):
    """Gives a group longer to settle than its heartbeats say, for the same reason."""

    @property
    def rejoin_s(self) -> float:
        return 60.0


def leave_group(bootstrap: str, group: str, instance: str) -> None:
    """Send LeaveGroup version 3 for a static member; the Python client has no call for it."""

    def text(value: str) -> bytes:
        return struct.pack(">h", len(value)) + value.encode()

    header = struct.pack(">hhi", 13, 3, 1) + text("conformance")
    body = text(group) + struct.pack(">i", 1) + text("") + text(instance)
    host, _, port = bootstrap.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=CALL_S) as connection:
        connection.sendall(struct.pack(">i", len(header + body)) + header + body)
        with connection.makefile("rb") as answers:
            (size,) = struct.unpack(">i", answers.read(4))
            answer = answers.read(size)
    assert struct.unpack_from(">h", answer, 8) == (0,), answer


class KafkaTransaction:
    """A transaction of a plain producer."""

    def __init__(self, bootstrap: str, drafts: Sequence[Draft]) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": bootstrap,
                "transactional.id": f"open-{uuid.uuid4().hex}",
                "transaction.timeout.ms": 600_000,  # it stays open until it is told otherwise
            }
        )
        self._producer.init_transactions(CALL_S)
        self._producer.begin_transaction()
        for draft in drafts:
            self._producer.produce(
                draft.topic, value=draft.value, key=draft.key, partition=draft.partition or 0
            )
        assert not self._producer.flush(CALL_S)

    def commit(self) -> None:
        self._producer.commit_transaction(CALL_S)

    def abort(self) -> None:
        self._producer.abort_transaction(CALL_S)


class KafkaHarness:
    """A broker under the suite; each log is a set of clients of its own."""

    def __init__(self, bootstrap: str) -> None:
        self.namespace = f"t{os.getpid()}-{uuid.uuid4().hex[:6]}-{next(_numbers)}"
        self._bootstrap = bootstrap
        self._config = Patient(bootstrap=bootstrap, **BOUNDS)
        self._admin = KafkaAdmin(self._config)
        self._logs: list[KafkaLog] = []

    def create(
        self,
        topic: str,
        *,
        partitions: int = 1,
        compacted: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        config = {"message.timestamp.type": "LogAppendTime"}
        if compacted:
            config |= COMPACTING
        if max_bytes:
            config["max.message.bytes"] = str(max_bytes)
        self._admin.create(topic, partitions=partitions, replication=1, config=config)

    def recreate(self, topic: str) -> None:
        client = AdminClient({"bootstrap.servers": self._bootstrap})
        client.delete_topics([topic])[topic].result(CALL_S)
        world.until(lambda: topic not in client.list_topics(timeout=CALL_S).topics, "no such topic")

        def created() -> bool:
            with contextlib.suppress(SettingsError):  # it is still being deleted
                self.create(topic)
                return True
            return False

        world.until(created, "room for a topic of that name")

    def log(self) -> Log:
        log = KafkaLog(self._config)
        self._logs.append(log)
        return log

    def begin_group(self, group: str, topics: Collection[str]) -> None:
        log = self.log()
        self._admin.begin_group(group, {topic: log.partitions(topic) for topic in topics})

    def open_transaction(self, drafts: Sequence[Draft]) -> conformance.OpenTransaction:
        return KafkaTransaction(self._bootstrap, drafts)

    def expire(self, member: Member) -> None:
        """Strike the member off as an operator would: by its static name, behind its back."""
        assert isinstance(member, KafkaMember)
        leave_group(self._bootstrap, member.group, member.instance)

    def compact(self, topic: str) -> None:
        """Have the cleaner run: it takes closed segments, and an append after `segment.ms` closes one."""
        log = self.log()
        place = Partition(topic, 0)
        for _ in range(COMPACTION_TRIES):
            world.put(log, Draft(topic=topic, key=b"closes the segment", value=None, partition=0))
            records = world.read_all(log, place)
            newest = {record.key: record.offset for record in records}
            # It may come round before the last of them is in a closed segment.
            if all(newest[record.key] == record.offset for record in records if record.value):
                return
        pytest.skip("this broker's log cleaner has not come round")

    def close(self) -> None:
        for log in self._logs:
            log.close()


class TestKafka(conformance.LogConformance):
    @pytest.fixture
    def harness(self, kafka: str) -> Iterator[conformance.Harness]:
        harness = KafkaHarness(kafka)
        yield harness
        harness.close()
