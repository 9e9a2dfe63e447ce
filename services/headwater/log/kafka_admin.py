"""Administration of a cluster: topics, first offsets, and what a role checks before it joins."""

from __future__ import annotations

import dataclasses
import functools
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from confluent_kafka import (
    KafkaError,
    KafkaException,
    TopicCollection,
    TopicPartition,
)
from confluent_kafka.admin import (
    AlterConfigOpType,
    ClusterMetadata,
    ConfigEntry,
    ConfigResource,
    GroupMetadata,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)

from headwater.errors import SettingsError, TransientError
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_offsets import Offsets

T = TypeVar("T")

_LOOK_S = 0.02
_LED_S = 60.0
"""How long a new topic may be without leaders; a cluster with much to do takes a while to elect them."""
_REASONS = frozenset({KafkaError._AUTHENTICATION, KafkaError._SSL})  # noqa: SLF001 - the client's own names


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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Expired:
    """A group's offset that retention has overtaken: nobody can go on there.

    Args:
        group: The group.
        topic: The topic.
        partition: Its number.
        offset: Where the group was to go on.
        beginning: The first offset that is left.
    """

    group: str
    topic: str
    partition: int
    offset: int
    beginning: int


class KafkaAdmin:
    """Looks and changes.

    Args:
        config: The cluster.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._said = ""
        self._admin = kafka_errors.admin({**config.common(), "error_cb": self._hear})
        self._offsets = Offsets(config)

    def brokers(self) -> int:
        """Return how many brokers answer.

        Raises:
            TransientError: None does.
        """
        try:
            return len(self._listed().brokers)
        except KafkaException as error:
            self._admin.poll(0)  # what connections said is told only there
            said = self._said or error.args[0].str()
            protocol = self._config.security_protocol or "PLAINTEXT"
            raise TransientError(
                f"no Kafka answers at {self._config.bootstrap} ({said}): set "
                "HEADWATER_KAFKA__BOOTSTRAP, or `headwater broker start` starts a local one; nor does one "
                f"answer that wants another HEADWATER_KAFKA__SECURITY_PROTOCOL than {protocol}, or other "
                "credentials in HEADWATER_KAFKA__EXTRA"
            ) from error

    def _hear(self, error: KafkaError) -> None:
        """Keep what a connection failed of, where that says more than that nobody answered."""
        if error.code() in _REASONS:
            self._said = error.str()

    def topics(self, names: Iterable[str]) -> dict[str, TopicState]:
        """Return those topics that exist.

        Raises:
            TransientError: The cluster is away.
        """
        there = self._do("list its topics", self._listed).topics
        wanted = [name for name in names if name in there]
        if not wanted:
            return {}
        resources = [ConfigResource(ResourceType.TOPIC, name) for name in wanted]
        configs = self._do("tell the settings of topics", lambda: self._configs(resources))
        found = {}
        for resource, entries in configs.items():
            partitions = there[resource.name].partitions
            found[resource.name] = TopicState(
                partitions=len(partitions),
                replication=len(partitions[0].replicas),
                config={name: entry.value for name, entry in entries.items()},
            )
        return found

    def beginning(self, prefix: str) -> dict[str, int]:
        """Return the topics whose names begin so, and how many partitions each has.

        Raises:
            TransientError: No broker answers.
        """
        self.brokers()
        there = self._do("list its topics", self._listed).topics
        return {name: len(of.partitions) for name, of in there.items() if name.startswith(prefix)}

    def create(
        self, name: str, *, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None:
        """Create a topic; it can be used when this returns.

        Raises:
            SettingsError: The cluster refuses it; the message has its words.
        """
        topic = NewTopic(
            name, num_partitions=partitions, replication_factor=replication, config=dict(config)
        )
        self._do(
            f"create topic {name}", lambda: self._answer(self._admin.create_topics([topic])[name])
        )
        self._until_there(name, partitions)

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions.

        Raises:
            SettingsError: The cluster refuses it.
        """
        more = NewPartitions(name, partitions)
        self._do(
            f"grow topic {name}", lambda: self._answer(self._admin.create_partitions([more])[name])
        )
        self._until_there(name, partitions)

    def configure(self, name: str, config: Mapping[str, str]) -> None:
        """Change a topic's settings; those not named stay.

        Raises:
            SettingsError: The cluster refuses it.
        """
        entries = [
            ConfigEntry(key, value, incremental_operation=AlterConfigOpType.SET)
            for key, value in config.items()
        ]
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries)
        self._do(
            f"change the settings of topic {name}",
            lambda: self._answer(self._admin.incremental_alter_configs([resource])[resource]),
        )

    def broker_settings(self) -> dict[str, str]:
        """Return one broker's settings by name; empty where this principal may not see them.

        Raises:
            TransientError: The cluster is away.
        """

        def ask() -> dict[str, ConfigEntry]:
            resource = ConfigResource(ResourceType.BROKER, str(min(self._listed().brokers)))
            try:
                return self._configs([resource])[resource]
            except KafkaException as error:
                if error.args[0].code() in kafka_errors.FORBIDDEN:
                    return {}
                raise

        entries = self._do("tell a broker's settings", ask)
        return {name: entry.value for name, entry in entries.items() if entry.value is not None}

    def allowed(self, topic: str) -> frozenset[str]:
        """Return what this principal may do with a topic: `READ`, `WRITE`, `DESCRIBE` and so on.

        Raises:
            TransientError: The cluster is away.
        """

        def ask() -> Sequence[Any]:
            future = self._admin.describe_topics(
                TopicCollection([topic]),
                include_authorized_operations=True,
                request_timeout=self._config.call_s,
            )[topic]
            try:
                return future.result(self._config.call_s).authorized_operations or ()
            except KafkaException as error:
                if error.args[0].code() in kafka_errors.FORBIDDEN:
                    return ()
                raise

        operations = self._do(f"tell what may be done with topic {topic}", ask)
        return frozenset(operation.name for operation in operations)

    def client_ids(self, groups: Iterable[str], *, newer: bool = False) -> list[str]:
        """Return the client ids of the members that groups have now.

        A broker keeps the client id of a static member that joins again within its session, though its
        process be another one; under KIP-848 it takes the new one.

        Args:
            groups: Which.
            newer: Ask the newer of two questions. Members of groups under KIP-848 do not answer to the
                older one; the newer one, like every question of the admin client to a group's
                coordinator, can end the process (`kafka_offsets`), so it is for commands.

        Raises:
            SettingsError: The cluster refuses.
            TransientError: It is away.
        """
        ask = self._described if newer else self._listed_members
        found: list[str] = []
        for group in groups:
            found += self._do(f"describe group {group}", functools.partial(ask, group))
        return found

    def _listed_members(self, group: str) -> list[str]:
        return [member.client_id for one in self._groups(group) for member in one.members]

    def _described(self, group: str) -> list[str]:
        future = self._admin.describe_consumer_groups([group], request_timeout=self._config.call_s)
        members = self._answer(future[group]).members
        return [member.client_id for member in members]

    def _groups(self, group: str) -> list[GroupMetadata]:
        with warnings.catch_warnings():
            # The library would rather be asked the newer question.
            warnings.filterwarnings("ignore", "list_groups", DeprecationWarning)
            found: list[GroupMetadata] = self._admin.list_groups(group, timeout=self._config.call_s)
        return found

    def begin_group(self, group: str, topics: Mapping[str, int]) -> int:
        """Write a group's first offsets where it has none; return how many.

        Args:
            group: The group.
            topics: Topic to its number of partitions.
        """
        places = _places(topics)
        missing = [TopicPartition(p.topic, p.partition, 0) for p in self._missing(group, places)]
        if missing:
            self._do(
                f"write the first offsets of group {group}",
                lambda: self._offsets.write(group, missing),
            )
        return len(missing)

    def missing_offsets(self, group: str, topics: Mapping[str, int]) -> int:
        """Return in how many partitions a group has no offset.

        A transaction that carries some is not waited for: only who has an offset already begins one,
        and a process that starts again would wait for what it left open itself when it died.
        """
        return sum(place.offset < 0 for place in self._latest(group, topics))

    def expired(self, group: str, topics: Mapping[str, int]) -> list[Expired]:
        """Return the offsets of a group that are below the beginnings of their partitions."""
        known = [place for place in self._latest(group, topics) if place.offset >= 0]

        def ask() -> list[int]:
            begins = self._admin.list_offsets(
                {TopicPartition(p.topic, p.partition): OffsetSpec.earliest() for p in known},
                request_timeout=self._config.call_s,
            )
            return [begins[TopicPartition(p.topic, p.partition)].result().offset for p in known]

        begins = self._do("tell where topics begin", ask) if known else []
        return [
            Expired(
                group=group,
                topic=place.topic,
                partition=place.partition,
                offset=place.offset,
                beginning=beginning,
            )
            for place, beginning in zip(known, begins, strict=True)
            if place.offset < beginning
        ]

    def skip(self, group: str, expired: Sequence[Expired]) -> None:
        """Have a group go on at the beginnings.

        Raises:
            SettingsError: The cluster refuses, for example because the group has members.
        """
        offsets = [TopicPartition(one.topic, one.partition, one.beginning) for one in expired]
        self._do(
            f"write the offsets of group {group}, of which nobody may be a member (who died is one until "
            f"its session of {self._config.session_ms} ms has ended)",
            lambda: self._offsets.write(group, offsets),
        )

    def _latest(self, group: str, topics: Mapping[str, int]) -> list[TopicPartition]:
        return self._do(
            f"list the offsets of group {group}",
            lambda: self._offsets.latest(group, _places(topics), self._config.call_s),
        )

    def _missing(self, group: str, places: Sequence[TopicPartition]) -> list[TopicPartition]:
        found = self._do(
            f"list the offsets of group {group}",
            lambda: self._offsets.stable(group, places, self._config.call_s),
        )
        if found is None:
            raise SettingsError(f"a transaction has held offsets of group {group} back: look again")
        return [place for place in found if place.offset < 0]

    def _do(self, what: str, ask: Callable[[], T]) -> T:
        """Ask until the cluster answers, for a while: a coordinator that loads is nobody's mistake."""
        until = time.monotonic() + self._config.call_s * 2
        while True:
            try:
                return ask()
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in kafka_errors.FORBIDDEN:
                    raise kafka_errors.forbidden(what, error) from failure
                if not kafka_errors.is_away(error):
                    raise SettingsError(f"the cluster did not {what}: {error.str()}") from failure
                if time.monotonic() > until:
                    raise TransientError(f"the cluster did not {what}: {error.str()}") from failure
            except TimeoutError as late:
                if time.monotonic() > until:
                    raise TransientError(f"the cluster did not {what} in time") from late
            time.sleep(_LOOK_S)

    def _listed(self) -> ClusterMetadata:
        return self._admin.list_topics(timeout=self._config.call_s)

    def _configs(
        self, resources: list[ConfigResource]
    ) -> dict[ConfigResource, dict[str, ConfigEntry]]:
        answers = self._admin.describe_configs(resources, request_timeout=self._config.call_s)
        return {resource: self._answer(future) for resource, future in answers.items()}

    def _answer(self, future: Future[T]) -> T:
        return future.result(self._config.call_s)

    def _until_there(self, name: str, partitions: int) -> None:
        """Wait until every partition has a leader; a topic is made before it can be used."""
        until = time.monotonic() + _LED_S
        while True:
            there = self._admin.list_topics(name, timeout=self._config.call_s).topics[name]
            led = sum(1 for one in there.partitions.values() if one.leader >= 0)
            if there.error is None and led >= partitions:
                return
            if time.monotonic() > until:
                raise SettingsError(
                    f"topic {name} has {led} of {partitions} partitions with a leader after "
                    f"{_LED_S:g} s: look at the cluster's health"
                )
            time.sleep(_LOOK_S)


def _places(topics: Mapping[str, int]) -> list[TopicPartition]:
    return [
        TopicPartition(topic, number) for topic, count in topics.items() for number in range(count)
    ]
