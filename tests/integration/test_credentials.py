"""A cluster that wants credentials says what is wrong with those it is given."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator, Mapping

import pytest

from headwater.errors import SettingsError, TransientError
from headwater.log import broker
from headwater.log.broker import Broker
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_config import KafkaConfig
from headwater.testing.conformance_world import until

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("credentials")]

_LOGIN = "org.apache.kafka.common.security.plain.PlainLoginModule required"
_GOOD = {"sasl.mechanism": "PLAIN", "sasl.username": "ana", "sasl.password": "right"}


@pytest.fixture(scope="module")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A broker that lets in who has a password."""
    directory: pathlib.Path = tmp_path_factory.mktemp("sasl")
    port = broker.free_port()
    own = Broker(
        directory,
        docker=False,
        settings={
            "listeners": f"SASL_PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{port + 1}",
            "advertised.listeners": f"SASL_PLAINTEXT://127.0.0.1:{port}",
            "listener.security.protocol.map": "CONTROLLER:PLAINTEXT,SASL_PLAINTEXT:SASL_PLAINTEXT",
            "inter.broker.listener.name": "SASL_PLAINTEXT",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_plaintext.plain.sasl.jaas.config": (
                f'{_LOGIN} username="ana" password="right" user_ana="right";'
            ),
        },
    )
    own.start(port)
    yield f"127.0.0.1:{port}"
    own.stop()


@pytest.mark.parametrize(
    ("protocol", "given", "words"),
    [
        ("SASL_PLAINTEXT", {"sasl.password": "wrong"}, "Invalid username or password"),
        ("SASL_PLAINTEXT", {"sasl.mechanism": "SCRAM-SHA-256"}, "supported mechanisms: PLAIN"),
        ("SASL_SSL", {}, "another HEADWATER_KAFKA__SECURITY_PROTOCOL than SASL_SSL"),
    ],
)
def test_wrong_credentials_are_said_to_be(
    bootstrap: str, protocol: str, given: Mapping[str, str], words: str
) -> None:
    """In the cluster's words where it has any; a missing answer alone would send people to the network."""
    config = KafkaConfig(
        bootstrap=bootstrap, security_protocol=protocol, extra={**_GOOD, **given}, call_s=5.0
    )
    admin = KafkaAdmin(config)

    def told() -> bool:
        with pytest.raises(TransientError) as refused:
            admin.brokers()
        return words in str(refused.value)

    until(told, words)


def test_control_right_credentials_are_let_in(bootstrap: str) -> None:
    """The broker is there for whoever has them."""
    config = KafkaConfig(bootstrap=bootstrap, security_protocol="SASL_PLAINTEXT", extra=_GOOD)
    assert KafkaAdmin(config).brokers() == 1


@pytest.mark.parametrize("extra", [{"sasl.mechnism": "PLAIN"}, {"sasl.mechanism": "MAGIC"}])
def test_what_the_client_does_not_take_is_a_setting(extra: Mapping[str, str]) -> None:
    """It names the variables; no traceback is a Kafka exception's."""
    config = KafkaConfig(bootstrap="127.0.0.1:9", security_protocol="SASL_PLAINTEXT", extra=extra)
    with pytest.raises(SettingsError, match="HEADWATER_KAFKA__EXTRA"):
        KafkaAdmin(config)
