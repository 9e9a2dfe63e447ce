"""Settings of the client that cannot work are refused before anything starts."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, Producer

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
    assert kafka_errors.is_away(KafkaError(KafkaError._NOENT))
    assert kafka_errors.is_away(KafkaError(KafkaError._DESTROY_BROKER))
    assert kafka_errors.is_away(KafkaError(KafkaError.REQUEST_TIMED_OUT, "", retriable=True))
    assert not kafka_errors.is_away(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE))
    assert not kafka_errors.REFUSED & kafka_errors.AWAY


@pytest.mark.parametrize("socket_ms", [None, "500", "20000"])
@pytest.mark.parametrize("transaction_ms", [900, 5_000, 2_000_000_000])
@pytest.mark.parametrize("call_s", [0.1, 15.0])
def test_the_end_of_a_transaction_is_waited_for_less_long_than_until_the_client_repeats_it(
    socket_ms: str | None, transaction_ms: int, call_s: float
) -> None:
    """The late twin of an end that was sent twice can end the transaction after it."""
    extra = {} if socket_ms is None else {"socket.timeout.ms": socket_ms}
    config = KafkaConfig(bootstrap="b:1", extra=extra, transaction_ms=transaction_ms, call_s=call_s)
    told_ms = config.transactional("g", "i")["socket.timeout.ms"]
    assert told_ms == config.resend_s * 1000
    assert told_ms <= min(transaction_ms, int(socket_ms or 60_000))
    assert config.once_s < config.resend_s
    assert config.once_s <= call_s
    assert config.member("g", "i").get("socket.timeout.ms") == socket_ms


def test_a_transactional_client_takes_what_it_is_told() -> None:
    """It refuses a longer `socket.timeout.ms` than its transactions live, which others may well have."""
    config = KafkaConfig(bootstrap="b:1", extra={"socket.timeout.ms": "20000"})
    Producer(config.transactional("g", "i"))


def test_clients_begin_anew_when_they_know_no_broker_but_those_with_transactions() -> None:
    """After a broker that stood still, one that does not never asks again; a producer is replaced."""
    config = KafkaConfig(bootstrap="b:1")
    clients = (config.common(), config.consumer(), config.member("g", "i"), config.producer())
    assert {client["metadata.recovery.strategy"] for client in clients} == {"rebootstrap"}
    assert {client["metadata.recovery.rebootstrap.trigger.ms"] for client in clients} == {5_000}
    assert config.transactional("g", "i")["metadata.recovery.strategy"] == "none"
