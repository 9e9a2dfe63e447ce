"""Health and metrics: what every role answers over HTTP."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

Check = Callable[[], tuple[bool, dict[str, object]]]


def routes(*, live: Check, ready: Check, registry: CollectorRegistry) -> list[Route]:
    """Return `/livez`, `/readyz` and `/metrics`.

    Args:
        live: Whether nothing has died, and details.
        ready: Whether work is being done, and details.
        registry: What is measured.
    """

    def answer(check: Check) -> Response:
        good, details = check()
        return JSONResponse({"ok": good, **details}, status_code=200 if good else 503)

    async def livez(request: Request) -> Response:
        return answer(live)

    async def readyz(request: Request) -> Response:
        return answer(ready)

    async def metrics(request: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)]
