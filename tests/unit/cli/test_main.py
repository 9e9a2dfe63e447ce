"""The command line as a whole, `init`, finding the app, and quarantine."""

from __future__ import annotations

import json
import pathlib
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main
from tests.unit.cli.door import Door, Hw

from headwater.cli import discovery, doctor, main, shell
from headwater.errors import SettingsError, TransientError
from headwater.log.kafka_admin import KafkaAdmin
from headwater.log.kafka_config import KafkaConfig

_HEADWATER = [sys.executable, "-m", "headwater.cli.main"]


def test_a_typo_is_answered_with_the_nearest_command(hw: Hw) -> None:
    """Exit 2 and a guess."""
    ran = hw("taks", "publish")
    assert ran.status == 2
    assert "Did you mean 'tasks'?" in ran.err
    assert ran.err.count("\n") == 1


def test_an_option_that_is_none_is_one_sentence(hw: Hw) -> None:
    """Whatever guesses stand behind it."""
    for option in ("--hlp", "--xyz"):
        ran = hw("run", option)
        assert ran.status == 2
        assert ".." not in ran.err
        assert ran.err.endswith(". See `headwater run --help`\n")


@pytest.mark.parametrize(
    "command",
    [("upgrade", "show"), ("schemas", "check"), ("topics", "plan")],
)
def test_a_command_that_reads_the_cluster_says_when_none_answers(
    command: tuple[str, ...], hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It ends, and names the variable, where `headwater dev` is all there is."""
    monkeypatch.setenv("HEADWATER_KAFKA__BOOTSTRAP", "127.0.0.1:1")
    assert hw("init", "desk").status == 0
    monkeypatch.chdir("desk")
    monkeypatch.setattr(KafkaAdmin, "brokers", _unanswered)
    ran = hw(*command)
    assert ran.status == 1
    assert "no Kafka answers at 127.0.0.1:1" in ran.err


def test_nobody_is_told_that_no_kafka_answers_without_a_way_on() -> None:
    """The variable, and the command that starts one."""
    with pytest.raises(TransientError, match="`headwater broker start` starts a local one"):
        KafkaAdmin(KafkaConfig(bootstrap="127.0.0.1:1", call_s=0.2)).brokers()


def _unanswered(_: KafkaAdmin) -> int:
    raise SettingsError("no Kafka answers at 127.0.0.1:1")


@pytest.mark.parametrize(
    "command", [("broker", "status", "--dir"), ("schemas", "export", "--shipped")]
)
def test_a_directory_that_cannot_be_used_is_named(
    command: tuple[str, ...], hw: Hw, tmp_path: pathlib.Path
) -> None:
    """With whose rights are missing, and without a Python exception's name."""
    (tmp_path / "file").write_text("")
    ran = hw(*command, str(tmp_path / "file"))
    assert ran.status == 1
    assert re.search(r"file/\S+: Not a directory: is it there, and may \S+ use it\?", ran.err)
    assert "Error" not in ran.err


def test_a_choice_that_is_none_is_said_in_our_words(hw: Hw) -> None:
    """Not in those of the library that checks it."""
    ran = hw("runs", "list", "-o", "xml")
    assert ran.status == 2
    assert "'--output' / '-o': 'xml' is not one of 'table', 'json'" in ran.err
    assert "did you mean" not in ran.err
    assert "'json': did you mean 'json'? See `" in hw("runs", "list", "-o", "jsno").err


def test_what_fails_is_said_at_the_width_of_a_terminal(
    hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a pipe it is one line."""
    line = hw("runs", "list", "--status", "stopped").err
    monkeypatch.setenv("COLUMNS", "50")
    broken = hw("runs", "list", "--status", "stopped").err
    assert line.count("\n") == 1
    assert max(map(len, broken.splitlines())) <= 50
    assert broken.split() == line.split()


def test_a_bootstrap_that_is_none_is_not_remembered(
    hw: Hw, monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path
) -> None:
    """What `broker start` remembered could be neither stopped nor started over."""
    for wrong in ("foo:bar", "foo", ":9092", "foo:"):
        monkeypatch.setenv("HEADWATER_KAFKA__BOOTSTRAP", wrong)
        ran = hw("broker", "start", "--dir", str(tmp_path / "broker"))
        said = f"headwater: HEADWATER_KAFKA__BOOTSTRAP {wrong!r} is not host:port\n"
        assert (ran.status, ran.err) == (2, said)
    assert [*tmp_path.iterdir()] == []
    for right in ("127.0.0.1:9", "[::1]:9", "a.b:9,c:9"):
        monkeypatch.setenv("HEADWATER_KAFKA__BOOTSTRAP", right)
        assert "no local broker runs here" in hw("broker", "stop", "--dir", str(tmp_path)).err


def test_a_doctors_last_line_names_what_fails(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each check has said why, in a line of its own above."""
    says = "it is away: set it right"
    checks = [doctor.Check(name=name, state=state, says=says) for name, state in _CHECKS.items()]
    monkeypatch.setattr(doctor, "_checks", lambda *_, **__: checks)
    ran = hw("doctor")
    assert (ran.status, ran.err) == (1, "headwater: 2 of 3 checks fail: broker, topics\n")
    assert ran.out.count(says) == 3


def test_doctor_says_what_it_found_before_what_is_set(
    hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lines end between words at the terminal's width; of settings, those that somebody set."""
    says = "it is away " * 12 + "end"
    check = doctor.Check(name="broker", state=doctor.State.FAIL, says=says)
    monkeypatch.setattr(doctor, "_checks", lambda *_, **__: [check])
    monkeypatch.setenv("HEADWATER_KAFKA__PARTITIONS", "3")
    assert says in hw("doctor").out  # in a pipe, one line
    monkeypatch.setenv("COLUMNS", "60")
    lines = hw("doctor").out.splitlines()
    assert max(map(len, lines)) <= 60
    assert lines[0].startswith("FAIL    broker: it is away")
    assert lines[1].startswith("        ")
    assert "end" in lines[2]
    shown = [line.split() for line in lines if line.startswith("HEADWATER_")]
    assert shown == [["HEADWATER_KAFKA__PARTITIONS", "3", "set"]]
    assert lines[-1].endswith("settings have their defaults: --all lists them")
    every = hw("doctor", "--all").out
    assert "HEADWATER_KAFKA__SESSION_MS" in every
    assert "--all lists" not in every


def test_doctor_knows_what_the_project_says(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """With where it says so, and the app's namespace; the environment counts before it."""
    monkeypatch.setattr(doctor, "_checks", lambda *_, **__: [])
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "kiosk", raising=False)
    assert hw("init", "kiosk").status == 0
    monkeypatch.chdir("kiosk")

    def told() -> dict[str, tuple[str, str]]:
        named = json.loads(hw("doctor", "--output", "json").out)["settings"]
        return {one["name"]: (one["value"], one["source"]) for one in named}

    found = told()
    assert found["HEADWATER_APP"] == ("kiosk:app", "[tool.headwater] app")
    assert found["HEADWATER_TENANT"] == ("local", "[tool.headwater] tenant")
    assert found["HEADWATER_NAMESPACE"] == ("hw", "app")
    assert found["HEADWATER_HTTP__PORT"] == ("8080; without a gateway a free one", "default")
    monkeypatch.setenv("HEADWATER_APP", "kiosk:app")
    monkeypatch.setenv("HEADWATER_NAMESPACE", "other")
    found = told()
    assert found["HEADWATER_APP"] == ("kiosk:app", "set")
    assert found["HEADWATER_NAMESPACE"] == ("other", "set")


_CHECKS = {"app": doctor.State.OK, "broker": doctor.State.FAIL, "topics": doctor.State.FAIL}


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("x = 1 +", "its_app cannot be imported: SyntaxError: invalid syntax (its_app.py, line 1)"),
        ("raise RuntimeError('boom')", "its_app cannot be imported: RuntimeError: boom"),
        ("import headwater; headwater.App('A B')", "app 'A B': a name is a-z"),
    ],
)
def test_an_app_that_breaks_as_it_is_imported_is_named(
    hw: Hw, monkeypatch: pytest.MonkeyPatch, code: str, words: str
) -> None:
    """It is the author's code that broke; what headwater refuses in it, it says itself."""
    pathlib.Path("its_app.py").write_text(code)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "its_app", raising=False)
    ran = hw("schemas", "list", "--app", "its_app:app")
    assert ran.status == 1
    assert ran.err.startswith(f"headwater: {words}")


def every_command(group: Any, *names: str) -> Iterator[tuple[str, ...]]:
    """Yield the names of groups and commands, as they are typed."""
    yield names
    for name, of in getattr(group, "commands", {}).items():
        yield from every_command(of, *names, name)


def test_help_is_whole_at_eighty_columns(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """No text is cut, no type is Python's, no bracket stands twice, no line is longer."""
    monkeypatch.setenv("COLUMNS", "80")
    for names in every_command(typer.main.get_command(main.app)):
        out = hw(*names, "--help").out
        for ugly in ("...\n", "<list[", "[[", "]]", "..."):
            shown = out.replace("<str>...", "").replace("[ID]...", "").replace("[ARGS]...", "")
            assert ugly not in shown, (names, ugly)
        assert max(map(len, out.splitlines())) <= 80, names


def test_no_command_shows_the_help(hw: Hw) -> None:
    """Somebody who asks nothing is shown what can be asked."""
    ran = hw()
    assert ran.status == 2
    assert "Usage: headwater" in ran.err
    assert "quarantine" in ran.err


def test_the_version_is_the_distributions(hw: Hw) -> None:
    """One line, exit 0."""
    ran = hw("--version")
    assert ran.status == 0
    assert re.fullmatch(r"headwater \d+\.\d+\S*\n", ran.out)


def test_the_program_runs_as_a_process() -> None:
    """What a shell starts: its status is the process's, its errors are on stderr."""
    ran = subprocess.run([*_HEADWATER, "runs", "lst"], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "Did you mean 'list'?" in ran.stderr


def test_a_bug_is_one_line_and_a_traceback_only_with_debug(
    hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person is not shown our stack unless they ask."""

    def broken() -> None:
        raise ZeroDivisionError("by us")

    monkeypatch.setattr("headwater.cli.runs.connect", broken)
    ran = hw("runs", "list")
    assert (ran.status, ran.err) == (
        1,
        "headwater: ZeroDivisionError: by us; --debug shows where\n",
    )
    assert "in broken" in hw("runs", "list", "--debug").err


def test_init_makes_a_project_whose_app_loads(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files are there, and the app that pyproject.toml names is an app."""
    ran = hw("init", "front-desk")
    assert ran.status == 0
    assert "cd front-desk && headwater dev" in ran.err
    monkeypatch.chdir("front-desk")
    monkeypatch.setattr(sys, "path", [*sys.path])
    app = discovery.load("")
    assert app.name == "front-desk"
    assert sorted(app.agents) == ["answer_question"]
    assert discovery.tenant("") == "local"
    del sys.modules["front_desk"]


def test_init_never_overwrites(hw: Hw) -> None:
    """A directory with something in it stays as it is."""
    home = pathlib.Path("desk")
    home.mkdir()
    (home / "notes.txt").write_text("mine")
    ran = hw("init", "desk")
    assert ran.status == 1
    assert "desk is there already" in ran.err
    assert [path.name for path in home.iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("name", ["Desk", "1desk", "json", "headwater", "../x", "a" * 41])
def test_init_refuses_names_that_cannot_work(hw: Hw, name: str) -> None:
    """A module of that name could not be imported, or would hide another."""
    ran = hw("init", name)
    assert ran.status == 2
    assert [*pathlib.Path().iterdir()] == []


def test_init_as_a_dry_run_writes_nothing(hw: Hw) -> None:
    """It lists the files."""
    ran = hw("init", "desk", "--dry-run", "--output", "json")
    assert ran.json["written"] is False
    assert "desk.py" in ran.json["files"]
    assert [*pathlib.Path().iterdir()] == []


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("", "which app?"),
        ("desk", "is not MODULE:APP"),
        ("nowhere_at_all:app", "not installed"),
        ("json:app", "has no headwater.App at all"),
    ],
)
def test_an_app_that_cannot_be_found_is_explained(option: str, words: str) -> None:
    """Exit 2; the line says where was looked and how to name one."""
    with pytest.raises(shell.RefusedError, match=re.escape(words)) as refused:
        discovery.load(option)
    assert refused.value.status == shell.WRONG_USAGE


def test_the_environment_names_the_app_before_the_project(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """`--app`, then `HEADWATER_APP`, then pyproject.toml; the line names the one that was wrong."""
    pathlib.Path("pyproject.toml").write_text('[tool.headwater]\napp = "third"\n')
    with pytest.raises(shell.RefusedError, match=r"\[tool.headwater\] app 'third'"):
        discovery.load("")
    monkeypatch.setenv("HEADWATER_APP", "second")
    with pytest.raises(shell.RefusedError, match="HEADWATER_APP 'second'"):
        discovery.load("")
    with pytest.raises(shell.RefusedError, match="--app 'first'"):
        discovery.load("first")


def test_a_broken_pyproject_is_named() -> None:
    """It is not passed over as if it said nothing."""
    pathlib.Path("pyproject.toml").write_text("[tool.headwater\n")
    with pytest.raises(shell.RefusedError, match=r"pyproject\.toml cannot be read"):
        discovery.project()


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("tennant", "has no key 'tennant': did you mean 'tenant'[?]"),
        ("port", "has no key 'port': it has app and tenant; what else"),
    ],
)
def test_a_key_of_the_project_that_is_none_is_named(key: str, words: str) -> None:
    """It would set nothing, and nobody would hear of it."""
    pathlib.Path("pyproject.toml").write_text(f'[tool.headwater]\n{key} = "x"\n')
    with pytest.raises(shell.RefusedError, match=words):
        discovery.project()


_KEPT = {
    "id": "hw.quarantine.cmd.triage.v1.0.4",
    "code": "unknown-schema",
    "topic": "hw.cmd.triage.v1",
    "partition": 2,
    "offset": 77,
    "message": "schema 9 is not known",
    "headers": {"ce_id": "c-1"},
    "key": "k",
    "value": "AAEC",
}


def test_quarantine_lists_and_shows(door: Door, hw: Hw) -> None:
    """Class, origin and reason; one record with its bytes."""
    door.on("GET", "/api/v1/quarantine", {"records": [_KEPT]})
    door.on("GET", f"/api/v1/quarantine/{_KEPT['id']}", _KEPT)
    listed = hw("quarantine", "list")
    assert "unknown-schema" in listed.out
    assert max(len(line) for line in listed.out.splitlines()) <= 80
    shown = hw("quarantine", "show", str(_KEPT["id"]))
    assert "hw.cmd.triage.v1[2]@77" in shown.out
    assert "AAEC" in shown.out
    assert hw("quarantine", "list", "--output", "json").json == [_KEPT]


@pytest.mark.parametrize(
    ("ms", "words"),
    [
        (7, "7 ms"),
        (2_500, "2.5 s"),
        (61_000, "1 min 1 s"),
        (3_660_000, "1 h 1 min"),
        (90_000_000, "1 d 1 h"),
    ],
)
def test_durations_read_as_people_say_them(ms: int, words: str) -> None:
    """Units grow with the time."""
    assert shell.duration(ms) == words


@pytest.mark.parametrize(
    ("nano", "words"), [(0, "$0.00"), (1_250_000, "$0.00125"), (1_500_000_000, "$1.50")]
)
def test_small_sums_keep_their_digits(nano: int, words: str) -> None:
    """A model call costs less than a cent."""
    assert shell.money(nano) == words
