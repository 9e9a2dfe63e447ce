"""A member that dies half way through a rebalance, and comes back under its name."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from tests.integration.half_given import SESSION_MS

from headwater.contracts.records import Partition
from headwater.log.broker import Broker
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_unowned import Unowned
from headwater.testing.conformance_world import Follower, until

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("kafka-unowned")]

PARTITIONS = 4
CALL_S = 1.0


class Pair:
    """Two names of a group; the first had all, and died when it had given the second its half."""

    def __init__(self, bootstrap: str) -> None:
        own = f"unowned-{uuid.uuid4().hex[:8]}"
        self.topic, self.group = f"{own}.inbox", f"{own}.group"
        self.log = KafkaLog(KafkaConfig(bootstrap=bootstrap, session_ms=SESSION_MS))
        admin = KafkaAdmin(self.log.config)
        admin.create(self.topic, partitions=PARTITIONS, replication=1, config={})
        admin.begin_group(self.group, {self.topic: PARTITIONS})
        place = (bootstrap, self.topic, self.group, "first")
        command = [sys.executable, "-m", "tests.integration.half_given", *place]
        self._mortal = subprocess.Popen(command, stdout=subprocess.PIPE)
        self._members: list[KafkaOwner] = []

    @property
    def settled(self) -> bool:
        return all(member._unowned.settled for member in self._members)

    def break_apart(self) -> tuple[Follower, Follower]:
        """Return the second, and the first come back."""
        assert self._mortal.stdout is not None
        assert self._mortal.stdout.readline() == b"owns all\n"
        second = self._follower("second")

        def died() -> bool:
            second.poll()
            return self._mortal.poll() is not None

        until(died, "the first to give partitions up")
        assert self._mortal.returncode == -signal.SIGKILL
        return second, self._follower("first")

    def _follower(self, instance: str) -> Follower:
        member = self.log.own([self.topic], group=self.group, instance=instance)
        self._members.append(member)
        return Follower(member, self.log, self.group)

    def close(self) -> None:
        if self._mortal.poll() is None:
            self._mortal.kill()
        self._mortal.wait()
        assert self._mortal.stdout is not None
        self._mortal.stdout.close()
        for member in self._members:
            member.close()
        self.log.close()


@pytest.fixture
def pair(kafka: str) -> Iterator[Pair]:
    pair = Pair(kafka)
    yield pair
    pair.close()


def owned(*followers: Follower) -> set[Partition]:
    """Poll each, and return what they own together."""
    for follower in followers:
        follower.poll()
    return {place for follower in followers for place in follower.claims}


def test_what_a_member_gave_up_before_it_died_finds_an_owner(pair: Pair) -> None:
    """Whoever comes back sees that nobody has it, and joins anew; then it looks no more."""
    members = pair.break_apart()
    until(lambda: len(owned(*members)) == PARTITIONS, "all to be owned")
    until(lambda: bool(owned(*members)) and pair.settled, "all to be seen owned")


def test_control_nobody_ever_owns_it_if_nobody_looks(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: the group itself sees nothing to do, for longer than looking takes."""
    monkeypatch.setattr(Unowned, "look", lambda _: frozenset())
    members = pair.break_apart()
    until_s = time.monotonic() + 3 * pair.log.config.rejoin_s
    while time.monotonic() < until_s:
        assert len(owned(*members)) < PARTITIONS


def test_a_process_that_starts_while_the_cluster_is_away_lives_on_when_it_is_back(
    own_kafka: Broker,
) -> None:
    """Its question times out and is asked again; the client must not fail over the first of them."""
    running = own_kafka.status()
    assert running is not None
    admin = KafkaAdmin(KafkaConfig(bootstrap=running.bootstrap))
    admin.create("early.inbox", partitions=1, replication=1, config={})
    admin.begin_group("early.group", {"early.inbox": 1})
    own_kafka.kill()
    place = (running.bootstrap, "early.inbox", "early.group", str(CALL_S))
    command = [sys.executable, "-m", "tests.integration.starts_early", *place]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as early:
        assert early.stdout is not None
        assert early.stdout.readline() == b"overdue\n"
        own_kafka.start()
        said, _ = early.communicate(timeout=180)
    assert (early.returncode, said) == (0, b"settled\n")
