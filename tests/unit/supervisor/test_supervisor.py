"""The supervisor, with children that really die."""

from __future__ import annotations

import json
import os
import pathlib
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parents[3]
Tell = Callable[..., "Told"]


class Told:
    """One supervised program, and what it says."""

    def __init__(self, story: str, path: pathlib.Path, *options: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.unit.supervisor.subject", story, str(path), *options],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'services'}:{ROOT}"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def line(self) -> dict[str, Any]:
        """Return what it says next."""
        assert self.process.stdout is not None
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def end(self) -> tuple[int, list[dict[str, Any]], str]:
        """Return its exit status, and the rest of what it says."""
        out, logged = self.process.communicate(timeout=180)
        return self.process.returncode, [json.loads(line) for line in out.splitlines()], logged


@pytest.fixture
def tell(tmp_path: pathlib.Path) -> Iterator[Tell]:
    running: list[Told] = []

    def begin(story: str, *options: str) -> Told:
        running.append(Told(story, tmp_path, *options))
        return running[-1]

    yield begin
    for told in running:
        if told.process.poll() is None:
            os.killpg(told.process.pid, signal.SIGKILL)
        told.process.communicate()


@pytest.mark.parametrize(
    ("story", "status", "what", "cause"),
    [
        ("segfault", 7, "run/0", "SIGSEGV"),
        ("exits", 0, "run/1", "status 3"),
        ("overflow", 0, "run", "SIGSEGV"),
        ("endless_turn", 0, "run", "a turn of run lasted more than 0.5 s"),
        ("still", 0, "run/1", "event loop stood still for 0.5 s"),
        ("greedy", 0, "run/1", "bytes of memory"),
    ],
)
def test_what_was_at_work_at_a_death_is_handed_to_the_next_child(
    tell: Tell, story: str, status: int, what: str, cause: str
) -> None:
    """Whatever a process dies of, the next one knows of the record, and that it was alone."""
    ended, said, logged = tell(story).end()
    first, second = said[0], said[1]
    assert first["accused"] == []
    [accused] = second["accused"]
    assert accused[:3] == [what, "hw.req.tool.cards.v1[2]@41", True]
    assert cause in accused[3]
    assert ended == status == said[2]["ended"]
    [line] = [line for line in logged.splitlines() if "died after" in line]
    assert cause in line
    assert f"at work: {what}" in line


def test_nobody_is_alone_where_two_were_at_work(tell: Tell) -> None:
    """A death among others counts for nobody."""
    _, said, _ = tell("segfault_two").end()
    assert [one[:3] for one in said[1]["accused"]] == [
        ["run/0", "hw.req.tool.cards.v1[2]@41", False],
        ["run/1", "hw.req.tool.cards.v1[2]@42", False],
    ]


def test_a_death_of_an_idle_process_accuses_nobody(tell: Tell) -> None:
    """An operator's kill -9 restarts it, and that is all."""
    ended, said, logged = tell("killed_idle").end()
    assert [one["accused"] for one in said[:2]] == [[], []]
    assert ended == 0
    assert "at work: nobody" in logged


def test_a_process_that_never_joins_is_given_up(tell: Tell) -> None:
    """Otherwise a wrong image would start for ever, and nobody would see why."""
    ended, said, _ = tell("never_joins").end()
    assert ended == 1
    assert len([one for one in said if "child" in one]) == 3
    assert "died 3 times before it joined, last: signal 9 (SIGKILL)" in said[-1]["error"]


def test_a_refusal_at_the_start_is_passed_on(tell: Tell) -> None:
    """What cannot work does not begin again."""
    ended, said, _ = tell("refuses").end()
    assert ended == 5
    assert len([one for one in said if "child" in one]) == 1


def test_a_signal_is_passed_on_and_the_status_back(tell: Tell) -> None:
    """Who stops the supervisor stops the process, in good order."""
    told = tell("waits")
    told.line()
    told.process.send_signal(signal.SIGTERM)
    ended, _, logged = told.end()
    assert ended == 4
    assert "died" not in logged


def test_a_process_that_is_stopped_before_it_has_begun_anything_ends_in_good_order(
    tell: Tell,
) -> None:
    """There was nothing to end."""
    told = tell("starts_slowly")
    told.line()
    told.process.send_signal(signal.SIGTERM)
    assert told.end()[0] == 0


def test_who_stops_it_twice_does_not_cut_its_end_short(tell: Tell) -> None:
    """Its event loop has let go of signals by then."""
    told = tell("ends_slowly")
    told.line()
    told.process.send_signal(signal.SIGTERM)
    assert told.line() == {"ending": True}
    told.process.send_signal(signal.SIGTERM)
    assert told.end()[0] == 4


def test_a_process_that_does_not_end_is_ended(tell: Tell) -> None:
    """Draining has a bound."""
    told = tell("deaf")
    told.line()
    told.process.send_signal(signal.SIGTERM)
    assert told.end()[0] == 128 + signal.SIGKILL


def test_a_thread_left_behind_has_the_process_replaced_in_good_order(tell: Tell) -> None:
    """A thread cannot be ended; its process is told to stop, and accuses nobody."""
    ended, said, logged = tell("left_behind").end()
    assert [one["accused"] for one in said[:2]] == [[], []]
    assert ended == 9
    assert "is replaced: a thread of run/1 went on for 0.5 s" in logged


def test_a_child_dies_with_its_supervisor_and_its_posts_are_found(tell: Tell) -> None:
    """Nothing is orphaned; with a directory for posts, what was under way is known all the same."""
    told = tell("waits", "--file")
    child = told.line()["child"]
    watch = os.pidfd_open(child)
    told.process.kill()
    told.end()
    poll = select.poll()
    poll.register(watch, select.POLLIN)
    assert poll.poll(120_000), "the child outlived its supervisor"
    os.close(watch)
    again = tell("waits", "--file")
    [accused] = again.line()["accused"]
    assert accused == [
        "run/1", "hw.req.tool.cards.v1[2]@41", True, "it died together with its supervisor",
    ]  # fmt: skip
    again.process.send_signal(signal.SIGTERM)
    assert again.end()[0] == 4


def test_posts_that_were_written_down_are_not_found_again(
    tell: Tell, tmp_path: pathlib.Path
) -> None:
    """A file is removed once what it says is in the log, and at every end in good order."""
    assert tell("segfault", "--file").end()[0] == 7
    assert [*(tmp_path / "posts" / "tools-1").iterdir()] == []


def test_cells_are_forked_on_request(tell: Tell) -> None:
    """Whoever asked for a cell hears how it died; the process goes on."""
    ended, said, logged = tell("with_cells").end()
    assert [one["cell"] for one in said if "cell" in one] == [
        "signal 9 (SIGKILL)",
        "told hello",
    ]
    assert ended == 0
    assert "a cell of tools-1 died: signal 9 (SIGKILL)" in logged
