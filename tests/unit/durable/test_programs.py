"""Random programs: whatever order the world answers in, and wherever a process dies, the run is the same."""

from __future__ import annotations

import json
import random

import hypothesis
import pytest
from hypothesis import strategies
from tests.unit.durable import histories, programs

# Objects hash by address, `as_completed` starts coroutines by address, and memory has holes, so that
# addresses are as arbitrary as in a process that has lived for a while.
WITHOUT_NUMBERS = """
import asyncio, random
from headwater.durable import futures, libraries, running
for kind in (futures.Task, futures.Future, libraries.CancelScope, asyncio.tasks._GatheringFuture):
    kind.__hash__ = object.__hash__
asyncio.as_completed = libraries._as_completed
litter = [(number,) * random.randrange(56) for number in range(100_000)]
litter = [one for one in litter if random.random() < 0.5]
"""


def made(count: int) -> list[histories.History]:
    return [histories.play(programs.make(random.Random(seed), 5), seed) for seed in range(count)]


@hypothesis.settings(max_examples=200)
@hypothesis.given(seed=strategies.integers(0, 2**32), depth=strategies.integers(1, 5))
def test_program_is_the_same_after_crash_at_every_step(seed: int, depth: int) -> None:
    """An execution may be dropped after any delivery; the rebuilt one goes on as if it had not been."""
    history = histories.play(programs.make(random.Random(seed), depth), seed)
    assert histories.crash_everywhere(history) == histories.told(history)


@hypothesis.settings(max_examples=100)
@hypothesis.given(seed=strategies.integers(0, 2**32))
def test_no_call_is_asked_for_twice(seed: int) -> None:
    """Numbers count up from 1 for the life of a run, each asked once and withdrawn at most once."""
    history = histories.play(programs.make(random.Random(seed), 5), seed)
    steps = [step for step in history.steps if step is not None]
    numbers = [call.number for step in steps for call in step.asked]
    withdrawn = [number for step in steps for number in step.withdrawn]
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(set(withdrawn)) == len(withdrawn)
    assert set(withdrawn) <= set(numbers)


@pytest.mark.parametrize("hash_seed", [1, 4711])
def test_replay_in_fresh_process_with_another_hash_seed_is_equal(hash_seed: int) -> None:
    """Results, numbers, times, uuids and draws do not depend on the process that computes them."""
    played = made(150)
    assert histories.elsewhere(played, hash_seed=hash_seed) == [
        histories.told(one) for one in played
    ]


def test_replay_differs_when_objects_hash_by_address() -> None:
    """Control: with asyncio's own hashes some program takes another way in another process."""
    played = made(150)
    assert histories.elsewhere(played, hash_seed=2, prelude=WITHOUT_NUMBERS) != [
        histories.told(one) for one in played
    ]


def test_programs_reach_everything_they_name() -> None:
    """The random programs are no proof of what they never do."""
    played = made(150)
    seen = {
        word
        for one in played
        for step in one.steps
        if step is not None and step.ended is not None and hasattr(step.ended, "value")
        for word in _kinds(json.loads(step.ended.value))
    }
    named = {name.removeprefix("do_") for name in vars(programs.Interpreter) if name[:3] == "do_"}
    assert named - {"raise"} <= seen


def _kinds(trace: list[object]) -> set[str]:
    return {
        part[0] for part in trace if isinstance(part, list) and part and isinstance(part[0], str)
    }
