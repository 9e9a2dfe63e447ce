"""The service, its gateway and the desk, over real HTTP on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping

import httpx
import pytest
from examples.desk import app as desk_app
from examples.service import app as service

import headwater
from headwater import hosts, namespace
from headwater.settings import Settings


def serve(
    visit: Callable[[httpx.AsyncClient], Awaitable[None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run the desk and the service, and visit it."""

    async def main() -> None:
        log = await namespace.local(desk_app.app)
        found: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        settings = Settings.of({"HEADWATER_HTTP__PORT": "0"})
        host = hosts.Host(desk_app.app, log, settings, roles=hosts.ROLES, announce=found.set_result)
        running = asyncio.create_task(host.run(signals=False))
        monkeypatch.setenv("HEADWATER_URL", await found)
        try:
            async with service.lifespan(service.app) as state:
                transport = httpx.ASGITransport(app=_stateful(state))
                async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
                    await visit(client)
        finally:
            assert host.process is not None
            host.process.stop()
            await running

    asyncio.run(main())


def _stateful(state: Mapping[str, object]):  # type: ignore[no-untyped-def] # an ASGI application
    """Hand the lifespan's state to requests, as a server does."""

    async def call(scope, receive, send) -> None:  # type: ignore[no-untyped-def] # as above
        await service.app({**scope, "state": dict(state)}, receive, send)

    return call


def test_visitors_get_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 with the answer; the same key again is the same run; what does not fit is refused."""
    monkeypatch.setattr(service, "WAIT_S", 300.0)

    async def visit(client: httpx.AsyncClient) -> None:
        letter = {"customer": "ana", "text": "My card 4711 was stolen!"}
        key = {"idempotency-key": "visit-1"}
        first, again = [await client.post("/letters", json=letter, headers=key) for _ in range(2)]
        assert first.status_code == 200, first.text
        assert first.json() == again.json() == {"text": "Card 4711 is blocked."}
        refused = await client.post("/letters", json={"customer": "ana"})
        assert (refused.status_code, refused.json()) == (422, {"error": "Field required"})
        wrong = await client.get("/letters/nonsense")
        assert wrong.status_code == 404

    serve(visit, monkeypatch)


def test_visitor_need_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client's timeout is no failure of the run: 202, and where to look."""
    monkeypatch.setattr(service, "WAIT_S", 0.3)

    async def visit(client: httpx.AsyncClient) -> None:
        letter = {"customer": "ana", "text": "Transfer 5000 to ben"}
        answer = await client.post("/letters", json=letter)
        assert answer.status_code == 202
        state = await client.get(answer.json()["letter"])
        assert state.status_code == 200
        assert state.json()["answer"] is None

    serve(visit, monkeypatch)


def test_visitor_is_told_that_the_desk_could_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """502 where the run did not complete, here because somebody cancelled it."""
    monkeypatch.setattr(service, "WAIT_S", 0.3)

    async def visit(client: httpx.AsyncClient) -> None:
        letter = {"customer": "ana", "text": "Transfer 5000 to ben"}
        key = {"idempotency-key": "visit-2"}
        waits = await client.post("/letters", json=letter, headers=key)
        where = waits.json()["letter"]
        while (await client.get(where)).json()["status"] != "waiting":  # noqa: ASYNC110 - over HTTP
            await asyncio.sleep(0.01)  # a cancel that comes before its task is refused
        task = where.rpartition("/")[2]
        async with headwater.Client(os.environ["HEADWATER_URL"]) as hw:
            await hw.post(f"/api/v1/runs/{task}/cancel", {"reason": "ana changed her mind"})
        monkeypatch.setattr(service, "WAIT_S", 300.0)
        failed = await client.post("/letters", json=letter, headers=key)
        assert failed.status_code == 502
        assert failed.json()["error"].startswith("the desk could not answer: ")

    serve(visit, monkeypatch)


def test_service_says_that_the_gateway_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """503: try again later."""
    monkeypatch.setattr("headwater.client._TRIES_MAX", 1)
    monkeypatch.setenv("HEADWATER_URL", "http://127.0.0.1:9")

    async def main() -> None:
        async with service.lifespan(service.app) as state:
            transport = httpx.ASGITransport(app=_stateful(state))
            async with httpx.AsyncClient(transport=transport, base_url="http://s") as client:
                letter = {"customer": "ana", "text": "?"}
                assert (await client.post("/letters", json=letter)).status_code == 503
                assert (await client.get(f"/letters/{'0' * 32}")).status_code == 503

    asyncio.run(main())
