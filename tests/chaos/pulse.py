"""The app of the recovery figures: an agent that answers at once, so that its outcomes are its pulse."""

from __future__ import annotations

import headwater

app = headwater.App("pulse", namespace="pulse")


@app.agent
async def pulse(ctx: headwater.Context, number: int) -> int:
    """Answer at once."""
    return number
