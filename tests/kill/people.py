"""The app of the tests of people's decisions: payments that a person approves, at a provider that records."""

from __future__ import annotations

import os
from typing import Any

import httpx

import headwater

app = headwater.App("people", namespace="people")
URL = "KILL_PROVIDER_URL"


@app.tool(
    effect="irreversible",
    service="bank",
    approve_if=lambda account: account.startswith("much"),
    approve_to="group:payments",
)
async def pay(call: headwater.Call[Any], account: str) -> str:
    """Pay; nobody can take it back, and nobody can find out."""
    async with httpx.AsyncClient(timeout=3_600) as client:
        answer = await client.post(
            f"{os.environ[URL]}/pay", json={"key": call.idempotency_key, "account": account}
        )
        return answer.raise_for_status().text


@app.agent
async def payer(ctx: headwater.Context, account: str) -> str:
    """Pay once."""
    try:
        return await pay(account)
    except (headwater.ToolError, headwater.Denied) as error:
        return f"{error.error}: {error}"
