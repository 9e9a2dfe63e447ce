"""Budgets and calls that authors make themselves."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import headwater
from headwater.contracts.messages import Limits


def test_budget_travels_as_limits() -> None:
    """Dollars as billionths, seconds as milliseconds; None is no limit."""
    assert headwater.Budget().limits() == Limits()
    budget = headwater.Budget(steps=1, tokens=2, usd=0.25, wall_s=1.5, cleanup_steps=0)
    assert budget.limits() == Limits(
        steps=1, tokens=2, usd_nano=250_000_000, wall_ms=1_500, cleanup_steps=0
    )
    free = headwater.Budget(steps=None, usd=None, wall_s=None).limits()
    assert (free.steps, free.usd_nano, free.wall_ms) == (None, None, None)


@pytest.mark.parametrize(
    "terms",
    [
        {"steps": -1},
        {"tokens": -1},
        {"usd": float("nan")},
        {"wall_s": float("inf")},
        {"cleanup_steps": -2},
    ],
)
def test_budget_that_is_none_is_refused(terms: dict[str, Any]) -> None:
    """A mistyped budget must not be an unlimited one."""
    with pytest.raises(headwater.SettingsError, match=f"budget {next(iter(terms))}="):
        headwater.Budget(**terms)


def test_call_made_by_hand_needs_only_its_dependencies() -> None:
    """Tests of tools hand one in."""
    call = headwater.Call(deps=7)
    call.heartbeat("on")
    asyncio.run(_progress(call))
    assert (call.deps, call.attempt, call.deadline.tzinfo is not None) == (7, 1, True)


async def _progress(call: headwater.Call[int]) -> None:
    await call.progress("half")
