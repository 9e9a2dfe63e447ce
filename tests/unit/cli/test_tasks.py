"""`headwater tasks publish`."""

from __future__ import annotations

import pathlib
import re
import socket
import threading

import pytest
from tests.unit.cli.door import Answer, Door, Hw

_PATH = "/api/v1/agents/triage/tasks"
_RUNNING = {"task_id": "t-1", "status": "started"}
_DONE = {"task_id": "t-1", "status": "completed", "outcome": "fine"}


def test_publish_sends_the_task_under_its_id(door: Door, hw: Hw) -> None:
    """The id becomes `Idempotency-Key`, the tenant goes along."""
    door.on("POST", _PATH, {"task_id": "t-1"}, status=202)
    ran = hw("tasks", "publish", "triage", "--tenant", "t1", "--json", '{"a": 1}', "--id", "c-17")
    assert (ran.status, ran.out) == (0, "published t-1\n")
    (asked,) = door.asked
    assert asked.body == {"a": 1}
    assert asked.headers["idempotency-key"] == "c-17"
    assert asked.params == {"tenant": "t1"}


def test_the_projects_tenant_is_the_default(door: Door, hw: Hw) -> None:
    """`init` writes a default tenant, so a first publish needs none."""
    pathlib.Path("pyproject.toml").write_text('[tool.headwater]\ntenant = "local"\n')
    door.on("POST", _PATH, {"task_id": "t-1"}, status=202)
    assert hw("tasks", "publish", "triage", "--json", "1").status == 0
    assert door.asked[0].params == {"tenant": "local"}


def test_a_file_is_one_task_a_line(door: Door, hw: Hw) -> None:
    """Empty lines are passed over; with --id each line has an id of its own, so it can be repeated."""
    pathlib.Path("tasks.jsonl").write_text('"a"\n\n"b"\n')
    door.on("POST", _PATH, {"task_id": "1"}, {"task_id": "2"}, status=202)
    ran = hw("tasks", "publish", "triage", "--file", "tasks.jsonl", "--id", "batch")
    assert (ran.status, ran.out) == (0, "published 1\npublished 2\n")
    assert [(asked.body, asked.headers["idempotency-key"]) for asked in door.asked] == [
        ("a", "batch-1"),
        ("b", "batch-3"),
    ]


def test_a_bad_line_stops_before_anything_is_sent(door: Door, hw: Hw) -> None:
    """The line is named; half a file is worse than none."""
    pathlib.Path("tasks.jsonl").write_text('"a"\n{"b": }\n')
    ran = hw("tasks", "publish", "triage", "--file", "tasks.jsonl")
    assert ran.status == 2
    assert "tasks.jsonl line 2" in ran.err
    assert door.asked == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "which task?"),
        (["--json", "1", "--file", "x"], "--json and --file x both name tasks: give one of them"),
        (["--file", "missing"], "--file missing: No such file"),
    ],
)
def test_exactly_one_source_of_tasks(door: Door, hw: Hw, arguments: list[str], words: str) -> None:
    """Either JSON or a file that can be read."""
    ran = hw("tasks", "publish", "triage", *arguments)
    assert ran.status == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1


def test_wait_prints_the_outcome(door: Door, hw: Hw) -> None:
    """A task that ends while the gateway holds the request needs no second one."""
    door.on("POST", _PATH, _DONE)
    ran = hw("tasks", "publish", "triage", "--json", "1", "--wait")
    assert (ran.status, ran.out) == (0, '"fine"\n')
    assert door.asked[0].params == {"wait_s": "20"}


def test_wait_goes_on_asking(door: Door, hw: Hw) -> None:
    """A run longer than one request is followed until it ends."""
    door.on("POST", _PATH, _RUNNING, status=202)
    door.on("GET", "/api/v1/runs/t-1", _RUNNING, _DONE)
    ran = hw("tasks", "publish", "triage", "--json", "1", "--wait")
    assert (ran.status, ran.out) == (0, '"fine"\n')


def test_a_wait_says_what_keeps_a_run(door: Door, hw: Hw) -> None:
    """Somebody has to do something, and the wait may take minutes; it is said once."""
    held = {**_RUNNING, "status": "held", "reason": "its turn tried to sleep"}
    door.on("POST", _PATH, held, status=202)
    door.on("GET", "/api/v1/runs/t-1", held, held, _DONE)
    ran = hw("tasks", "publish", "triage", "--json", "1", "--wait")
    assert ran.status == 0
    assert ran.err.count("is held: its turn tried to sleep") == 1


def test_a_wait_that_ends_is_no_failure_of_the_run(door: Door, hw: Hw) -> None:
    """Exit 1, and the line says how to go on following."""
    door.on("POST", _PATH, _RUNNING, status=202)
    door.on("GET", "/api/v1/runs/t-1", _RUNNING)
    ran = hw("tasks", "publish", "triage", "--json", "1", "--wait", "--timeout-s", "0.1")
    assert ran.status == 1
    assert "goes on after" in ran.err
    assert "headwater runs tail t-1" in ran.err


def test_a_failed_run_fails_the_command(door: Door, hw: Hw) -> None:
    """Exit 1 with the run's error, so scripts notice."""
    door.on(
        "POST",
        _PATH,
        {"task_id": "t-1", "status": "failed", "error": "ToolError", "detail": "away"},
    )
    ran = hw("tasks", "publish", "triage", "--json", "1", "--wait")
    assert (ran.status, ran.out) == (1, "")
    assert "t-1 failed: ToolError: away" in ran.err


def test_a_file_that_ends_halfway_says_where_and_what_is_published(door: Door, hw: Hw) -> None:
    """Nobody has to guess which lines are still to do; under names of their own all of them may be."""
    pathlib.Path("tasks.jsonl").write_text('"a"\n\n7\n"c"\n')
    fits = Answer({"task_id": "1"}, 202)
    wrong = Answer({"title": "The task does not fit", "detail": "a string"}, 422)
    line = ("tasks", "publish", "triage", "--file", "tasks.jsonl")
    door.on("POST", _PATH, fits, wrong)
    ran = hw(*line)
    assert (ran.status, ran.out) == (1, "published 1\n")
    assert ran.err == (
        "headwater: tasks.jsonl line 3: The task does not fit: a string; the 1 task before it was published\n"
    )
    door.on("POST", _PATH, fits, wrong)
    ran = hw(*line, "--id", "batch", "-o", "json")
    assert ran.json == [{"task_id": "1"}]
    assert ran.err.endswith("was published; published again, these are the same tasks\n")
    door.on("POST", _PATH, wrong)
    assert hw(*line).err.endswith("line 1: The task does not fit: a string\n")


def test_a_file_is_a_list_in_json_however_many_lines_it_has(door: Door, hw: Hw) -> None:
    """A script reads one and the same form; a file without a task says so."""
    pathlib.Path("one.jsonl").write_text('"a"\n')
    pathlib.Path("none.jsonl").write_text("\n")
    door.on("POST", _PATH, _DONE)
    line = ("tasks", "publish", "triage", "-o", "json", "--file")
    assert hw(*line, "one.jsonl").json == [_DONE]
    assert hw(*line, "one.jsonl", "--wait").json == [_DONE]
    assert len(hw(*line, "one.jsonl", "--dry-run").json) == 1
    none = hw(*line, "none.jsonl")
    assert (none.status, none.json, none.err) == (0, [], "none.jsonl has no task in it\n")


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "No such file or directory"), (b"\xd0\xff", "it is no text in UTF-8")],
)
def test_a_file_that_cannot_be_read_is_said_plainly(
    hw: Hw, content: bytes | None, words: str
) -> None:
    """Without Python's own words for it."""
    if content is not None:
        pathlib.Path("x").write_bytes(content)
    ran = hw("tasks", "publish", "triage", "--file", "x")
    assert (ran.status, ran.err) == (2, f"headwater: --file x: {words}\n")


def test_json_that_ends_too_early_is_said_once(hw: Hw) -> None:
    """The parser's words end with the word that ours begin with."""
    ran = hw("tasks", "publish", "triage", "--json", '"x')
    assert ran.err == "headwater: --json: Unterminated string starting at column 1\n"


def test_json_output_is_one_document(door: Door, hw: Hw) -> None:
    """One task gives its answer, several a list."""
    door.on("POST", _PATH, {"task_id": "t-1"}, status=202)
    ran = hw("tasks", "publish", "triage", "--json", "1", "--output", "json")
    assert ran.json == {"task_id": "t-1"}


def test_a_dry_run_publishes_nothing(door: Door, hw: Hw) -> None:
    """It shows what would be sent."""
    ran = hw("tasks", "publish", "triage", "--json", '{"a": 1}', "--dry-run")
    assert (ran.status, ran.out, door.asked) == (0, 'would publish {"a": 1}\n', [])


def test_a_task_that_does_not_fit_is_told_by_the_field(door: Door, hw: Hw) -> None:
    """What the gateway says about the field reaches the person in one line."""
    door.problem("POST", _PATH, 422, "the task does not fit", "field amount: not a number")
    ran = hw("tasks", "publish", "triage", "--json", "{}")
    assert (ran.status, ran.err) == (
        1,
        "headwater: the task does not fit: field amount: not a number\n",
    )


def test_a_publish_that_nobody_answered_names_the_id_to_repeat_it_with(
    hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may have been published: under a new id it would be done twice."""
    heard: list[bytes] = []

    def hang_up(server: socket.socket) -> None:
        connection, _ = server.accept()
        heard.append(connection.recv(65_536))
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,), daemon=True)
        thread.start()
        monkeypatch.setenv("HEADWATER_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        ran = hw("tasks", "publish", "triage", "--json", '"x"')
        thread.join(10)
    (name,) = re.findall(r"with --id (\S+) it is the same task\n$", ran.err)
    assert ran.status == 1
    assert f"idempotency-key: {name}\r\n".encode() in heard[0]


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_publish_that_was_answered_by_who_does_not_know_names_the_id_too(
    door: Door, hw: Hw, status: int
) -> None:
    """A proxy that gave up waiting, or a gateway whose log did not say, may have published it."""
    html = "text/html" if status in {502, 504} else "application/problem+json"
    door.on("POST", _PATH, Answer({"title": "The log is away"}, status, html))
    ran = hw("tasks", "publish", "triage", "--json", '"x"')
    assert ran.status == 1
    (name,) = re.findall(r"with --id (\S+) it is the same task\n$", ran.err)
    assert door.asked[0].headers["idempotency-key"] == name
