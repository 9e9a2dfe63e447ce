"""The gateway: tasks in, runs out, over HTTP."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Protocol

from sse_starlette.sse import EventSourceResponse
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headwater.contracts import headers as hygiene
from headwater.contracts.messages import Control
from headwater.contracts.records import Draft
from headwater.core.decider import Sent
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, task_id
from headwater.doors import given, openapi
from headwater.doors.callers import Caller, caller_of, only_tenant
from headwater.doors.kept import Kept, KeptDoor
from headwater.doors.problems import HANDLERS, ProblemError
from headwater.durable import confine
from headwater.log.port import Log

ENDED = frozenset({"completed", "failed", "cancelled", "quarantined", "discarded"})
WAIT_S_MAX = 300.0
VERBS = ("cancel", "pause", "resume", "discard")
_LOOK_S = 0.05
_STREAM_LOOK_S = 0.1


class Input(Protocol):
    """An agent's input type (`contracts.derive.Shape`)."""

    def from_json(self, data: bytes | str) -> Any:
        """Read JSON."""
        ...

    def encode(self, value: Any) -> bytes:
        """Return framed Avro."""
        ...

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON schema."""
        ...


class Index(Protocol):
    """The run index (`views.runs.RunIndex`)."""

    def get(self, run: str, *, tenant: str | None = None) -> dict[str, Any] | None:
        """Return one run."""
        ...

    def find(
        self,
        *,
        tenant: str = "",
        agent: str = "",
        status: str = "",
        waiting_for: str = "",
        before_ms: int | None = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return runs."""
        ...

    def events(self, run: str, *, after: int = 0) -> list[tuple[int, dict[str, Any]]]:
        """Return a run's events."""
        ...


class Tokens(Protocol):
    """Pieces of streamed answers (`doors.tokens.Tail`)."""

    def of(self, run: str, after: int) -> tuple[int, list[dict[str, Any]]]:
        """Return the next position and a run's pieces after one."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Surface:
    """What the gateway stands in front of.

    Args:
        log: Where tasks are appended.
        envelope: Seals control messages.
        inputs: Agent's name to its input type.
        command: Agent's name to its command topic.
        admission: Tenant to the address of its admission inbox.
        index: The run index.
        tokens: Streamed pieces.
        kept: Quarantined records and dead letters.
        callers: Bearer token to who that is; empty for none, which only loopback may have.
        tenant: The tenant of who names none.
        body_bytes_max: Largest body.
        streams_max: Most event streams at once.
    """

    log: Log
    envelope: Envelope
    inputs: Mapping[str, Input]
    command: Callable[[str], str]
    admission: Callable[[str], Address]
    index: Index
    tokens: Tokens
    kept: Kept
    callers: Mapping[str, Caller] = dataclasses.field(default_factory=dict)
    tenant: str = "default"
    body_bytes_max: int = 512 * 1024
    streams_max: int = 1_000


class Gateway:
    """Answers HTTP; everything it knows it reads from a view.

    Args:
        surface: What it stands in front of.
    """

    def __init__(self, surface: Surface) -> None:
        self._of = surface
        self._streams = 0

    def app(self, more: Sequence[BaseRoute] = ()) -> Starlette:
        """Return the ASGI application, with further routes such as health."""
        routes: list[BaseRoute] = [
            Route("/api/v1/agents/{agent}/tasks", self.publish, methods=["POST"]),
            Route("/api/v1/runs", self.list_runs),
            Route("/api/v1/runs/{run}", self.show),
            Route("/api/v1/runs/{run}/events", self.follow),
            Route("/api/v1/runs/{run}/signals/{name}", self.signal, methods=["POST"]),
            Route("/api/v1/runs/{run}/{verb}", self.control, methods=["POST"]),
            *KeptDoor(self._of.kept, self._caller, self._of.body_bytes_max).routes(),
            Route("/openapi.json", self.openapi),
            *more,
        ]
        return Starlette(routes=routes, exception_handlers=HANDLERS)

    async def publish(self, request: Request) -> Response:
        """Publish a task; with `wait_s`, wait for its outcome.

        What intake would refuse is refused here, by the same rules, while somebody listens.
        """
        of, agent = self._of, request.path_params["agent"]
        caller = self._caller(request)
        shape = of.inputs.get(agent)
        if shape is None:
            raise self._no_agent(agent)
        wait_s = given.number(request, "wait_s", 0.0, WAIT_S_MAX)
        value = shape.encode(shape.from_json(await given.body(request, self._of.body_bytes_max)))
        event_id = request.headers.get("idempotency-key") or str(uuid.uuid4())
        tenant = self._tenant(request, caller)
        task = task_id(tenant, agent, agent, event_id)
        headers = [
            ("ce_specversion", b"1.0"),
            ("ce_id", event_id.encode()),
            ("ce_source", agent.encode()),
            ("ce_tenantid", tenant.encode()),
            ("content-type", b"application/avro"),
        ]
        if caller.actor:
            headers.append(("ce_actorid", caller.actor.encode()))
        headers += [
            (name, request.headers[name].encode())
            for name in ("traceparent", "tracestate", "baggage")
            if name in request.headers
        ]
        if deadline := request.headers.get("ce-deadline"):
            headers.append(("ce_deadline", deadline.encode()))
        given.check(task, value, headers)
        draft = Draft(
            topic=of.command(agent), key=task.encode(), value=value, headers=tuple(headers)
        )
        await of.log.append(draft)
        url = f"/api/v1/runs/{task}"
        run = await self._ended(task, tenant, wait_s) if wait_s else None
        if run is not None:
            return JSONResponse(run)
        answer = {"task_id": task, "id": event_id, "status": "unknown", "url": url}
        return JSONResponse(answer, status_code=202, headers={"location": url})

    async def show(self, request: Request) -> Response:
        """Return one run; a well-formed id that is not known yet is `unknown`."""
        caller = self._caller(request)
        run = self._meant(request, caller)
        found = self._of.index.get(run, tenant=caller.tenant or None)
        if found is None:
            return JSONResponse({"id": run, "status": "unknown", "calls": []})
        return JSONResponse(found)

    def _no_agent(self, agent: str) -> ProblemError:
        known = ", ".join(sorted(self._of.inputs))
        return ProblemError(404, "No such agent", f"{agent!r}; there are: {known}")

    async def list_runs(self, request: Request) -> Response:
        """Return runs, newest first."""
        caller, query = self._caller(request), request.query_params
        older_s = given.number(request, "older_than_s", 0.0, 1e9)
        runs = self._of.index.find(
            tenant=only_tenant(caller, query.get("tenant", "")),
            agent=query.get("agent", ""),
            status=query.get("status", ""),
            waiting_for=query.get("waiting_for", ""),
            before_ms=int(confine.wall_ms() - older_s * 1000) if older_s else None,
            limit=int(given.number(request, "limit", 50, 1_000)),
        )
        if not runs and query.get("agent") and query["agent"] not in self._of.inputs:
            raise self._no_agent(query["agent"])
        return JSONResponse({"runs": runs})

    async def follow(self, request: Request) -> Response:
        """Stream a run's events, and the tokens of its models, until it has ended."""
        caller = self._caller(request)
        run = self._meant(request, caller)
        if self._streams >= self._of.streams_max:
            raise ProblemError(
                429, "Too many streams", f"{self._streams} are open; try again later"
            )
        last = request.headers.get("last-event-id", "0")
        after = int(last) if last.isdecimal() else 0
        return EventSourceResponse(self._events(run, caller, after))

    async def control(self, request: Request) -> Response:
        """Cancel, pause, resume or discard a run."""
        verb = request.path_params["verb"]
        if verb not in VERBS:
            raise ProblemError(404, "No such verb", f"{verb!r} is not one of {', '.join(VERBS)}")
        return await self._control(request, verb)

    async def signal(self, request: Request) -> Response:
        """Send a run a signal."""
        return await self._control(request, "signal", request.path_params["name"])

    async def openapi(self, request: Request) -> Response:
        """Return the interface as OpenAPI, each agent's task type included."""
        return JSONResponse(openapi.describe(self._of.inputs))

    async def _control(self, request: Request, verb: Any, name: str = "") -> Response:
        of, caller = self._of, self._caller(request)
        run = self._meant(request, caller)
        body = await given.body(request, self._of.body_bytes_max)
        told = given.json_of(body) if body else {}
        if not isinstance(told, dict):
            raise ProblemError(422, "Not an object", "the body is a JSON object: {reason, value}")
        known = of.index.get(run, tenant=caller.tenant or None)
        given.check_verb(verb, known)
        tenant = caller.tenant or (known or {}).get("tenant") or self._tenant(request, caller)
        message = Control(
            target=run,
            verb=verb,
            name=name,
            value=json.dumps(told.get("value")).encode(),
            reason=given.words(told, "reason"),
            resume=given.terms(told, known) if verb == "resume" else None,
        )
        meta = Meta(
            id=secrets.token_hex(16),
            tenant=tenant,
            correlation_id=str((known or {}).get("correlation_id", "")),
            actor=given.actor(told, caller),
        )
        sealed = of.envelope.seal(Sent(message=message, to=of.admission(tenant), meta=meta))
        await of.log.append(sealed)
        return JSONResponse({"run": run, "sent": verb, "name": name}, status_code=202)

    async def _events(self, run: str, caller: Caller, after: int) -> AsyncIterator[dict[str, Any]]:
        index, tokens = self._of.index, self._of.tokens
        position, attempts = -1, dict[int, str]()
        self._streams += 1
        try:
            while True:
                known = index.get(run, tenant=caller.tenant or None)
                events = [] if known is None else index.events(run, after=after)
                if known is not None:
                    position, pieces = tokens.of(known["run"], position)
                    for piece in pieces:
                        before = attempts.setdefault(piece["number"], piece["attempt"])
                        if before != piece["attempt"]:
                            attempts[piece["number"]] = piece["attempt"]
                            yield {
                                "event": "reset",
                                "data": json.dumps({"number": piece["number"]}),
                            }
                        yield {"event": "token", "data": json.dumps(piece)}
                for number, event in events:
                    after = number
                    yield {"id": str(number), "event": "run", "data": json.dumps(event)}
                    if event["status"] in ENDED:
                        return
                if not events and known is not None and known["status"] in ENDED:
                    return
                await asyncio.sleep(_STREAM_LOOK_S)
        finally:
            self._streams -= 1

    async def _ended(self, task: str, tenant: str, wait_s: float) -> dict[str, Any] | None:
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            found = self._of.index.get(task, tenant=tenant)
            if found is not None and found["status"] in ENDED:
                return found
            await asyncio.sleep(_LOOK_S)
        return None

    def _caller(self, request: Request) -> Caller:
        return caller_of(request, self._of.callers)

    def _meant(self, request: Request, caller: Caller) -> str:
        """Return the run or task that is meant: by its id, or by the name it was published under here.

        Raises:
            ProblemError: There can be none, or the name is that of several agents' tasks.
        """
        of, name = self._of, request.path_params["run"]
        tenant = self._tenant(request, caller)
        if of.index.get(name, tenant=caller.tenant or None) is not None:
            return str(name)
        named = {agent: task_id(tenant, agent, agent, name) for agent in sorted(of.inputs)}
        seen = {agent: task for agent, task in named.items() if of.index.get(task, tenant=tenant)}
        if len(seen) > 1:
            detail = f"{name!r} is a task of each of {', '.join(seen)}: give its task id"
            raise ProblemError(409, "Which run?", detail, "ambiguous")
        if not seen:
            given.check_run(name, tenant)
        return next(iter(seen.values()), name)

    def _tenant(self, request: Request, caller: Caller) -> str:
        asked = request.query_params.get("tenant") or request.headers.get("ce-tenantid") or ""
        named = only_tenant(caller, asked) or self._of.tenant
        if not hygiene.valid_tenant(named):
            raise ProblemError(422, "Bad tenant", f"tenant {named!r}: 1 to 64 of a-z 0-9 . _ -")
        return named
