"""Retries in users' tests: a tool or model that is away for a while costs no time."""

from __future__ import annotations

import asyncio
import time

import pytest

import headwater
from headwater import testing
from headwater.errors import TransientError


@pytest.mark.parametrize("times", [3, 10_000])
def test_a_tool_that_is_away_costs_a_test_no_time(times):
    """Waits are skipped; after what would have been five minutes, the error is the answer."""
    app = headwater.App("bank")
    left = [times]

    @app.tool(effect="read")
    async def balance(account: str) -> int:
        if left[0]:
            left[0] -= 1
            raise TransientError("the ledger is away")
        return 7

    @app.agent
    async def teller(ctx: headwater.Context, account: str) -> str:
        try:
            return str(await balance(account))
        except headwater.ToolError as error:
            return error.error

    async def scene():
        async with testing.App(app) as t:
            run = await t.start(teller, "42")
            return await run.result()

    began_s = time.monotonic()
    assert asyncio.run(scene()) == ("7" if times == 3 else "TransientError")
    assert time.monotonic() - began_s < 240
