"""An agent of pydantic-ai inside a headwater agent: each request and each tool is a call of the run.

headwater dev --app examples.assistant.app:app
headwater tasks publish answer --json '"How much is in accounts 42 and 43?"' --wait
"""

from __future__ import annotations

import re
from typing import Any

import pydantic
from examples.assistant.through import Through
from pydantic_ai import Agent, RunContext

import headwater
from headwater.models.scripted import Scripted


def script(prompt: str) -> dict[str, Any]:
    """Answer as a model might: look the accounts up, then add what they returned."""
    if found := re.findall(r"\d{2}", prompt) if "returned" not in prompt else []:
        return {"calls": [{"tool": "balance", "arguments": {"account": of}} for of in found]}
    answer = {"cents": 125_000, "words": "Both together: 1,250.00."}
    return {"calls": [{"tool": "final_result", "arguments": answer}]}


app = headwater.App("assistant")
# Offline and without keys; "openai:gpt-5-mini" in the script's place asks a real one.
small = app.model(
    "small", Scripted(script), price=headwater.usd_per_million(input_usd=0, output_usd=0)
)


@app.tool(effect="read")
async def look_up(account: str) -> str:
    """Look up what is in an account."""
    return f"{account}: 625.00"


class Answer(pydantic.BaseModel):
    """What a customer is told."""

    cents: int
    words: str


banker = Agent(
    Through(small),
    output_type=Answer,
    deps_type=headwater.Context,
    instructions="You answer customers of a bank.",
)


@banker.tool
async def balance(context: RunContext[headwater.Context], account: str) -> str:
    """Say what is in an account."""
    context.deps.log.info("looking %s up", account)
    return await look_up(account)


@app.agent
async def answer(ctx: headwater.Context, question: str) -> Answer:
    """Have pydantic-ai's loop run here: it may await what the app declares, and touch nothing else."""
    return (await banker.run(question, deps=ctx)).output
