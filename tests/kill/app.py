"""The app of the kill test: one model, one irreversible tool, both at a provider that records."""

from __future__ import annotations

import os
from typing import Any

import httpx
from pydantic_ai.models.openai import OpenAIChatModel
from pydantic_ai.providers.openai import OpenAIProvider

import headwater

app = headwater.App("kill", namespace="kill")
URL = "KILL_PROVIDER_URL"


def provider(_settings: Any) -> OpenAIChatModel:
    """Return a real client of the provider, which takes its time."""
    own = OpenAIProvider(base_url=f"{os.environ[URL]}/v1", api_key="none")
    return OpenAIChatModel("slow", provider=own)


slow = app.model("slow", provider, price=headwater.usd_per_million(input_usd=1, output_usd=1))


@app.tool(effect="irreversible", service="bank")
async def pay(call: headwater.Call[Any], account: str) -> str:
    """Pay; nobody can take it back, and nobody can find out."""
    async with httpx.AsyncClient(timeout=3_600) as client:
        answer = await client.post(
            f"{os.environ[URL]}/pay", json={"key": call.idempotency_key, "account": account}
        )
        return answer.raise_for_status().text


@app.agent
async def asker(ctx: headwater.Context, question: str) -> str:
    """Ask the model once."""
    return str(await slow(question))


@app.agent
async def payer(ctx: headwater.Context, account: str) -> str:
    """Pay once."""
    return await pay(account)
