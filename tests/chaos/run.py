"""One run: a fleet works through some tasks while a fault meets it; then the book is read."""

from __future__ import annotations

import dataclasses
import pathlib
import random
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol

from confluent_kafka import Consumer, Producer, TopicPartition
from tests.chaos import app, child
from tests.chaos.book import AGENT, Reading
from tests.chaos.fleet import Fleet, Seat
from tests.chaos.world import World

from headwater.log.broker import Broker
from headwater.testing.invariants import Death

QUIET = {"reconnect.backoff.max.ms": 500, "error_cb": lambda _: None, "log_level": 0}
"""For clients of our own: a broker that is away is the fault, and comes back."""
TENANTS = 5
ACCOUNTS = 200
"""How many tasks are under way at once."""
TWICE_EACH = 7
"""One of so many tasks is published twice."""
TICK_S = 0.1
FENCED = "another process has joined"
REST_S_MAX = 240.0
STALLED_S_MAX, LOST_S_MAX = 240.0, 20.0
"""A run in which nothing ends for so long is over; without a protection, tasks are lost that never end."""
AGAIN_S = 10.0
"""When nothing was read for so long, it is read from the beginning."""


class StoppedError(Exception):
    """The matrix was told to stop."""


class Fault(Protocol):
    """What a run meets."""

    words: str
    replays: bool
    """Whether journals can be replayed with the agent as it is here."""
    pause_s: float
    """For how long nothing ends while it is met."""
    own_broker: bool
    """Whether it needs a broker that has nothing of other runs: a killed one looks all of it through."""
    open_max: int
    """How many tasks are published and have not ended."""

    def seats(self, run: Run) -> list[Seat]:
        """Return the fleet's processes."""
        ...

    def settings(self, run: Run) -> Mapping[str, str]:
        """Return what all processes are told."""
        ...

    def tend(self, run: Run, share: float) -> None:
        """Do what is due, now that so much of the tasks has ended."""
        ...

    def settled(self) -> bool:
        """Whether all of it has happened."""
        ...

    def end(self, run: Run) -> None:
        """Undo whatever is left of it."""
        ...

    def met(self, run: Run) -> int:
        """Return how often it happened."""
        ...

    def violations(self, run: Run) -> list[str]:
        """Return what does not hold beside the rules."""
        ...

    def close(self) -> None:
        """Let go of what it made on this machine, after all processes have ended."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of a run.

    Args:
        tasks: Tasks that were published, each counted once.
        records: Records that the roles consumed.
        met: How often the fault happened.
        violations: What does not hold, by rule.
        seconds: From the first task to the last outcome.
        words: Of the fault: what else it has to say.
        logs: What processes said, if something does not hold.
    """

    tasks: int
    records: int
    met: int
    violations: Mapping[str, list[str]]
    seconds: float
    words: str = ""
    logs: pathlib.Path | None = None


class Run:
    """A fleet, its tasks and its fault.

    Args:
        bootstrap: The cluster.
        fault: What the run meets.
        tasks: How many.
        seed: Decides where the fault comes.
        sabotage: The protection that is taken out; empty for none.
        say: Told of progress: tasks ended, of how many.
        broker: The cluster's broker, for faults that kill it.
    """

    def __init__(
        self,
        bootstrap: str,
        fault: Fault,
        *,
        tasks: int,
        seed: int,
        sabotage: str = "",
        say: Callable[[int, int], None] = lambda _done, _of: None,
        broker: Broker | None = None,
    ) -> None:
        self.broker, self.bootstrap = broker, bootstrap
        self.tasks, self.seed, self.sabotage = tasks, seed, sabotage
        self.dice = random.Random(f"{seed}")
        self.namespace = f"chaos-{uuid.uuid4().hex[:8]}"
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix=f"headwater-{self.namespace}-"))
        self.deaths: list[Death] = []
        """Whom the fault killed, froze or cut off, and when."""
        self._fault, self._say = fault, say
        self.world = World(self.directory / "world.tsv")
        told = {
            child.SEED: str(seed),
            child.KIND: sabotage,
            child.TASKS: str(tasks),
            **fault.settings(self),
        }
        self.fleet = Fleet(self.bootstrap, self.namespace, self.directory, told)
        self._asked: dict[str, app.Question] = {}
        self._ended: set[str] = set()

    def play(self) -> Verdict:
        """Play it, and read the book; clean up whatever happens."""
        kept = False
        try:
            self.fleet.command("topics", "apply", "--yes")
            tail = Tail(self.bootstrap, f"{self.namespace}.evt.{AGENT}.v1")
            for seat in self._fault.seats(self):
                self.fleet.start(seat)
            began = time.monotonic()
            try:
                self._work(tail)
            finally:
                tail.close()
                self._fault.end(self)
            seconds = time.monotonic() - began
            verdict = self._verdict(self._rest(), seconds)
            kept = bool(verdict.violations) and not self.sabotage
            if kept:
                self._keep_deaths()
            return verdict
        finally:
            self.fleet.stop()
            self._fault.close()
            self.world.close()
            if not kept:
                shutil.rmtree(self.directory, ignore_errors=True)

    def _work(self, tail: Tail) -> None:
        producer = Producer({**QUIET, "bootstrap.servers": self.bootstrap, "acks": "all"})
        progressed = time.monotonic()
        while len(self._ended) < self.tasks or not self._fault.settled():
            self._publish(producer)
            news = tail.news(TICK_S) - self._ended
            self._ended |= news
            self._fault.tend(self, len(self._ended) / self.tasks)
            self.fleet.revive()
            self._say(len(self._ended), self.tasks)
            now = time.monotonic()
            progressed = now if news else progressed
            pause_s = self._fault.pause_s
            patience_s = LOST_S_MAX + pause_s / 3 if self.sabotage else STALLED_S_MAX + pause_s
            if now - progressed > patience_s:
                break
        producer.flush(60)

    def _publish(self, producer: Producer) -> None:
        shape = app.app.agents[AGENT].input
        room = min(self.tasks, len(self._ended) + self._fault.open_max)
        for number in range(len(self._asked), room):
            question = app.Question(number=number, account=f"account-{number % ACCOUNTS}")
            event_id = f"q-{number}"
            self._asked[event_id] = question
            for _ in range(2 if number % TWICE_EACH == 0 else 1):
                producer.produce(
                    f"{self.namespace}.cmd.{AGENT}.v1",
                    key=event_id,
                    value=shape.encode(question),
                    headers={
                        "ce_id": event_id,
                        "ce_source": "chaos",
                        "ce_tenantid": f"tenant-{number % TENANTS}",
                    },
                )
        producer.poll(0)

    def died(self, who: str) -> None:
        """Take note that a process died, stood still or was cut off just now."""
        self.deaths.append(Death(who=who, at_ms=time.time_ns() // 1_000_000))

    def _keep_deaths(self) -> None:
        """Write down beside what processes said when who died, stood still or was started."""
        deaths = [*self.deaths, *self.fleet.deaths, *self._deaths_told()]
        lines = (f"{death.at_ms}\t{death.who}\n" for death in deaths)
        (self.directory / "deaths.tsv").write_text("".join(lines), encoding="utf-8")

    def _rest(self) -> Reading:
        """Return what was written once all is at rest, or time is over."""
        until = time.monotonic() + REST_S_MAX
        while True:
            self.fleet.revive()
            reading = Reading(
                self.bootstrap,
                self.namespace,
                self._asked,
                [*self.world.deeds()],
                [*self.deaths, *self.fleet.deaths, *self._deaths_told()],
                replays=self._fault.replays,
            )
            if self.sabotage or reading.at_rest() or time.monotonic() > until:
                return reading

    def _deaths_told(self) -> list[Death]:
        """Return what processes wrote down: that they die at a point, or start another."""
        return [
            Death(who=path.stem, at_ms=int(line))
            for pattern in ("*.deaths", "*.starts")
            for path in self.directory.glob(pattern)
            for line in path.read_text().splitlines()
        ]

    def _verdict(self, reading: Reading, seconds: float) -> Verdict:
        met = self._fault.met(self)
        wrong = reading.violations()
        if not met:
            wrong["the fault"] = ["it never happened, so the run shows nothing"]
        if more := self._fault.violations(self):
            wrong["the cell"] = more
        if odd := self._odd():
            wrong["processes"] = odd
        return Verdict(
            tasks=len(self._asked),
            records=reading.records,
            met=met,
            violations=wrong,
            seconds=seconds,
            words=self._words(),
            logs=self.directory if wrong else None,
        )

    def _words(self) -> str:
        fenced = self._fenced()
        said = f"{fenced} processes took themselves for fenced, and were started again"
        return "; ".join(filter(None, [self._fault.words, said if fenced else ""]))

    def _odd(self) -> list[str]:
        """Return the processes that ended by themselves, and had no reason to."""
        return [
            f"{instance} ended with {status}: {words}"
            for instance, status in self.fleet.ended
            if status >= 0 and FENCED not in (words := self._last_words(instance))
        ]

    def _fenced(self) -> int:
        """Return how many processes took themselves for fenced, and were started again.

        A cluster that dies between a static member's joining and its answer takes the member's
        second try for another process of its name.
        """
        return sum(
            status >= 0 and FENCED in self._last_words(instance)
            for instance, status in self.fleet.ended
        )

    def _last_words(self, instance: str) -> str:
        lines = (self.directory / f"{instance}.log").read_text(errors="replace").splitlines()
        said = [line for line in lines if line.startswith("headwater: ")]
        return " | ".join(said or lines[-2:])[:800]


class Tail:
    """Reads the outcomes of one topic as they are committed.

    Args:
        bootstrap: The cluster.
        topic: The topic.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._bootstrap, self._topic = bootstrap, topic
        self._consumer = self._begin()
        self._read_s = time.monotonic()

    def news(self, wait_s: float) -> set[str]:
        """Return the event ids of tasks that ended since, perhaps some of earlier."""
        found = set()
        first = self._consumer.poll(wait_s)
        for message in [first, *self._consumer.consume(5_000, 0)] if first is not None else ():
            if message.error() is None:
                headers: Iterable[tuple[str, bytes]] = message.headers() or ()
                found.add(dict(headers)["ce_correlationid"].decode())
        now_s = time.monotonic()
        if found:
            self._read_s = now_s
        elif now_s - self._read_s > AGAIN_S:
            # A broker that lost its last records with its power has the client go to the end.
            self._consumer.close()
            self._consumer, self._read_s = self._begin(), now_s
        return found

    def close(self) -> None:
        """Stop reading."""
        self._consumer.close()

    def _begin(self) -> Consumer:
        consumer = Consumer(
            {
                **QUIET,
                "bootstrap.servers": self._bootstrap,
                "group.id": f"chaos-{uuid.uuid4().hex}",
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
            }
        )
        numbers = consumer.list_topics(self._topic, timeout=120).topics[self._topic].partitions
        consumer.assign([TopicPartition(self._topic, number, 0) for number in numbers])
        return consumer
