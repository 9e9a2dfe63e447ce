"""How long partitions stand still when their worker is killed: `python -m tests.chaos.recovery`.

A steady stream of tasks goes to an agent that answers at once; the log's own append times of its
outcomes, by the partition that is in each run's id, are the pulse of that partition. It stands still
while a run that came to its inbox waits, and nothing has an outcome: what comes late has its own reasons.
A first story is told before those that count: for a minute after its start a broker compiles itself with
a core or more.
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import itertools
import os
import pathlib
import signal
import statistics
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Sequence

from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from tests.chaos import pulse
from tests.chaos.fleet import Fleet, Seat
from tests.chaos.run import QUIET

from headwater.admission.placement import Placement
from headwater.contracts.topics import Names
from headwater.log.broker import Broker

A_SECOND = 180
"""Tasks published, to each partition in turn: one gets its next after 33 ms."""
PARTITIONS = 6
SETTLE_S = 4.0
SESSION_S = 6.0
OPEN_S = 5.0
"""By then whatever the dead left open was ended, and its session was not: transactions time out after 3 s,
and the broker looks each second."""
MOVED_S_MAX = SESSION_S + 2.0
PAUSE_S_MAX = 0.2
BACK_S_MORE = 1.0
BOUND_S = 60.0
AGENTS = ("agents-a", "agents-b")
PLACEMENT = Placement()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What one run measured, in seconds.

    Args:
        cold: From the start of the first worker to its first outcome.
        moved: From a worker's death to the last of its partitions going on elsewhere.
        held: Longest gap of outcomes of the other's partitions before the group knows: what the dead left
            open in the coordinator's inbox holds everything behind it, until its transaction times out.
        paused: How long theirs stood still at most, from then until a second after the last one went on.
        gap: Longest gap of outcomes there, whyever.
        usual: How long they stood still at most in as long a time before the death.
        usual_gap: Longest gap of outcomes there.
        back: From a worker's start after its death to the last of its partitions going on.
    """

    cold: float
    moved: float
    held: float
    paused: float
    gap: float
    usual: float
    usual_gap: float
    back: float


class Stream:
    """Publishes tasks at a steady pace, to each partition in turn, until it is closed.

    Args:
        bootstrap: The cluster.
        topic: Where.
    """

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = Producer({**QUIET, "bootstrap.servers": bootstrap, "linger.ms": 1})
        self._topic = topic
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="stream")
        self._thread.start()

    def close(self) -> None:
        """Stop."""
        self._stop.set()
        self._thread.join(10)
        self._producer.flush(10)

    def _run(self) -> None:
        encode = pulse.app.agents["pulse"].input.encode
        began_s = time.monotonic()
        for number in itertools.count():
            task_id = _named(number)
            headers = {"ce_id": task_id, "ce_source": "pulse", "ce_tenantid": "default"}
            self._producer.produce(self._topic, value=encode(number), headers=headers)
            self._producer.poll(0)
            if self._stop.wait(max(0.0, began_s + number / A_SECOND - time.monotonic())):
                return


class Pulse:
    """Reads what comes to an agent's inbox, and outcomes."""

    def __init__(self) -> None:
        self.beats: dict[int, list[tuple[int, bytes]]] = collections.defaultdict(list)
        """Append times of outcomes, and their runs, by the partition of the run."""
        self.came: dict[bytes, int] = {}
        """When a run came to its inbox."""
        self._stop = threading.Event()
        self._news = threading.Event()
        self._thread = threading.Thread(target=lambda: None)

    def begin(self, bootstrap: str, inbox: str, outcomes: str) -> None:
        """Read both topics, from their beginnings."""
        consumer = Consumer(
            {
                **QUIET,
                "bootstrap.servers": bootstrap,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "enable.auto.commit": False,
            }
        )
        topics = (inbox, outcomes)
        consumer.assign([TopicPartition(name, n, 0) for name in topics for n in range(PARTITIONS)])
        self._thread = threading.Thread(target=self._run, args=(consumer, inbox), name="pulse")
        self._thread.start()

    def wait(self) -> None:
        """Wait for the next beats, for a second at most."""
        self._news.clear()
        self._news.wait(1.0)

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(10)

    def _run(self, consumer: Consumer, inbox: str) -> None:
        while not self._stop.is_set():
            for message in consumer.consume(1_000, 0.1):
                if message.error() is not None:
                    continue
                run, at_ms = message.key(), message.timestamp()[1]
                if message.topic() == inbox:
                    self.came.setdefault(run, at_ms)
                else:
                    number = int(run.split(b".")[1])
                    self.beats[number].append((at_ms, run))
                    self._news.set()
        consumer.close()


class Story:
    """A coordinator, two workers of the agent, and a stream of tasks.

    Args:
        bootstrap: The cluster.
        directory: For what processes say.
    """

    def __init__(self, bootstrap: str, directory: pathlib.Path) -> None:
        self._bootstrap = bootstrap
        self.namespace = f"pulse-{uuid.uuid4().hex[:8]}"
        path = directory / self.namespace
        path.mkdir()
        settings = {
            "HEADWATER_APP": "tests.chaos.pulse:app",
            "HEADWATER_KAFKA__PARTITIONS": str(PARTITIONS),
            "HEADWATER_LOOPS__RUNS_OPEN_MAX": "1000000",
        }
        self.fleet = Fleet(bootstrap, self.namespace, path, settings)
        self._admin = AdminClient({**QUIET, "bootstrap.servers": bootstrap})
        self._pulse = Pulse()
        self._beats = self._pulse.beats

    def tell(self) -> Found:
        """Measure all of it, and end the fleet."""
        self.fleet.command("topics", "apply", "--yes")
        stream = None
        try:
            self.fleet.start(Seat(instance="coordinator", roles="coordinator"))
            names = Names(self.namespace)
            self._pulse.begin(self._bootstrap, names.inbox("pulse"), names.evt("pulse"))
            stream = Stream(self._bootstrap, names.cmd("pulse"))
            began = _now_ms()
            self.fleet.start(Seat(instance=AGENTS[0], roles="agents"))
            cold = self._first_after(began) - began
            self.fleet.start(Seat(instance=AGENTS[1], roles="agents"))
            victims, others = self._shared()
            self._settle()
            killed = _now_ms()
            self.fleet.end(AGENTS[0])
            moved = self._all_after(killed, victims)
            time.sleep(SETTLE_S)
            known, end = killed + round(OPEN_S * 1000), moved + 1_000
            held = self._gap(others, killed, known)
            paused, gap = self._stood(others, known, end), self._gap(others, known, end)
            before = killed - (end - known)
            usual, usual_gap = (
                self._stood(others, before, killed),
                self._gap(others, before, killed),
            )
            self.fleet.start(Seat(instance=AGENTS[0], roles="agents"))
            victims, _ = self._shared()
            self._settle()
            self.fleet.end(AGENTS[0])
            died = _now_ms()
            self.fleet.start(Seat(instance=AGENTS[0], roles="agents"))
            back = self._all_after(died, victims) - died
        finally:
            if stream is not None:
                stream.close()
            self._pulse.close()
            self.fleet.stop()
        ms = (cold, moved - killed, held, paused, gap, usual, usual_gap, back)
        return Found(**dict(zip(Found.__slots__, (one / 1000 for one in ms), strict=True)))

    def _settle(self) -> None:
        """Wait until every partition beats, and a while longer."""
        self._all_after(_now_ms(), {*range(PARTITIONS)})
        time.sleep(SETTLE_S)

    def _shared(self) -> tuple[set[int], set[int]]:
        """Return the partitions of both, once each has some."""
        group = f"{self.namespace}.runs.pulse"
        until = time.monotonic() + BOUND_S
        while True:
            found = self._admin.describe_consumer_groups([group])[group].result(10)
            owned = {
                member.group_instance_id: {p.partition for p in member.assignment.topic_partitions}
                for member in found.members
            }
            mine, theirs = (owned.get(name, set()) for name in AGENTS)
            if (
                mine
                and theirs
                and len(mine | theirs) == PARTITIONS
                and found.state.name == "STABLE"
            ):
                return mine, theirs
            assert time.monotonic() < until, f"the workers do not share: {owned}"
            time.sleep(0.1)

    def _first_after(self, at_ms: int) -> int:
        until = time.monotonic() + BOUND_S
        while True:
            times = [t for beats in self._beats.values() for t, _ in [*beats] if t > at_ms]
            if times:
                return min(times)
            assert time.monotonic() < until, "nothing is answered"
            self._pulse.wait()

    def _all_after(self, at_ms: int, numbers: set[int]) -> int:
        """Return when the last of some partitions went on after a time."""
        until = time.monotonic() + BOUND_S
        while True:
            # what its transaction had committed just before it died may be appended just after
            later = at_ms + 100
            first = [
                min((t for t, _ in [*self._beats[n]] if t > later), default=0) for n in numbers
            ]
            if all(first):
                return max(first)
            assert time.monotonic() < until, f"some of {numbers} do not go on"
            self._pulse.wait()

    def _stood(self, numbers: set[int], start_ms: int, end_ms: int) -> int:
        """Return how long at most one of some partitions had a run waiting, and no outcome."""
        longest = 0
        for number in numbers:
            idle_ms = start_ms
            for at_ms, run in sorted(self._beats[number]):
                if at_ms > start_ms:
                    since_ms = max(idle_ms, self._pulse.came[run])
                    longest = max(longest, min(at_ms, end_ms) - since_ms)
                    idle_ms = at_ms
        return longest

    def _gap(self, numbers: set[int], start_ms: int, end_ms: int) -> int:
        longest = 0
        for number in numbers:
            beats = sorted(t for t, _ in [*self._beats[number]] if start_ms < t < end_ms)
            times = [start_ms, *beats, end_ms]
            longest = max(longest, *(b - a for a, b in itertools.pairwise(times)))
        return longest


def _named(number: int) -> str:
    """Return an id of the task of a number whose place is the partition whose turn it is."""
    names = (f"p-{number}-{attempt}" for attempt in itertools.count())
    turn = number % PARTITIONS
    return next(name for name in names if PLACEMENT.place("default", name, PARTITIONS) == turn)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def main(arguments: Sequence[str]) -> int:
    """Measure some times, print, and say what misses its target."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.recovery", description=__doc__)
    parser.add_argument("--times", type=int, default=5)
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="headwater-recovery-") as directory:
        broker = Broker(pathlib.Path(directory) / "broker", docker=False)
        try:
            bootstrap = broker.start()
            found = []
            for _ in range(1 + given.times):
                found.append(Story(bootstrap, pathlib.Path(directory)).tell())
                said = "" if found[1:] else ", not counted: the broker has just started"
                sys.stdout.write(f"  {found[-1]}{said}\n")
                sys.stdout.flush()
            found = found[1:]
        finally:
            broker.kill()
    cold, moved, _, paused, gap, usual, usual_gap, back = (
        statistics.median(getattr(one, name) for one in found) for name in Found.__slots__
    )
    held = ", ".join(f"{one.held:.2f}" for one in found)
    load = os.getloadavg()[0]
    lines = [
        (moved <= MOVED_S_MAX, f"killed, moved and went on: {moved:.1f} s of {MOVED_S_MAX:g}"),
        (
            paused < PAUSE_S_MAX,
            f"others' pause: {paused:.3f} s of {PAUSE_S_MAX:g}, usual {usual:.3f}",
        ),
        (back <= cold + BACK_S_MORE, f"back under its name: {back:.1f} s, cold start {cold:.1f} s"),
    ]
    for good, words in lines:
        sys.stdout.write(f"recovery {'ok' if good else 'MISSED'}: {words}\n")
    sys.stdout.write(f"  their outcomes' longest gap then: {gap:.3f} s, usual {usual_gap:.3f}\n")
    sys.stdout.write(f"  before that, others' longest gap, by what the dead left open: {held} s\n")
    sys.stdout.write(f"  medians of {len(found)}; load {load:.1f} on {os.cpu_count()} cores\n")
    return 0 if all(good for good, _ in lines) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
