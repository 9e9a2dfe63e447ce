"""Apache Kafka as the log, through confluent-kafka; see `log.port.Log`."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Collection, Mapping

from confluent_kafka import (
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

from headwater.contracts.records import Draft, Partition
from headwater.errors import PoisonError, SettingsError, TransientError
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_reader import KafkaReader
from headwater.log.kafka_worker import KafkaWorker

__all__ = ["KafkaConfig", "KafkaLog"]

_STABLE_S = 60.0
_TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})


class KafkaLog:
    """A cluster.

    Args:
        config: How to talk to it.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self._admin = AdminClient(config.common())
        self._ids: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._closing = threading.Event()

    def own(self, topics: Collection[str], *, group: str, instance: str) -> KafkaOwner:
        """Join a group as a decider."""
        return KafkaOwner(self.config, topics, group=group, instance=instance)

    def work(self, topics: Collection[str], *, group: str, instance: str) -> KafkaWorker:
        """Join a group as an effector."""
        return KafkaWorker(self.config, topics, group=group, instance=instance)

    def read(self, starts: Mapping[Partition, int]) -> KafkaReader:
        """Read committed records from these offsets on."""
        return KafkaReader(self.config, starts, self.ends(starts))

    async def append(self, draft: Draft) -> tuple[Partition, int]:
        """Write one record outside any transaction; where it is, once all replicas in sync have it.

        Raises:
            TransientError: The cluster is away.
            PoisonError: It is too large (`too-large`).
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[tuple[Partition, int]] = loop.create_future()

        def delivered(error: KafkaError | None, message: Message) -> None:
            place = Partition(message.topic(), message.partition())
            loop.call_soon_threadsafe(_settle, future, error, place, message.offset())

        while True:
            try:
                self._plain().produce(
                    draft.topic,
                    value=draft.value,
                    key=draft.key,
                    partition=-1 if draft.partition is None else draft.partition,
                    headers=[*draft.headers],
                    on_delivery=delivered,
                )
            except BufferError:
                await asyncio.sleep(0.01)
            except KafkaException as error:
                raise _appended_error(error.args[0]) from error
            else:
                return await future

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return a group's stable next offset and its metadata; waits while a transaction carries one.

        Raises:
            SettingsError: There is none.
        """
        place = TopicPartition(partition.topic, partition.number)
        request = ConsumerGroupTopicPartitions(group, [place])
        until = time.monotonic() + _STABLE_S
        while True:
            try:
                answer = self._admin.list_consumer_group_offsets(
                    [request], require_stable=True, request_timeout=self.config.call_s
                )[group].result()
                found = answer.topic_partitions[0]
                if found.error is None:
                    break
                error = found.error
            except KafkaException as failure:
                error = failure.args[0]
            if time.monotonic() > until:
                raise TransientError(
                    f"the offset of {group} in {partition} is not to be had: {error}"
                )
            time.sleep(0.02)
        if found.offset < 0:
            raise SettingsError(
                f"group {group} has no offset in {partition}: `headwater topics apply` writes a new "
                "group's first ones; if they expired, decide where it goes on"
            )
        return found.offset, found.metadata or ""

    def ends(self, places: Collection[Partition]) -> dict[Partition, int]:
        """Return partitions' uncommitted ends."""
        if not places:
            return {}
        request = {TopicPartition(p.topic, p.number): OffsetSpec.latest() for p in places}
        answer = self._admin.list_offsets(
            request,
            isolation_level=IsolationLevel.READ_UNCOMMITTED,
            request_timeout=self.config.call_s,
        )
        return {
            Partition(place.topic, place.partition): future.result().offset
            for place, future in answer.items()
        }

    def topic_id(self, topic: str) -> str:
        """Return the id of this topic's present life."""
        found = self._ids.get(topic)
        if found is None:
            answer = self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=self.config.call_s
            )
            try:
                found = self._ids[topic] = str(answer[topic].result().topic_id)
            except KafkaException as error:
                raise _no_topic(topic, error) from error
        return found

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises:
            SettingsError: There is no such topic.
        """
        found = self._counts.get(topic)
        if found is None:
            metadata = self._admin.list_topics(topic, timeout=self.config.call_s).topics[topic]
            if metadata.error is not None:
                raise _no_topic(topic, metadata.error)
            found = self._counts[topic] = len(metadata.partitions)
        return found

    def close(self) -> None:
        """Write what is still to be written, and stop."""
        self._closing.set()
        if self._producer is not None:
            self._producer.flush(self.config.call_s)

    def _plain(self) -> Producer:
        """Return the one producer outside transactions; a thread of its own answers for it."""
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self.config.producer())
                threading.Thread(target=self._answer, name="log.append", daemon=True).start()
        return self._producer

    def _answer(self) -> None:
        assert self._producer is not None
        while not self._closing.is_set():
            self._producer.poll(0.1)


def _settle(
    future: asyncio.Future[tuple[Partition, int]],
    error: KafkaError | None,
    place: Partition,
    offset: int,
) -> None:
    if future.done():
        return
    if error is None:
        future.set_result((place, offset))
    else:
        future.set_exception(_appended_error(error))


def _appended_error(error: KafkaError) -> Exception:
    if error.code() in _TOO_LARGE:
        return PoisonError("too-large", f"the log does not take so large a record: {error.str()}")
    if error.code() in {KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC}:  # noqa: SLF001 - the client's own name
        return SettingsError(f"{error.str()}: run `headwater topics apply`")
    return TransientError(f"the record could not be written: {error.str()}")


def _no_topic(topic: str, error: object) -> SettingsError:
    return SettingsError(f"there is no topic {topic}: run `headwater topics apply` ({error})")
