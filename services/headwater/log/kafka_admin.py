"""Administration of a cluster: topics, first offsets, and what a role checks before it joins."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import ConsumerGroupTopicPartitions, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    ResourceType,
)

from headwater.errors import SettingsError
from headwater.log.kafka_config import KafkaConfig


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class TopicState:
    """A topic as the cluster has it.

    Args:
        partitions: How many.
        replication: Of the first partition.
        config: Settings by name.
    """

    partitions: int
    replication: int
    config: Mapping[str, str]


class KafkaAdmin:
    """Looks and changes.

    Args:
        config: The cluster.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = AdminClient(config.common())

    def brokers(self) -> int:
        """Return how many brokers answer.

        Raises:
            SettingsError: None does.
        """
        try:
            return len(self._admin.list_topics(timeout=self._config.call_s).brokers)
        except KafkaException as error:
            raise SettingsError(
                f"no Kafka answers at {self._config.bootstrap} (HEADWATER_KAFKA__BOOTSTRAP): "
                f"{error.args[0].str()}"
            ) from error

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Return those topics that exist."""
        there = self._admin.list_topics(timeout=self._config.call_s).topics
        wanted = [name for name in names if name in there]
        if not wanted:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in wanted]
        configs = self._admin.describe_configs(resources)
        found = {}
        for resource, future in configs.items():
            entries = future.result(self._config.call_s)
            partitions = there[resource.name].partitions
            found[resource.name] = TopicState(
                partitions=len(partitions),
                replication=len(partitions[0].replicas),
                config={name: entry.value for name, entry in entries.items()},
            )
        return found

    def create(
        self, name: str, *, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None:
        """Create a topic."""
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=replication, config=dict(config)
        )
        self._admin.create_topics([topic])[name].result(self._config.call_s)

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        self._admin.create_partitions([NewPartitions(name, partitions)])[name].result(
            self._config.call_s
        )

    def configure(self, name: str, config: Mapping[str, str]) -> None:
        """Change some of a topic's settings, and leave the others."""
        changes = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=changes)
        for future in self._admin.incremental_alter_configs([resource]).values():
            future.result(self._config.call_s)

    def begin_group(self, group: str, topics: Mapping[str, int]) -> int:
        """Write a group's first offsets where it has none; return how many.

        Args:
            group: The group.
            topics: Topic to its number of partitions.
        """
        places = [
            TopicPartition(topic, number)
            for topic, count in topics.items()
            for number in range(count)
        ]
        missing = [TopicPartition(p.topic, p.partition, 0) for p in self._missing(group, places)]
        if missing:
            request = ConsumerGroupTopicPartitions(group, missing)
            self._admin.alter_consumer_group_offsets([request])[group].result(self._config.call_s)
        return len(missing)

    def missing_offsets(self, group: str, topics: Mapping[str, int]) -> int:
        """Return in how many partitions a group has no offset."""
        places = [
            TopicPartition(topic, number)
            for topic, count in topics.items()
            for number in range(count)
        ]
        return len(self._missing(group, places))

    def _missing(self, group: str, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        request = ConsumerGroupTopicPartitions(group, [*places])
        answer = self._admin.list_consumer_group_offsets([request])[group].result(
            self._config.call_s
        )
        return [place for place in answer.topic_partitions if place.offset < 0]
