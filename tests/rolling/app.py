"""An app of the version that the environment says; what it tells at the end says who finished a run."""

from __future__ import annotations

import os

import headwater

VERSION = os.environ.get("ROLLING_VERSION", "1.0")
app = headwater.App("rolling", version=VERSION)


@app.tool(effect="read")
async def look(task: str) -> str:
    """Look something up, so that the run's life tells who takes it."""
    return task


@app.agent
async def clerk(ctx: headwater.Context, task: str) -> str:
    """Wait for two signals."""
    noted = await ctx.receive("note")
    await look(task)
    await ctx.receive("go")
    return f"{task} {noted} {VERSION}"
