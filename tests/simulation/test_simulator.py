"""The simulator: every history holds all invariants, and one without a protection does not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from headwater.runs.life import Life
from headwater.testing.simulator import command, judging, planted
from headwater.testing.simulator.choices import Choice, Choices
from headwater.testing.simulator.shrinking import kind_of, shrink

EACH = 100
PLANTED_SEEDS = 200
"""What each planted bug gets here; `make planted` gives them ten times as many."""
ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}


def run(*arguments: str) -> str:
    """Run the simulator as its users do."""
    done = subprocess.run(
        [sys.executable, "-m", "headwater.testing.simulator", "--workers", "1", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


def bug_named(name: str) -> planted.Bug:
    return next(bug for bug in planted.BUGS if bug.name == name)


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, EACH))
def test_every_history_holds_all_invariants(first: int) -> None:
    """Crashes anywhere, zombies, unknown commits, garbage and people who interfere break no promise."""
    told = json.loads(run("--first", str(first), "--seeds", str(EACH), "--output", "json"))
    assert told["failing"] == []
    assert told["seeds"] == EACH
    assert told["faults"] > 10 * EACH


@pytest.mark.slow
@pytest.mark.parametrize("bug", [bug.name for bug in planted.BUGS])
def test_a_planted_bug_is_found(bug: str) -> None:
    """A simulation that lets a broken program pass shows nothing."""
    seed, problem = command.found_at(bug, PLANTED_SEEDS)
    assert seed >= 0, f"{bug} was not found in {PLANTED_SEEDS} seeds"
    assert problem


def test_a_seed_gives_one_history_in_every_process() -> None:
    """What failed once can be looked at again, anywhere."""
    first, second = (run("--seed", "11") for _ in range(2))
    assert first == second
    assert len(first.splitlines()) > 10


def test_a_history_can_be_played_again_from_what_was_kept_of_it() -> None:
    """The plan of a history leads to the same one."""
    verdict = judging.play(5)
    again = judging.play(5, plan=verdict.plan)
    assert again.history == verdict.history
    assert again.plan == verdict.plan


def test_a_failing_history_is_reduced_to_what_it_takes() -> None:
    """Whoever reads it sees what matters: fewer faults, the same violation."""
    bug = bug_named("no claim check")
    seed, _ = command.found_at(bug.name, PLANTED_SEEDS)
    verdict = judging.play(seed, log=bug.log)
    reduced = shrink(
        verdict, lambda plan: judging.play(plan.seed, plan=plan, log=bug.log), plays_max=60
    )
    assert kind_of(reduced) == kind_of(verdict)
    assert len(judging.parts(reduced.plan)) < len(judging.parts(verdict.plan)) / 2
    assert judging.play(seed, plan=reduced.plan, log=bug.log).problems == reduced.problems


def test_a_failing_seed_fails_the_command_and_tells_how_it_came() -> None:
    """The number, what is violated, and the shortest history that still fails."""
    bug = bug_named("slot closed twice")
    seed, problem = command.found_at(bug.name, PLANTED_SEEDS)
    told: list[str] = []
    with bug.plant():
        assert command.main(["--seed", str(seed), "--plays", "20"], told.append) == 1
    assert told[0] == f"seed {seed} fails:"
    assert problem in told[1]
    assert any(line.startswith("the shortest history found") for line in told)


def test_a_bug_that_is_not_found_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sound program is no find."""
    monkeypatch.setattr(planted, "BUGS", (planted.Bug(name="none at all"),))
    assert command.found_at("none at all", 2) == (-1, "")


def test_a_planting_that_does_not_fit_is_no_find(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bug that breaks on a function which has changed would count as found for ever."""

    def breaks(life: Life, visit: object) -> None:
        raise TypeError("it takes other arguments now")

    misfit = planted.Bug(name="misfit", plant=lambda: planted.instead(Life, "close", breaks))
    monkeypatch.setattr(planted, "BUGS", (misfit,))
    with pytest.raises(AssertionError, match="does not fit"):
        command.found_at("misfit", 5)


def test_choices_are_drawn_at_their_odds_and_made_again_as_planned() -> None:
    """Leaving one out leaves the others what they were."""
    drawn = Choices(3, most=1_000)
    for _ in range(2_000):
        drawn.at("here", 0.1, ["death", "standstill"])
    assert 120 < len(drawn.made) < 280
    planned = Choices(3, planned=drawn.made[1:])
    for _ in range(2_000):
        planned.at("here", 0.9, ["death"])
    assert planned.made == drawn.made[1:]
    assert all(isinstance(one, Choice) for one in planned.made)


@pytest.mark.slow
def test_planted_bugs_are_told_with_their_seeds() -> None:
    """`make planted` says at which seed each was found."""
    told = run("--planted", "--planted-seeds", "50", "--bug", "dedupe off")
    assert "dedupe off: found at seed" in told
    assert told.splitlines()[-1] == "1 of 1 planted bugs found in 50 seeds"
