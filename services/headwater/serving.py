"""Serving HTTP: a port that is bound before anything else, and a server that the process stops."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.routing import BaseRoute

from headwater.doors.problems import HANDLERS
from headwater.errors import SettingsError
from headwater.settings import LOOPBACK, Settings

PORT = 8080
"""Of a gateway, where none is set."""


def bind(settings: Settings, roles: Collection[str]) -> socket.socket:
    """Bind the port of HTTP, so that it is the same however often the process starts again.

    Raises:
        SettingsError: It is taken, or a gateway would be open to everybody.
    """
    http, gateway = settings.http, "gateway" in roles
    port = (PORT if gateway else 0) if http.port is None else http.port
    if gateway and not http.tokens_file and http.host not in LOOPBACK:
        raise SettingsError(
            f"HEADWATER_HTTP__HOST {http.host}: without HEADWATER_HTTP__TOKENS_FILE the gateway "
            "binds to 127.0.0.1 only"
        )
    config = uvicorn.Config("", host=http.host, port=port, log_level="critical", lifespan="off")
    try:
        return config.bind_socket()
    except SystemExit as error:
        raise SettingsError(
            f"HEADWATER_HTTP__PORT {port}: the port is taken; set another, or give `headwater dev` --port"
        ) from error


def listen(
    asgi: Starlette, listener: socket.socket, host: str
) -> tuple[Callable[[asyncio.Event], Any], str]:
    """Listen now: whoever is told of it and connects at once waits, instead of being refused.

    Returns:
        What serves until its event is set, and where.
    """
    config = uvicorn.Config(asgi, host=host, log_level="warning", access_log=False, lifespan="off")
    server = _Server(config)
    listener.listen(config.backlog)
    bound = listener.getsockname()[1]

    async def run(stop: asyncio.Event) -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        server.should_exit = True
        server.force_exit = True
        await serving
        listener.close()

    return run, f"http://{host}:{bound}"


def bare(routes: Sequence[BaseRoute]) -> Starlette:
    """Return what serves where there is no gateway."""
    return Starlette(routes=[*routes], exception_handlers=HANDLERS)


class _Server(uvicorn.Server):
    """A server that leaves signals to the process."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
