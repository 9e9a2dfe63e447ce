"""Judging: one seed played, and what does not hold afterwards."""

from __future__ import annotations

import contextlib
import dataclasses
import random
import uuid
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

import stamina

from headwater.log.local import LocalLog
from headwater.runtime import answering, noting, performing
from headwater.testing.invariants import violations
from headwater.testing.simulator.choices import Choice, Choices
from headwater.testing.simulator.fleet import Fleet
from headwater.testing.simulator.odds import Odds
from headwater.testing.simulator.planted import instead
from headwater.testing.simulator.processes import Broken, Clock, Stuck
from headwater.testing.simulator.storm import Storm


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A history that can be played again.

    Args:
        seed: Its seed.
        choices: What goes wrong.
        fed: Which inputs are fed.
        calm_at: Step at which the calm begins.
    """

    seed: int
    choices: tuple[Choice, ...]
    fed: tuple[int, ...]
    calm_at: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one seed.

    Args:
        plan: How to play it again.
        problems: What does not hold; empty if everything does.
        history: What went wrong on the way, in order.
        feed: What was fed, in words.
        counts: What was injected, how often.
    """

    plan: Plan
    problems: Sequence[str]
    history: Sequence[str]
    feed: Sequence[str]
    counts: Mapping[str, int] = dataclasses.field(default_factory=dict)


HOLD_S = 0.02
"""How long a member that stops keeps its partitions here, where calls take a tenth of a second."""

stamina.instrumentation.set_on_retry_hooks([])  # a simulation has no one to tell of each try


def play(
    seed: int,
    *,
    odds: Odds | None = None,
    plan: Plan | None = None,
    log: Mapping[str, Any] | None = None,
) -> Verdict:
    """Play a seed, or a plan of it, and judge what was written.

    Args:
        seed: The seed.
        odds: How often what goes wrong.
        plan: Goes wrong instead, and nothing else.
        log: Protections of the log that are off.
    """
    odds = odds or Odds()
    clock = Clock()
    choices = Choices(seed, most=odds.faults_max, planned=None if plan is None else plan.choices)
    storm = Storm(seed, clock, choices, odds, calm_at=None if plan is None else plan.calm_at)
    problems: list[str] = []
    counts: Counter[str] = Counter()
    with _derived_ids(seed), instead(performing, "HOLD_S", HOLD_S):
        world = Fleet(
            seed,
            LocalLog(clock=clock, faults=storm, **(log or {})),
            storm,
            fed=None if plan is None else plan.fed,
        )
        try:
            storm.run(world)
        except (Stuck, Broken) as error:
            problems.append(f"{type(error).__name__}: {error}")
        else:
            book = world.book()
            problems += [str(violation) for violation in violations(book)]
            problems += [f"result: {problem}" for problem in world.problems(book)]
            counts += world.seen(book)
        finally:
            storm.crowd.close()
    return Verdict(
        plan=Plan(
            seed=seed,
            choices=tuple(choices.made),
            fed=tuple(number for number, _ in world.feed),
            calm_at=storm.calm_at or 0,
        ),
        problems=problems,
        history=storm.history,
        feed=world.words(),
        counts=counts + storm.counts,
    )


@contextlib.contextmanager
def _derived_ids(seed: int) -> Iterator[None]:
    """Have attempts' ids come from the seed, so that the same seed writes the same bytes."""
    ids = _Ids(seed)
    with instead(answering, "uuid", ids), instead(noting, "uuid", ids):
        yield


class _Ids:
    """What effectors use of the module `uuid`."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(f"ids/{seed}")  # noqa: S311 - a seeded world

    def uuid4(self) -> uuid.UUID:
        """Return the next id."""
        return uuid.UUID(int=self._dice.getrandbits(128), version=4)


def parts(plan: Plan) -> Sequence[Choice | int]:
    """Return what a plan is made of: inputs and choices, each of which may be left out."""
    return (*plan.fed, *plan.choices)


def of(plan: Plan, kept: Collection[Choice | int]) -> Plan:
    """Return a plan with only these parts."""
    return dataclasses.replace(
        plan,
        choices=tuple(one for one in plan.choices if one in kept),
        fed=tuple(number for number in plan.fed if number in kept),
    )
