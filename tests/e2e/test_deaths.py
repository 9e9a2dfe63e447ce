"""Real questions, a real Kafka, real deaths: each task has its one outcome, whatever dies between."""

from __future__ import annotations

import itertools
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator

import fastavro
import pytest
from tests.e2e import app as e2e
from tests.e2e import plain, questions
from tests.e2e.checks import Book
from tests.e2e.fleet import ROLES, Fleet
from tests.starting import started

from headwater.contracts.derive import shape_of
from headwater.contracts.messages import Ask
from headwater.log.broker import Broker

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.xdist_group("e2e"),
    pytest.mark.timeout(3_600),
]

TENANTS = 5
FROZEN_S = 9.0
"""Longer than the fleet's session."""
BOUND_S = 1_200.0
MOVES, MUCH, MOVE_S = 5, 600, 150.0
"""Partitions move while one process has so many tasks, which take it longer than another takes to start.

So long is a move watched, its start included.
"""
CONTROL_S = 400.0
"""How long a control waits for what must go wrong; a slow machine needs much of it."""


def expected(asked: dict[str, str]) -> dict[str, dict[str, object]]:
    """Return each question's answer as plain functions give it."""
    found = {}
    for event_id, text in asked.items():
        words = len(text.split())
        found[event_id] = {
            "text": text,
            "words": words,
            "digest": e2e.hashlib.blake2b(text.encode(), digest_size=8).hexdigest(),
            "topic": e2e._model(text),
            "score": 10 * words,
        }
    return found


def schemas() -> dict[str, object]:
    """Return the schemas that the fleet writes with, by fingerprint."""
    shapes = [*e2e.app.shapes().values(), shape_of(Ask)]
    return {shape.fingerprint.hex(): fastavro.parse_schema(shape.schema) for shape in shapes}


class Story:
    """One run of the fleet over some questions, with faults."""

    def __init__(self, broker: Broker, path: pathlib.Path, sabotage: str = "") -> None:
        self.broker = broker
        self.bootstrap = broker.status().bootstrap
        self.namespace = f"e2e-{uuid.uuid4().hex[:8]}"
        self.fleet = Fleet(self.bootstrap, self.namespace, path, sabotage)
        self.asked: dict[str, str] = {}
        self._frozen: dict[str, float] = {}

    def begin(self, *, without: str = "") -> None:
        self.fleet.command("topics", "apply", "--yes")
        for instance in ROLES:
            if instance != without:
                self.fleet.start(instance)

    def outcomes(self, at_least: int, bound_s: float = CONTROL_S) -> int:
        """Wait for so many outcomes."""
        until = time.monotonic() + bound_s
        while True:
            found = len(plain.read(self.bootstrap, [f"{self.namespace}.evt.desk.v1"]))
            if found >= at_least or time.monotonic() > until:
                return found

    def died(self, instance: str, bound_s: float = CONTROL_S) -> bool:
        """Wait until a sabotaged process has ended itself."""
        until = time.monotonic() + bound_s
        mark = self.fleet.logs / f"{instance}.died"
        while not mark.exists() and time.monotonic() < until:
            self.tend()
            time.sleep(0.2)
        return mark.exists()

    def violated(self, *endings: str, bound_s: float = CONTROL_S) -> bool:
        """Wait until a violation shows that ends so."""
        until = time.monotonic() + bound_s
        while time.monotonic() < until:
            if any(words.endswith(endings) for words in self.violations(5)):
                return True
        return False

    def violations(self, bound_s: float) -> list[str]:
        """Finish, and return what does not hold."""
        return self.finish(bound_s).violations(expected(self.asked))

    def publish(self, texts: list[str]) -> None:
        begun = len(self.asked)
        pairs = [(f"q-{begun + n}", text) for n, text in enumerate(texts)]
        self.asked |= dict(pairs)
        plain.publish(self.bootstrap, f"{self.namespace}.cmd.desk.v1", pairs, TENANTS)

    def kill(self, instance: str) -> None:
        self.fleet.kill(instance)
        self.fleet.start(instance)

    def freeze(self, instance: str) -> None:
        """Stop one past its session; a second process does not take its name, others its work."""
        self.fleet.freeze(instance)
        self._frozen[instance] = time.monotonic() + FROZEN_S

    def kill_broker(self) -> None:
        self.broker.kill()
        assert started(self.broker) == self.bootstrap

    def tend(self) -> None:
        """Thaw what was frozen long enough, and start again whatever ended by itself."""
        for instance, until in [*self._frozen.items()]:
            if time.monotonic() >= until:
                self.fleet.thaw(instance)
                del self._frozen[instance]
        self.fleet.revive()

    def finish(self, bound_s: float = BOUND_S) -> Book:
        """Wait until every question has an outcome and every slot is closed, or time is over."""
        until = time.monotonic() + bound_s
        wanted = len(self.asked)
        while time.monotonic() < until:
            self.tend()
            records = plain.read(self.bootstrap, [f"{self.namespace}.evt.runs.v1"])
            ended = {
                record["key"]
                for record in records
                if record["key"].startswith("desk.") and b"completed" in record["value"]
            }
            if len(ended) >= wanted and not self._frozen:
                break
        slots_until = time.monotonic() + bound_s
        while True:
            book = Book(self.bootstrap, self.namespace, schemas())
            if not book._of_slots(wanted) or time.monotonic() > slots_until:
                return book


@pytest.fixture
def story(own_kafka: Broker, tmp_path: pathlib.Path) -> Iterator[Callable[..., Story]]:
    made: list[Story] = []

    def make(sabotage: str = "") -> Story:
        made.append(Story(own_kafka, tmp_path, sabotage))
        return made[-1]

    yield make
    for one in made:
        one.fleet.stop()


def test_every_task_has_one_outcome_through_twelve_deaths(story, say):
    """3,080 questions, some twice; roles and broker killed, one frozen; nothing lost or doubled."""
    texts = questions.load()
    one = story()
    one.begin()
    faults: list[tuple[str, Callable[[], None]]] = [
        *((f"kill {name}", lambda name=name: one.kill(name)) for name in ROLES),
        ("freeze agents-1", lambda: one.freeze("agents-1")),
        ("kill coordinator-1", lambda: one.kill("coordinator-1")),
        ("kill the broker", one.kill_broker),
        ("kill agents-2", lambda: one.kill("agents-2")),
        ("kill tools-2", lambda: one.kill("tools-2")),
    ]
    share = -(-len(texts) // (len(faults) + 1))
    began = time.monotonic()
    for number, (_, fault) in enumerate(faults):
        one.publish(texts[number * share : (number + 1) * share])
        plain.read(one.bootstrap, [f"{one.namespace}.evt.runs.v1"])
        fault()
        one.tend()
    one.publish(texts[len(faults) * share :])
    book = one.finish()
    violations = book.violations(expected(one.asked))
    say(
        f"{len(one.asked)} tasks, {len(faults)} faults, {len(book.outcomes)} outcomes, "
        f"{len(book.requests)} requests, {time.monotonic() - began:.0f} s, "
        f"{len(violations)} violations"
    )
    assert violations == []
    assert book.refused == []


def test_control_without_dedupe_a_task_runs_twice(story):
    """Control: what is published twice has two outcomes."""
    one = story("no_dedupe")
    one.begin()
    one.publish(questions.load()[:70])
    one.outcomes(80)
    assert one.violated("has 2 outcomes")


def test_control_with_offsets_outside_the_transaction_tasks_are_lost(story):
    """Control: a death between the offset and what it stands for loses a task."""
    one = story("offsets_outside")
    one.begin()
    one.publish(questions.load()[:70])
    assert one.died("coordinator-1")
    violations = one.violations(25)
    assert any("has 0 outcomes" in words for words in violations), violations[:5]


def test_control_without_claim_checks_a_partition_that_moved_has_two_owners(story):
    """Control: the broker takes a live member's commits of partitions that it lost."""
    one = story("no_claim_check")
    one.begin(without="agents-2")
    texts = [*itertools.islice(itertools.cycle(questions.load()), MUCH)]
    for number in range(MOVES):
        one.publish(texts)
        one.outcomes(number * MUCH + 1)
        one.fleet.start("agents-2")
        if one.violated("has 2 outcomes", "was sent 2 times", bound_s=MOVE_S):
            return
        one.fleet.kill("agents-2")  # it met nothing under way
    pytest.fail(f"nothing happened twice in {MOVES} moves")
