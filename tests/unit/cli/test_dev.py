"""The quick start, as a newcomer runs it: `init`, `dev`, `tasks publish --wait`, `runs show`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from tests.unit.cli.door import Hw

from headwater.cli import runs

_DEV = [sys.executable, "-m", "headwater.cli.main", "dev", "--port", "0"]


@contextlib.contextmanager
def dev(where: str) -> Iterator[str]:
    """Run `headwater dev` in a directory; yield its URL once it says it."""
    process = subprocess.Popen(_DEV, cwd=where, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:\d+", said)):
            line = process.stderr.readline()
            assert line, f"dev ended before it served: {said}"
            said += line
        yield found[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=120)
        assert process.returncode == 0


def test_the_quick_start_works_as_it_is_written(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """A new project runs offline and without keys, and its first task needs neither tenant nor app."""
    assert hw("init", "desk").status == 0
    with dev("desk") as url:
        monkeypatch.chdir("desk")
        monkeypatch.setenv("HEADWATER_URL", url)
        question = '"How much have I got?"'
        ran = hw("tasks", "publish", "answer_question", "--json", question, "--wait")
        assert (ran.status, ran.out) == (0, '"Your balance is 1,250.00."\n'), ran.err
        listed = hw("runs", "list", "--output", "json").json
        assert [(run["status"], run["tenant"]) for run in listed] == [("completed", "local")]
        shown = hw("runs", "show", listed[0]["run"]).out
        assert "1 tool balance answered" in shown
        assert "2 model small answered" in shown
        assert 'returned "Your balance is 1,250.00."' in shown
        assert hw("runs", "tail", listed[0]["run"]).out.splitlines()[-1].startswith("completed")
        wrong = hw("tasks", "publish", "answer_question", "--json", "7")
        assert wrong.status == 1
        assert "valid string" in wrong.err
        over = hw("runs", "cancel", listed[0]["run"], "--yes")
        assert (over.status, "is completed already" in over.err) == (1, True)
        named = hw("tasks", "publish", "answer_question", "--json", question, "--id", "d1")
        assert named.out.startswith("published ")
        monkeypatch.setattr(runs, "SEEN_S", 600.0)  # the gateway hears of it when it does
        assert hw("runs", "tail", "d1").status == 0
        assert "1 tool balance" in hw("runs", "show", "d1").out
        assert hw("quarantine", "list").err == "quarantine is empty\n"


def test_dev_needs_no_hash_seed_of_its_callers(hw: Hw) -> None:
    """`dev` starts itself again with one, and an error after that reads as before."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONHASHSEED"}
    ran = subprocess.run(_DEV, env=environment, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert ran.stderr.startswith("headwater: which app?")
