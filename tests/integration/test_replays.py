"""Replays on a real Kafka: whoever is killed half-way is followed by one that goes on."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest
from benchmarks import cluster, replay

from headwater.contracts.records import Partition
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_config import KafkaConfig

COUNT, DIES_AT = 3_000, 2_000
ROOT = pathlib.Path(__file__).parents[2]
PROGRAM = """
import os, sys
from benchmarks import replay
from headwater.contracts.replays import Anew
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_config import KafkaConfig

bootstrap, namespace, name, dies_at = sys.argv[1:]
real = Anew.__call__

def dying(self, record):
    if record.offset == int(dies_at):
        os._exit(9)
    return real(self, record)

Anew.__call__ = dying
log = KafkaLog(KafkaConfig(bootstrap=bootstrap))
print(replay.whole(log, namespace, name))
"""


def replays(bootstrap: str, namespace: str, name: str, dies_at: int) -> tuple[int, str]:
    """Replay everything in a process of its own; return how that ended, and how many it did."""
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, bootstrap, namespace, name, str(dies_at)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    return ran.returncode, ran.stdout.strip()


@pytest.mark.parametrize("same", [True, False])
def test_a_replay_killed_in_a_transaction_is_gone_on_with(kafka: str, same: bool) -> None:
    """Once and in order, whatever it had written of the transaction; control: another operation repeats."""
    config, namespace = KafkaConfig(bootstrap=kafka), cluster.fresh("killed")
    log = KafkaLog(config)
    platform = replay.prepared(config, log, namespace, COUNT)
    assert replays(kafka, namespace, "one", DIES_AT) == (9, "")
    ended, done = replays(kafka, namespace, "one" if same else "other", -1)
    assert ended == 0
    place = Partition(platform.names.cmd("triage"), 0)
    assert 0 < int(done) < COUNT if same else int(done) == COUNT
    assert replay.order_kept(log, place, 0, COUNT) is same
    log.close()
