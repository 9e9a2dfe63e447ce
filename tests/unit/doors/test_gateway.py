"""The gateway: tasks in and runs out over HTTP, against an app in memory."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import pydantic
import pytest
from prometheus_client import CollectorRegistry, Counter
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from tests.unit.doors import described

import headwater
from headwater.contracts.messages import Token
from headwater.contracts.records import Draft
from headwater.core.messages import Meta, Position, task_id
from headwater.doors import health
from headwater.doors.callers import Caller
from headwater.doors.gateway import Gateway, Surface
from headwater.doors.problems import HANDLERS
from headwater.doors.tokens import Tail
from headwater.errors import TransientError
from headwater.hosts import kept
from headwater.testing import App
from headwater.views.runs import RunIndex

bank = headwater.App("bank")
small = bank.model("small", "openai:gpt-5-mini")


class Claim(pydantic.BaseModel):
    text: str
    amount: int = 0


@bank.agent
async def triage(ctx: headwater.Context, claim: Claim) -> str:
    if claim.text == "wait":
        return str(await ctx.receive("go"))
    if claim.text == "break":
        raise ValueError("bad luck")
    if claim.text == "ask":
        return (await ctx.approve("go on?", claim)).by
    if claim.text == "stream":
        return str(await small("a long answer, please", stream=True))
    return f"{ctx.run.tenant}/{ctx.run.actor}: {claim.text}"


@bank.agent
async def echo(ctx: headwater.Context, claim: Claim) -> str:
    return claim.text


class World:
    """A gateway in front of an app in memory; nothing moves but by `go_on`."""

    def __init__(self, t: App, **more: Any) -> None:
        self.t = t
        platform = t.platform
        self.index = RunIndex(platform.names.evt("runs"))
        self.tail = Tail(platform.names.evt("tokens"))
        self._views = [platform.projecting(self.index), platform.projecting(self.tail)]
        self.operating = platform.operating(self.index.get)
        self.kept = kept(platform, self.operating)
        surface = Surface(
            log=t.log,
            envelope=platform.envelope("gateway"),
            inputs={name: agent.input for name, agent in bank.agents.items()},
            command=platform.names.cmd,
            admission=platform.admission_address,
            index=self.index,
            tokens=self.tail,
            kept=dataclasses.replace(
                self.kept, quarantines=[*self.kept.quarantines, "hw.quarantine.cmd.gone.v1"]
            ),
            **more,
        )
        self.http = described.client(Gateway(surface).app(), surface.inputs)

    async def go_on(self) -> None:
        await self.t.settle()
        for view in self._views:
            while view.step():
                pass

    async def publish(self, task: Any = None, path: str = "triage", **more: Any) -> httpx.Response:
        answer = await self.http.post(
            f"/api/v1/agents/{path}/tasks", json=task or {"text": "hello"}, **more
        )
        await self.go_on()
        return answer


def run(body: Callable[[World], Awaitable[None]], **more: Any) -> None:
    async def main() -> None:
        async with App(bank, models={small: "word " * 30}) as t:
            world = World(t, **more)
            await body(world)
            await world.http.aclose()
            world.index.close()

    asyncio.run(main())


def test_task_is_accepted_and_its_run_shown_by_either_id():
    """202 with the task's id and URL; both ids lead to the run and its outcome."""

    async def body(world: World) -> None:
        answer = await world.publish(headers={"idempotency-key": "k1"})
        assert answer.status_code == 202
        told = answer.json()
        assert answer.headers["location"] == told["url"]
        shown = (await world.http.get(told["url"])).json()
        assert (shown["status"], shown["outcome"]) == ("completed", "default/: hello")
        assert (await world.http.get(f"/api/v1/runs/{shown['run']}")).json() == shown
        again = await world.publish(headers={"idempotency-key": "k1"})
        assert again.json()["task_id"] == told["task_id"]
        listed = (await world.http.get("/api/v1/runs", params={"agent": "triage"})).json()
        assert [one["run"] for one in listed["runs"]] == [shown["run"]]

    run(body)


def test_a_run_is_found_by_the_name_that_its_task_was_published_under():
    """Whoever chose an id asks with it; one that several agents' tasks have is refused."""

    async def body(world: World) -> None:
        name = {"headers": {"idempotency-key": "order 7"}}
        told = (await world.publish({"text": "wait"}, **name)).json()
        shown = (await world.http.get("/api/v1/runs/order 7")).json()
        assert (shown["task_id"], shown["reason"]) == (told["task_id"], "signal go")
        sent = await world.http.post("/api/v1/runs/order 7/signals/go", json={"value": 1})
        assert (sent.status_code, sent.json()["run"]) == (202, told["task_id"])
        await world.go_on()
        assert (await world.http.get("/api/v1/runs/order 7")).json()["outcome"] == "1"
        elsewhere = await world.http.get("/api/v1/runs/order 7", params={"tenant": "other"})
        assert elsewhere.status_code == 404
        await world.publish(path="echo", **name)
        both = await world.http.get("/api/v1/runs/order 7")
        assert (both.status_code, "echo, triage" in both.json()["detail"]) == (409, True)

    run(body)


def test_wait_returns_the_outcome():
    """With `wait_s` a caller gets the run once it has ended, and the task's id if it goes on."""

    async def body(world: World) -> None:
        waiting = asyncio.create_task(world.http.post(
            "/api/v1/agents/triage/tasks", params={"wait_s": 20}, json={"text": "hi"}
        ))  # fmt: skip
        while not waiting.done():
            await world.go_on()
            await asyncio.sleep(0)
        assert waiting.result().status_code == 200
        assert waiting.result().json()["outcome"] == "default/: hi"
        late = await world.http.post(
            "/api/v1/agents/triage/tasks", params={"wait_s": 0.01}, json={"text": "wait"}
        )
        assert late.status_code == 202

    run(body)


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"path": "triaje"}, 404, "there are: echo, triage"),
        ({"task": {"txt": "x"}}, 422, "text"),
        ({"task": {"text": 7}}, 422, "text"),
        ({"params": {"tenant": "Not Ok"}}, 422, "tenant"),
        ({"params": {"wait_s": "soon"}}, 422, "wait_s"),
        ({"headers": {"ce-deadline": "soon"}}, 422, "ce-deadline"),
        ({"headers": {"ce-deadline": "9999-12-31T23:59:59-12:00"}}, 422, "ce-deadline"),
        ({"headers": {"idempotency-key": "k" * 257}}, 422, "Idempotency-Key"),
        ({"headers": {"baggage": "b" * 16_384}}, 422, "headers of"),
        ({"task": {"text": "x" * 600_000}}, 413, "over"),
    ],
)
def test_bad_task_is_a_clear_problem(request_, status, words):
    """The answer names the field, as problem+json; nothing is published."""

    async def body(world: World) -> None:
        answer = await world.publish(**request_)
        assert answer.status_code == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert words in answer.json()["detail"]
        assert world.index.find() == []

    run(body)


def test_task_that_intake_would_refuse_for_its_size_is_refused_at_the_door():
    """A larger body may be allowed, but 202 for what lands in quarantine would be a lie."""

    async def body(world: World) -> None:
        answer = await world.publish({"text": "x" * 600_000})
        assert (answer.status_code, answer.json()["code"]) == (422, "too-large")

    run(body, body_bytes_max=1_000_000)


def test_failed_run_says_why():
    """The error's class and words are in the run."""

    async def body(world: World) -> None:
        told = (await world.publish({"text": "break"})).json()
        shown = (await world.http.get(told["url"])).json()
        assert (shown["status"], shown["error"], shown["detail"]) == (
            "failed",
            "ValueError",
            "bad luck",
        )

    run(body)


def test_unseen_run_is_unknown_and_nonsense_is_not_found():
    """A well-formed id that this gateway has not seen yet answers 200."""

    async def body(world: World) -> None:
        for known in ("a" * 32, "triage.0.task"):
            assert (await world.http.get(f"/api/v1/runs/{known}")).json()["status"] == "unknown"
        assert (await world.http.get("/api/v1/runs/nonsense")).status_code == 404
        assert (await world.http.post("/api/v1/runs/nonsense/cancel")).status_code == 404
        assert (await world.http.get("/api/v1/runs/nonsense/events")).status_code == 404

    run(body)


def test_control_reaches_the_run():
    """Signal, pause, resume and cancel go to the run; another verb is not found."""

    async def body(world: World) -> None:
        told = (await world.publish({"text": "wait"})).json()
        for verb, status in (("pause", "paused"), ("resume", "waiting")):
            answer = await world.http.post(f"{told['url']}/{verb}", json={"reason": "because"})
            assert answer.status_code == 202
            await world.go_on()
            assert (await world.http.get(told["url"])).json()["status"] == status
        await world.http.post(f"{told['url']}/signals/go", json={"value": 7})
        await world.go_on()
        assert (await world.http.get(told["url"])).json()["outcome"] == "7"
        other = (await world.publish({"text": "wait"}, headers={"idempotency-key": "o"})).json()
        await world.http.post(f"{other['url']}/cancel")
        await world.go_on()
        assert (await world.http.get(other["url"])).json()["status"] == "cancelled"
        assert (await world.http.post(f"{other['url']}/explode")).status_code == 404
        for body in (b"[1]", b"{", b"[" * 100_000, b'{"value": NaN}'):
            answer = await world.http.post(f"{other['url']}/cancel", content=body)
            assert answer.status_code == 422
        odd = await world.http.post(f"{other['url']}/cancel", content=b'{"reason": "\\ud800"}')
        assert odd.status_code == 202

    run(body)


def test_a_failed_run_is_resumed_or_discarded_on_its_terms():
    """What can be seen to do nothing is refused; amounts are checked; the index tells the attempt."""

    async def body(world: World) -> None:
        told = (await world.publish({"text": "break"})).json()
        assert (await world.http.get(told["url"])).json()["status"] == "failed"
        for wrong in (-1, "much", True, 1e12):
            answer = await world.http.post(f"{told['url']}/resume", json={"add_usd": wrong})
            assert answer.status_code == 422
        terms = {"reason": "fixed", "add_usd": 0.5, "add_steps": 2, "add_tokens": 3}
        assert (await world.http.post(f"{told['url']}/resume", json=terms)).status_code == 202
        await world.go_on()
        found = (await world.http.get(told["url"])).json()
        assert (found["status"], found["attempt"]) == ("failed", 2)
        stale = {"attempt": 1}
        await world.http.post(f"{told['url']}/resume", json=stale)
        await world.go_on()
        found = (await world.http.get(told["url"])).json()
        assert "attempt 1 was resumed before" in found["reason"]
        assert (await world.http.post(f"{told['url']}/discard")).status_code == 202
        await world.go_on()
        assert (await world.http.get(told["url"])).json()["status"] == "discarded"
        assert (await world.http.post(f"{told['url']}/resume")).status_code == 409
        done = (await world.publish(headers={"idempotency-key": "d"})).json()
        for verb in ("resume", "discard"):
            answer = await world.http.post(f"{done['url']}/{verb}")
            assert (answer.status_code, "completed" in answer.json()["detail"]) == (409, True)

    run(body)


def test_tokens_name_tenant_and_actor():
    """Without a token nothing is said; with one, only the tenant's own runs are."""
    callers = {
        "secret-a": Caller(tenant="a", actor="ana"),
        "secret-b": Caller(tenant="b", actor="bob"),
        "operator": Caller(actor="eva"),
    }

    async def body(world: World) -> None:
        def bearer(token: str) -> dict[str, str]:
            return {"authorization": f"Bearer {token}"}

        assert (await world.publish()).status_code == 401
        assert (await world.publish(headers=bearer("wrong"))).status_code == 401
        told = (await world.publish(headers=bearer("secret-a"))).json()
        mine = (await world.http.get(told["url"], headers=bearer("secret-a"))).json()
        assert mine["outcome"] == "a/ana: hello"
        theirs = (await world.http.get(told["url"], headers=bearer("secret-b"))).json()
        assert theirs["status"] == "unknown"
        listed = (await world.http.get("/api/v1/runs", headers=bearer("secret-b"))).json()
        assert listed["runs"] == []
        refused = await world.http.get("/api/v1/runs?tenant=a", headers=bearer("secret-b"))
        assert refused.status_code == 403
        assert "tenant 'a': the token is of tenant 'b'" in refused.json()["detail"]
        same = await world.http.get("/api/v1/runs?tenant=b", headers=bearer("secret-b"))
        assert same.json()["runs"] == []
        for token, status in (("secret-a", 403), ("operator", 200)):
            answer = await world.http.get("/api/v1/quarantine", headers=bearer(token))
            assert answer.status_code == status

    run(body, callers=callers)


def test_events_stream_a_run_with_its_tokens_and_go_on_after_an_id():
    """Server-sent events: the run's own have ids, tokens come between, the stream ends with the run."""

    async def body(world: World) -> None:
        told = (await world.publish({"text": "stream"})).json()
        answer = await world.http.get(f"{told['url']}/events")
        blocks = [
            block for block in answer.text.replace("\r", "").split("\n\n") if "data:" in block
        ]
        kinds = [
            line[7:] for block in blocks for line in block.split("\n") if line.startswith("event: ")
        ]
        assert "token" in kinds
        assert kinds[-1] == "run"
        ids = [
            int(line[4:])
            for block in blocks
            for line in block.split("\n")
            if line.startswith("id: ")
        ]
        assert ids == sorted(ids)
        rest = await world.http.get(
            f"{told['url']}/events", headers={"last-event-id": str(ids[-2])}
        )
        assert rest.text.count("event: run") == 1

    run(body)


def test_stream_waits_for_its_run_and_tells_when_a_call_starts_over():
    """A client that listens early gets what comes; after `reset` it forgets what it had of that call."""

    async def body(world: World) -> None:
        key = {"idempotency-key": "early"}
        task = task_id("default", "triage", "triage", "early")
        listening = asyncio.create_task(world.http.get(f"/api/v1/runs/{task}/events"))
        await asyncio.sleep(0)
        told = (await world.publish({"text": "wait"}, headers=key)).json()
        assert told["task_id"] == task
        of = world.index.get(task)["run"]
        pieces = [
            Token(run=of, number=1, attempt=attempt, seq=0, text=text)
            for attempt, text in (("a1", "Hel"), ("a2", "Hello"))
        ]
        at, meta = Position("i", "hw.evt.tokens.v1", 0, 0), Meta(id="m", tenant="default")
        world.tail.fold([(at, meta, None), *((at, meta, piece) for piece in pieces)])
        await world.http.post(f"{told['url']}/signals/go", json={"value": 1})
        await world.go_on()
        text = (await asyncio.wait_for(listening, 180)).text
        kinds = [line[7:] for line in text.splitlines() if line.startswith("event: ")]
        assert [kind for kind in kinds if kind != "run"] == ["token", "reset", "token"]
        assert text.count('"status": "completed"') == 1

    run(body)


def test_tail_forgets_the_oldest_runs(monkeypatch: pytest.MonkeyPatch):
    """Pieces are kept for those who listen now, not for ever."""
    monkeypatch.setattr("headwater.doors.tokens.RUNS_MAX", 1)
    monkeypatch.setattr("headwater.doors.tokens.PIECES_MAX", 2)
    tail = Tail("hw.evt.tokens.v1")
    at, meta = Position("i", "hw.evt.tokens.v1", 0, 0), Meta(id="m", tenant="t")
    for name in ("a.0.old", "a.0.new"):
        for seq in range(3):
            token = Token(run=name, number=1, attempt="a1", seq=seq, text="x")
            tail.fold([(at, meta, token)])
    assert tail.of("a.0.old", -1) == (0, [])
    assert tail.of("a.0.new", -1)[0] == 2


def test_whatever_goes_wrong_is_a_problem_document():
    """A log that is away can be tried again; our own mistake is said without its insides."""

    async def away(request: Request) -> Response:
        raise TransientError("no broker answers")

    async def broken(request: Request) -> Response:
        raise RuntimeError("secret insides")

    routes = [Route("/away", away), Route("/broken", broken)]
    app = Starlette(routes=routes, exception_handlers=HANDLERS)

    async def main() -> None:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://h") as http:
            for method, path, status in (
                ("GET", "/away", 503),
                ("GET", "/broken", 500),
                ("GET", "/nowhere", 404),
                ("DELETE", "/away", 405),
            ):
                answer = await http.request(method, path)
                assert answer.status_code == status
                assert answer.headers["content-type"] == "application/problem+json"
                assert "secret" not in answer.text
                assert ("retry-after" in answer.headers) == (status == 503)

    asyncio.run(main())


def test_health_says_what_is_wrong():
    """`/livez` and `/readyz` answer 503 with details; `/metrics` is what Prometheus reads."""
    good = {"live": True, "ready": False}
    registry = CollectorRegistry()
    Counter("tasks", "Tasks.", registry=registry).inc()
    app = Starlette(
        routes=health.routes(
            live=lambda: (good["live"], {}),
            ready=lambda: (good["ready"], {"restoring": 2}),
            registry=registry,
        )
    )

    async def main() -> None:
        async with described.client(app, {}) as http:
            assert (await http.get("/livez")).json() == {"ok": True}
            ready = await http.get("/readyz")
            assert (ready.status_code, ready.json()) == (503, {"ok": False, "restoring": 2})
            assert "tasks_total 1.0" in (await http.get("/metrics")).text

    asyncio.run(main())


def test_streams_are_bounded():
    """One client cannot take all of them."""

    async def body(world: World) -> None:
        told = (await world.publish()).json()
        assert (await world.http.get(f"{told['url']}/events")).status_code == 429

    run(body, streams_max=0)


def test_quarantine_is_listed_and_shown_byte_for_byte():
    """What was refused can be looked at: why, whence, and its bytes."""

    async def body(world: World) -> None:
        topic = world.t.platform.names.cmd("triage")
        for value in (b"rubbish", b"\xff\xfe"):
            await world.t.log.append(
                Draft(topic=topic, value=value, headers=(("ce_tenantid", b"t"),))
            )
        await world.go_on()
        listed = (await world.http.get("/api/v1/quarantine")).json()["records"]
        assert {one["code"] for one in listed} == {"wrong-magic"}
        values = set()
        for one in listed:
            shown = (await world.http.get(f"/api/v1/quarantine/{one['id']}")).json()
            values.add(shown["value"])
            assert shown["topic"] == topic
        assert values == {"rubbish", "base64://4="}
        none = (await world.http.get("/api/v1/quarantine", params={"code": "other"})).json()
        assert none["records"] == []
        for unknown in ("x", f"{listed[0]['id']}9", "hw.cmd.gone.v1:0@0", "hw.cmd.triage.v1:9@0"):
            assert (await world.http.get(f"/api/v1/quarantine/{unknown}")).status_code == 404

    run(body)


def test_openapi_describes_each_agents_task():
    """A client can be generated from it."""

    async def body(world: World) -> None:
        document = (await world.http.get("/openapi.json")).json()
        post = document["paths"]["/api/v1/agents/triage/tasks"]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        assert "text" in json.dumps(schema)
        assert "post" in document["paths"]["/api/v1/runs/{id}/cancel"]
        for path, verbs in document["paths"].items():
            for operation in verbs.values():
                declared = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
                assert declared == set(re.findall(r"{(\w+)}", path)), path

    run(body)


def test_a_tenants_token_that_names_another_tenants_run_does_nothing_to_ones_own():
    """Of two tenants' runs of one name, `runs cancel order-7 --tenant b` cancelled the token's own."""
    callers = {"secret-a": Caller(tenant="a", actor="ana")}

    async def body(world: World) -> None:
        mine = {"authorization": "Bearer secret-a"}
        await world.publish({"text": "wait"}, headers={**mine, "idempotency-key": "order-7"})
        other, path = {"tenant": "b"}, "/api/v1/runs/order-7"
        sent = await world.http.post(f"{path}/cancel", params=other, headers=mine)
        await world.go_on()
        found = (await world.http.get(path, headers=mine)).json()
        assert (sent.status_code, found["status"]) == (403, "waiting")
        assert (await world.http.get(path, params=other, headers=mine)).status_code == 403
        told = await world.publish(params=other, headers=mine)
        assert told.status_code == 403, "it was published as the token's own"
        same = await world.http.get(path, params={"tenant": "a"}, headers=mine)
        assert same.is_success

    run(body, callers=callers)
