"""Where HTTP is served is said once somebody can connect."""

from __future__ import annotations

import asyncio
import functools
import socket
import threading
from urllib.parse import urlsplit

import httpx
import pytest
from tests.unit.doors import described

import headwater
from headwater import hosts, namespace
from headwater.log.local import LocalLog
from headwater.presence import Presence
from headwater.settings import Settings


@pytest.mark.parametrize("asked", [True, False], ids=["", "control"])
def test_a_process_is_not_ready_while_its_log_is_away(
    monkeypatch: pytest.MonkeyPatch, asked: bool
) -> None:
    """And ready again once it is back; the control never asks, and calls itself ready all the time."""
    there = threading.Event()
    there.set()
    monkeypatch.setattr(LocalLog, "answers", lambda _, wait_s: there.is_set())
    every_s = 0.01 if asked else 3_600.0
    monkeypatch.setattr(hosts, "Presence", functools.partial(Presence, every_s=every_s))
    app = headwater.App("bank")

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    async def ready(client: httpx.AsyncClient, status: int, looks_max: int = 10_000) -> bool:
        for _ in range(looks_max):
            answer = await client.get("/readyz")
            if answer.status_code == status:
                return answer.json()["log"] is (status == 200)
            await asyncio.sleep(0.01)
        return False

    async def main() -> None:
        url: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        log = await namespace.local(app)
        settings = Settings.of({"HEADWATER_HTTP__PORT": "0"})
        host = hosts.Host(app, log, settings, roles=hosts.ROLES, announce=url.set_result)
        running = asyncio.create_task(host.run(signals=False))
        async with httpx.AsyncClient(
            base_url=await url, event_hooks=described.hooks({"triage": triage.input}), timeout=120
        ) as client:
            assert await ready(client, 200)
            there.clear()
            assert await ready(client, 503, *(() if asked else (200,))) is asked
            there.set()
            assert await ready(client, 200)
        assert host.process is not None
        host.process.stop()
        await running

    asyncio.run(main())


def test_whoever_is_told_can_connect_at_once() -> None:
    """The port is listened on before it is said, however busy the process is with its start."""
    app = headwater.App("bank")

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    async def main() -> None:
        connected = asyncio.Event()

        def connect(url: str) -> None:
            parts = urlsplit(url)
            assert parts.hostname is not None
            with socket.create_connection((parts.hostname, parts.port or 0), timeout=60):
                connected.set()

        settings = Settings.of({"HEADWATER_HTTP__PORT": "0"})
        log = await namespace.local(app)
        host = hosts.Host(app, log, settings, roles=hosts.ROLES, announce=connect)
        running = asyncio.create_task(host.run(signals=False))
        told = asyncio.create_task(connected.wait())
        await asyncio.wait({running, told}, return_when=asyncio.FIRST_COMPLETED)
        if running.done():
            await running
        assert host.process is not None
        host.process.stop()
        await running
        await told

    asyncio.run(main())
