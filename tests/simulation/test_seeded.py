"""The simulation: seeded storms read equal to their calm runs, and would not without the protections."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headwater.testing import seeded
from headwater.testing.seeded_storm import Clock, Odds, Storm

EACH = 100


def run(*arguments: str) -> str:
    """Run the simulation as its users do, in a process that fixes the order of sets."""
    done = subprocess.run(
        [sys.executable, "-m", "headwater.testing.seeded", *arguments],
        env={**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-4_000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, 500, EACH))
def test_a_seed_reads_equal_to_its_run_without_faults(first: int) -> None:
    """Crashes anywhere, rivals, zombies, unknown commits, late and double records change nothing."""
    told = run("--first", str(first), "--seeds", str(EACH), "--control-seeds", "0")
    assert f"{EACH} of {EACH} seeds equal" in told


@pytest.mark.slow
@pytest.mark.parametrize("control", seeded.CONTROLS, ids=lambda control: control.name)
def test_without_a_protection_most_seeds_differ(control: seeded.Variant) -> None:
    """A simulation that lets a broken program pass shows nothing."""
    seeds = 40
    assert 2 * seeded.failing(control, seeds) > seeds


@pytest.mark.slow
def test_the_whole_platform_differs_without_the_claim_check() -> None:
    """Agents, tools and children show a zombie's writes as the ledger does."""
    seeds = 16
    control = seeded.CONTROLS[0]
    wrong = sum(
        bool(seeded.judge(seed, control, build=seeded.fleet).problem) for seed in range(seeds)
    )
    assert 2 * wrong > seeds


def test_a_seed_gives_one_history() -> None:
    """What failed once can be looked at again."""
    first, second = (Storm(7, Clock(), Odds()) for _ in range(2))
    assert first.run(seeded.ledger(7, seeded.SOUND, first)) == second.run(
        seeded.ledger(7, seeded.SOUND, second)
    )
    assert first.history == second.history
    assert len(first.history) >= 10


def test_a_failing_seed_tells_its_number_and_its_history() -> None:
    """Whoever reads the output can play the seed again."""
    control = seeded.CONTROLS[-1]
    verdict = next(v for seed in range(20) if (v := seeded.judge(seed, control)).problem)
    told: list[str] = []
    seeded.tell(verdict, "ledger", told.append)
    assert f"seed {verdict.seed} of the ledger differs" in told[0]
    assert len(told) == len(verdict.history) + 1


def test_weak_controls_and_differing_seeds_fail_the_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The command's exit code is its verdict."""
    told: list[str] = []
    monkeypatch.setattr(seeded, "CONTROLS", (seeded.SOUND,))
    assert seeded.main(["--seeds", "1", "--control-seeds", "2", "--fleet-every", "0"], told.append)
    assert told[-1] == "control, sound: 0 of 2 seeds differ"
    monkeypatch.setattr(seeded, "SOUND", seeded.CONTROLS[0])
    assert not seeded.main(["--seeds", "1", "--control-seeds", "0"], told.append)
