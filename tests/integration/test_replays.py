"""Replays on a real Kafka: whoever is killed half-way is followed by one that goes on."""

from __future__ import annotations

import pathlib
import subprocess
import sys
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from benchmarks import cluster, replay

from headwater.contracts.records import Partition
from headwater.contracts.wanted import Wanted
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_owner import KafkaOwner
from headwater.runtime import replaying
from headwater.runtime.operating import Wish

COUNT, DIES_AT, MIDST = 3_000, 2_000, 300
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
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=300,
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


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_two_gateways_that_replay_the_same_letters_at_once_do_it_once(
    kafka: str, control: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Different operations over one topic write under one name; in the control each under its own.

    The first stays in the midst of it until the second is, so each has the other's work to look at.
    """
    real, second_writes = replaying.Replaying._commit, threading.Event()

    def commit(self: replaying.Replaying, *of: Any) -> bool:
        if self._log is logs[1]:
            second_writes.set()
        elif self.progress.done >= MIDST:
            assert second_writes.wait(500)
        return real(self, *of)

    monkeypatch.setattr(replaying, "BATCH", 100)
    monkeypatch.setattr(replaying.Replaying, "_commit", commit)
    if control:
        own = KafkaLog.own

        def unnamed(
            self: KafkaLog, topics: Sequence[str], *, group: str, instance: str, writer: str
        ) -> KafkaOwner:
            return own(self, topics, group=group, instance=instance)

        monkeypatch.setattr(KafkaLog, "own", unnamed)
    # A slow answer to a commit is waited for; whoever is fenced waits two heartbeats for its turn.
    config = KafkaConfig(bootstrap=kafka, heartbeat_ms=250, transaction_ms=60_000, call_s=60.0)
    namespace = cluster.fresh("two")
    logs = [KafkaLog(config) for _ in range(2)]
    platform = replay.prepared(config, logs[0], namespace, COUNT)
    letters = (platform.names.dlq("triage"),)
    begun = []
    for log, least in zip(logs, (MIDST, 0), strict=True):
        gateway = replay.gateway(log, namespace)
        wish = Wish(
            verb="replay",
            letters=True,
            topics=letters,
            wanted=Wanted(),
            name=f"after {least}",
        )
        operation = gateway.begin(wish)
        while replay.done(gateway, operation) < least:
            gateway.join(operation, timeout_s=0.01)
        begun.append((gateway, operation))
    for gateway, operation in begun:
        gateway.join(operation, timeout_s=300)
    done = [replay.done(gateway, operation) for gateway, operation in begun]
    tasks = replay.replayed_of(logs[0], Partition(platform.names.cmd("triage"), 0))
    assert len(tasks) == COUNT
    assert (max(tasks.values()), sum(done)) == (1, COUNT) or control
    assert not control or sum(done) > COUNT
    for log in logs:
        log.close()
