"""The end of a transaction is the one request whose loss nobody can see: did it commit or not?

An owner that does not know lets go of its producer and begins again from the log. The control
keeps the producer and calls commit again, as the client's documentation allows.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import random
import uuid
from collections.abc import Callable, Iterator
from unittest import mock

import pytest
from confluent_kafka import IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import OffsetSpec
from tests.integration.proxy import Fault, Proxy

from headwater.contracts.records import Draft, Partition
from headwater.log import kafka_transactor
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_watch import Watchdog
from headwater.log.port import Claim, Work
from headwater.testing.conformance_world import put, read_all, until, values

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("end-of-transaction")]

RESEND_TRIES = 8
RESEND_MS, PATIENCE_S = 2_000, 8.0
"""After how long the client sends a request again by itself; it looks each second."""
TRIES = int(os.environ.get("HEADWATER_END_OF_TRANSACTION_TRIES", "24"))
"""How many transactions; 1,000 for the figure in the documentation."""
MORE_TRIES = 10
"""So many times as many until enough ends met a fault, or a control has torn one: about one in seven does."""
CALL_S = 0.6
ANSWER_S = 60.0
POLLS_MAX = 600
_QUICK, _FLUSHED = kafka_transactor._FEW, 0
"""Up to how many records the end writes: the product's own, and none."""
FAULTS = (Fault.SWALLOW_REPLY, Fault.DELAY_REPLY, Fault.HOLD_REQUEST)


class Meddled(KafkaOwner):
    """An owner whose next commit meets what an earlier end of a transaction left behind.

    `proxy` and `peek` are set by the test.
    """

    proxy: Proxy
    peek: Callable[[], bool]
    torn = 0

    def _end(self, producer: Producer) -> None:
        if self.proxy.holds:
            producer.flush(ANSWER_S)  # there is something of it to see
            assert self.proxy.release(ANSWER_S), "the broker answers a late request"
            self.torn += self.peek()
        self._end_now(producer)

    def _end_now(self, producer: Producer) -> None:
        super()._end(producer)


class Stubborn(Meddled):
    """The control: it keeps the producer and calls commit again until that says something."""

    def _once(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _end_now(self, producer: Producer) -> None:
        for _ in range(20):
            try:
                producer.commit_transaction(CALL_S)
            except KafkaException as failure:
                if not failure.args[0].retriable():
                    raise
            else:
                return


class Patient(Meddled):
    """The control: it waits for longer than the client does before it sends the end again by itself."""

    def _once(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def _end_now(self, producer: Producer) -> None:
        producer.commit_transaction(PATIENCE_S)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of the tasks.

    Args:
        lost: Outputs that are nowhere.
        doubled: Outputs that are there more than once.
        torn: Transactions that readers saw a part of.
        unknown: Commits whose outcome the owner did not learn.
        quick: Ends that met a fault, of transactions whose records the end writes.
        flushed: Such ends of transactions whose records were written before.
        tries: Transactions.
    """

    lost: int
    doubled: int
    torn: int
    unknown: int
    quick: int
    flushed: int
    tries: int

    def __str__(self) -> str:
        return (
            f"{self.quick} quick and {self.flushed} flushed ends of {self.tries} transactions met a fault: "
            f"{self.lost} outputs lost, {self.doubled} doubled, {self.torn} transactions torn, "
            f"{self.unknown} outcomes unknown"
        )


class Bench:
    """One inbox of tasks; each leads to an output in both of two topics.

    Args:
        bootstrap: The cluster.
        kind: The owner.
        tries: How many transactions.
        resends: Whether the owner has more patience than its client.
    """

    def __init__(
        self, bootstrap: str, kind: type[Meddled], *, tries: int, resends: bool = False
    ) -> None:
        self.tries = tries
        self.faults = (Fault.HOLD_REQUEST,) if resends else FAULTS
        name = f"end-{uuid.uuid4().hex[:8]}"
        self.inbox, self.left, self.right = f"{name}.inbox", f"{name}.left", f"{name}.right"
        self.group = f"{name}.group"
        self.direct = KafkaLog(KafkaConfig(bootstrap=bootstrap))
        admin = KafkaAdmin(self.direct.config)
        for topic in (self.inbox, self.left, self.right):
            admin.create(
                topic,
                partitions=1,
                replication=1,
                config={"message.timestamp.type": "LogAppendTime"},
            )
        admin.begin_group(self.group, {self.inbox: 1})
        self.proxy = Proxy(bootstrap, delay_s=CALL_S * 2)
        # A request that gets no answer is sent again while its transaction still lives.
        config = KafkaConfig(
            bootstrap=self.proxy.bootstrap,
            call_s=PATIENCE_S if resends else CALL_S,
            transaction_ms=20_000,
            extra={"socket.timeout.ms": str(RESEND_MS) if resends else "500"},
        )
        self.owner = kind(
            config,
            [self.inbox],
            group=self.group,
            instance="a",
            first=self.direct.committed,
            unowned=self.direct._unowned([self.inbox], self.group),
        )
        self.owner.proxy = self.proxy
        self.owner.peek = self.peek
        self._writing = b""

    def peek(self) -> bool:
        """Return whether a reader sees the output of the transaction that is still open."""
        seen = read_committed(self.direct, self.left)
        return self._writing in seen

    def run(self, seed: int, *, tears: bool = False) -> Outcome:
        """Take one task a transaction, the end of every other one meeting a fault.

        Of those one is quick, as of a transaction of few records, and the next not, as of many.

        Args:
            seed: Of which ends meet which faults.
            tears: Go on until one was torn, and otherwise until enough of either kind met a fault, for
                `MORE_TRIES` at most.
        """
        tries_max = self.tries * MORE_TRIES
        put(self.direct, *(Draft(topic=self.inbox, value=b"%d" % n) for n in range(tries_max)))
        dice = random.Random(seed)
        unknown, done = 0, 0
        met = {_QUICK: 0, _FLUSHED: 0}
        few = _FLUSHED
        for _ in range(POLLS_MAX * tries_max):
            poll = self.owner.poll(records_max=1, wait_ms=100)
            for claim in poll.gained:
                done, _ = self.direct.committed(self.group, claim.partition)
                self.owner.resume({claim: done})
            for claim, record in poll.records:
                self._writing = record.value or b""
                if not self.proxy.holds and dice.random() < 0.5:
                    self.proxy.arm(dice.choice(self.faults))
                    few = _FLUSHED if few == _QUICK else _QUICK
                before = self.proxy.met
                with mock.patch.object(kafka_transactor, "_FEW", few):
                    held = self.owner.commit([self.work(claim, record.offset)])
                met[few] += self.proxy.met - before
                unknown += not held
                done = record.offset + 1 if held else done
            enough = self.owner.torn if tears else min(met.values()) > self.tries // 8
            if done >= (self.tries if enough else tries_max):
                break
        self.proxy.release(ANSWER_S)
        counts = [
            collections.Counter(values(read_all(self.direct, Partition(topic, 0))))
            for topic in (self.left, self.right)
        ]
        expected = [b"%d" % n for n in range(max(done, self.tries))]
        return Outcome(
            lost=sum(count[value] == 0 for count in counts for value in expected),
            doubled=sum(count[value] > 1 for count in counts for value in expected),
            torn=self.owner.torn,
            unknown=unknown,
            quick=met[_QUICK],
            flushed=met[_FLUSHED],
            tries=done,
        )

    def work(self, claim: Claim, offset: int) -> Work:
        """Return one task's work: its value to both topics."""
        drafts = [Draft(topic=topic, value=self._writing) for topic in (self.left, self.right)]
        return Work(claim=claim, next_offset=offset + 1, drafts=drafts)

    def close(self) -> None:
        self.owner.close()
        self.proxy.close()
        self.direct.close()


def read_committed(log: KafkaLog, topic: str) -> list[bytes | None]:
    """Return what readers see now; a transaction that is open hides itself and what follows."""
    place = Partition(topic, 0)
    (stable,) = log._admin.list_offsets(
        {TopicPartition(topic, 0): OffsetSpec.latest()},
        isolation_level=IsolationLevel.READ_COMMITTED,
    ).values()
    end = stable.result(ANSWER_S).offset
    reader = log.read({place: 0})
    seen: list[bytes | None] = []

    def ended() -> bool:
        seen.extend(record.value for record in reader.poll(records_max=10_000, wait_ms=150))
        return reader.next_offset(place) >= end

    until(ended, "what is settled")
    reader.close()
    return seen


@pytest.fixture
def bench(kafka: str, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(kafka, **request.param)
    yield bench
    bench.close()


@pytest.mark.timeout(600 + TRIES * MORE_TRIES * 6)
@pytest.mark.parametrize("bench", [{"kind": Meddled, "tries": TRIES}], indirect=True)
def test_a_lost_end_of_a_transaction_tears_and_doubles_nothing(
    bench: Bench, say: Callable[[str], None]
) -> None:
    """Whatever becomes of the end, every task's outputs are there once, in both topics."""
    outcome = bench.run(seed=1)
    say(str(outcome))
    assert (outcome.lost, outcome.doubled, outcome.torn) == (0, 0, 0)
    assert min(outcome.quick, outcome.flushed) > TRIES // 8
    assert bench.direct.committed(bench.group, Partition(bench.inbox, 0))[0] == outcome.tries


@pytest.mark.timeout(600 + TRIES * MORE_TRIES * 6)
@pytest.mark.parametrize(
    "bench",
    [
        pytest.param(
            {"kind": Stubborn, "tries": TRIES},
            id="an owner that commits again on the same producer",
        ),
        pytest.param(
            {"kind": Patient, "tries": RESEND_TRIES, "resends": True},
            id="a client that sends the end again by itself",
        ),
    ],
    indirect=True,
)
def test_control_an_end_that_is_sent_twice_tears(
    bench: Bench, say: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A late end of one transaction ends the next one, half written."""
    monkeypatch.setattr(kafka_transactor, "WATCHDOG", Watchdog(tick_s=60))  # it waits for long
    outcome = bench.run(seed=1, tears=True)
    say(f"control: {outcome}")
    assert outcome.torn


@pytest.mark.parametrize(
    "bench", [{"kind": Meddled, "tries": RESEND_TRIES, "resends": True}], indirect=True
)
def test_the_client_ends_no_transaction_twice_by_itself(
    bench: Bench, say: Callable[[str], None]
) -> None:
    """However long an owner waits for answers, the end is waited for less long than the client does."""
    outcome = bench.run(seed=1)
    say(str(outcome))
    assert (outcome.lost, outcome.doubled, outcome.torn) == (0, 0, 0)
    assert outcome.quick
    assert outcome.flushed
