"""What an operation writes, counted on the log, is what the documentation's table says."""

from __future__ import annotations

import asyncio
import collections
import functools
import pathlib
import re
import sys

import pytest

import headwater
from headwater.testing.app import App

TABLE = pathlib.Path(__file__).parents[3] / "docs" / "records.md"

app = headwater.App("counted")
small = app.model("small", "openai:gpt-5-mini")


@app.tool(effect="read")
async def look() -> str:
    return "x"


@app.tool(effect="write")
async def write() -> str:
    return "x"


@app.tool(effect="write", order_key="card")
async def order(card: str) -> str:
    return card


@app.agent
async def leaf(ctx: headwater.Context, task: str) -> str:
    return "leaf"


@app.agent
async def waits(ctx: headwater.Context, task: str) -> str:
    return await look()


@app.agent
async def reads(ctx: headwater.Context, task: str) -> str:
    return await look() + await look()


@app.agent
async def asks(ctx: headwater.Context, task: str) -> str:
    return await look() + str(await small("?"))


@app.agent
async def writes(ctx: headwater.Context, task: str) -> str:
    return await look() + await write()


@app.agent
async def orders(ctx: headwater.Context, task: str) -> str:
    return await look() + await order("c-1")


@app.agent
async def delegates(ctx: headwater.Context, task: str) -> str:
    return await look() + await leaf("x")


@app.agent
async def sleeps(ctx: headwater.Context, task: str) -> str:
    await asyncio.sleep(5)
    return await look()


@app.agent
async def petitions(ctx: headwater.Context, task: str) -> str:
    await ctx.approve("go on?")
    return await look()


async def written(agent) -> collections.Counter[str]:
    """Return how many records one run of an agent leads to, by kind of topic."""
    async with App(app, models={small: "yes"}) as t:
        run = await t.start(agent, "x")
        for _ in run.asking:
            await t.approve(run, by="ana")
        await t.advance(seconds=6)
        await run.result()
        found: collections.Counter[str] = collections.Counter()
        for need in t.platform.layout.needs(partitions=2, coordinators=2):
            kind = need.name.split(".")[1]
            if kind != "ctl":
                found[kind] += len(t.records(need.name))
        return found


def table() -> dict[str, dict[str, int]]:
    """Return the documentation's table: operation to records by kind of topic."""
    lines = [line for line in TABLE.read_text().splitlines() if line.startswith("|")]
    heads = [cell.strip(" `") for cell in lines[0].split("|")[1:-1]]
    found = {}
    for line in lines[2:]:
        cells = [cell.strip() for cell in line.split("|")[1:-1]]
        numbers = zip(heads[1:-1], cells[1:-1], strict=True)
        found[cells[0]] = {kind: int(re.sub(r"\D", "", text) or 0) for kind, text in numbers}
        assert int(cells[-1]) == sum(found[cells[0]].values()), f"{cells[0]}: the sum is off"
    return found


OPERATIONS = {
    "read tool": reads,
    "write tool": writes,
    "ordered write": orders,
    "model call": asks,
    "child": delegates,
    "timer": sleeps,
    "approval": petitions,
}


@functools.cache
def costs() -> dict[str, collections.Counter[str]]:
    """Return each operation's cost; a task's is that of a run that makes one read, less the read."""
    base = asyncio.run(written(waits))
    found = {}
    for name, agent in OPERATIONS.items():
        found[name] = asyncio.run(written(agent))
        found[name].subtract(base)
    base.subtract(found["read tool"])
    return {"task": base, **found}


@pytest.mark.parametrize("operation", [*OPERATIONS, "task"])
def test_table_says_what_an_operation_writes(operation):
    """An operation's cost is what a run with it writes more than a run without."""
    stated = table()[operation]
    assert {k: n for k, n in costs()[operation].items() if n} == {
        k: n for k, n in stated.items() if n
    }


def main() -> None:
    """Print the costs, for whoever changes the table."""
    for name, cost in costs().items():
        sys.stdout.write(f"{name} {dict(cost)}\n")


if __name__ == "__main__":
    main()
