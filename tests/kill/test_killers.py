"""Killers of processes on a real Kafka: each is found by its deaths alone, and stops nobody else."""

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
from tests.kill import killers as subject

from headwater.contracts.approvals import Petition
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.ctl import Suspect
from headwater.contracts.messages import RunFailed

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.slow,
    pytest.mark.xdist_group("kill"),
    pytest.mark.timeout(3_600),
]

CODEC = Codec(Schemas())
LIMITS = {
    "HEADWATER_APP": "tests.kill.killers:app",
    "HEADWATER_KAFKA__PARTITIONS": "2",
    "HEADWATER_LOOPS__LEASE_S": "3",
    "HEADWATER_SUPERVISOR__TURN_S": "2",
    "HEADWATER_SUPERVISOR__STALL_S": "2",
    "HEADWATER_SUPERVISOR__STUCK_S": "2",
    "HEADWATER_SUPERVISOR__MEMORY_BYTES": str(400 * 1024**2),
    "HEADWATER_SUPERVISOR__BACKOFF_S_MAX": "1",
}


class Lab:
    """A fleet that is told to kill itself.

    Args:
        bootstrap: The cluster.
        path: For what the processes say.
        sabotage: Which protection is taken out.
        more: Further settings.
    """

    def __init__(self, bootstrap: str, path: pathlib.Path, sabotage: str = "", **more: str) -> None:
        self.namespace = f"killers-{uuid.uuid4().hex[:8]}"
        self._bootstrap = bootstrap
        self.fleet = Fleet(bootstrap, self.namespace, path, sabotage, LIMITS | more)
        self.published: dict[str, float] = {}
        self.seen_s: dict[str, float] = {}

    def begin(self) -> None:
        """Start a coordinator, agents and tools."""
        self.fleet.command("topics", "apply", "--yes")
        for instance in ("coordinator-1", "agents-1", "tools-1"):
            self.fleet.start(instance)

    def publish(self, tasks: list[str]) -> None:
        """Publish tasks; each is its own id."""
        producer = Producer({"bootstrap.servers": self._bootstrap, "acks": "all"})
        encode = subject.app.agents["subject"].input.encode
        for task in tasks:
            producer.produce(
                f"{self.namespace}.cmd.subject.v1",
                value=encode(task.partition("#")[0]),
                headers={"ce_id": task, "ce_source": "kill", "ce_tenantid": "default"},
            )
            self.published[task] = time.monotonic()
        assert producer.flush(plain.BOUND_S) == 0

    def read(self, name: str) -> list[dict[str, Any]]:
        """Return every record of a topic."""
        return plain.read(self._bootstrap, [f"{self.namespace}.{name}.v1"])

    def outcomes(self) -> dict[str, str]:
        """Return each task's outcome, or the error it failed with."""
        shape = subject.app.agents["subject"].output
        found: dict[str, str] = {}
        for record in self.read("evt.subject"):
            task = record["headers"]["ce_correlationid"]
            assert task not in found, f"{task} has two outcomes"
            if record["headers"]["ce_type"].endswith(".completed"):
                found[task] = shape.decode(record["value"], subject.app.schemas)
            else:
                failed = CODEC.decode(record["value"])
                assert isinstance(failed, RunFailed)
                found[task] = f"{failed.error}: {failed.detail}"
            self.seen_s.setdefault(task, time.monotonic())
        return found

    def until(self, condition: Callable[[], bool], bound_s: float = 1_200.0) -> None:
        """Wait for what the log will say."""
        until = time.monotonic() + bound_s
        while not condition():
            assert time.monotonic() < until, f"not within {bound_s:g} s: {self.said()}"

    def doubts(self) -> list[str]:
        """Return the calls that a person is asked about, since nobody knows whether they happened."""
        asked = [CODEC.decode(record["value"]) for record in self.read("inbox.approvals")]
        return [one.name for one in asked if isinstance(one, Petition) and one.about == "doubt"]

    def deaths(self) -> dict[str, int]:
        """Return the most deaths alone that were counted of each suspect, by what it was."""
        found: dict[str, int] = {}
        for record in self.read("ctl.suspects"):
            if record["value"] is not None:
                suspect = CODEC.decode(record["value"])
                assert isinstance(suspect, Suspect)
                found[suspect.what] = max(found.get(suspect.what, 0), suspect.alone)
        return found

    def log(self, instance: str) -> str:
        """Return what a process has said, and whoever came after it."""
        return (self.fleet.logs / f"{instance}.log").read_text()

    def said(self) -> str:
        """Return what the processes said last."""
        return "\n".join(self.log(name)[-4_000:] for name in ("tools-1", "agents-1"))


@pytest.fixture
def lab(kafka: str, tmp_path: pathlib.Path) -> Iterator[Callable[..., Lab]]:
    made: list[Lab] = []

    def make(sabotage: str = "", **more: str) -> Lab:
        made.append(Lab(kafka, tmp_path, sabotage, **more))
        made[-1].begin()
        return made[-1]

    yield make
    for one in made:
        one.fleet.stop()


FULL = bool(os.environ.get("KILL_FULL"))
TABLE = [
    "segfault on_loop", "exit_at_once in_thread", "overflow in_thread", "catastrophe in_thread",
    "loop on_loop", "memory in_thread",
]  # fmt: skip
"""Killers in tools; an endless loop in a thread is in a test of its own, for it kills nobody."""
if FULL:
    TABLE += [f"{name} on_loop" for name in ("exit_at_once", "overflow", "catastrophe", "memory")]
    TABLE += ["segfault in_thread"]


def test_each_killer_in_a_tool_is_quarantined_after_three_deaths_alone(
    lab: Callable[..., Lab], say: Callable[[str], None]
) -> None:
    """Nothing is lost, and whoever kills nobody is answered."""
    one = lab()
    innocents = [f"word {where}#{n}" for n in range(20) for where in ("on_loop", "in_thread")]
    one.publish([*innocents[:10], *TABLE, "segfault burn", *innocents[10:]])
    one.until(lambda: set(one.outcomes()) >= {*innocents, *TABLE})
    one.until(lambda: bool(one.doubts()))
    outcomes = one.outcomes()
    assert {outcomes[task] for task in innocents} == {"word"}
    for task in TABLE:
        assert "processes died of it alone" in outcomes[task], outcomes[task]
    kept = one.read("quarantine.req.tool.lab")
    assert {record["headers"]["error.type"] for record in kept} == {"process-killer"}
    assert len(kept) == len(TABLE)
    burnt = one.fleet.logs / "burnt"  # another killer may have been faster, once that was noted
    assert not burnt.exists() or burnt.read_text() == "segfault\n"
    assert one.doubts() == ["burn"]
    ports = {line for line in one.log("tools-1").splitlines() if "HTTP at" in line}
    assert len(ports) == 1, "health is where it was after each start"
    killers = {what: alone for what, alone in one.deaths().items() if alone >= 3}
    assert len(killers) == len(TABLE)
    assert set(killers.values()) == {3}
    slow = max(one.seen_s[task] - one.published[task] for task in innocents)
    whole = max(one.seen_s[task] - one.published[task] for task in TABLE)
    say(
        f"{len(TABLE)} killers in tools found within {whole:.1f} s; {len(innocents)} innocents: {slow:.1f} s"
    )


AGENTS = ["segfault agent", "loop agent", "exit_at_once agent", "catastrophe agent"]
if FULL:
    AGENTS += ["overflow agent", "memory agent"]


def test_each_killer_in_an_agent_is_quarantined_and_its_partition_goes_on(
    lab: Callable[..., Lab], say: Callable[[str], None]
) -> None:
    """A turn is tried elsewhere first; only its own run waits, and fails with its deaths in words."""
    one = lab()
    innocents = [f"word agent#{n}" for n in range(20)]
    one.publish([*innocents[:10], *AGENTS, *innocents[10:]])
    one.until(lambda: set(one.outcomes()) >= {*innocents})
    one.until(lambda: len(one.read("quarantine.inbox.subject")) >= len(AGENTS))
    assert {one.outcomes()[task] for task in innocents} == {"word"}
    kept = one.read("quarantine.inbox.subject")
    assert {record["headers"]["error.type"] for record in kept} == {"process-killer"}
    assert len(kept) == len(AGENTS)
    killers = {what: alone for what, alone in one.deaths().items() if alone >= 3}
    assert len(killers) == len(AGENTS)
    assert set(killers.values()) == {3}
    slow = max(one.seen_s[task] - one.published[task] for task in innocents)
    say(
        f"{len(AGENTS)} killers in agents found; the slowest of {len(innocents)} innocents: {slow:.1f} s"
    )


def test_a_loop_in_a_thread_kills_nobody_and_its_process_is_replaced_in_good_order(
    lab: Callable[..., Lab],
) -> None:
    """Its call has its answer in time; the thread cannot be ended, so the process is, and drains before."""
    one = lab(HEADWATER_SUPERVISOR__STALL_S="60", HEADWATER_LOOPS__DRAIN_S="240")
    # Beside that thread a busy machine may stall, and take long to stop.
    one.publish(["word in_thread#1"])
    one.until(lambda: len(one.outcomes()) == 1)
    hurried: list[str] = []
    while not (one.fleet.logs / "hurried").exists():  # its second may be over before it begins
        hurried.append(f"loop hurried#{len(hurried)}")
        one.publish(hurried[-1:])
        one.until(lambda: hurried[-1] in one.outcomes())
    one.until(lambda: "tools-1 is replaced: a thread of" in one.log("tools-1"))
    one.publish(["word in_thread#2"])
    one.until(lambda: "word in_thread#2" in one.outcomes())
    outcomes = one.outcomes()
    for task in hurried:
        assert outcomes.pop(task).startswith("headwater.errors.ToolTimeout")
    assert {*outcomes.values()} == {"word"}
    assert one.read("quarantine.req.tool.lab") == one.read("ctl.suspects") == []
    assert "tools-1 died" not in one.log("tools-1")


def test_control_without_suspects_a_killer_has_its_process_die_for_ever(
    lab: Callable[..., Lab],
) -> None:
    """Control: more deaths than would be allowed, and no end of them."""
    one = lab("no_suspects")
    one.publish(["segfault in_thread"])
    one.until(lambda: one.log("tools-1").count("tools-1 died after") >= 6)
    assert one.outcomes() == {}
    assert one.read("quarantine.req.tool.lab") == []


def test_a_killer_of_whole_machines_is_found_by_what_is_on_disk(
    lab: Callable[..., Lab], tmp_path: pathlib.Path
) -> None:
    """Three deaths of a machine that comes back, then it is quarantined unrun."""
    one = lab(HEADWATER_SUPERVISOR__PATH=str(tmp_path / "posts"))
    one.publish(["machine in_thread"])
    deaths = 0

    def judged() -> bool:
        nonlocal deaths
        deaths += len(one.fleet.revive())
        return bool(one.outcomes())

    one.until(judged)
    assert "3 processes died of it alone" in one.outcomes()["machine in_thread"]
    assert deaths == 3
    assert "it died together with its supervisor" in one.log("tools-1")
