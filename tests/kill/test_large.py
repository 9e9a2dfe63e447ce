"""Large values on a real Kafka: processes die between store and log, and nothing is lost or doubled."""

from __future__ import annotations

import collections
import json
import pathlib
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer
from tests.e2e import plain
from tests.e2e.fleet import Fleet
from tests.kill import large as subject

from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Answered, Ask, BlobRef, Reply

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.xdist_group("kill"),
    pytest.mark.timeout(3_600),
]

TASKS = 6
BOUND_S = 1_200.0
CODEC = Codec(Schemas())
INSTANCES = ("coordinator-1", "agents-1", "tools-1")


class Story:
    """A fleet with a store in a directory, and tasks whose values do not fit a record."""

    def __init__(self, bootstrap: str, path: pathlib.Path, sabotage: str) -> None:
        self.namespace = f"large-{uuid.uuid4().hex[:8]}"
        self.path = path
        self._bootstrap = bootstrap
        self.fleet = Fleet(
            bootstrap,
            self.namespace,
            path,
            sabotage,
            {
                "HEADWATER_APP": "tests.kill.large:app",
                "HEADWATER_BLOBS__URL": f"file://{path}/blobs",
                "HEADWATER_KAFKA__PARTITIONS": "2",
            },
        )

    def tell(self) -> dict[str, list[str]]:
        """Publish, have whatever dies started again, and return each task's outcomes."""
        self.fleet.command("topics", "apply", "--yes")
        for instance in INSTANCES:
            self.fleet.start(instance)
        producer = Producer({"bootstrap.servers": self._bootstrap, "acks": "all"})
        for number in range(TASKS):
            producer.produce(
                f"{self.namespace}.cmd.copy.v1",
                value=subject.app.agents["copy"].input.encode(number),
                headers={"ce_id": str(number), "ce_source": "large", "ce_tenantid": "default"},
            )
        assert producer.flush(plain.BOUND_S) == 0
        until = time.monotonic() + BOUND_S
        while len(found := self.outcomes()) < TASKS:
            assert time.monotonic() < until, f"{found} after {BOUND_S:g} s: {self._said()}"
            self.fleet.revive()
        return found

    def read(self, name: str) -> list[dict[str, object]]:
        """Return every record of a topic."""
        return plain.read(self._bootstrap, [f"{self.namespace}.{name}.v1"])

    def outcomes(self) -> dict[str, list[str]]:
        """Return each task's outcomes."""
        shape = subject.app.agents["copy"].output
        found: dict[str, list[str]] = collections.defaultdict(list)
        for record in self.read("evt.copy"):
            headers, value = record["headers"], record["value"]
            completed = headers["ce_type"].endswith(".completed")
            text = shape.decode(value, subject.app.schemas) if completed else "failed"
            found[headers["ce_correlationid"]].append(text)
        return found

    def _said(self) -> str:
        logs = [self.path / f"{instance}.log" for instance in INSTANCES]
        return "\n".join(log.read_text()[-2_000:] for log in logs)


@pytest.fixture
def story(kafka: str, tmp_path: pathlib.Path, request: pytest.FixtureRequest) -> Iterator[Story]:
    told = Story(kafka, tmp_path, request.param)
    yield told
    told.fleet.stop()


@pytest.mark.parametrize("story", ["dies_after_put"], indirect=True)
def test_deaths_between_store_and_log_lose_and_double_nothing(story: Story) -> None:
    """Whoever dies with a value stored and nobody told does it again: the same value, one blob."""
    found = story.tell()
    size = subject.KIB * 1024
    assert found == {str(number): [f"{number:08d} {size}"] for number in range(TASKS)}
    died = {mark.name for mark in story.path.glob("*.died")}
    assert died == {"agents-1.died", "tools-1.died"}
    asks = [CODEC.decode(record["value"]) for record in story.read("req.tool.tools")]
    numbered = collections.Counter((ask.run, ask.number) for ask in asks if isinstance(ask, Ask))
    assert set(numbered.values()) == {1}
    assert len(numbered) == 2 * TASKS
    assert sum(isinstance(ask.arguments, BlobRef) for ask in asks) == TASKS
    replies = [CODEC.decode(record["value"]) for record in story.read("inbox.copy")]
    answers = [
        reply.outcome.value
        for reply in replies
        if isinstance(reply, Reply) and isinstance(reply.outcome, Answered)
    ]
    refs = {value.name for value in answers if isinstance(value, BlobRef)}
    assert len(refs) == TASKS
    kept = json.loads(story.fleet.command("blobs", "list", "--output", "json"))
    assert len(kept) == 2 * TASKS
    assert refs <= {blob["name"] for blob in kept}
    told = json.loads(story.fleet.command("blobs", "collect", "--yes", "--output", "json"))
    assert (told["blobs"], told["referenced"]) == (2 * TASKS, 2 * TASKS)
    assert (told["set_aside"], told["missing"]) == (0, [])


@pytest.mark.parametrize("story", ["no_puts"], indirect=True)
def test_control_commits_without_their_values_lose_them(story: Story) -> None:
    """The same tasks where deciders refer to what they have not stored: each fails."""
    assert story.tell() == {str(number): ["failed"] for number in range(TASKS)}
