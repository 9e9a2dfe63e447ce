"""The program as a process: what a Ctrl-C leads to, from its first moment on."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.unit.cli.door import Hw

import headwater_program
from headwater.cli import shell

SLOW = 'import sys, time\nprint("importing", flush=True)\ntime.sleep(60)\n'


@pytest.fixture(autouse=True)
def _heard() -> Iterator[None]:
    """Have a Ctrl-C heard, here and by whoever is started: a shell has what it runs behind ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def stopped(where: pathlib.Path, *command: str, ignored: bool = False) -> tuple[int, str]:
    """Interrupt a program that is importing its command line; return its status and what it says."""
    (where / "typer.py").write_text(SLOW)
    shell = ["sh", "-c", 'trap "" INT; exec "$0" "$@"'] if ignored else []
    process = subprocess.Popen(
        [*shell, sys.executable, *command, "--version"],
        env={**os.environ, "PYTHONPATH": str(where)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "importing\n"
    process.send_signal(signal.SIGINT)
    if ignored:
        process.terminate()
    try:
        _, said = process.communicate(timeout=120)
    finally:
        process.kill()
        process.wait(10)
    return process.returncode, said


def test_a_ctrl_c_during_the_imports_is_one_line(tmp_path: pathlib.Path) -> None:
    """And the status that shells have for it."""
    assert stopped(tmp_path, "-m", "headwater_program") == (130, "headwater: stopped\n")


def test_the_control_imports_with_nobody_listening(tmp_path: pathlib.Path) -> None:
    """Started as a module of the package it is a traceback, as it was."""
    status, said = stopped(tmp_path, "-m", "headwater.cli.main")
    assert (status, "Traceback" in said) == (-signal.SIGINT, True)


def test_a_ctrl_c_that_is_ignored_stays_ignored(tmp_path: pathlib.Path) -> None:
    """A shell has what runs behind ignore it; it is ended by what it hears."""
    assert stopped(tmp_path, "-m", "headwater_program", ignored=True) == (-signal.SIGTERM, "")


def test_the_program_runs_the_command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its arguments, and Python's own handler as it was."""
    monkeypatch.setattr(sys, "argv", ["headwater", "runs", "lst"])
    with pytest.raises(SystemExit) as ended:
        headwater_program.run()
    assert ended.value.code == 2
    assert "Did you mean 'list'?" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.parametrize(
    ("raised", "status"), [(KeyboardInterrupt, headwater_program.STOPPED), (EOFError, 1)]
)
@pytest.mark.parametrize("asking", [True, False])
def test_a_ctrl_c_in_a_command_is_the_same(
    hw: Hw,
    monkeypatch: pytest.MonkeyPatch,
    raised: type[BaseException],
    status: int,
    asking: bool,
) -> None:
    """One line and 130, at a question too; an input that ends is a failure."""

    def ended(*_: object) -> None:
        raise raised

    if asking:
        monkeypatch.setattr("sys.stdin.isatty", lambda: True)
        monkeypatch.setattr("typer._click.termui.visible_prompt_func", ended)
        monkeypatch.setattr("headwater.cli.runs.connect", lambda: shell.confirm("?", yes=False))
    else:
        monkeypatch.setattr("headwater.cli.runs.connect", ended)
    ran = hw("runs", "list")
    assert ran.status == status
    assert ran.err.splitlines()[-1] == "headwater: stopped"
