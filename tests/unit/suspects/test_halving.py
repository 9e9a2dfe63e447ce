"""Halving: whoever kills is found by deaths alone, whoever does not is cleared, in few deaths."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from hypothesis import given, settings, strategies

from headwater.runtime.halving import Halving

DEATHS = 3


class World:
    """Processes that die when one of their suspects kills; whoever was done by then has survived.

    Args:
        killers: Who kills.
        done: How many of a group end before a killer kills.
        alone_alone: Whether only a death alone counts; off for the control.
    """

    def __init__(self, killers: set[int], done: Callable[[int], int], *, alone: bool = True):
        self.killers = killers
        self.done = done
        self.alone = alone
        self.counted: dict[int, int] = {}
        self.cleared: set[int] = set()
        self.found: set[int] = set()
        self.deaths = 0

    def run(self, halving: Halving[int], bound: int = 10_000) -> None:
        """Try group after group."""
        while group := halving.next():
            bound -= 1
            assert bound, "it never ends"
            if not self.killers & {*group}:
                self.cleared |= {*group}
                continue
            self.deaths += 1
            innocents = [one for one in group if one not in self.killers]
            ended = innocents[: self.done(len(innocents))]
            self.cleared |= {*ended}
            self._died(halving, [one for one in group if one not in ended])

    def _died(self, halving: Halving[int], at_work: Sequence[int]) -> None:
        alone = halving.died(at_work)
        for one in at_work if not self.alone else () if alone is None else (alone,):
            self.counted[one] = self.counted.get(one, 0) + 1
            if self.counted[one] >= DEATHS:
                self.found.add(one)
                halving.discard(one)
        if alone is not None and alone not in self.found:
            halving.add(alone, lone=True)


def bound(killers: int, suspects: int) -> int:
    """Return how many deaths are enough: three for each killer alone, and its way down the halves."""
    return killers * (DEATHS + math.ceil(math.log2(max(suspects, 2))))


@settings(deadline=None)
@given(
    suspects=strategies.integers(1, 200),
    share=strategies.floats(0, 1),
    killers=strategies.sets(strategies.integers(0, 199), max_size=8),
)
def test_killers_are_found_and_innocents_cleared(
    suspects: int, share: float, killers: set[int]
) -> None:
    """For any set with k killers of n, deaths are at most k (3 + log2 n)."""
    killers = {one for one in killers if one < suspects}
    world = World(killers, lambda left: int(left * share))
    halving: Halving[int] = Halving()
    for one in range(suspects):
        halving.add(one)
    world.run(halving)
    assert world.found == killers
    assert world.cleared == {*range(suspects)} - killers
    assert {world.counted[one] for one in killers} <= {DEATHS}
    assert world.deaths <= bound(len(killers), suspects)
    assert len(halving) == 0


def test_control_where_every_death_counts_innocents_are_taken_for_killers() -> None:
    """Control: without the rule that only a death alone counts, whoever was near is quarantined too."""
    world = World({0}, lambda left: 0, alone=False)
    halving: Halving[int] = Halving()
    for one in range(64):
        halving.add(one)
    world.run(halving)
    assert world.found > {0}


def test_innocents_do_not_wait_for_the_deaths_of_killers() -> None:
    """Whoever had a process die of it alone comes after all who are among others."""
    halving: Halving[str] = Halving()
    halving.add("killer", lone=True)
    halving.add("innocent")
    halving.add("another")
    assert halving.next() == ("innocent", "another")
    assert halving.died(["innocent", "another"]) is None
    assert halving.next() == ("innocent",)
    halving.again(["innocent"])
    assert halving.next() == ("innocent",)
    assert halving.next() == ("another",)
    assert halving.next() == ("killer",)
    assert halving.next() == ()


def test_a_group_has_a_bound_and_can_be_left() -> None:
    """As many as that at most are in one process; whoever gave up is in none."""
    halving: Halving[int] = Halving(group_max=2)
    for one in range(5):
        halving.add(one)
    assert halving.next() == (0, 1)
    assert halving.died([0, 1]) is None
    halving.discard(1)
    halving.discard(3)
    assert len(halving) == 3
    assert [halving.next() for _ in range(3)] == [(0,), (2, 4), ()]
