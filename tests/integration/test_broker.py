"""A local Kafka starts, dies, comes back with its data on the same port, and stops."""

from __future__ import annotations

import json
import os
import pathlib
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from headwater.contracts.records import Draft, Partition
from headwater.log.broker import Broker
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.testing.conformance_world import put, read_all, values

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("broker")]


def test_what_was_written_survives_a_kill(own_kafka: Broker) -> None:
    """The same directory is the same broker, at the same address."""
    running = own_kafka.status()
    assert running is not None
    config = KafkaConfig(bootstrap=running.bootstrap)
    KafkaAdmin(config).create("kept", partitions=1, replication=1, config={})
    log = KafkaLog(config)
    put(log, Draft(topic="kept", value=b"before"))
    assert own_kafka.kill()
    assert own_kafka.status() is None
    assert own_kafka.start() == running.bootstrap
    put(log, Draft(topic="kept", value=b"after"))
    assert values(read_all(log, Partition("kept", 0))) == [b"before", b"after"]
    log.close()


def test_started_twice_it_is_one_broker(own_kafka: Broker) -> None:
    """Two that start it at once find one."""
    again = [Broker(own_kafka.directory, docker=False) for _ in range(4)]
    with ThreadPoolExecutor() as pool:
        found = {*pool.map(Broker.start, again)}
    running = own_kafka.status()
    assert running is not None
    assert found == {running.bootstrap}


def test_the_command_starts_tells_and_stops(tmp_path: pathlib.Path) -> None:
    """`headwater broker start|status|stop`, with exit statuses that scripts can use."""

    def run(verb: str, *more: str, at: str = "") -> subprocess.CompletedProcess[str]:
        given = {k: v for k, v in os.environ.items() if k != "HEADWATER_KAFKA__BOOTSTRAP"}
        return subprocess.run(
            [
                sys.executable,
                "-m",
                "headwater.cli.main",
                "broker",
                verb,
                "--dir",
                tmp_path / "b",
                *more,
            ],
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
            env=given | ({"HEADWATER_KAFKA__BOOTSTRAP": at} if at else {}),
        )

    assert run("status").returncode == 1
    started = run("start", "--output", "json")
    assert started.returncode == 0, started.stderr
    told = json.loads(run("status", "--output", "json").stdout)
    assert told == json.loads(started.stdout)
    host, _, port = told["bootstrap"].rpartition(":")
    socket.create_connection((host, int(port)), timeout=60).close()
    assert run("stop").stdout == "stopped\n"
    assert run("status").returncode == 1
    again = run("start", "--output", "json", at=told["bootstrap"])  # as `start` said to export it
    assert json.loads(again.stdout)["bootstrap"] == told["bootstrap"]
    assert run("stop").stdout == "stopped\n"
    away = run("start", at="127.0.0.1:1")
    assert (away.returncode, "unset it to start a local Kafka" in away.stderr) == (1, True)
    assert "no local broker" in run("stop").stderr
