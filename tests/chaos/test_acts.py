"""What the matrix says of a call that a process made late, because it stood still."""

from __future__ import annotations

import pytest
from tests.chaos.book import acts
from tests.chaos.world import BEGUN, HANDED, Deed

from headwater.testing.invariants import Death

CALL = "clerk.0.q-1/4"


def deed(at_ms: int, event: str, holder: str = "left") -> Deed:
    return Deed(at_ms=at_ms, event=event, name="pay", what="1", key=CALL, holder=holder)


@pytest.mark.parametrize(
    ("died", "late"),
    [
        (Death(who="left", at_ms=1_001), True),
        (Death(who="right", at_ms=1_001), False),
        (Death(who="left", at_ms=999), False),
        (Death(who="left", at_ms=9_001), False),
    ],
    ids=["it stood still in between", "another did", "before", "after"],
)
def test_a_call_is_late_if_its_process_stood_still_after_it_was_handed_over(
    died: Death, late: bool
) -> None:
    made = [*acts([deed(1_000, HANDED), deed(9_000, BEGUN)], {}, [died])]
    assert [(act.key, act.began_ms, act.at_ms, act.late) for act in made] == [
        (CALL, 1_000, 9_000, late)
    ]


def test_a_call_that_was_handed_to_two_is_late_for_whom_it_is() -> None:
    deeds = [
        deed(1_000, HANDED),
        deed(8_000, HANDED, "right"),
        deed(8_000, BEGUN, "right"),
        deed(9_000, BEGUN),
    ]
    made = [*acts(deeds, {}, [Death(who="left", at_ms=1_500), Death(who="left", at_ms=8_900)])]
    assert [(act.holder, act.late) for act in made] == [("right", False), ("left", True)]
