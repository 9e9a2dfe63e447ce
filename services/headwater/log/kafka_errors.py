"""What errors of the Kafka client mean to us."""

# ruff: noqa: SLF001 - librdkafka's own errors begin with an underscore

from __future__ import annotations

from typing import Any

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from headwater.errors import SettingsError

AWAY = frozenset(
    {
        KafkaError._ALL_BROKERS_DOWN,
        KafkaError._TRANSPORT,
        KafkaError._RESOLVE,
        KafkaError._TIMED_OUT,
        KafkaError._TIMED_OUT_QUEUE,
        KafkaError._WAIT_COORD,
        KafkaError._MSG_TIMED_OUT,
        KafkaError._NO_OFFSET,
        KafkaError._DESTROY_BROKER,  # metadata did not name the broker that was asked
        KafkaError._NOENT,  # no partition that was asked about has a leader now
        KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.NOT_COORDINATOR,
        KafkaError.LEADER_NOT_AVAILABLE,
        # The client asked a leader that it remembers, and there was an election since.
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.REQUEST_TIMED_OUT,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.BROKER_NOT_AVAILABLE,
    }
)
"""The cluster, or the part of it that we need, does not answer now."""

TOO_LARGE = frozenset({KafkaError.MSG_SIZE_TOO_LARGE, KafkaError.RECORD_LIST_TOO_LARGE})
UNKNOWN_TOPIC = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
GROWN = KafkaError._UNKNOWN_PARTITION
"""A producer knows a topic as it was up to a minute ago; it may be there once the producer has looked."""
REFUSED = frozenset(
    {
        *TOO_LARGE,
        *UNKNOWN_TOPIC,
        GROWN,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_MSG_SIZE,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
        KafkaError.POLICY_VIOLATION,
        KafkaError.TOPIC_EXCEPTION,
    }
)
"""What the log says of a record that it will never take."""

FENCED = frozenset(
    {
        KafkaError._FATAL,
        KafkaError._FENCED,
        KafkaError.PRODUCER_FENCED,
        KafkaError.INVALID_PRODUCER_EPOCH,
        KafkaError.FENCED_INSTANCE_ID,
    }
)
UNSETTLED = frozenset({KafkaError._STATE, KafkaError._PREV_IN_PROGRESS})
"""A partition that was assigned a moment ago, or is being taken away."""
EXPIRED = frozenset({KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE})
FORBIDDEN = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        KafkaError.SASL_AUTHENTICATION_FAILED,
        KafkaError._AUTHENTICATION,
    }
)


def is_away(error: KafkaError) -> bool:
    """Return whether the same may succeed later, without anybody doing anything."""
    return error.code() in AWAY or bool(error.retriable())


def taken_over(group: str, instance: str, error: KafkaError) -> SettingsError:
    """Return the end of a member whose name another process uses, or seems to.

    A broker that dies between a static member's join and its answer takes the member's next try for
    another's: the group knows the name by an id that nobody was told, which looks like a second process.
    """
    return SettingsError(
        f"another process has joined {group} as {instance}: give each process its own HEADWATER_INSTANCE; "
        f"if a broker went away just now, that was this one's own join: start this one again ({error.str()})"
    )


def forbidden(what: str, error: KafkaError) -> SettingsError:
    """Return the error of a principal that lacks a right."""
    return SettingsError(
        f"the cluster does not let this principal {what} ({error.str()}): grant it, or correct "
        "HEADWATER_KAFKA__SECURITY_PROTOCOL and the credentials in HEADWATER_KAFKA__EXTRA; every "
        "topic, group and transactional id begins with the namespace, so one prefixed grant is enough"
    )


def admin(config: dict[str, Any]) -> AdminClient:
    """Return an admin client: the first of a process, whose settings the client's library reads.

    Raises:
        SettingsError: It does not take them.
    """
    try:
        return AdminClient(config)
    except KafkaException as failure:
        words = failure.args[0].str().removeprefix("Failed to create admin client: ")
        raise SettingsError(
            f"the Kafka client does not take its settings: {words}; see HEADWATER_KAFKA__SECURITY_PROTOCOL "
            "and HEADWATER_KAFKA__EXTRA"
        ) from failure


def no_topic(topic: str, error: object) -> SettingsError:
    """Return the error of a topic that is not there."""
    return SettingsError(f"there is no topic {topic}: run `headwater topics apply` ({error})")
