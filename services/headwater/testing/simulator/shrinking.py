"""Shrinking: the shortest history that still fails, by leaving out parts of it (delta debugging).

Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 28(2), 2002.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from headwater.testing.simulator import judging
from headwater.testing.simulator.choices import Choice
from headwater.testing.simulator.judging import Plan, Verdict

PLAYS_MAX = 400
"""Histories played for one reduction, at most."""

Part = Choice | int


def shrink(
    verdict: Verdict, play: Callable[[Plan], Verdict], *, plays_max: int = PLAYS_MAX
) -> Verdict:
    """Return the verdict of the shortest history found that fails as this one does.

    Args:
        verdict: Of a history that fails.
        play: Plays a plan.
        plays_max: Gives up after so many plays, with the shortest until then.
    """
    kind = kind_of(verdict)
    best, plays = verdict, 0

    def fails(kept: Collection[Part]) -> Verdict | None:
        nonlocal plays
        plays += 1
        found = play(judging.of(best.plan, kept))
        return found if kind in {kind_of(found, one) for one in found.problems} else None

    parts: Sequence[Part] = judging.parts(verdict.plan)
    pieces = 2
    while len(parts) > 1 and plays < plays_max:
        size = max(1, len(parts) // pieces)
        for start in range(0, len(parts), size):
            rest = (*parts[:start], *parts[start + size :])
            if plays < plays_max and (found := fails({*rest})) is not None:
                best, parts, pieces = found, judging.parts(found.plan), max(2, pieces - 1)
                break
        else:
            if size == 1:
                break
            pieces = min(len(parts), pieces * 2)
    return best


def kind_of(verdict: Verdict, problem: str | None = None) -> str:
    """Return what kind of problem it is: the invariant, without names and numbers."""
    text = problem or verdict.problems[0]
    return text.partition(":")[0]
