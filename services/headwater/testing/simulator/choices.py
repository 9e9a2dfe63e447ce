"""Choices: what goes wrong, where and when; drawn from a seed, kept, and made again from what was kept.

A choice is named by its site and by how often the site had been reached, and carries the dice for
whatever follows from it. So one of them can be left out, and the others still mean the same.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Iterable, Sequence


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Choice:
    """One thing that goes wrong.

    Args:
        site: Where: `commit of sim.runs.desk/a`.
        count: At which passing of it, from 1.
        what: What goes wrong there.
        dice: Seeds whatever follows from it.
    """

    site: str
    count: int
    what: str
    dice: int

    def __str__(self) -> str:
        return f"{self.what} at {self.site} ({self.count})"


class Choices:
    """Draws choices at a seed's odds, or makes those that are planned.

    Args:
        seed: Draws them.
        most: How many are drawn at most; half of it is the fewest.
        planned: Made instead, and no others.
    """

    def __init__(
        self, seed: int, *, most: int = 0, planned: Iterable[Choice] | None = None
    ) -> None:
        self._seed = seed
        self._counts: dict[str, int] = {}
        self._due: dict[str, int] = {}
        self._dice: dict[str, random.Random] = {}
        self._planned = None if planned is None else {(one.site, one.count): one for one in planned}
        self._left = random.Random(f"{seed}/most").randint(most // 2, most)  # noqa: S311 - a seeded world
        self.made: list[Choice] = []
        """What was chosen, in order."""

    @property
    def left(self) -> bool:
        """Whether anything can still go wrong."""
        return len(self.made) < self._left if self._planned is None else True

    def at(self, site: str, odds: float, whats: Sequence[str]) -> Choice | None:
        """Return what goes wrong at this passing of a site, if anything does.

        Args:
            site: The site.
            odds: How often something goes wrong there.
            whats: What may; one that is named twice comes twice as often.
        """
        count = self._counts[site] = self._counts.get(site, 0) + 1
        if self._planned is not None:
            choice = self._planned.get((site, count))
        elif odds <= 0 or len(self.made) >= self._left:
            return None
        else:
            choice = self._draw(site, count, odds, whats)
        if choice is not None:
            self.made.append(choice)
        return choice

    def _draw(self, site: str, count: int, odds: float, whats: Sequence[str]) -> Choice | None:
        dice = self._dice.get(site)
        if dice is None:
            dice = self._dice[site] = random.Random(f"{self._seed}/{site}")  # noqa: S311 - a seeded world
            self._due[site] = _gap(dice, odds)
        if count < self._due[site]:
            return None
        self._due[site] = count + _gap(dice, odds)
        return Choice(site, count, dice.choice(whats), dice.getrandbits(32))


def _gap(dice: random.Random, odds: float) -> int:
    """Return after how many passings the next choice comes: geometric, as if each were drawn."""
    if odds >= 1:
        return 1
    return 1 + int(math.log(1 - dice.random()) / math.log(1 - odds))
