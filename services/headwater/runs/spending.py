"""Spending: what a run reserves for a call before it is sent, and settles when it is answered."""

from __future__ import annotations

import dataclasses

from headwater.contracts.messages import Limits, Spent
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


def left(visit: Visit) -> Limits:
    """Return what the run may still spend; in cleanup, steps are those of its own small budget."""
    run, limits = visit.run, visit.limits
    used = plus(run.reserved, run.spent)
    at_ms = run.asking_ms if run.asking else run.now_ms
    cleanup = limits.cleanup_steps if run.cleanup is None else run.cleanup
    return Limits(
        steps=_less(limits.steps, used.steps) if run.cleanup is None else cleanup,
        tokens=_less(limits.tokens, used.tokens),
        usd_nano=_less(limits.usd_nano, used.usd_nano),
        wall_ms=_less(limits.wall_ms, at_ms - visit.since_ms - run.waited_ms),
        cleanup_steps=cleanup,
    )


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


def bill(visit: Visit) -> Spent:
    """Return what a run that ends has cost: what is settled, and whatever else may yet be billed.

    What answers a call after that finds no run, so the call counts as high as its reserve.
    """
    cost = visit.run.spent
    for call in visit.scan(OpenCall):
        if not call.unsent and not call.settled:
            cost = plus(cost, call.reserved)
    return cost


def _less(limit: int | None, used: int) -> int | None:
    return None if limit is None else max(0, limit - used)
