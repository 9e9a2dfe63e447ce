"""Where HTTP is served is said once somebody can connect."""

from __future__ import annotations

import asyncio
import socket
from urllib.parse import urlsplit

import headwater
from headwater import hosts, namespace
from headwater.settings import Settings


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
            with socket.create_connection((parts.hostname, parts.port or 0), timeout=5):
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
