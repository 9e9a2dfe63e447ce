"""Workers killed in the middle of their calls: every task ends, and nothing noted is bought again.

`make test` runs a small story; `make kill-test` 100 tasks each in calls of ten seconds, killed after
eight.
"""

from __future__ import annotations

import os
import pathlib
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import Producer
from tests.e2e import plain
from tests.e2e.fleet import Fleet
from tests.kill import app as subject
from tests.kill.provider import Provider

from headwater.contracts.approvals import Petition
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask, InDoubt, Intent, Reply, Result

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.xdist_group("kill"),
    pytest.mark.timeout(3_600),
]

FULL = bool(os.environ.get("KILL_FULL"))
TASKS = 100 if FULL else 12
"""For the model, and as many for the tool."""
TAKES_S = 10.0 if FULL else 0.5
KILLED_S = 8.0 if FULL else 0.0
"""How long the calls have been under way when their processes are killed."""
BOUND_S = 1_200.0
VICTIMS = ("models-1", "tools-1")
CODEC = Codec(Schemas())
IDS = {f"q-{number}" for number in range(TASKS)}

full = pytest.mark.skipif(not FULL, reason="make kill-test runs it")


class Story:
    """A coordinator, a worker of agents, and the two workers that are killed.

    Args:
        bootstrap: The cluster.
        path: For what the processes say.
        prompt: How many calls of each kind are answered before the kill.
        near: How many are answered just then.
        sabotage: Which protection is taken out.
    """

    def __init__(
        self, bootstrap: str, path: pathlib.Path, *, prompt: int, near: int, sabotage: str
    ) -> None:
        self.provider = Provider(TAKES_S, prompt=prompt, near=near, first=TASKS)
        self.namespace = f"kill-{uuid.uuid4().hex[:8]}"
        self._prompt, self._near = prompt, near
        self._bootstrap = bootstrap
        self.fleet = Fleet(
            bootstrap,
            self.namespace,
            path,
            sabotage,
            {
                "HEADWATER_APP": "tests.kill.app:app",
                "HEADWATER_LOOPS__LEASE_S": "3",
                # Who stands still for a moment loses nothing: a model is asked again for deaths alone.
                "HEADWATER_KAFKA__SESSION_MS": "60000",
                "HEADWATER_KAFKA__PARTITIONS": "2",
                subject.URL: self.provider.url,
            },
        )

    def tell(self) -> None:
        """Start the fleet, have every call under way, kill both workers in it, start them again."""
        self.fleet.command("topics", "apply", "--yes")
        for instance in ("coordinator-1", "agents-1", *VICTIMS):
            self.fleet.start(instance)
        self._publish()
        provider = self.provider
        provider.wait(lambda: len(provider.asked) >= 2 * TASKS, BOUND_S)
        self.until(lambda: all(len(self.noted(of)) >= self._prompt for of in SOURCES))
        time.sleep(KILLED_S)  # the moment of the fault, no wait for a state
        provider.arrive.set()
        provider.wait(lambda: len(provider.answered) >= 2 * (self._prompt + self._near), BOUND_S)
        for victim in VICTIMS:
            self.fleet.kill(victim)
        provider.dead.set()
        for victim in VICTIMS:
            self.fleet.start(victim)
        self.until(lambda: len(self.outcomes("asker")) >= TASKS and self._paid_or_doubted())

    def _publish(self) -> None:
        producer = Producer({"bootstrap.servers": self._bootstrap, "acks": "all"})
        for agent in ("asker", "payer"):
            encode = subject.app.agents[agent].input.encode
            for event in sorted(IDS):
                producer.produce(
                    f"{self.namespace}.cmd.{agent}.v1",
                    value=encode(f"{agent} {event}"),
                    headers={"ce_id": event, "ce_source": "kill", "ce_tenantid": "default"},
                )
        assert producer.flush(plain.BOUND_S) == 0

    def read(self, name: str) -> list[dict[str, Any]]:
        """Return every record of a topic."""
        return plain.read(self._bootstrap, [f"{self.namespace}.{name}.v1"])

    def until(self, condition: Callable[[], bool], bound_s: float = BOUND_S) -> None:
        """Wait for what the log will say."""
        until = time.monotonic() + bound_s
        while not condition():
            assert time.monotonic() < until, f"not within {bound_s:g} s: {self._said()}"

    def outcomes(self, agent: str) -> dict[str, str]:
        """Return each task's outcome, or how it failed."""
        shape = subject.app.agents[agent].output
        found: dict[str, str] = {}
        for record in self.read(f"evt.{agent}"):
            task, kind = record["headers"]["ce_correlationid"], record["headers"]["ce_type"]
            assert task not in found, f"{task} has two outcomes"
            ended = kind.endswith(".completed")
            found[task] = shape.decode(record["value"], subject.app.schemas) if ended else kind
        return found

    def doubts(self) -> set[str]:
        """Return the payments that are in doubt."""
        found = set()
        for record in self.read("inbox.payer"):
            message = CODEC.decode(record["value"])
            if isinstance(message, Reply) and isinstance(message.outcome, InDoubt):
                found.add(record["headers"]["ce_correlationid"])
        return found

    def waiting(self) -> set[str]:
        """Return the payments that a person is asked about, because nobody knows of them."""
        found = set()
        for record in self.read("inbox.approvals"):
            message = CODEC.decode(record["value"])
            if isinstance(message, Petition) and message.about == "doubt":
                found.add(record["headers"]["ce_correlationid"])
        return found

    def noted(self, source: str) -> dict[str, int]:
        """Return the tasks whose answer was noted, and when the log took the first of them."""
        asked = {}
        for record in self.read(f"req.{source}"):
            ask = CODEC.decode(record["value"])
            assert isinstance(ask, Ask)
            asked[ask.run, ask.number] = record["headers"]["ce_correlationid"]
        found: dict[str, int] = {}
        for record in self.read(f"receipt.{source}"):
            receipt = CODEC.decode(record["value"])
            assert isinstance(receipt, (Intent, Result))
            if isinstance(receipt, Result):
                task = asked[receipt.reply.run, receipt.reply.number]
                found.setdefault(task, record["time_ms"])
        return found

    def times(self, agent: str) -> dict[str, list[int]]:
        """Return when the provider was asked for each task."""
        found: dict[str, list[int]] = {}
        for what, at_ms in self.provider.asked:
            who, _, task = what.partition(" ")
            if who == agent:
                found.setdefault(task, []).append(at_ms)
        return found

    def bought_again(self) -> list[str]:
        """Return what was asked of the model after its answer was in the log."""
        noted = self.noted("model")
        asked = self.times("asker")
        return [task for task, at in noted.items() if any(ms > at for ms in asked[task])]

    def end(self) -> None:
        """Stop everything."""
        self.fleet.stop()
        self.provider.close()

    def _paid_or_doubted(self) -> bool:
        paid = {t for t, outcome in self.outcomes("payer").items() if outcome.startswith("paid")}
        return paid | self.waiting() >= IDS

    def _said(self) -> str:
        paths = [self.fleet.logs / f"{name}.log" for name in VICTIMS]
        return "\n".join(path.read_text()[-2_000:] for path in paths if path.exists())


SOURCES = ("model", "tool.bank")


@pytest.fixture
def story(kafka: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Story]]:
    made: list[Story] = []

    def make(*, prompt: int, near: int, sabotage: str = "") -> Story:
        made.append(Story(kafka, tmp_path, prompt=prompt, near=near, sabotage=sabotage))
        made[-1].tell()
        return made[-1]

    yield make
    for one in made:
        one.end()


def _verdict(one: Story, say: Callable[[str], None]) -> None:
    """Check what must hold wherever the workers were killed."""
    answers, asked, paid = one.outcomes("asker"), one.times("asker"), one.times("payer")
    doubts, noted, again = one.doubts(), set(one.noted("tool.bank")), one.bought_again()
    say(
        f"models: {len(answers)} of {TASKS} outcomes, {sum(map(len, asked.values()))} calls, "
        f"{len(again)} for an answer that was noted"
    )
    say(
        f"irreversible: {sum(map(len, paid.values()))} payments of {TASKS}, {len(noted)} noted, "
        f"{len(doubts)} in doubt, {len(one.waiting())} waiting for a person"
    )
    assert answers == {task: f"answer to asker {task}" for task in IDS}
    assert again == []
    assert max(map(len, asked.values())) <= 2
    assert set(paid) == IDS
    assert {len(at) for at in paid.values()} == {1}
    assert doubts | noted == IDS
    assert one.waiting() == doubts
    assert not doubts & noted


def test_what_was_noted_is_never_bought_again_and_nothing_irreversible_repeated(story, say) -> None:
    """Killed as answers arrive: some noted, some just arriving, some in the middle.

    Nothing is marked in this story, so that every call comes again and receipts alone decide.
    """
    third = TASKS // 3
    one = story(prompt=third, near=third, sabotage="no_marks")
    _verdict(one, say)
    once = [task for task, at in one.times("asker").items() if len(at) == 1]
    assert third <= len(once) <= 2 * third


@full
@pytest.mark.parametrize(("prompt", "near"), [(0, 0), (0, TASKS), (TASKS // 3, TASKS // 3)])
def test_every_task_has_its_outcome_wherever_the_workers_are_killed(
    story, say, prompt: int, near: int
) -> None:
    """In the middle of all calls; right as all answers arrive; in between."""
    one = story(prompt=prompt, near=near)
    _verdict(one, say)
    if not near:
        assert {len(at) for at in one.times("asker").values()} == {2}
        assert len(one.doubts()) == TASKS


@full
def test_control_without_receipts_answers_are_bought_again(story) -> None:
    """Control: who does not look at receipts asks, and pays, for what was answered already."""
    one = story(prompt=TASKS // 3, near=TASKS // 3, sabotage="no_receipts")
    assert len(one.bought_again()) >= TASKS // 3
    assert max(len(at) for at in one.times("payer").values()) > 1
