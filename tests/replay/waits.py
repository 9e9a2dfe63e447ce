"""An app whose agent sleeps, then waits for a signal: what no example does any more."""

from __future__ import annotations

import asyncio

import headwater

app = headwater.App("waits")


@app.agent
async def waits(ctx: headwater.Context, words: str) -> str:
    """Sleep a minute, then wait half an hour for a word."""
    await asyncio.sleep(60)
    try:
        return f"{words} {await ctx.receive('go', timeout_s=1_800)}"
    except TimeoutError:
        return "nobody came"
