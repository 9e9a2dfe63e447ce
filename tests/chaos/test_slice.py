"""A slice of the matrix that every test run takes; `make chaos` runs all of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.chaos.cells import CELLS
from tests.chaos.run import Run, Verdict

pytestmark = [pytest.mark.kafka, pytest.mark.slow, pytest.mark.xdist_group("chaos")]

TASKS = 120
BY_NAME = {cell.name: cell for cell in CELLS}


@pytest.fixture
def play(kafka: str, say: Callable[[str], None]) -> Callable[..., Verdict]:
    """Plays a cell, small."""

    def one(cell: str, sabotage: str = "") -> Verdict:
        run = Run(kafka, BY_NAME[cell].fault(), tasks=TASKS, seed=1, sabotage=sabotage)
        verdict = run.play()
        say(
            f"{verdict.tasks} tasks, {verdict.records} records, {verdict.met} faults, "
            f"{verdict.seconds:.0f} s; does not hold: {[*verdict.violations]}"
        )
        return verdict

    return one


def test_deaths_between_outputs_and_offsets_lose_and_double_nothing(
    play: Callable[..., Verdict],
) -> None:
    """What a turn writes, remembers and has read commit together, whenever its process dies."""
    verdict = play("kill-before-send-offsets")
    assert verdict.violations == {}
    assert verdict.met


def test_control_offsets_that_go_first_lose_tasks(play: Callable[..., Verdict]) -> None:
    """Control: the same deaths, once offsets are committed before what they stand for."""
    verdict = play("kill-before-send-offsets", "offsets_first")
    assert "1" in verdict.violations
