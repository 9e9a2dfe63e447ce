"""Where a member begins to read, however slowly the cluster answers."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import OFFSET_END, Consumer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.integration.proxy import LIST_OFFSETS, Proxy

from headwater.contracts.records import Draft, Partition
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_member import KafkaMember
from headwater.log.port import Claim
from headwater.testing.conformance_world import put, until

pytestmark = pytest.mark.kafka

RECORDS = 40
DELAY_S = 1.6
POLL_MS = 50
TRIES = 5
"""How often the control tries to seek within the client's look-up, which takes twice as long each time."""
TOLD_S = 0.3
"""After so long a member's client has what the group gave it."""
END_S, STANDS_S = 180.0, 8.0
"""How long a member may take to end, and how long a control is watched that perhaps does not."""
MEMBERS, WAVES_MAX = 6, 8


class Shelf:
    """A topic that records come to, and a broker that takes its time to say where the topic ends."""

    def __init__(self, bootstrap: str, delay_s: float) -> None:
        own = f"member-{uuid.uuid4().hex[:8]}"
        self._answered_s = 2.5 * delay_s
        self.topic, self.group = f"{own}.inbox", f"{own}.group"
        self.direct = KafkaLog(KafkaConfig(bootstrap=bootstrap))
        admin = KafkaAdmin(self.direct.config)
        admin.create(self.topic, partitions=1, replication=1, config={})
        admin.begin_group(self.group, {self.topic: 1})
        self.proxy = Proxy(bootstrap, delay_s=delay_s, slow=frozenset({LIST_OFFSETS}))
        self.log = KafkaLog(KafkaConfig(bootstrap=self.proxy.bootstrap))

    def read(self, poll: Callable[[], list[int]]) -> list[int]:
        """Publish while somebody polls for offsets; return what they had by the last, or a later one.

        A client that looks the end up, and has to look again, reads nothing from one answer to the next. What
        is published in between tells whether it is skipped.
        """
        offsets: list[int] = []
        answered_s = time.monotonic() + self._answered_s

        def last() -> bool:
            put(self.direct, Draft(topic=self.topic, key=b"k", value=b"v"))
            offsets.extend(poll())
            late = time.monotonic() > answered_s
            return late and bool(offsets) and offsets[-1] >= RECORDS - 1

        until(last, "the last record")
        return offsets

    def close(self) -> None:
        self.log.close()
        self.direct.close()
        self.proxy.close()


@pytest.fixture
def shelves(kafka: str) -> Iterator[Iterator[Shelf]]:
    made: list[Shelf] = []

    def make() -> Iterator[Shelf]:
        for doubled in itertools.count():
            made.append(Shelf(kafka, DELAY_S * 2**doubled))
            yield made[-1]

    yield make()
    for shelf in made:
        shelf.close()


def follow(shelf: Shelf) -> list[int]:
    """Return the offsets that a member reads from its first on."""
    owner = shelf.log.own([shelf.topic], group=shelf.group, instance="a")
    gained: list[Claim] = []

    def join() -> bool:
        gained.extend(owner.poll(records_max=1, wait_ms=POLL_MS).gained)
        return bool(gained)

    def poll() -> list[int]:
        records = owner.poll(records_max=100, wait_ms=POLL_MS).records
        return [record.offset for _, record in records]

    until(join, "the partition")
    owner.resume(dict.fromkeys(gained, 0))
    offsets = shelf.read(poll)
    owner.close()
    return offsets


def test_nothing_is_skipped_where_the_cluster_is_slow_to_name_the_end(
    shelves: Iterator[Shelf],
) -> None:
    """A member goes on at its offset, and reads each record from there."""
    offsets = follow(next(shelves))
    assert offsets == [*range(len(offsets))]


def test_control_a_seek_made_while_the_client_looks_the_end_up_is_undone(
    shelves: Iterator[Shelf], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Control: a partition assigned at its end goes there, whatever was sought meanwhile."""

    def at_the_end(
        member: KafkaMember, consumer: Consumer, places: Sequence[TopicPartition]
    ) -> None:
        placed = [TopicPartition(place.topic, place.partition, OFFSET_END) for place in places]
        consumer.incremental_assign(placed)
        consumer.pause(placed)
        for place in placed:
            member._assigned.add(Partition(place.topic, place.partition))
            member._claim(Partition(place.topic, place.partition))

    monkeypatch.setattr(KafkaMember, "_on_assign", at_the_end)
    found = (follow(one) for one in itertools.islice(shelves, TRIES))
    assert any(offsets != [*range(len(offsets))] for offsets in found)


def test_nothing_that_was_read_between_polls_outlives_a_claim(shelves: Iterator[Shelf]) -> None:
    """A partition that is claimed anew begins where it is resumed, not at what was read before."""
    shelf = next(shelves)
    owner = shelf.log.own([shelf.topic], group=shelf.group, instance="a")
    assert isinstance(owner, KafkaMember)
    gained: list[Claim] = []

    def claimed() -> bool:
        gained[:] = owner.poll(records_max=1, wait_ms=POLL_MS).gained
        return bool(gained)

    until(claimed, "the partition")
    owner.resume(dict.fromkeys(gained, 0))
    for _ in range(5):
        put(shelf.direct, Draft(topic=shelf.topic, key=b"k", value=b"v"))

    def ahead() -> bool:
        owner._read_ahead(POLL_MS / 1000)
        return len(owner._early) >= 4

    until(ahead, "what is read between polls")
    owner.poll(records_max=1, wait_ms=0)
    owner._lose_all()
    until(claimed, "the partition again")
    owner.resume(dict.fromkeys(gained, 0))
    offsets: list[int] = []

    def last() -> bool:
        found = owner.poll(records_max=1, wait_ms=POLL_MS).records
        offsets.extend(record.offset for _, record in found)
        return bool(offsets) and offsets[-1] == 4

    until(last, "the last record")
    owner.close()
    assert offsets == [*range(5)]


@pytest.mark.parametrize("without", ["", "poll", "guard"], ids=["", "control 1", "control 2"])
def test_a_member_that_ends_while_an_assignment_waits_to_be_told_ends_in_good_order(
    kafka: str, without: str
) -> None:
    """The client tells of it inside its close, and takes it back: who asks it then may stand for ever.

    The first control is told of it there. About one in three stands, by when the client's own thread goes;
    so several end, and of a control's so many that one stands. The second asks whenever it is told.
    """
    for _ in range(WAVES_MAX if without else 1):
        with contextlib.ExitStack() as stack:
            members = [stack.enter_context(_ends_early(kafka, without)) for _ in range(MEMBERS)]
            until_s = time.monotonic() + (STANDS_S if without else END_S)
            for member in members:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    member.wait(max(0.0, until_s - time.monotonic()))
            ended = [member.poll() == 0 for member in members]
        if not all(ended):
            break
    assert all(ended) is not bool(without), ended


@contextlib.contextmanager
def _ends_early(kafka: str, without: str) -> Iterator[subprocess.Popen[bytes]]:
    """Yield a process that has been told to end, with an assignment that waits."""
    own = f"ends-{uuid.uuid4().hex[:8]}"
    admin = KafkaAdmin(KafkaConfig(bootstrap=kafka))
    admin.create(f"{own}.inbox", partitions=1, replication=1, config={})
    admin.begin_group(f"{own}.group", {f"{own}.inbox": 1})
    groups = AdminClient({"bootstrap.servers": kafka})

    def assigned() -> bool:
        time.sleep(POLL_MS / 1000)
        [found] = groups.describe_consumer_groups([f"{own}.group"]).values()
        return any(member.assignment.topic_partitions for member in found.result(END_S).members)

    command = [sys.executable, "-m", "tests.integration.ends_early", kafka, own, without]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as member:
        assert member.stdin is not None, "it has a pipe"
        try:
            until(assigned, "an assignment")
            time.sleep(TOLD_S)
            member.stdin.write(b"\n")
            member.stdin.flush()
            yield member
        finally:
            member.kill()
