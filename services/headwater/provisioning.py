"""Provisioning: what a cluster lacks of what an app needs, and giving it that."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Protocol

from headwater.errors import SettingsError
from headwater.layout import Need
from headwater.log.kafka_admin import Expired, KafkaAdmin
from headwater.log.kafka_config import KafkaConfig
from headwater.settings import Kafka

REPLICATION = 3
_NAMED_MAX = 3


class There(Protocol):
    """A topic as the cluster has it (`log.kafka_admin.TopicState`)."""

    @property
    def partitions(self) -> int:
        """How many."""
        ...

    @property
    def replication(self) -> int:
        """Replicas of a partition."""
        ...

    @property
    def config(self) -> Mapping[str, str]:
        """Settings by name."""
        ...


class Cluster(Protocol):
    """Looking at a cluster and changing it (`log.kafka_admin.KafkaAdmin`)."""

    def brokers(self) -> int:
        """Return how many brokers answer."""
        ...

    def topics(self, names: Iterable[str]) -> Mapping[str, There]:
        """Return those topics that exist."""
        ...

    def create(
        self, name: str, *, partitions: int, replication: int, config: Mapping[str, str]
    ) -> None:
        """Create a topic."""
        ...

    def grow(self, name: str, partitions: int) -> None:
        """Give a topic more partitions."""
        ...

    def configure(self, name: str, config: Mapping[str, str]) -> None:
        """Change a topic's settings."""
        ...

    def begin_group(self, group: str, topics: Mapping[str, int]) -> int:
        """Write a group's first offsets where it has none; return how many."""
        ...

    def missing_offsets(self, group: str, topics: Mapping[str, int]) -> int:
        """Return in how many partitions a group has no offset."""
        ...


class Action(StrEnum):
    """What a change does."""

    CREATE = "create"
    GROW = "grow"
    CONFIGURE = "configure"
    BEGIN = "begin"
    REFUSED = "refused"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One thing a cluster lacks.

    Args:
        action: What would be done; `refused` is what a person must do.
        name: The topic or group.
        detail: In words.
        partitions: Of a topic to create or grow.
        replication: Of a topic to create.
        config: Of a topic to create or configure.
        topics: Of a group to begin: topic to partitions.
    """

    action: Action
    name: str
    detail: str
    partitions: int = 0
    replication: int = 0
    config: Mapping[str, str] = dataclasses.field(default_factory=dict)
    topics: Mapping[str, int] = dataclasses.field(default_factory=dict)


def config_of(kafka: Kafka, *, version: str = "") -> KafkaConfig:
    """Return how to talk to the cluster that the settings name, as members of a version of an app."""
    return KafkaConfig(
        bootstrap=kafka.bootstrap,
        extra=kafka.properties(),
        session_ms=kafka.session_ms,
        heartbeat_ms=kafka.heartbeat_ms,
        transaction_ms=kafka.transaction_ms,
        group_protocol=kafka.group_protocol,
        version=version,
    )


def connect(kafka: Kafka) -> KafkaAdmin:
    """Return the cluster that the settings name."""
    return KafkaAdmin(config_of(kafka))


def plan(
    cluster: Cluster,
    wanted: Iterable[Need],
    groups: Mapping[str, Sequence[str]],
    *,
    replication: int = 0,
) -> list[Change]:
    """Return what a cluster lacks, in the order in which it can be given.

    Args:
        cluster: The cluster.
        wanted: The topics an app needs.
        groups: Consumer group to the topics it reads.
        replication: Of new topics; 0 for three, or as many brokers as there are.
    """
    needs = [*wanted]
    brokers = cluster.brokers()
    copies = replication or min(REPLICATION, brokers)
    there = cluster.topics([need.name for need in needs])
    counts = {name: state.partitions for name, state in there.items()}
    found: list[Change] = []
    for need in needs:
        count = _count(need, counts)
        state = there.get(need.name)
        if state is None:
            found.append(_create(need, count, copies))
        else:
            found += _differences(need, count, state)
            if need.fixed:
                continue
        counts[need.name] = max(count, counts.get(need.name, 0))
    for group, topics in groups.items():
        read = {topic: counts[topic] for topic in topics if topic in counts}
        known = {topic: there[topic].partitions for topic in read if topic in there}
        missing = sum(read.values()) - sum(known.values())
        missing += cluster.missing_offsets(group, known) if known else 0
        if missing:
            words = f"first offsets in {_many(missing, 'partition')}"
            found.append(Change(action=Action.BEGIN, name=group, detail=words, topics=read))
    return found


def expired(cluster: KafkaAdmin, groups: Mapping[str, Sequence[str]]) -> list[Expired]:
    """Return the offsets of groups that retention has overtaken.

    An offset lies before the marks that end a transaction. So this happens, too, to a group that has taken
    all there was, on a topic where nothing was written for as long as records are kept.
    """
    there = cluster.topics({topic for topics in groups.values() for topic in topics})
    found: list[Expired] = []
    for group, topics in groups.items():
        read = {topic: there[topic].partitions for topic in topics if topic in there}
        found += cluster.expired(group, read) if read else []
    return found


def apply(cluster: Cluster, change: Change) -> None:
    """Make one change.

    Raises:
        SettingsError: It is one that a person must make.
    """
    match change.action:
        case Action.CREATE:
            cluster.create(
                change.name,
                partitions=change.partitions,
                replication=change.replication,
                config=change.config,
            )
        case Action.GROW:
            cluster.grow(change.name, change.partitions)
        case Action.CONFIGURE:
            cluster.configure(change.name, change.config)
        case Action.BEGIN:
            cluster.begin_group(change.name, change.topics)
        case Action.REFUSED:
            raise SettingsError(f"{change.name}: {change.detail}")


def verify(cluster: Cluster, wanted: Iterable[Need], groups: Mapping[str, Sequence[str]]) -> None:
    """Check, before a role joins, that a cluster has what the app needs.

    Raises:
        SettingsError: It has not; the message names the first few things, and the command.
    """
    lacking = plan(cluster, wanted, groups)
    if not lacking:
        return
    words = "; ".join(f"{of.name}: {of.action} ({of.detail})" for of in lacking[:_NAMED_MAX])
    more = f"; and {len(lacking) - _NAMED_MAX} more" if len(lacking) > _NAMED_MAX else ""
    raise SettingsError(
        f"the cluster is not as the app needs it: {words}{more}. See `headwater topics plan`, then "
        "`headwater topics apply`"
    )


def settings_of(need: Need) -> dict[str, str]:
    """Return the settings of a topic that headwater relies on.

    The log's own clock decides when timers are due, so every topic has `LogAppendTime`.
    """
    config = {
        "cleanup.policy": _cleanup(need),
        "message.timestamp.type": "LogAppendTime",
        "max.message.bytes": str(need.max_bytes),
    }
    if need.retention_ms is not None:
        config["retention.ms"] = str(need.retention_ms)
    return config


def _cleanup(need: Need) -> str:
    if not need.compacted:
        return "delete"
    return "compact" if need.retention_ms is None else "compact,delete"


def _count(need: Need, counts: Mapping[str, int]) -> int:
    """Return how many partitions a topic must have: of state as its inbox, of receipts as requests."""
    source = _source_of(need.name)
    return max(need.partitions, counts.get(source, 0)) if source else need.partitions


def _source_of(topic: str) -> str:
    """Return the topic whose partitions this one's go with; empty if it stands alone."""
    parts = topic.split(".")
    if parts[1:2] == ["receipt"]:
        return ".".join([parts[0], "req", *parts[2:]])
    if len(parts) < 4 or parts[1] != "state":  # noqa: PLR2004 - namespace, kind, name, version
        return ""
    owner = parts[3:-1] if parts[2] == "runs" else parts[2:-1]
    return ".".join([parts[0], "inbox", *owner, parts[-1]])


def _create(need: Need, count: int, copies: int) -> Change:
    config = settings_of(need)
    if copies >= REPLICATION:
        config["min.insync.replicas"] = str(copies - 1)
    kind = "compacted, " if need.compacted else ""
    return Change(
        action=Action.CREATE,
        name=need.name,
        detail=f"{kind}{_many(count, 'partition')}, {_many(copies, 'replica')}",
        partitions=count,
        replication=copies,
        config=config,
    )


def _differences(need: Need, count: int, state: There) -> Iterable[Change]:
    if state.partitions < count:
        words = f"{state.partitions} to {count} partitions"
        if need.fixed:
            yield Change(
                action=Action.REFUSED,
                name=need.name,
                detail=f"{words}: its keys map to partitions, so it keeps those it began with; set "
                f"partitions back to {state.partitions}, or begin another namespace",
            )
        else:
            yield Change(action=Action.GROW, name=need.name, detail=words, partitions=count)
    other = {
        name: value
        for name, value in settings_of(need).items()
        if not _suffices(name, state.config.get(name, ""), value)
    }
    if other:
        words = ", ".join(
            f"{name} {state.config.get(name, 'unset')} to {value}" for name, value in other.items()
        )
        yield Change(action=Action.CONFIGURE, name=need.name, detail=words, config=other)


def _suffices(name: str, has: str, needed: str) -> bool:
    if name == "max.message.bytes" and has.isdecimal():
        return int(has) >= int(needed)
    return has == needed


def _many(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
