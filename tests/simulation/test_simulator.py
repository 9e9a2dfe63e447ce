"""The simulator: every history holds all invariants, and one without a protection does not."""

from __future__ import annotations

import concurrent.futures
import json
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import TypeVar

import pytest

from headwater.log.local_faults import Point
from headwater.runs.life import Life
from headwater.testing.invariants import Story
from headwater.testing.simulator import calm, command, desk, judging, planted
from headwater.testing.simulator.choices import Choice, Choices
from headwater.testing.simulator.shrinking import kind_of, shrink

pytestmark = pytest.mark.timeout(1_800)  # a minute of work, on a machine that is ten times slower
EACH = 100
PLANTED_SEEDS = 200
"""What each planted bug gets here; `make planted` gives them ten times as many."""
CONTROL_SEEDS = 40
INJECTED = (
    "death",
    "standstill",
    "standstill, struck off",
    "long standstill, struck off",
    "standstill of everyone",
    "a second of the name",
    "being struck off",
    "an unknown end, aborted",
    "an unknown end, landed",
    "delay",
    "second copy",
    "away",
    "something away",
    "compaction",
    "a stop in good order",
    "a process that left in good order",
    "calls under way handed over",
    "another version",
    "rolled out",
    "rolled back",
    "a version taken back",
    "patches used",
    "held for a later version",
    "held by older code",
    "held over quota",
    "a clock that is off",
    "a queue is full",
    "a slow call",
    "a slow answer",
    "an answer is lost",
    "the world is away",
    "the world is away, nothing happened",
    "published twice",
    "published twice, not the same",
    "garbage",
    "put in quarantine",
    "fed out of turn",
    "told by a stranger",
    *(f"told to {verb}" for verb in ("pause", "resume", "signal", "cancel", "discard")),
    "sent again by an operator",
    "asked of a person",
    "decided",
    *(f"decided with the wrong {what}" for what in ("digest", "group", "verdict")),
    "resumed after a failure",
    "runs compared with themselves alone",
    *(f"something at {point}" for point in Point if point is not Point.BLOCKED),
    *(f"something at {when} {name}" for when in ("before", "after") for name in ("small", "block")),
)
"""What a history may do, and has to: each is seen in 150 seeds."""
Result = TypeVar("Result")
ENVIRONMENT = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)}


def problems_of(bug: str) -> Sequence[str]:
    """Return what the first history that misses a bug's protection violates."""
    with bug_named(bug).plant():
        found = (judging.play(seed).problems for seed in range(PLANTED_SEEDS))
        return next(filter(None, found))


def run(*arguments: str) -> str:
    """Run the simulator as its users do."""
    done = subprocess.run(
        [sys.executable, "-m", "headwater.testing.simulator", "--workers", "1", *arguments],
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        timeout=1_700,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


def alike(act: Callable[..., Result], *given: object) -> Result:
    """Return what an act returns in a process with the same hash seed: with another, histories differ."""
    with (
        pytest.MonkeyPatch.context() as patch,
        concurrent.futures.ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn")
        ) as pool,
    ):
        patch.setenv("PYTHONHASHSEED", ENVIRONMENT["PYTHONHASHSEED"])
        return pool.submit(act, *given).result()


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
    seed, problem = alike(command.found_at, bug, PLANTED_SEEDS)
    assert seed >= 0, f"{bug} was not found in {PLANTED_SEEDS} seeds"
    assert problem


@pytest.mark.slow
@pytest.mark.parametrize("bug", ["answer of another call", "held answer lost"])
def test_the_comparison_with_a_run_without_faults_notices_what_nothing_else_does(bug: str) -> None:
    """A wrong answer is journaled, replayed, charged and counted like a right one."""
    problems = alike(problems_of, bug)
    assert {problem.partition(":")[0] for problem in problems} == {"invariant 13"}


@pytest.mark.slow
@pytest.mark.parametrize("control", [bug.name for bug in planted.CONTROLS])
def test_a_control_is_noticed_in_most_stormy_histories(control: str) -> None:
    """A protection that hardly any history needs would be no protection."""
    assert len(alike(command.failing_of, control, 0, CONTROL_SEEDS)) > CONTROL_SEEDS / 2


@pytest.mark.slow
def test_a_sound_program_holds_in_stormy_histories() -> None:
    """Else the controls would show nothing."""
    assert command.failing_of(planted.SOUND.name, 0, CONTROL_SEEDS) == ()


@pytest.mark.slow
def test_controls_are_told_with_their_figures() -> None:
    """`make controls` says in how many seeds each is noticed, and in what histories."""
    told = run("--controls", "--seeds", "20").splitlines()
    assert told[0].startswith("stormy histories: ")
    assert [line.partition(":")[0] for line in told[1:]] == [
        *(bug.name for bug in planted.CONTROLS),
        "nothing is taken out",
    ]
    assert told[-1] == "nothing is taken out: noticed in 0 of 20 seeds (0%)"


@pytest.mark.slow
def test_whatever_is_promised_to_go_wrong_does() -> None:
    """An injection that never happens is a stub."""
    told = json.loads(run("--seeds", "150", "--output", "json"))
    assert told["failing"] == []
    assert {*INJECTED} <= {*told["injected"]}


def test_a_story_is_told_alone_and_alike() -> None:
    """What a run comes to without faults needs no log, and is the same each time."""
    app = desk.app_of(desk.FIRST)
    task = app.agents["desk"].input.encode("wire 3")
    run_id = f"desk.1.{'ab' * 16}"

    def told(away: tuple[str, ...] = ()) -> list[Story]:
        return [
            *calm.stories(
                run_id,
                "t1",
                task,
                versions=(desk.FIRST,),
                children={},
                event_bytes_max=1_000,
                away=away,
            )
        ]

    (story,) = told()
    assert told() == [story]
    assert [call.name for call in story.calls.values()] == [
        *("balance", "block", "small", "wire", "clerk")
    ]
    result = app.agents["desk"].output.decode(story.value, app.schemas)
    assert result.startswith("42 card 1 is blocked about wire 3 wired wire 3 wire 3: 42 ")
    _, failing = told((f"{run_id}/4",))
    result = app.agents["desk"].output.decode(failing.value, app.schemas)
    assert "TransientError" in result


def test_what_depends_on_time_or_people_has_no_story() -> None:
    """Nobody can say beforehand what it comes to."""
    app = desk.app_of(desk.FIRST)
    for kind in desk.TIMED:
        task = app.agents["desk"].input.encode(f"{kind} 1")
        stories = calm.stories(
            f"desk.1.{'ab' * 16}",
            "t1",
            task,
            versions=(desk.FIRST,),
            children={},
            event_bytes_max=1_000,
            away=(),
        )
        assert [*stories] == []


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
    alike(reduce_a_failing_history)


def reduce_a_failing_history() -> None:
    """Fail if it is not."""
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
    alike(tell_of_a_failing_seed)


def tell_of_a_failing_seed() -> None:
    """Fail if it is not."""
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
