"""Six questions that a broker must answer before any promise of exactly-once rests on it.

They are black-box: plain clients, no code of the adapter. Some brokers that speak Kafka's protocol
acknowledge transactions without keeping their word.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    KafkaError,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic

from headwater.log.kafka_config import KafkaConfig

WAIT_S = 30.0
"""How long any one answer may take; a broker's default abort sweep alone is 10 s."""
TIMED_OUT_MS = 1_500
_POLL_S = 0.2
_LOOK_S = 0.02


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a broker answered to one question.

    Args:
        name: The property.
        held: Whether it holds.
        detail: What was seen.
        seconds: How long it took.
    """

    name: str
    held: bool
    detail: str
    seconds: float


class Probe:
    """Asks one cluster.

    Args:
        config: The cluster.
        namespace: Begins the names of the topics, groups and transactional ids it makes and removes.
        replication: Replicas of its topics.
    """

    def __init__(self, config: KafkaConfig, *, namespace: str, replication: int = 1) -> None:
        self._config = config
        self._prefix = f"{namespace}.probe.{uuid.uuid4().hex[:10]}"
        self._replication = replication
        self._admin = AdminClient(config.common())
        self._topics: list[str] = []
        self._producers: list[Producer] = []

    def run(self) -> Iterator[Answer]:
        """Ask the six questions, one after the other; what they made is removed at the end."""
        questions: list[tuple[str, Callable[[], tuple[bool, str]]]] = [
            ("aborted records stay hidden", self._aborted),
            ("an open transaction holds readers back", self._open),
            ("a newer producer fences an older one", self._fenced),
            ("offsets and outputs commit together", self._together),
            ("a member that has left commits nothing", self._stale),
            ("a transaction that times out is aborted", self._timed_out),
        ]
        try:
            for name, ask in questions:
                began = time.monotonic()
                try:
                    held, detail = ask()
                except KafkaException as failure:
                    held, detail = False, failure.args[0].str()
                except TimeoutError as failure:
                    held, detail = False, str(failure)
                seconds = time.monotonic() - began
                yield Answer(name=name, held=held, detail=detail, seconds=seconds)
        finally:
            self._producers.clear()
            for future in self._admin.delete_topics(self._topics).values() if self._topics else ():
                with contextlib.suppress(KafkaException):  # a leftover topic harms nobody
                    future.result(WAIT_S)

    def _aborted(self) -> tuple[bool, str]:
        topic, producer = self._topic(), self._producer()
        self._write(producer, topic, "taken back")
        producer.abort_transaction(WAIT_S)
        self._write(producer, topic, "kept")
        producer.commit_transaction(WAIT_S)
        seen = self._read(topic, 1)
        return seen == ["kept"], f"a reader saw {seen}"

    def _open(self) -> tuple[bool, str]:
        topic, producer = self._topic(), self._producer()
        self._write(producer, topic, "inside")
        self._plain(topic, "beside")
        early = self._read(topic, 0)
        producer.commit_transaction(WAIT_S)
        late = self._read(topic, 2)
        held = early == [] and late == ["inside", "beside"]
        return held, f"a reader saw {early} before the commit and {late} after it"

    def _fenced(self) -> tuple[bool, str]:
        topic, older = self._topic(), self._producer("one")
        self._write(older, topic, "older")
        newer = self._producer("one")
        self._write(newer, topic, "newer")
        newer.commit_transaction(WAIT_S)
        refusal = _refusal(lambda: older.commit_transaction(WAIT_S))
        seen = self._read(topic, 1)
        return bool(refusal) and seen == ["newer"], f"{refusal or 'accepted'}; a reader saw {seen}"

    def _together(self) -> tuple[bool, str]:
        source, target, group = self._topic(), self._topic(), f"{self._prefix}.{uuid.uuid4().hex}"
        self._plain(source, "task")
        member, producer = self._member(group, source), self._producer()
        offsets: list[int] = []
        for end in (producer.abort_transaction, producer.commit_transaction):
            self._write(producer, target, "outcome")
            producer.send_offsets_to_transaction(
                [TopicPartition(source, 0, 1)], member.consumer_group_metadata(), WAIT_S
            )
            end(WAIT_S)
            offsets.append(self._offset(group, source))
        seen = self._read(target, 1)
        member.close()
        held = offsets[0] < 0 and offsets[1] == 1 and seen == ["outcome"]
        return held, f"offsets {offsets[0]} after the abort, {offsets[1]} after the commit; {seen}"

    def _stale(self) -> tuple[bool, str]:
        source, group = self._topic(), f"{self._prefix}.{uuid.uuid4().hex}"
        self._plain(source, "task")
        first = self._member(group, source)
        stale = first.consumer_group_metadata()
        first.close()
        second = self._member(group, source)
        producer = self._producer()
        producer.begin_transaction()

        def commit() -> None:
            producer.send_offsets_to_transaction([TopicPartition(source, 0, 1)], stale, WAIT_S)
            producer.commit_transaction(WAIT_S)

        refusal = _refusal(commit)
        if refusal:
            with contextlib.suppress(KafkaException):  # a fatal refusal leaves nothing to abort
                producer.abort_transaction(WAIT_S)
        offset = self._offset(group, source)
        second.close()
        return bool(refusal) and offset < 0, f"{refusal or 'accepted'}; offset {offset}"

    def _timed_out(self) -> tuple[bool, str]:
        topic, producer = self._topic(), self._producer(timeout_ms=TIMED_OUT_MS)
        self._write(producer, topic, "abandoned")
        self._plain(topic, "beside")
        seen = self._read(topic, 1)
        refusal = _refusal(lambda: producer.commit_transaction(WAIT_S))
        return bool(refusal) and seen == ["beside"], f"a reader saw {seen}; {refusal or 'accepted'}"

    def _topic(self) -> str:
        name = f"{self._prefix}.{len(self._topics)}"
        new = NewTopic(name, num_partitions=1, replication_factor=self._replication)
        self._admin.create_topics([new])[name].result(WAIT_S)
        self._topics.append(name)
        return name

    def _producer(self, name: str = "", *, timeout_ms: int = 60_000) -> Producer:
        settings: dict[str, Any] = {
            **self._config.common(),
            "transactional.id": f"{self._prefix}.{name or uuid.uuid4().hex}",
            "transaction.timeout.ms": timeout_ms,
        }
        producer = Producer(settings)
        producer.init_transactions(WAIT_S)
        self._producers.append(producer)  # one that is let go of would end its transaction
        return producer

    @staticmethod
    def _write(producer: Producer, topic: str, value: str) -> None:
        producer.begin_transaction()
        producer.produce(topic, value.encode(), partition=0)
        if producer.flush(WAIT_S):
            raise TimeoutError(f"a record was not written within {WAIT_S:.0f} s")

    def _plain(self, topic: str, value: str) -> None:
        producer = Producer({**self._config.common(), "acks": "all"})
        producer.produce(topic, value.encode(), partition=0)
        if producer.flush(WAIT_S):
            raise TimeoutError(f"a record was not written within {WAIT_S:.0f} s")

    def _consumer(self, group: str) -> Consumer:
        return Consumer(
            {
                **self._config.common(),
                "group.id": group,
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
            }
        )

    def _read(self, topic: str, count: int) -> list[str]:
        """Read committed values: until so many came, and on to the end that readers see then."""
        reader = self._consumer(f"{self._prefix}.reader")
        reader.assign([TopicPartition(topic, 0, 0)])
        seen: list[str] = []
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            message = reader.poll(_POLL_S)
            if message is None:
                continue
            error = message.error()
            if error is None:
                seen.append(message.value().decode())
            elif error.code() != KafkaError._PARTITION_EOF:  # noqa: SLF001 - the client's own name
                continue
            elif len(seen) >= count:
                break
        reader.close()
        return seen

    def _member(self, group: str, topic: str) -> Consumer:
        member = self._consumer(group)
        member.subscribe([topic])
        until = time.monotonic() + WAIT_S
        while time.monotonic() < until:
            message = member.poll(_POLL_S)
            if message is not None and message.error() is None:
                return member
        raise TimeoutError(f"a member of a group got nothing within {WAIT_S:.0f} s")

    def _offset(self, group: str, topic: str) -> int:
        request = ConsumerGroupTopicPartitions(group, [TopicPartition(topic, 0)])
        until = time.monotonic() + WAIT_S
        while True:
            answer = self._admin.list_consumer_group_offsets([request], require_stable=True)
            place: TopicPartition = answer[group].result(WAIT_S).topic_partitions[0]
            if place.error is None:
                return int(place.offset)
            if place.error.code() != KafkaError.UNSTABLE_OFFSET_COMMIT or time.monotonic() > until:
                raise KafkaException(place.error)
            time.sleep(_LOOK_S)


def _refusal(action: Callable[[], None]) -> str:
    """Return with what an action is refused; empty if it is accepted."""
    try:
        action()
    except KafkaException as failure:
        return f"refused with {failure.args[0].name()}"
    return ""
