"""`topics` and `doctor` against a real Kafka, as an operator runs them."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator

import pytest
from confluent_kafka import Producer, TopicPartition
from confluent_kafka.admin import AdminClient

from headwater import provisioning
from headwater.cli import main
from headwater.contracts.records import Partition
from headwater.durable import confine
from headwater.errors import SettingsError
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_offsets import Offsets
from headwater.log.port import Claim
from headwater.testing.conformance_world import until

pytestmark = [pytest.mark.kafka, pytest.mark.xdist_group("cluster-commands")]

_TOLD = "the change: a broker tells it a moment after it has taken it"
_APP = """
import headwater
app = headwater.App("small")

@app.agent
async def greet(ctx: headwater.Context, name: str) -> str:
    return f"Hello, {name}"
"""


@dataclasses.dataclass(frozen=True)
class Ran:
    """What a command line led to."""

    returncode: int
    stdout: str
    stderr: str


class Operator:
    """Somebody with a shell, an app and a namespace of their own."""

    def __init__(
        self, kafka: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self.namespace = f"ops{uuid.uuid4().hex[:8]}"
        self.admin = KafkaAdmin(KafkaConfig(bootstrap=kafka))
        self._patch, self._capsys = patch, capsys
        self._environment = {
            "HEADWATER_KAFKA__BOOTSTRAP": kafka,
            "HEADWATER_KAFKA__PARTITIONS": "2",
            "HEADWATER_NAMESPACE": self.namespace,
            "HEADWATER_APP": "small:app",
        }

    def hw(self, *arguments: str, **environment: str) -> Ran:
        """Run a command line."""
        with self._patch.context() as patch:
            for name, value in (self._environment | environment).items():
                patch.setenv(name, value)
            patch.setattr(
                confine, "ensure_hash_seed", lambda: None
            )  # it would begin the tests anew
            self._capsys.readouterr()
            status = main.main(arguments)
        said = self._capsys.readouterr()
        return Ran(status, said.out, said.err)

    def checks(self, *arguments: str, **environment: str) -> dict[str, str]:
        """Run `doctor` and return each check's last state."""
        ran = self.hw("doctor", "--output", "json", *arguments, **environment)
        return {check["name"]: check["state"] for check in json.loads(ran.stdout)["checks"]}


@pytest.fixture
def operator(
    tmp_path: pathlib.Path,
    kafka: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Operator]:
    (tmp_path / "small.py").write_text(_APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in [name for name in os.environ if name.startswith(("HEADWATER_", "OTEL_"))]:
        monkeypatch.delenv(name)
    yield Operator(kafka, monkeypatch, capsys)
    sys.modules.pop("small", None)


def test_topics_are_planned_applied_once_and_then_in_order(operator: Operator) -> None:
    """A plan changes nothing, applying it makes everything, and after it doctor has no complaint."""
    planned = operator.hw("topics", "plan", "--output", "json")
    assert planned.returncode == 0
    changes = json.loads(planned.stdout)
    assert f"{operator.namespace}.inbox.greet.v1" in {change["name"] for change in changes}
    assert operator.checks()["topics"] == "FAIL"
    tried = operator.hw("topics", "apply", "--dry-run")
    assert tried.returncode == 0
    assert operator.admin.topics([change["name"] for change in changes]) == {}
    applied = operator.hw("topics", "apply")
    assert applied.returncode == 0, applied.stderr
    assert "GETPID" not in applied.stderr
    again = operator.hw("topics", "plan")
    assert (again.returncode, again.stderr) == (0, "the cluster has everything\n")
    made = operator.admin.topics([f"{operator.namespace}.state.runs.greet.v1"])
    (state,) = made.values()
    assert state.partitions == 2
    assert state.config["cleanup.policy"] == "compact"
    assert state.config["message.timestamp.type"] == "LogAppendTime"
    found = operator.checks()
    assert "FAIL" not in found.values(), found
    assert found["schemas"] == "ok"
    assert found["replication"] == "warn"


def test_growth_is_asked_for_and_drift_is_put_back(operator: Operator) -> None:
    """An inbox grows with a yes, its state with it; admission stays; a setting that drifted returns."""
    assert operator.hw("topics", "apply").returncode == 0
    inbox = f"{operator.namespace}.inbox.greet.v1"
    unasked = operator.hw("topics", "apply", "--partitions", "3")
    assert unasked.returncode == 2
    assert "add --yes" in unasked.stderr
    assert operator.admin.topics([inbox])[inbox].partitions == 2
    assert operator.hw("topics", "apply", "--partitions", "3", "--yes").returncode == 0
    assert operator.admin.topics([inbox])[inbox].partitions == 3
    state = f"{operator.namespace}.state.runs.greet.v1"
    assert operator.admin.topics([state])[state].partitions == 3
    fixed = f"{operator.namespace}.inbox.admission.v1"
    assert operator.admin.topics([fixed])[fixed].partitions == 6
    operator.admin.configure(fixed, {"message.timestamp.type": "CreateTime"})
    until(lambda: operator.checks()["topics"] == "FAIL", _TOLD)
    assert operator.hw("topics", "apply").returncode == 0
    until(lambda: operator.checks()["topics"] == "ok", _TOLD)


def test_doctor_names_what_to_change(operator: Operator, kafka: str) -> None:
    """A broker that is away, a registry that is away, a sampler that is unknown: each with its variable."""
    away = operator.hw("doctor", HEADWATER_KAFKA__BOOTSTRAP="127.0.0.1:9")
    assert away.returncode == 1
    assert "HEADWATER_KAFKA__BOOTSTRAP" in away.stdout
    registry = operator.hw("doctor", HEADWATER_REGISTRY__URL="http://127.0.0.1:9")
    assert "HEADWATER_REGISTRY__URL" in registry.stdout
    tracing = operator.checks(OTEL_TRACES_EXPORTER="otlp", OTEL_TRACES_SAMPLER="dice")
    assert tracing["tracing"] == "FAIL"
    short = operator.hw("doctor", HEADWATER_KAFKA__SESSION_MS="2000")
    assert short.returncode == 1
    assert "HEADWATER_KAFKA" in short.stderr
    assert short.stderr.count("\n") == 1


def test_doctor_hides_secrets_and_names_sources(operator: Operator) -> None:
    """Every setting is listed with where it came from; what lets somebody in is not."""
    ran = operator.hw(
        "doctor",
        "--output",
        "json",
        HEADWATER_KAFKA__BOOTSTRAP="127.0.0.1:9",
        HEADWATER_KAFKA__SASL_PASSWORD="hunter2",  # noqa: S106 - what must not be shown
        HEADWATER_KAFKA__EXTRA='{"sasl.password": "hunter2", "client.rack": "a"}',
    )
    assert "hunter2" not in ran.stdout + ran.stderr
    settings = {one["name"]: one for one in json.loads(ran.stdout)["settings"]}
    assert settings["HEADWATER_KAFKA__BOOTSTRAP"]["source"] == "set"
    assert settings["HEADWATER_KAFKA__SESSION_MS"]["source"] == "default"
    assert "client.rack" in settings["HEADWATER_KAFKA__EXTRA"]["value"]


def test_doctor_probes_the_broker(operator: Operator) -> None:
    """`--probe` needs no app, and says how many of the six hold."""
    ran = operator.hw("doctor", "--probe", HEADWATER_APP="")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "6/6 hold" in ran.stdout


def test_a_role_refuses_a_cluster_that_lacks_topics(operator: Operator, kafka: str) -> None:
    """Before joining: a message with the command that helps, and no traceback."""
    ran = subprocess.run(
        [sys.executable, "-m", "headwater.cli.main", "run", "--role", "coordinator"],
        env={
            **os.environ,
            "HEADWATER_KAFKA__BOOTSTRAP": kafka,
            "HEADWATER_NAMESPACE": operator.namespace,
            "HEADWATER_APP": "small:app",
        },
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert ran.returncode == 1
    assert "headwater topics apply" in ran.stderr
    assert "Traceback" not in ran.stderr


def test_verifying_passes_on_what_was_applied(operator: Operator) -> None:
    """The check that roles make is the plan that operators see."""
    changes = json.loads(operator.hw("topics", "plan", "--output", "json").stdout)
    groups = {change["name"] for change in changes if change["action"] == "begin"}
    assert {
        f"{operator.namespace}.{name}" for name in ("intake", "admission", "runs.greet")
    } <= groups
    assert provisioning.Action.CREATE in {change["action"] for change in changes}


def test_a_namespace_is_not_taken_from_the_app_that_runs_in_it(
    operator: Operator, tmp_path: pathlib.Path
) -> None:
    """Two apps of one default namespace: the second changes nothing, and the first starts as before."""
    assert operator.hw("topics", "apply").returncode == 0
    (tmp_path / "guest.py").write_text(_APP.replace('"small"', '"guest"'))
    for verb in ("plan", "apply"):
        ran = operator.hw("topics", verb, HEADWATER_APP="guest:app")
        assert (ran.returncode, ran.stdout) == (1, "")
        assert f"namespace {operator.namespace} runs app 'small', and this is 'guest'" in ran.stderr
    assert operator.checks()["schemas"] == "ok"


def test_backlog_that_retention_will_eat_is_an_alarm(operator: Operator, kafka: str) -> None:
    """Doctor compares the oldest record that a group has not taken with how long it is kept."""
    assert operator.hw("topics", "apply").returncode == 0
    assert operator.checks()["backlog"] == "ok"
    topic = f"{operator.namespace}.cmd.greet.v1"
    producer = Producer({"bootstrap.servers": kafka, "acks": "all"})
    producer.produce(topic, value=b"x", partition=1)
    assert producer.flush(180) == 0
    assert operator.checks()["backlog"] == "ok"
    operator.admin.configure(topic, {"retention.ms": "1"})

    def alarmed() -> bool:  # the broker, which sweeps once a minute, may be faster
        producer.produce(topic, value=b"x", partition=1)
        assert producer.flush(180) == 0
        lines = operator.hw("doctor").stdout.splitlines()
        found = [line for line in lines if f"{operator.namespace}.intake has not taken" in line]
        return any(line.startswith("FAIL") for line in found)

    assert any(alarmed() for _ in range(10))


def test_a_group_goes_on_where_retention_has_overtaken_it(operator: Operator, kafka: str) -> None:
    """It has taken all there was, and yet: the mark that ended the transaction has expired too."""
    assert operator.hw("topics", "apply").returncode == 0
    group, topic = f"{operator.namespace}.intake", f"{operator.namespace}.cmd.greet.v1"
    config, place = KafkaConfig(bootstrap=kafka), Partition(topic, 1)
    producer = Producer({"bootstrap.servers": kafka, "transactional.id": f"{group}.test"})
    producer.init_transactions(180)
    producer.begin_transaction()
    producer.produce(topic, value=b"x", partition=1)
    producer.commit_transaction(180)
    offsets = Offsets(config)
    offsets.write(group, [TopicPartition(topic, 1, 1)])
    none = operator.hw("topics", "skip-expired", "--yes")
    assert (none.returncode, none.stdout) == (0, "")
    assert none.stderr == "no group has an offset below where its topic begins\n"
    assert operator.checks()["expired"] == "ok"
    client = AdminClient({"bootstrap.servers": kafka})
    deleted = client.delete_records([TopicPartition(topic, 1, 2)])
    assert [one.result(180).low_watermark for one in deleted.values()] == [2]
    log = KafkaLog(config)

    def go_on(wait_s: float) -> None:
        """Have a member read all partitions for a while; skip meanwhile, which its group refuses."""
        owner = log.own([topic], group=group, instance="a")
        try:
            gained: set[Claim] = set()

            def all_gained() -> bool:
                gained.update(owner.poll(records_max=1, wait_ms=100).gained)
                return len(gained) == 2

            until(all_gained, "all partitions")
            owner.resume(dict.fromkeys(gained))
            ends_s = time.monotonic() + wait_s
            while time.monotonic() < ends_s:
                owner.poll(records_max=1, wait_ms=100)
        finally:
            refused.append(operator.hw("topics", "skip-expired", "--yes"))
            owner.close(leave=True)

    refused: list[Ran] = []
    with pytest.raises(SettingsError, match="topics skip-expired"):
        go_on(180)
    assert (refused[0].returncode, "nobody may be a member" in refused[0].stderr) == (1, True)
    tried = operator.hw("topics", "skip-expired", "--dry-run", "--output", "json")
    assert json.loads(tried.stdout) == [
        {"group": group, "topic": topic, "partition": 1, "offset": 1, "beginning": 2}
    ]
    assert operator.checks()["expired"] == "warn"
    unasked = operator.hw("topics", "skip-expired")
    assert (unasked.returncode, "1 offsets are skipped" in unasked.stderr) == (2, True)
    assert log.committed(group, place)[0] == 1
    done = operator.hw("topics", "skip-expired", "--yes")
    assert done.returncode == 0, done.stderr
    assert f"{topic}[1]" in done.stdout
    assert log.committed(group, place)[0] == 2
    go_on(3)
    log.close()
    offsets.close()


def test_local_store_must_be_younger_than_tombstones(
    operator: Operator, tmp_path: pathlib.Path
) -> None:
    """A store that is used for longer than half of delete.retention.ms may hold rows that are gone."""
    assert operator.hw("topics", "apply").returncode == 0
    path = {"HEADWATER_STORE__PATH": str(tmp_path / "store")}
    assert operator.checks(**path)["local store"] == "ok"
    old = {**path, "HEADWATER_STORE__AGE_S_MAX": "50000"}
    assert operator.checks(**old)["local store"] == "FAIL"
    assert operator.checks()["offsets"] == "ok"


def test_versions_are_taken_back_by_name(operator: Operator) -> None:
    """Nothing is written by a dry run; what is said is shown, with who and why; a final one stays."""
    assert operator.hw("topics", "apply").returncode == 0
    tried = operator.hw("upgrade", "rollback", "--reason", "it lies", "--dry-run")
    assert tried.returncode == 0, tried.stderr
    assert tried.stdout.startswith("would write 0 as withdrawn, by ")
    assert f": it lies\nto {operator.namespace}.ctl.app.v1; then\n" in tried.stdout
    assert "no member of an older version is there to take its runs: start one" in tried.stdout
    first = operator.hw("upgrade", "show", "--output", "json")
    assert first.returncode == 0, first.stderr
    shown = json.loads(first.stdout)
    assert [(row["version"], row["state"], row["applied"]) for row in shown] == [
        ("0", "open", True)
    ]
    refused = operator.hw("upgrade", "rollback", "9", "--unknown")
    assert (refused.returncode, "add --yes" in refused.stderr) == (2, True)
    typed = operator.hw("upgrade", "rollback", "9", "--yes")
    assert (typed.returncode, "known are 0; if it is no typo, say --unknown" in typed.stderr) == (
        2,
        True,
    )
    why = ("--reason", "it lies", "--actor", "ana")
    said = operator.hw("upgrade", "rollback", "9", *why, "--unknown", "--yes")
    assert said.returncode == 0, said.stderr
    shown = json.loads(operator.hw("upgrade", "show", "--output", "json").stdout)
    assert [(row["version"], row["state"], row["actor"], row["reason"]) for row in shown[1:]] == [
        ("9", "withdrawn", "ana", "it lies")
    ]
    table = operator.hw("upgrade", "show").stdout
    assert "withdrawn" in table
    early = operator.hw("upgrade", "finalize", "--yes")
    assert (early.returncode, "roll it out first" in early.stderr) == (1, True)


def test_journals_are_checked_and_exported(operator: Operator) -> None:
    """Without runs there is nothing to differ; what names no run is refused with what to do."""
    assert operator.hw("topics", "apply").returncode == 0
    every = operator.hw("runs", "verify", "--all")
    assert (every.returncode, every.stdout) == (
        0,
        "0 runs go on with this code; 0 entries replayed\n",
    )
    assert operator.hw("runs", "verify").returncode == 2
    assert "is no run id" in operator.hw("runs", "export", "abc").stderr
    gone = operator.hw("runs", "export", "greet.0.abc")
    assert (gone.returncode, "only runs that are open or have failed" in gone.stderr) == (1, True)
    assert "0 open runs" in operator.hw("schemas", "check").stdout
