"""What is left of a day at the desk: the journey of one letter, and what all of them took."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import rich.markup
from examples.desk.story import LETTERS, OtherEndError, Timeline

import headwater
from headwater.cli import journey, shell

REFUSALS = 2
"""What the story sends that nobody takes: one over HTTP, one into the topic."""
SHOWN = next(number for number, letter in enumerate(LETTERS) if letter.decision is not None)
"""The letter whose journey is shown: one that a person decided."""
LOOK_S = 0.1
CLOSE_S_MAX = 30.0


async def close(url: str, tasks: Sequence[str]) -> None:
    """Print the tree of one run, and tokens and money of all.

    Args:
        url: The gateway.
        tasks: Task ids, in the order of the letters.

    Raises:
        OtherEndError: A run has not completed, its child is not in the tree, or nothing was paid.
    """
    children: dict[str, dict[str, Any]] = {}
    try:
        async with headwater.Client(url) as hw, asyncio.timeout(CLOSE_S_MAX):
            runs = [await _ended(hw, task) for task in tasks]
            await _gather(hw, runs[SHOWN], children)
    except TimeoutError as error:
        raise OtherEndError(f"a run was not shown as ended within {CLOSE_S_MAX:.0f} s") from error
    Timeline().head(f"The journey of #{SHOWN + 1}, as `headwater runs show` prints it")
    console = shell.out()
    console.print(journey.tree(runs[SHOWN], children.get))
    completed = sum(run["status"] == "completed" for run in runs)
    # A run's own figures have its children's in them.
    tokens = sum(run["tokens"] for run in runs)
    usd_nano = sum(run["usd_nano"] for run in runs)
    parts = [
        f"{len(runs) + REFUSALS} tasks: {completed} completed, {REFUSALS} refused",
        f"{tokens} tokens",
        shell.money(usd_nano),
    ]
    console.print("\n[bold]" + rich.markup.escape(" · ".join(parts)) + "[/]")
    if completed != len(runs) or not children or not tokens or not usd_nano:
        raise OtherEndError("the runs do not show what they must: completed, a child, money")


async def _ended(hw: headwater.Client, run: str) -> dict[str, Any]:
    """Return a run once the gateway has seen its end."""
    while True:
        found: dict[str, Any] = await hw.get(f"/api/v1/runs/{run}")
        if found["status"] in journey.ENDED:
            return found
        await asyncio.sleep(LOOK_S)


async def _gather(hw: headwater.Client, run: dict[str, Any], into: dict[str, Any]) -> None:
    """Take in a run's children, and theirs."""
    for call in run["calls"]:
        child = call.get("child")
        if child and child not in into:
            into[child] = await _ended(hw, child)
            await _gather(hw, into[child], into)
