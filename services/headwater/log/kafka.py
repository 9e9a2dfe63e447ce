"""Apache Kafka as the log, through confluent-kafka; see `log.port.Log`."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import ClassVar, TypeVar

from confluent_kafka import (
    IsolationLevel,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import OffsetSpec, TopicDescription

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError, TransientError
from headwater.log import kafka_errors
from headwater.log.kafka_append import Appender
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_offsets import Offsets
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_reader import KafkaReader
from headwater.log.kafka_unowned import Unowned
from headwater.log.kafka_watch import WATCHDOG
from headwater.log.kafka_worker import KafkaWorker

__all__ = ["KafkaConfig", "KafkaLog"]

T = TypeVar("T")

logger = logging.getLogger(__name__)

_STABLE_S = 60.0
"""How long an open transaction may hold an offset back; by then the broker has aborted it."""
_UNSTABLE_WAIT_S = 0.02
_AWAY_WAIT_S_MAX = 5.0
_GROWN_S = 1.0
"""How long a topic is taken not to have grown; what names a partition of none may come at any rate."""


class KafkaLog:
    """A cluster.

    Args:
        config: How to talk to it.
    """

    owner: ClassVar[type[KafkaOwner]] = KafkaOwner
    """What `own` makes."""

    def __init__(self, config: KafkaConfig) -> None:
        self.config = config
        self._admin = kafka_errors.admin(config.common())
        self._appender = Appender(config)
        self._offsets = Offsets(config)
        self._ids: dict[str, str] = {}
        self._counts: dict[str, int] = {}
        self._grown: dict[str, int] = {}
        self._grown_s: dict[str, float] = {}
        self._closing = threading.Event()

    def own(
        self, topics: Collection[str], *, group: str, instance: str, writer: str = ""
    ) -> KafkaOwner:
        """Join a group as a decider; an older member with the same group and instance is fenced."""
        return self.owner(
            self.config,
            topics,
            group=group,
            instance=instance,
            first=self.committed,
            unowned=self._unowned(topics, group),
            writer=writer,
        )

    def work(
        self, topics: Collection[str], *, group: str, instance: str, intends: bool = False
    ) -> KafkaWorker:
        """Join a group as an effector."""
        return KafkaWorker(
            self.config,
            topics,
            group=group,
            instance=instance,
            first=self.committed,
            unowned=self._unowned(topics, group),
            intends=intends,
        )

    def read(self, starts: Mapping[Partition, int]) -> KafkaReader:
        """Read committed records from these offsets on; an offset before the first means the first."""
        return KafkaReader(self.config, starts, self.ends)

    async def append(self, draft: Draft) -> tuple[Partition, int]:
        """Write one record outside any transaction; where it is, once all replicas in sync have it.

        Raises:
            TransientError: The cluster is away.
            PoisonError: The record can never be written, for example too large (`too-large`).
            SettingsError: There is no such topic, or this principal may not write there.
        """
        return await self._appender.append(draft)

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return a group's stable next offset and its metadata; waits while a transaction carries one.

        Raises:
            SettingsError: There is none.
            TransientError: A transaction carries one and does not end.
        """
        place = TopicPartition(partition.topic, partition.number)
        until = time.monotonic() + _STABLE_S

        while True:
            answer = self._patiently(
                f"the offset of {group} in {partition}",
                lambda: self._offsets.stable(group, [place], self.config.call_s),
            )
            if answer is not None:
                break
            if time.monotonic() > until:
                raise TransientError(
                    f"a transaction has held the offset of {group} in {partition} back for "
                    f"{_STABLE_S:.0f} s: look for hanging ones with kafka-transactions.sh"
                )
            self._closing.wait(_UNSTABLE_WAIT_S)
        (found,) = answer
        if found.offset < 0:
            raise SettingsError(
                f"group {group} has no offset in {partition} (new or expired), and guessing one would "
                "lose or repeat records: `headwater topics apply` writes a new group's first offsets"
            )
        return found.offset, found.metadata or ""

    def ends(self, places: Collection[Partition]) -> dict[Partition, int]:
        """Return partitions' uncommitted ends."""
        if not places:
            return {}

        def ask() -> dict[Partition, int]:
            answer = self._admin.list_offsets(
                {TopicPartition(p.topic, p.number): OffsetSpec.latest() for p in places},
                isolation_level=IsolationLevel.READ_UNCOMMITTED,
                request_timeout=self.config.call_s,
            )
            return {
                Partition(place.topic, place.partition): future.result().offset
                for place, future in answer.items()
            }

        return self._patiently("the ends of partitions", ask)

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        """Return the first offset appended at this time or later; the end if there is none."""
        place = TopicPartition(partition.topic, partition.number)

        def ask() -> int:
            answer = self._admin.list_offsets(
                {place: OffsetSpec.for_timestamp(time_ms)}, request_timeout=self.config.call_s
            )
            (future,) = answer.values()
            return int(future.result().offset)

        found = self._patiently(f"the offsets of {partition} in time", ask)
        return self.ends([partition])[partition] if found < 0 else found

    def answers(self, wait_s: float) -> bool:
        """Return whether a broker answers within so many seconds, if only to refuse us."""
        try:
            with WATCHDOG.over("question whether a broker is there", wait_s + self.config.call_s):
                self._admin.describe_cluster(request_timeout=wait_s).result()
        except KafkaException as failure:
            return not kafka_errors.is_away(failure.args[0])
        return True

    def topic_id(self, topic: str) -> str:
        """Return the id of this topic's present life.

        Raises:
            SettingsError: There is no such topic.
        """
        found = self._ids.get(topic)
        if found is None:
            self._describe(topic)
            found = self._ids[topic]
        return found

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has, as of when this process first asked.

        Raises:
            SettingsError: There is no such topic.
        """
        found = self._counts.get(topic)
        if found is None:
            self._describe(topic)
            found = self._counts[topic]
        return found

    def has(self, partition: Partition) -> bool:
        """Return whether there is such a partition now; where none is known, the cluster is asked again.

        What says how many partitions a topic has goes on saying what it said first.
        """
        topic, number, now_s = partition.topic, partition.number, time.monotonic()
        try:
            known = max(self.partitions(topic), self._grown.get(topic, 0))
            if number >= known and now_s - self._grown_s.get(topic, -_GROWN_S) >= _GROWN_S:
                known = self._grown[topic] = len(self._look(topic).partitions)
                self._grown_s[topic] = now_s  # who asks meanwhile looks too: nobody knows yet
        except SettingsError:
            return False
        return number < known

    def close(self) -> None:
        """Write what is still to be written, and stop."""
        self._closing.set()
        self._appender.close()
        self._offsets.close()

    def _unowned(self, topics: Collection[str], group: str) -> Unowned:
        return Unowned(self._admin, topics, group=group, config=self.config)

    def _describe(self, topic: str) -> None:
        found = self._look(topic)
        self._ids[topic] = str(found.topic_id)
        self._counts[topic] = len(found.partitions)

    def _look(self, topic: str) -> TopicDescription:
        def ask() -> TopicDescription:
            answer = self._admin.describe_topics(
                TopicCollection([topic]), request_timeout=self.config.call_s
            )
            return answer[topic].result()

        try:
            return self._patiently(f"topic {topic}", ask)
        except KafkaException as failure:
            raise kafka_errors.no_topic(topic, failure.args[0].str()) from failure

    def _look_for_leaders(self) -> None:
        """Have the admin client ask who leads; by itself it goes on asking whom it remembers, or nobody.

        A client of ours that consumes or produces looks by itself.
        """
        try:
            self._admin.list_topics(timeout=min(self.config.call_s, _AWAY_WAIT_S_MAX))
        except KafkaException as failure:
            if not kafka_errors.is_away(failure.args[0]):
                raise

    def _patiently(self, what: str, ask: Callable[[], T]) -> T:
        """Ask until the cluster answers; that it is away is said once.

        Raises:
            KafkaException: It answered, with an error.
            SettingsError: This principal may not ask.
            TransientError: We are closing.
        """
        said, wait_s = False, 0.1
        while True:
            try:
                with WATCHDOG.over(f"question for {what}", self.config.call_s * 2):
                    return ask()
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in kafka_errors.FORBIDDEN:
                    raise kafka_errors.forbidden(f"see {what}", error) from failure
                if not kafka_errors.is_away(error):
                    raise
                if not said:
                    logger.warning("waiting for the cluster to tell %s: %s", what, error.str())
                    said = True
                if not self._closing.is_set():
                    self._look_for_leaders()
            if self._closing.wait(wait_s):
                raise TransientError(f"closed before the cluster told {what}")
            wait_s = min(wait_s * 2, _AWAY_WAIT_S_MAX)
