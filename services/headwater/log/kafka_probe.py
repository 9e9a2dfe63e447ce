"""The six exactly-once checks: what a broker must do before any promise made on it counts.

Each check does what a crash, a zombie or a stale member would do, with plain clients, and looks at
what a read-committed reader sees afterwards.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.log.kafka_config import KafkaConfig

_TRANSACTION_MS = 3_000
_SESSION_MS = 6_000


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found.

    Args:
        name: What should hold.
        holds: Whether it does.
        seen: What was seen, in words.
        took_s: How long it took.
    """

    name: str
    holds: bool
    seen: str
    took_s: float


class Probe:
    """Asks a broker the six questions, on topics of its own that it removes again.

    Args:
        config: The cluster.
        prefix: Begins its topics, groups and transactional ids: the namespace.
        wait_s: Longest wait for any one thing.
    """

    def __init__(self, config: KafkaConfig, *, prefix: str = "hw", wait_s: float = 30.0) -> None:
        self._config = config
        self._wait_s = wait_s
        self._prefix = f"{prefix}.probe.{uuid.uuid4().hex[:8]}"
        self._admin = AdminClient(config.common())
        self._topics: list[str] = []

    def run(self) -> Iterator[Finding]:
        """Yield what each check found; a check that breaks does not hold."""
        checks: list[tuple[str, Callable[[contextlib.ExitStack], tuple[bool, str]]]] = [
            ("aborted records stay hidden", self._aborted),
            ("an open transaction holds readers back", self._open),
            ("a zombie producer is fenced and its records aborted", self._zombie),
            ("offsets and outputs commit together", self._together),
            ("a stale member of a group is refused", self._stale),
            ("a transaction that timed out is aborted", self._timed_out),
        ]
        try:
            for name, check in checks:
                began_s = time.monotonic()
                try:
                    with contextlib.ExitStack() as stack:
                        holds, seen = check(stack)
                except (KafkaException, TimeoutError) as error:
                    holds, seen = False, f"{type(error).__name__}: {error}"
                yield Finding(name=name, holds=holds, seen=seen, took_s=time.monotonic() - began_s)
        finally:
            self._clean()

    def _aborted(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        topic = self._topic("aborted")
        producer = self._transactional("aborted")
        self._write(producer, topic, b"aborted")
        producer.abort_transaction(self._wait_s)
        self._write(producer, topic, b"committed")
        producer.commit_transaction(self._wait_s)
        seen = self._read(topic)
        return seen == ["committed"], f"read {seen}"

    def _open(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        topic = self._topic("open")
        producer = self._transactional("open")
        self._write(producer, topic, b"open")
        self._plain(topic, b"plain")
        before = self._read(topic)
        producer.commit_transaction(self._wait_s)
        after = self._until(topic, 2)
        return before == [] and after == ["open", "plain"], f"read {before}, then {after}"

    def _zombie(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        topic = self._topic("zombie")
        zombie = self._transactional("zombie")
        self._write(zombie, topic, b"zombie")
        successor = self._transactional("zombie")
        self._write(successor, topic, b"new")
        successor.commit_transaction(self._wait_s)
        refusal = _refusal(lambda: zombie.commit_transaction(self._wait_s))
        seen = self._until(topic, 1)
        return bool(refusal) and seen == [
            "new"
        ], f"read {seen}, the zombie: {refusal or 'accepted'}"

    def _together(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        source, target = self._topic("source"), self._topic("target")
        self._plain(source, b"task")
        member = self._member(stack, "together", source)
        producer = self._transactional("together")
        offsets = [TopicPartition(source, 0, 1)]
        self._write(producer, target, b"out")
        producer.send_offsets_to_transaction(
            offsets, member.consumer_group_metadata(), self._wait_s
        )
        producer.abort_transaction(self._wait_s)
        aborted = self._committed(member, source)
        self._write(producer, target, b"out")
        producer.send_offsets_to_transaction(
            offsets, member.consumer_group_metadata(), self._wait_s
        )
        producer.commit_transaction(self._wait_s)
        committed, seen = self._committed(member, source), self._until(target, 1)
        holds = aborted < 0 and committed == 1 and seen == ["out"]
        return holds, f"offset {aborted}, then {committed}; read {seen}"

    def _stale(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        source = self._topic("stale")
        self._plain(source, b"task")
        with contextlib.ExitStack() as first:
            old = self._member(first, "stale", source).consumer_group_metadata()
        member = self._member(stack, "stale", source)
        producer = self._transactional("stale")
        producer.begin_transaction()

        def commit() -> None:
            producer.send_offsets_to_transaction([TopicPartition(source, 0, 1)], old, self._wait_s)
            producer.commit_transaction(self._wait_s)

        refusal, offset = _refusal(commit), self._committed(member, source)
        return bool(refusal) and offset < 0, f"offset {offset}, the member: {refusal or 'accepted'}"

    def _timed_out(self, stack: contextlib.ExitStack) -> tuple[bool, str]:
        topic = self._topic("late")
        producer = self._transactional("late", {"transaction.timeout.ms": _TRANSACTION_MS})
        self._write(producer, topic, b"late")
        self._plain(topic, b"plain")
        seen = self._until(topic, 1)
        refusal = _refusal(lambda: producer.commit_transaction(self._wait_s))
        return bool(refusal) and seen == [
            "plain"
        ], f"read {seen}, the late: {refusal or 'accepted'}"

    def _topic(self, name: str) -> str:
        topic = f"{self._prefix}.{name}"
        new = NewTopic(topic, num_partitions=1, replication_factor=-1)
        self._admin.create_topics([new])[topic].result(self._wait_s)
        self._topics.append(topic)
        return topic

    def _transactional(self, name: str, more: dict[str, Any] | None = None) -> Producer:
        producer = Producer(
            {
                **self._config.common(),
                "transactional.id": f"{self._prefix}.{name}",
                "linger.ms": 0,
                **(more or {}),
            }
        )
        producer.init_transactions(self._wait_s)
        return producer

    def _write(self, producer: Producer, topic: str, value: bytes) -> None:
        producer.begin_transaction()
        producer.produce(topic, value, partition=0)
        self._flush(producer)

    def _plain(self, topic: str, value: bytes) -> None:
        producer = Producer(self._config.common())
        producer.produce(topic, value, partition=0)
        self._flush(producer)

    def _flush(self, producer: Producer) -> None:
        if producer.flush(self._wait_s):
            raise TimeoutError("a record was not taken in time")

    def _read(self, topic: str) -> list[str]:
        """Return what a read-committed reader gets, up to where it is held back."""
        reader = Consumer(
            {
                **self._config.consumer(),
                "group.id": f"{self._prefix}.reader",
                "enable.partition.eof": True,
            }
        )
        try:
            reader.assign([TopicPartition(topic, 0, 0)])
            found, until_s = list[str](), time.monotonic() + self._wait_s
            while time.monotonic() < until_s:
                message = reader.poll(0.2)
                if message is None:
                    continue
                error = message.error()
                if error is None:
                    found.append((message.value() or b"").decode())
                elif error.code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - librdkafka's own codes begin so
                    return found
                else:
                    raise KafkaException(error)
            raise TimeoutError(f"the end of {topic} did not come in time")
        finally:
            reader.close()

    def _until(self, topic: str, count: int) -> list[str]:
        """Read until so many records are visible, or the time is over: markers come a little later."""
        until_s, seen = time.monotonic() + self._wait_s, self._read(topic)
        while len(seen) < count and time.monotonic() < until_s:
            seen = self._read(topic)
        return seen

    def _member(self, stack: contextlib.ExitStack, name: str, topic: str) -> Consumer:
        """Return a member of a group that has got the topic's first record."""
        member = Consumer(
            {
                **self._config.consumer(),
                "group.id": f"{self._prefix}.{name}",
                "auto.offset.reset": "earliest",
                "session.timeout.ms": _SESSION_MS,
            }
        )
        stack.callback(member.close)
        member.subscribe([topic])
        until_s = time.monotonic() + self._wait_s
        while time.monotonic() < until_s:
            message = member.poll(0.2)
            if message is not None and message.error() is None:
                return member
        raise TimeoutError(f"no record came through group {self._prefix}.{name}")

    def _committed(self, member: Consumer, topic: str) -> int:
        (place,) = member.committed([TopicPartition(topic, 0)], self._wait_s)
        return int(place.offset)

    def _clean(self) -> None:
        if self._topics:
            for future in self._admin.delete_topics(self._topics).values():
                with contextlib.suppress(KafkaException):  # one that stays is named as ours
                    future.result(self._wait_s)


def _refusal(attempt: Callable[[], object]) -> str:
    """Return the name of the error that refused an attempt; empty if it was accepted."""
    try:
        attempt()
    except KafkaException as error:
        return str(error.args[0].name())
    return ""
