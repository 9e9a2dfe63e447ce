"""`headwater dev`: every role in one process, on a log in memory."""

from __future__ import annotations

import asyncio
import os
from typing import Annotated

import typer

from headwater import hosts, namespace
from headwater.cli import discovery, shell
from headwater.durable import confine
from headwater.settings import Settings
from headwater.tracing import spans


def dev(
    app: shell.AppOption = "",
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Where HTTP is served; 8080 by default.")
    ] = None,
) -> None:
    """Run every role in one process; it forgets everything at exit."""
    confine.ensure_hash_seed()
    loaded = discovery.load(app)
    settings = Settings.of()
    if port is not None:
        settings.http.port = port
    tracing = spans.connect(
        os.environ, role="dev", version=loaded.version, instance=settings.instance
    )

    async def serve() -> None:
        log = await namespace.local(loaded)
        host = hosts.Host(
            loaded,
            log,
            settings,
            roles=hosts.ROLES,
            tracing=tracing,
            share=spans.share(os.environ),
            announce=lambda url: shell.note(
                f"{loaded.name} is at {url} (every role, log in memory: it forgets at exit); "
                "stop it with Ctrl-C"
            ),
        )
        await host.run()

    asyncio.run(serve())
