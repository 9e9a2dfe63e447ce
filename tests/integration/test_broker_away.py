"""A broker that dies and comes back is waited for: said once, nothing lost, nothing twice."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest
from confluent_kafka import Consumer, Producer, TopicPartition
from tests.stopping import stop

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError, TransientError
from headwater.log.broker import Broker
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.port import Work
from headwater.testing.conformance_world import Follower, put, read_all, until, values

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("broker-away")]

TASKS = 40
READERS, STOOD_S, HEARD_S = 8, 14.0, 180.0
"""A controller takes a broker for dead after nine seconds; whoever asks it just then is told of none."""
BOUND_S = 120.0
"""Within which who waits for two seconds is answered on a busy machine; others wait for ever."""
ASKED_S, BUSY_TIMES = 2.0, 5
"""Who connects without a pause takes fifty times as much of a core, and twenty where others want it."""


@pytest.fixture
def log(own_kafka: Broker) -> Iterator[KafkaLog]:
    running = own_kafka.status()
    assert running is not None
    log = KafkaLog(KafkaConfig(bootstrap=running.bootstrap, call_s=5.0, append_s=180.0))
    admin = KafkaAdmin(log.config)
    for topic in ("away.inbox", "away.out"):
        config = {"message.timestamp.type": "LogAppendTime"}
        admin.create(topic, partitions=1, replication=1, config=config)
    admin.begin_group("away.group", {"away.inbox": 1})
    yield log
    log.close()


class Supervised:
    """An owner that copies its inbox, and is started again under its name when its process ends.

    Args:
        log: The log.
        starts_max: How often it is started.
    """

    def __init__(self, log: KafkaLog, *, starts_max: int) -> None:
        self._log = log
        self._left = starts_max
        self.ends = 0
        self._start()

    def follow(self, before: Callable[[int], None]) -> None:
        """Copy what came, in one transaction a record; `before` is told its offset first."""
        try:
            poll = self.follower.poll(records_max=1)
        except SettingsError:
            self.ends += 1
            self.follower.member.close()
            if not self._left:
                raise
            self._start()
            return
        for claim, record in poll.records:
            before(record.offset)
            draft = Draft(topic="away.out", value=record.value)
            work = Work(claim=claim, next_offset=record.offset + 1, drafts=[draft])
            self.follower.member.commit([work])  # type: ignore[attr-defined] # an owner follows

    def _start(self) -> None:
        self._left -= 1
        owner = self._log.own(["away.inbox"], group="away.group", instance="a")
        self.follower = Follower(owner, self._log, "away.group")


def test_an_owner_goes_on_after_its_broker_died_between_commits(
    own_kafka: Broker, log: KafkaLog, caplog: pytest.LogCaptureFixture
) -> None:
    """Each task leads to its output once, though commits met a dead broker.

    A broker may die just when it has taken the owner into its group again, and the owner never hears
    of that: its next try is refused as a stranger's. Then its process ends and is started again.
    """
    inbox = Partition("away.inbox", 0)
    put(log, *(Draft(topic=inbox.topic, value=b"%d" % n) for n in range(TASKS)))
    deaths = [10, 25]
    owner = Supervised(log, starts_max=1 + len(deaths))
    revival = threading.Thread(target=lambda: None)
    revival.start()

    def die(offset: int) -> None:
        nonlocal revival
        if deaths and offset == deaths[0]:
            deaths.pop(0)
            own_kafka.kill()
            revival.join()
            revival = threading.Thread(target=own_kafka.start)
            revival.start()

    def done() -> bool:
        owner.follow(die)
        return not deaths and log.committed("away.group", inbox)[0] == TASKS

    with caplog.at_level(logging.WARNING):
        until(done, "every task")
    revival.join()
    assert values(read_all(log, Partition("away.out", 0))) == [b"%d" % n for n in range(TASKS)]
    waits = [r for r in caplog.records if "away.group waits for the cluster" in r.getMessage()]
    deaths_met = 2 + owner.ends  # twice each where records that were there already follow
    assert len(waits) <= 2 * deaths_met, "it is said once a death, by each who meets it"
    owner.follower.member.close()


@pytest.mark.parametrize("starts_max", [2, 1], ids=["", "control"])
def test_an_owner_whose_own_join_was_never_heard_of_ends_and_goes_on_when_it_is_started_again(
    log: KafkaLog, starts_max: int
) -> None:
    """The group knows the name by another id then, and nobody can tell that from a second process.

    The control is not started again.
    """
    inbox = Partition("away.inbox", 0)
    put(log, *(Draft(topic=inbox.topic, value=b"%d" % n) for n in range(TASKS)))
    owner = Supervised(log, starts_max=starts_max)
    unheard = threading.Thread(target=_join, args=(log.config,))

    def join(offset: int) -> None:
        if offset == TASKS // 4 and unheard.ident is None:  # it may come twice
            unheard.start()

    def done() -> bool:
        owner.follow(join)
        joined = unheard.ident is not None and not unheard.is_alive()
        return bool(owner.ends) and joined and log.committed("away.group", inbox)[0] == TASKS

    if starts_max == 1:
        with pytest.raises(SettingsError, match="start this one again"):
            until(done, "every task")
    else:
        until(done, "every task")
        assert values(read_all(log, Partition("away.out", 0))) == [b"%d" % n for n in range(TASKS)]
        assert owner.ends == 1
        owner.follower.member.close()
    unheard.join()


def _join(config: KafkaConfig) -> None:
    """Join as the owner does, and be gone once the group has an id for that."""
    consumer = Consumer(config.member("away.group", "a"))
    consumer.subscribe(["away.inbox"])
    until(lambda: bool(consumer.poll(0.1) or consumer.memberid()), "the group to know it")
    consumer.close()


def test_appends_and_questions_wait_for_a_broker_that_is_away(
    own_kafka: Broker, log: KafkaLog, caplog: pytest.LogCaptureFixture
) -> None:
    """An append made while the broker is down is written when it is back, and so is an answer."""
    inbox = Partition("away.inbox", 0)
    put(log, Draft(topic=inbox.topic, value=b"before"))
    own_kafka.kill()
    revival = threading.Thread(target=own_kafka.start)

    async def across() -> int:
        waiting = asyncio.create_task(log.append(Draft(topic=inbox.topic, value=b"meanwhile")))
        asked = asyncio.create_task(asyncio.to_thread(log.committed, "away.group", inbox))
        await asyncio.sleep(0)
        revival.start()
        await waiting
        return (await asked)[0]

    assert asyncio.run(across()) == 0
    revival.join()
    said = [r for r in caplog.records if "waiting for the cluster" in r.getMessage()]
    assert len(said) <= 1
    assert values(read_all(log, inbox)) == [b"before", b"meanwhile"]


def test_questions_go_on_after_an_election(own_kafka: Broker, log: KafkaLog) -> None:
    """A broker that came back leads in a new term, which the client has to learn of."""
    inbox = Partition("away.inbox", 0)
    put(log, Draft(topic=inbox.topic, value=b"before"))
    assert log.ends([inbox]) == {inbox: 1}
    own_kafka.kill()
    own_kafka.start()
    assert log.ends([inbox]) == {inbox: 1}
    assert log.offset_at(inbox, 0) == 0
    assert values(read_all(log, inbox)) == [b"before"]


def test_whether_a_broker_answers_is_known_within_bounds(own_kafka: Broker, log: KafkaLog) -> None:
    """While it is dead or stands still nobody answers; it may take no longer than was said."""
    running = own_kafka.status()
    assert running is not None
    assert log.answers(10.0)
    stop(running.pid)
    began_s = time.monotonic()
    assert not log.answers(2.0)
    assert time.monotonic() - began_s < BOUND_S
    os.kill(running.pid, signal.SIGCONT)
    until(lambda: log.answers(2.0), "the broker to answer again")
    own_kafka.kill()
    began_s = time.monotonic()
    assert not log.answers(2.0)
    assert time.monotonic() - began_s < BOUND_S
    own_kafka.start()
    until(lambda: log.answers(2.0), "the broker to answer again")


def _busy(log: KafkaLog) -> float:
    """Ask a broker that is away whether it is back; return how much of a core that takes."""
    began_s = time.process_time()
    assert not log.answers(ASKED_S)
    return (time.process_time() - began_s) / ASKED_S


def test_a_broker_that_is_away_is_not_connected_to_without_a_pause(
    own_kafka: Broker, log: KafkaLog, say: Callable[[str], None]
) -> None:
    """Asking whether it is back takes a core otherwise; the control's client does not begin anew."""
    none = {"metadata.recovery.strategy": "none"}
    other = KafkaLog(dataclasses.replace(log.config, extra=none))
    assert log.answers(10.0)
    assert other.answers(10.0)
    own_kafka.kill()
    assert not log.answers(0.5)
    both = [(_busy(log), _busy(other)) for _ in range(3)]
    share, control = map(statistics.median, zip(*both, strict=True))  # one may have stood still
    say(f"{share:.3f} of a core; control: {control:.3f}")
    assert control > BUSY_TIMES * share
    own_kafka.start()
    until(lambda: log.answers(2.0), "the broker to answer again")
    other.close()


def test_closing_ends_the_wait_for_a_broker_that_is_away(own_kafka: Broker, log: KafkaLog) -> None:
    """SIGTERM is obeyed while there is no cluster."""
    own_kafka.kill()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            log.committed("away.group", Partition("away.inbox", 0))
        except TransientError as error:
            failures.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    log.close()
    asking.join(180)
    assert len(failures) == 1


def test_an_admin_without_a_cluster_names_the_setting() -> None:
    """A wrong address is a message, not a hang."""
    admin = KafkaAdmin(KafkaConfig(bootstrap="127.0.0.1:9", call_s=0.5))
    with pytest.raises(TransientError, match="HEADWATER_KAFKA__BOOTSTRAP"):
        admin.brokers()


def test_what_a_role_checks_before_it_joins_waits_for_a_slow_cluster() -> None:
    """Whoever does not answer in time is away: nothing of it ends the process."""
    admin = KafkaAdmin(KafkaConfig(bootstrap="127.0.0.1:9", call_s=0.1))
    for ask in (
        lambda: admin.topics(["t"]),
        admin.broker_settings,
        lambda: admin.allowed("t"),
        lambda: admin.beginning("t"),
    ):
        with pytest.raises(TransientError):
            ask()


def test_a_broker_that_stood_still_is_found_again(own_kafka: Broker, log: KafkaLog) -> None:
    """Every reader and producer of before goes on."""
    readers, producer = _clients(log.config)
    _stand_still(own_kafka)
    put(log, Draft(topic="away.inbox", value=b"after"))
    assert _hear(readers, b"after") == READERS
    producer.produce("away.inbox", b"again")
    assert producer.flush(HEARD_S) == 0
    assert _hear(readers, b"again") == READERS
    assert log.ends([Partition("away.inbox", 0)]) == {Partition("away.inbox", 0): 3}


def _clients(config: KafkaConfig) -> tuple[list[Consumer], Producer]:
    """Return readers that read, and a producer that has written."""
    readers = [Consumer({**config.consumer(), "group.id": f"reader-{n}"}) for n in range(READERS)]
    producer = Producer(config.producer())
    producer.produce("away.inbox", b"before")
    assert producer.flush(HEARD_S) == 0
    for reader in readers:
        reader.assign([TopicPartition("away.inbox", 0, 0)])
    assert _hear(readers, b"before") == READERS
    return readers, producer


def _stand_still(broker: Broker) -> None:
    running = broker.status()
    assert running is not None
    stop(running.pid)
    time.sleep(STOOD_S)
    os.kill(running.pid, signal.SIGCONT)


def _hear(readers: Sequence[Consumer], value: bytes) -> int:
    """Return how many readers get a value in time."""
    heard: set[int] = set()
    until_s = time.monotonic() + HEARD_S
    while len(heard) < len(readers) and time.monotonic() < until_s:
        for number, reader in enumerate(readers):
            message = reader.poll(0.02)
            if message is not None and message.error() is None and message.value() == value:
                heard.add(number)
    return len(heard)
