"""Settings of the client that cannot work are refused before anything starts."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError

from headwater.errors import SettingsError
from headwater.log import kafka_errors
from headwater.log.kafka_config import OURS, KafkaConfig


@pytest.mark.parametrize("name", sorted(OURS))
def test_a_property_that_the_guarantees_rest_on_cannot_be_overridden(name: str) -> None:
    """`HEADWATER_KAFKA__EXTRA` is for everything else."""
    with pytest.raises(SettingsError, match=name):
        KafkaConfig(bootstrap="b:1", extra={name: "x"})


def test_other_properties_win_over_ours_in_every_client() -> None:
    """A cluster with slow links needs other bounds than a laptop."""
    config = KafkaConfig(bootstrap="b:1", extra={"fetch.wait.max.ms": "7", "linger.ms": "9"})
    assert config.member("g", "i")["fetch.wait.max.ms"] == "7"
    assert config.producer()["linger.ms"] == "9"


def test_extra_wins_in_transactional_producers_too() -> None:
    """What an operator sets is not undone by a kind of client."""
    config = KafkaConfig(bootstrap="b:1", extra={"linger.ms": "9"})
    assert config.transactional("g", "i")["linger.ms"] == "9"


def test_a_session_of_less_than_three_heartbeats_is_refused() -> None:
    """One lost heartbeat is no death."""
    with pytest.raises(SettingsError, match="HEADWATER_KAFKA__SESSION_MS"):
        KafkaConfig(bootstrap="b:1", session_ms=5_000, heartbeat_ms=2_000)


def test_an_unknown_group_protocol_is_refused() -> None:
    """There are two."""
    with pytest.raises(SettingsError, match="GROUP_PROTOCOL"):
        KafkaConfig(bootstrap="b:1", group_protocol="eager")


def test_the_default_session_outlives_a_dead_owners_transaction() -> None:
    """Transaction timeout, the broker's abort sweep of a second, a heartbeat and a second."""
    config = KafkaConfig(bootstrap="b:1")
    assert config.session_ms >= config.session_ms_min(sweep_ms=1_000)


def test_identity_is_the_groups_and_the_instances() -> None:
    """A restart fences its predecessor, and one prefixed grant covers a namespace."""
    config = KafkaConfig(bootstrap="b:1", security_protocol="SSL")
    assert config.transactional("hw.runs.a", "pod-0")["transactional.id"] == "hw.runs.a/pod-0"
    member = config.member("hw.runs.a", "pod-0")
    assert (member["group.id"], member["group.instance.id"]) == ("hw.runs.a", "pod-0")
    assert member["security.protocol"] == "SSL"


def test_the_brokers_own_group_protocol_sets_the_session() -> None:
    """KIP-848 has no session, heartbeat or assignor of the client's own."""
    member = KafkaConfig(bootstrap="b:1", group_protocol="consumer").member("g", "i")
    assert member["group.protocol"] == "consumer"
    assert not {"session.timeout.ms", "heartbeat.interval.ms"} & member.keys()
    assert "partition.assignment.strategy" not in member


def test_errors_that_pass_by_themselves_are_told_from_those_that_do_not() -> None:
    """A cluster that is away is waited for; a record that is refused is not."""
    assert kafka_errors.is_away(KafkaError(KafkaError._TRANSPORT))
    assert kafka_errors.is_away(KafkaError(KafkaError.REQUEST_TIMED_OUT, "", retriable=True))
    assert not kafka_errors.is_away(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert not kafka_errors.REFUSED & kafka_errors.AWAY
