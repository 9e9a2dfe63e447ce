"""The client: services call agents over HTTP, without Kafka and without the agents' code."""

from __future__ import annotations

import asyncio
import json
import types
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Mapping
from typing import Any, Self

import httpx
import pydantic

from headwater.errors import AgentError, HeadwaterError, TransientError

ENDED = frozenset({"completed", "failed", "cancelled", "quarantined", "discarded"})
WAIT_S = 20.0
DECIDE_S = 10.0
"""How long to wait until a decision was taken, in seconds."""
_TRIES_MAX = 6
_SERVER_ERROR = 500
_TOO_MANY = 429


class RefusedError(HeadwaterError):
    """The gateway said no, in its own words.

    Args:
        status: HTTP status.
        detail: What is wrong and what to do.
    """

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Task:
    """A task that was submitted.

    Args:
        client: The client.
        id: Task id.
        output: Type of its result.
    """

    def __init__(self, client: Client, id: str, output: Any) -> None:  # noqa: A002 - the field's word
        self._client = client
        self.id = id
        self._output = output

    async def result(self, *, timeout_s: float | None = None) -> Any:
        """Wait for the outcome.

        Raises:
            AgentError: The run failed or was cancelled.
            TimeoutError: It goes on; that is no failure of the run.
        """
        async with asyncio.timeout(timeout_s):
            pause_s = 0.1
            while True:
                run = await self._client.get(f"/api/v1/runs/{self.id}")
                if run["status"] in ENDED:
                    return read(run, self._output)
                await asyncio.sleep(pause_s)
                pause_s = min(2.0, pause_s * 1.5)

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        """Yield the run's events, and its models' tokens as they stream, until it has ended."""
        async for event in self._client.stream(f"/api/v1/runs/{self.id}/events"):
            yield event

    async def signal(self, name: str, value: Any = None) -> None:
        """Send the run a signal."""
        await self._client.post(
            f"/api/v1/runs/{self.id}/signals/{name}", {"value": _plain(value)}, again=False
        )

    async def cancel(self, reason: str = "") -> None:
        """Cancel the run."""
        await self._client.post(f"/api/v1/runs/{self.id}/cancel", {"reason": reason})


class Client:
    """Calls agents through a gateway.

    Args:
        url: Where the gateway is.
        token: Bearer token, if it wants one.
        tenant: For whom, if the token does not say.

    Example:
        >>> async def ask() -> str:
        ...     async with Client("http://127.0.0.1:8080") as hw:
        ...         return await hw.run("greet", "Ana", timeout_s=30)
    """

    def __init__(self, url: str, *, token: str = "", tenant: str = "") -> None:
        headers = {"authorization": f"Bearer {token}"} if token else {}
        if tenant:
            headers["ce-tenantid"] = tenant
        self._http = httpx.AsyncClient(base_url=url, headers=headers, timeout=WAIT_S + 10)

    async def __aenter__(self) -> Self:
        """Open connections as they are needed."""
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Close them."""
        await self._http.aclose()

    async def submit(
        self,
        agent: str,
        task: Any,
        *,
        output: Any = Any,
        id: str | None = None,  # noqa: A002 - the task's ce_id
    ) -> Task:
        """Publish a task and go on.

        Args:
            agent: Agent's name.
            task: Anything that becomes JSON of the agent's input type.
            output: Type of the result.
            id: The task's own id; the same again is the same task. One is made if there is none,
                and kept over retries.

        Raises:
            RefusedError: The gateway says that the task does not fit.
            TransientError: It is away.
        """
        answer = await self._publish(agent, task, id or str(uuid.uuid4()), 0)
        return Task(self, answer["task_id"], output)

    async def run(
        self,
        agent: str,
        task: Any,
        *,
        output: Any = Any,
        id: str | None = None,  # noqa: A002 - the task's ce_id
        timeout_s: float | None = None,
    ) -> Any:
        """Publish a task and wait for its result.

        Raises:
            AgentError: The run failed or was cancelled.
            TimeoutError: It goes on; that is no failure of the run.
        """
        async with asyncio.timeout(timeout_s):
            wait_s = WAIT_S if timeout_s is None else min(WAIT_S, timeout_s)
            answer = await self._publish(agent, task, id or str(uuid.uuid4()), wait_s)
            if answer["status"] in ENDED:
                return read(answer, output)
            return await Task(self, answer["task_id"], output).result()

    async def approvals(
        self, *, status: str = "open", run: str = "", to: str = ""
    ) -> list[dict[str, Any]]:
        """Return what waits for people, the soonest to expire first.

        Args:
            status: Only in this status: `open`, or how it ended; empty for any.
            run: Only of this run, by its run id.
            to: Only put to this actor, or to `group:<name>`.
        """
        given = {"status": status, "run": run, "to": to}
        query = urllib.parse.urlencode({name: value for name, value in given.items() if value})
        found: list[dict[str, Any]] = (await self.get(f"/api/v1/approvals?{query}"))["approvals"]
        return found

    async def decide(
        self,
        approval: Mapping[str, Any],
        verdict: str,
        *,
        reason: str = "",
        by: str = "",
        value: Any = None,
    ) -> dict[str, Any]:
        """Decide about an approval as it was looked at, and return it as it then is.

        Args:
            approval: As `approvals` returned it.
            verdict: `approve` or `deny`; of a call in doubt `happened`, `not-happened` or `give-up`.
            reason: Why.
            by: Who decides, where the gateway has no tokens.
            value: For `happened`: what the call returned.

        Raises:
            RefusedError: It was refused; in the gateway's words.
        """
        body = {"digest": approval["digest"], "reason": reason}
        if by:
            body["by"] = by
        if verdict == "happened":
            body["value"] = _plain(value)
        path = f"/api/v1/approvals/{approval['id']}/{verdict}?wait_s={DECIDE_S:g}"
        found: dict[str, Any] = await self.post(path, body)
        return found

    async def get(self, path: str) -> Any:
        """Return the JSON at a path."""
        return await self._send("GET", path)

    async def post(self, path: str, body: Any, *, again: bool = True) -> Any:
        """Post JSON.

        Args:
            path: Where.
            body: What becomes JSON.
            again: Whether it may be sent again when nobody knows if it arrived: twice is no harm.
        """
        return await self._send("POST", path, again=again, json=body)

    async def stream(self, path: str) -> AsyncIterator[dict[str, Any]]:
        """Yield server-sent events as dictionaries with `event` and `data`.

        A stream that breaks is taken up after the last event that came; it ends with the run.

        Raises:
            TransientError: It broke several times with nothing in between.
        """
        last, fruitless = "", 0
        while True:
            try:
                async for own, event in self._events(path, last):
                    fruitless, last = 0, own or last
                    yield event
                    if event["event"] == "run" and event["data"]["status"] in ENDED:
                        return
            except httpx.TransportError as error:
                if fruitless >= _TRIES_MAX:
                    raise TransientError(f"{self._http.base_url}{path}: {error}") from error
            else:
                if last:
                    return  # the run had ended before what we asked for
            fruitless += 1
            if fruitless > _TRIES_MAX:
                raise TransientError(f"{self._http.base_url}{path} ends at once, again and again")
            await asyncio.sleep(0.1 * 2**fruitless)

    async def _events(self, path: str, last: str) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        headers = {"last-event-id": last} if last else {}
        own = kind = ""
        async with self._http.stream("GET", path, headers=headers, timeout=None) as response:
            if response.is_error:
                await response.aread()
                raise _refused(response)
            async for line in response.aiter_lines():
                name, _, value = line.partition(":")
                match name:
                    case "id":
                        own = value.strip()
                    case "event":
                        kind = value.strip()
                    case "data":
                        yield own, {"event": kind, "data": json.loads(value)}

    async def _publish(self, agent: str, task: Any, event_id: str, wait_s: float) -> Any:
        return await self._send(
            "POST",
            f"/api/v1/agents/{agent}/tasks",
            json=_plain(task),
            params={"wait_s": wait_s} if wait_s else {},
            headers={"idempotency-key": event_id},
        )

    async def _send(self, method: str, path: str, *, again: bool = True, **options: Any) -> Any:
        """Send, and again while the gateway is away.

        Ids make that harmless for tasks; what has none (`again` false) is sent again only if it
        cannot have arrived.
        """
        pause_s = 0.1
        for attempt in range(1, _TRIES_MAX + 1):
            try:
                response = await self._http.request(method, path, **options)
            except httpx.TransportError as error:
                unsent = isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                if attempt == _TRIES_MAX or not (again or unsent):
                    raise TransientError(
                        f"no gateway answers at {self._http.base_url}: {error}"
                    ) from error
            else:
                broke = response.status_code >= _SERVER_ERROR
                passing = (broke and again) or response.status_code == _TOO_MANY
                if not passing or attempt == _TRIES_MAX:
                    if response.is_error:
                        raise _refused(response)
                    return response.json()
            await asyncio.sleep(pause_s)
            pause_s *= 2
        raise AssertionError("the last attempt returns or raises")


def read(run: dict[str, Any], output: Any) -> Any:
    """Return a run's result.

    Raises:
        AgentError: It failed or was cancelled.
    """
    if run["status"] == "completed":
        return pydantic.TypeAdapter(output).validate_json(json.dumps(run["outcome"]))
    raise AgentError(
        run.get("detail") or f"the run was {run['status']}",
        error=run.get("error") or run["status"],
        call_id=run.get("run", ""),
    )


def _refused(response: httpx.Response) -> HeadwaterError:
    try:
        detail = response.json().get("detail", response.text)
    except ValueError:
        detail = response.text
    if response.status_code >= _SERVER_ERROR:
        return TransientError(detail)
    return RefusedError(response.status_code, detail)


def _plain(value: Any) -> Any:
    return pydantic.TypeAdapter(Any).dump_python(value, mode="json")
