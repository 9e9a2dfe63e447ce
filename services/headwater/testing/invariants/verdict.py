"""The verdict on a book: every invariant by its number, and what does not hold."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping

from headwater.testing.invariants import accounts, calls, replays, rest, stories, turns
from headwater.testing.invariants.book import Book

Checker = Callable[[Book], Iterator[str]]

CHECKERS: Mapping[int, Checker] = {
    1: accounts.every_task_is_accounted_for,
    2: accounts.one_outcome_a_run,
    3: turns.nothing_of_an_aborted_turn_is_readable,
    4: turns.outputs_rows_and_offset_commit_together,
    5: turns.order_is_kept,
    6: calls.a_deposed_owner_pays_nothing,
    7: rest.nothing_hangs_and_nothing_is_left,
    8: calls.no_call_is_repeated_without_need,
    9: rest.a_killer_stops_only_its_own,
    10: replays.a_replay_gives_the_same_bytes,
    11: rest.memory_stays_bounded,
    12: accounts.no_allowance_is_overdrawn,
    13: stories.outcomes_are_those_without_faults,
}
"""Checkers by the number of their invariant."""

RULES: Mapping[int, str] = {
    number: (checker.__doc__ or "").strip().splitlines()[0] for number, checker in CHECKERS.items()
}
"""What each invariant says, in a sentence."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Violation:
    """One invariant that does not hold, and where.

    Args:
        number: Of the invariant.
        what: What was found.
    """

    number: int
    what: str

    def __str__(self) -> str:
        return f"invariant {self.number}: {self.what}"


def violations(book: Book, numbers: Collection[int] = ()) -> list[Violation]:
    """Return what does not hold, of all invariants or of these."""
    return [
        Violation(number=number, what=what)
        for number, checker in CHECKERS.items()
        if not numbers or number in numbers
        for what in checker(book)
    ]
