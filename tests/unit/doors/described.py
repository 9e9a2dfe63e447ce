"""A client of a gateway that holds each request it takes, and each answer, against the OpenAPI document."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import httpx
import jsonschema
from starlette.applications import Starlette

from headwater.doors import openapi

JSON = "application/json"
PROBLEM = "application/problem+json"


class Described:
    """The document, as a judge of answers.

    Args:
        document: OpenAPI 3.1, whose schemas are JSON Schema's own.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._paths = copy.deepcopy(document["paths"])
        schemas = copy.deepcopy(document["components"]["schemas"])
        for of in _schemas([schemas, self._paths]):
            if "properties" in of:
                of.setdefault("additionalProperties", False)  # what it does not tell is a finding
        self._schemas = {"components": {"schemas": schemas}}

    def check(self, method: str, path: str, status: int, media: str, body: Any) -> None:
        """Hold one answer against the document.

        Raises:
            AssertionError: The document knows no such operation or status; or answers it otherwise.
        """
        operation = self._operation(method, path)
        if operation is None:
            assert status in (404, 405), f"{method} {path} is in no document"
            return
        responses = operation["responses"]
        told = responses.get(str(status)) or responses.get("default")
        assert told is not None, f"{method} {path}: {status} is in no document"
        assert [media] == [*told["content"]], f"{method} {path}: {status} as {media}"
        if media in (JSON, PROBLEM):
            schema = {**told["content"][media]["schema"], **self._schemas}
            jsonschema.Draft202012Validator(schema).validate(body)

    def check_sent(self, method: str, path: str, body: Any) -> None:
        """Hold what was sent, and taken, against the document.

        Raises:
            jsonschema.ValidationError: The document does not tell of such a body.
        """
        told = (self._operation(method, path) or {}).get("requestBody")
        if told is None:
            assert body is None, f"{method} {path} takes no body in any document"
        elif body is not None or told["required"]:
            schema = {**told["content"][JSON]["schema"], **self._schemas}
            jsonschema.Draft202012Validator(schema).validate(body)

    def _operation(self, method: str, path: str) -> Any:
        """Return the operation of a path; one without a name in it before one with."""
        for name in sorted(self._paths, key=lambda name: name.count("{")):
            wanted = re.sub(r"\\{\w+\\}", "[^/]+", re.escape(name))
            if re.fullmatch(wanted, path) and method.lower() in self._paths[name]:
                return self._paths[name][method.lower()]
        return None


Hooks = dict[str, list[Callable[[httpx.Response], Awaitable[None]]]]


def hooks(inputs: Mapping[str, openapi.Described]) -> Hooks:
    """Return what has a client of httpx hold every answer against the document."""
    judge = Described(openapi.describe(inputs))

    async def hold(response: httpx.Response) -> None:
        await response.aread()
        media = response.headers.get("content-type", "").partition(";")[0]
        body = response.json() if media in (JSON, PROBLEM) else None
        request = response.request
        path = request.url.raw_path.decode().partition("?")[0]
        judge.check(request.method, path, response.status_code, media, body)
        if response.is_success and not path.startswith("/api/v1/agents/"):
            sent = request.content
            judge.check_sent(request.method, path, json.loads(sent) if sent else None)

    return {"response": [hold]}


def client(app: Starlette, inputs: Mapping[str, openapi.Described]) -> httpx.AsyncClient:
    """Return a client of an app in this process whose every answer is held against the document."""
    transport = httpx.ASGITransport(app=app)
    return httpx.AsyncClient(
        transport=transport, base_url="http://gateway", event_hooks=hooks(inputs)
    )


def _schemas(found: Any) -> Iterator[dict[str, Any]]:
    """Yield a schema and all that are in it."""
    if isinstance(found, dict):
        yield found
        for one in found.values():
            yield from _schemas(one)
    elif isinstance(found, list):
        for one in found:
            yield from _schemas(one)
