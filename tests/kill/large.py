"""The app of the test of large values: what a tool returns is more than a record holds."""

from __future__ import annotations

import headwater

app = headwater.App("large", namespace="large")
KIB = 700


@app.tool(effect="read")
async def fetch(number: int) -> str:
    """Return 700 KiB that only this number has."""
    return f"{number:08d}" * (KIB * 128)


@app.tool(effect="write")
async def keep(text: str) -> int:
    """Return how long a text is."""
    return len(text)


@app.agent
async def copy(ctx: headwater.Context, number: int) -> str:
    """Fetch a text and keep it."""
    text = await fetch(number)
    size = await keep(text)
    return f"{text[:8]} {size}"
