"""The app of the poison test: an agent that goes through every inbox and request topic there is."""

from __future__ import annotations

import headwater
from headwater.models.scripted import Scripted

app = headwater.App("poisoned", namespace="poisoned")
small = app.model(
    "small",
    Scripted(lambda prompt: "yes"),
    price=headwater.usd_per_million(input_usd=1, output_usd=2),
)


@app.tool(effect="read")
async def look(question: str) -> str:
    """Look."""
    return question


@app.agent
async def triage(ctx: headwater.Context, question: str) -> str:
    """Ask a model and a tool."""
    return await look(await small(question))
