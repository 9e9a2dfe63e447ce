"""A rolling upgrade of agents with runs in flight, and a rollback: on a real Kafka, as processes."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest

ROOT = pathlib.Path(__file__).parents[2]
OLD, NEW = "1.0", "2.0"
RUNS = 24
"""By chance all of them are in one half of the partitions once in eight million times."""
MOMENT_S = 120.0
"""Within which runs that are held go on, on a machine that is busy; others wait for ever."""

pytestmark = [
    pytest.mark.kafka,
    pytest.mark.xdist_group("rolling"),
    pytest.mark.timeout(3_600),
]


class Office:
    """A fleet of one app: doors and admission in one process, agents in others, each of a version."""

    def __init__(self, bootstrap: str, logs: pathlib.Path, **settings: str) -> None:
        self.namespace = f"roll{uuid.uuid4().hex[:8]}"
        self.logs = logs
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")},
            "PYTHONPATH": str(ROOT),
            "PYTHONHASHSEED": "0",
            "HEADWATER_APP": "tests.rolling.app:app",
            "HEADWATER_NAMESPACE": self.namespace,
            "HEADWATER_HTTP__PORT": "0",
            "HEADWATER_SUPERVISOR__ENABLED": "false",
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap,
            "HEADWATER_KAFKA__TRANSACTION_MS": "3000",
            "HEADWATER_KAFKA__HEARTBEAT_MS": "500",
            "HEADWATER_KAFKA__SESSION_MS": "6000",
            "HEADWATER_KAFKA__PARTITIONS": "4",
            **settings,
        }
        self.command("topics", "apply", "--yes")

    def open(self) -> None:
        """Start what is beside the agents."""
        self.start("rest", OLD, "coordinator,tools,gateway")
        self.http = httpx.Client(base_url=self.url("rest"), timeout=180)

    def command(self, *arguments: str, version: str = OLD, fails: bool = False) -> str:
        """Run one `headwater` command and return what it says."""
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli.main", *arguments],
            env={**self._environment, "ROLLING_VERSION": version},
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=400,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stderr + done.stdout
        return done.stderr if fails else done.stdout

    def start(
        self, instance: str, version: str, roles: str = "agents", *, leave: bool = True
    ) -> None:
        """Start a process; with `leave` it gives its partitions up at once when it is told to stop."""
        with (self.logs / f"{instance}.log").open("wb") as log:
            self.running[instance] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "headwater.cli.main", "run", "--role", roles),
                    *(["--leave"] if leave else []),
                ],
                env={
                    **self._environment,
                    "HEADWATER_INSTANCE": instance,
                    "ROLLING_VERSION": version,
                },
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def url(self, instance: str) -> str:
        """Return where a process serves HTTP, once it does."""
        found: list[str] = []
        log = self.logs / f"{instance}.log"
        self.until(
            lambda: found.extend(re.findall(r"HTTP at (\S+)", log.read_text())) or bool(found)
        )
        return found[0]

    def owns(self, instance: str, count: int) -> None:
        """Wait until a process works on so many partitions."""
        url = self.url(instance)

        def there() -> bool:
            answer = httpx.get(f"{url}/readyz", timeout=60)
            return answer.status_code == 200 and answer.json()["claims"] == count

        self.until(there)

    def stop(self, instance: str) -> None:
        """End a process in good order."""
        process = self.running.pop(instance)
        process.send_signal(signal.SIGTERM)
        process.wait(120)

    def publish(self, name: str) -> list[str]:
        """Begin runs and return their tasks, once every run waits."""
        tasks = []
        for number in range(RUNS):
            answer = self.http.post(
                "/api/v1/agents/clerk/tasks",
                json=f"{name}{number}",
                headers={"idempotency-key": f"{name}{number}"},
            )
            tasks.append(answer.json()["task_id"])
        self.waits(tasks, "note")
        return tasks

    def waits(self, tasks: Iterable[str], name: str) -> None:
        """Wait until every run waits for a signal."""
        try:
            self.until(lambda: all(name in self.see(task)["reason"] for task in tasks))
        except AssertionError as error:
            raise AssertionError([self.see(task) for task in tasks]) from error

    def signal(self, tasks: Iterable[str], name: str) -> None:
        """Send every run a signal."""
        for task in tasks:
            answer = self.http.post(f"/api/v1/runs/{task}/signals/{name}", json={"value": "x"})
            assert answer.status_code < 300, answer.text

    def see(self, task: str) -> dict[str, Any]:
        """Return what the gateway knows of a run."""
        found = self.http.get(f"/api/v1/runs/{task}").json()
        return {"reason": "", "status": "unknown", **found}

    def statuses(self, tasks: Iterable[str]) -> collections.Counter[str]:
        """Count how runs stand."""
        return collections.Counter(self.see(task)["status"] for task in tasks)

    def until(self, condition: Callable[[], bool], bound_s: float = 1_200.0) -> float:
        """Wait for what others do; return how long that took, in seconds."""
        began = time.monotonic()
        while not condition():
            assert time.monotonic() < began + bound_s, f"not within {bound_s:g} s"
            time.sleep(0.05)
        return time.monotonic() - began

    def end(self) -> None:
        """Stop everything."""
        for process in self.running.values():
            process.kill()
            process.wait(60)


@pytest.fixture
def office(kafka: str, tmp_path: pathlib.Path) -> Iterator[Office]:
    one = Office(kafka, tmp_path)
    one.open()
    yield one
    one.http.close()
    one.end()


def wrote(office: Office, tasks: list[str]) -> dict[str, list[str]]:
    """Return which runs which version took last."""
    found = collections.defaultdict(list)
    for task in tasks:
        found[office.see(task)["version"]].append(task)
    return found


def test_roll_holds_nothing_longer_than_itself_and_a_rollback_releases_the_rest(
    office: Office, say: Callable[[str], None]
) -> None:
    """What the new version took waits for it, or until it is taken back.

    The control: the runs that only the old version took end with it at once, in the same places.
    """
    office.start("a", OLD)
    office.start("b", OLD)
    office.owns("a", 2)
    office.owns("b", 2)
    tasks = office.publish("roll")

    office.stop("a")
    office.start("a", NEW)
    office.owns("a", 2)
    office.signal(tasks, "note")
    office.waits(tasks, "go")
    took = wrote(office, tasks)
    assert took[OLD]
    assert took[NEW]

    office.stop("a")
    office.owns("b", 4)
    office.signal(tasks, "go")
    office.until(lambda: office.statuses(took[OLD])["completed"] == len(took[OLD]))
    office.until(lambda: office.statuses(took[NEW])["held"] == len(took[NEW]))
    held = office.see(took[NEW][0])
    assert held["reason"] == f"version {NEW} of the app took it last, and this worker has {OLD}"

    office.start("a", NEW)
    office.url("a")
    office.stop("b")
    office.owns("a", 4)
    rolled_s = office.until(lambda: office.statuses(took[NEW])["completed"] == len(took[NEW]))
    assert {office.see(task)["outcome"].split()[-1] for task in took[OLD]} == {OLD}
    assert {office.see(task)["outcome"].split()[-1] for task in took[NEW]} == {NEW}
    say(f"{len(took[NEW])} runs held; the last went on {rolled_s:.1f} s after the roll had ended")
    assert rolled_s < MOMENT_S

    again = office.publish("back")
    office.signal(again, "note")
    office.waits(again, "go")
    verified = json.loads(office.command("runs", "verify", "--all", "--output", "json"))
    assert {verdict["state"] for verdict in verified} == {"equal"}
    assert len(verified) == RUNS
    office.start("b", OLD)
    office.url("b")
    office.stop("a")
    office.owns("b", 4)
    office.signal(again, "go")
    office.until(lambda: office.statuses(again)["held"] == RUNS)
    said = office.command("upgrade", "rollback", NEW, "--reason", "it tells lies", "--yes")
    assert said == f"version {NEW} is withdrawn\n"
    back_s = office.until(lambda: office.statuses(again)["completed"] == RUNS)
    assert {office.see(task)["outcome"].split()[-1] for task in again} == {OLD}
    say(f"{RUNS} runs held; the last went on {back_s:.1f} s after the rollback was said")
    assert back_s < MOMENT_S

    office.start("a", NEW)
    assert office.running.pop("a").wait(120) == 1
    assert f"version {NEW} of the app was taken back" in (office.logs / "a.log").read_text()
    shown = json.loads(office.command("upgrade", "show", "--output", "json"))
    assert [(row["version"], row["members"], row["state"]) for row in shown] == [
        (OLD, 1, "open"),
        (NEW, 0, "withdrawn"),
    ]
    refused = office.command("upgrade", "finalize", NEW, "--yes", fails=True)
    assert "roll it out first; there are 1.0" in refused


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_members_have_the_version_of_the_process_that_took_a_name_over(
    kafka: str, tmp_path: pathlib.Path, protocol: str
) -> None:
    """Within its predecessor's session: a broker keeps the client id, so what was taken back seems there."""
    office = Office(
        kafka,
        tmp_path,
        HEADWATER_KAFKA__SESSION_MS="300000",
        HEADWATER_KAFKA__GROUP_PROTOCOL=protocol,
    )

    def members() -> dict[str, int]:
        shown = json.loads(office.command("upgrade", "show", "--output", "json"))
        return {row["version"]: row["members"] for row in shown}

    try:
        for version, other in ((NEW, OLD), (OLD, NEW)):
            office.start("a", version, leave=False)
            office.owns("a", 4)
            assert {other: 0, **members()} == {version: 1, other: 0}
            if version == NEW:
                office.stop("a")
        refused = office.command("upgrade", "finalize", NEW, "--yes", fails=True)
        assert f"roll it out first; there are {OLD}" in refused
    finally:
        office.end()
