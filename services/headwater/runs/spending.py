"""Spending: what a run reserves for a call before it is sent, and settles when it is answered."""

from __future__ import annotations

import dataclasses

from headwater.contracts.messages import Spent
from headwater.core.allowance import Allowance, minus, plus
from headwater.runs.rows import OpenCall
from headwater.runs.visit import Visit


def allowance(visit: Visit) -> Allowance:
    """Return what the run may still spend."""
    return Allowance(limits=visit.limits, reserved=visit.run.reserved, spent=visit.run.spent)


def lacking(visit: Visit, cost: Spent) -> str:
    """Return which limit a cost would pass; in cleanup, steps come from their own small budget."""
    mine = allowance(visit)
    if visit.run.cleanup is None:
        return mine.lacking(cost)
    if cost.steps > visit.run.cleanup:
        return f"{visit.limits.cleanup_steps} steps for cleaning up"
    unstepped = dataclasses.replace(mine.limits, steps=None)
    return dataclasses.replace(mine, limits=unstepped).lacking(cost)


def reserve(visit: Visit, cost: Spent) -> None:
    """Set a cost aside."""
    run = visit.run
    visit.change(reserved=plus(run.reserved, cost))
    if run.cleanup is not None:
        visit.change(cleanup=run.cleanup - cost.steps)


def settle(visit: Visit, call: OpenCall, spent: Spent) -> None:
    """Give a call's reserve back and book what it spent."""
    run = visit.run
    visit.change(reserved=minus(run.reserved, call.reserved), spent=plus(run.spent, spent))
