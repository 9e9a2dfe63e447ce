"""The gateway's interface as OpenAPI."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from headwater.doors import answers, bodies

_PATHS = {
    "/api/v1/runs": "List runs",
    "/api/v1/runs/{id}": "Show a run by task id or run id",
    "/api/v1/runs/{id}/events": "Follow a run's events (SSE)",
    "/api/v1/runs/{id}/cancel": "Cancel a run",
    "/api/v1/runs/{id}/pause": "Pause a run",
    "/api/v1/runs/{id}/resume": "Resume a run that is paused, held or failed",
    "/api/v1/runs/{id}/discard": "Drop a failed run",
    "/api/v1/runs/{id}/signals/{name}": "Send a run a signal",
    "/api/v1/approvals": "List what people are asked",
    "/api/v1/approvals/{approval}": "Show what a person is asked, and how they decided",
    "/api/v1/approvals/{approval}/approve": "Let it go on",
    "/api/v1/approvals/{approval}/deny": "Say no",
    "/api/v1/approvals/{approval}/happened": "A call in doubt happened; value is what it returned",
    "/api/v1/approvals/{approval}/not-happened": "A call in doubt did not happen, and may be made again",
    "/api/v1/approvals/{approval}/give-up": "Nobody can find out whether a call in doubt happened",
    "/api/v1/approvals/{approval}/{verdict}/check": "Whether a decision would be taken; none is sent",
    "/api/v1/quarantine": "List quarantined records",
    "/api/v1/quarantine/{record}": "Show a quarantined record",
    "/api/v1/quarantine/replay": "Send kept records back",
    "/api/v1/quarantine/discard": "Note that nobody wants kept records",
    "/api/v1/quarantine/{record}/edit": "Send a kept record back with another value",
    "/api/v1/dlq": "List dead letters",
    "/api/v1/dlq/{record}": "Show a dead letter",
    "/api/v1/dlq/replay": "Publish tasks of failed runs again",
    "/api/v1/dlq/resume": "Have failed runs go on",
    "/api/v1/dlq/discard": "Drop failed runs",
    "/api/v1/dlq/{record}/edit": "Publish the task of a failed run again with another value",
    "/api/v1/operations/{operation}": "Follow an operation on kept records",
    "/openapi.json": "This document",
    "/livez": "Whether the process lives",
    "/readyz": "Whether it works",
    "/metrics": "What is measured",
}
_KEPT = ("topic", "agent", "tenant", "error", "source", "since_ms", "limit")
_QUERIES: dict[str, tuple[str, ...]] = {
    "/api/v1/runs": ("tenant", "agent", "status", "waiting_for", "older_than_s", "limit"),
    "/api/v1/approvals": ("tenant", "status", "run", "to", "limit"),
    "/api/v1/quarantine": _KEPT,
    "/api/v1/dlq": _KEPT[1:],
}
"""What lists can be narrowed by."""
_WAITS = ("wait_s",)
"""What may be said where something is sent, and its end can be waited for."""
_NUMBERS = frozenset({"since_ms", "older_than_s", "limit", "wait_s"})


class Described(Protocol):
    """A type that can say what JSON it takes (`contracts.derive.Shape`)."""

    def json_schema(self) -> dict[str, Any]:
        """Return its JSON schema."""
        ...


def describe(inputs: Mapping[str, Described]) -> dict[str, Any]:
    """Return the document.

    Args:
        inputs: Agent's name to its input type.
    """
    paths: dict[str, Any] = {}
    for agent, shape in inputs.items():
        paths[f"/api/v1/agents/{agent}/tasks"] = {
            "post": {
                "summary": f"Publish a task to {agent}",
                "parameters": [
                    {"name": "wait_s", "in": "query", "schema": {"type": "number"}},
                    {"name": "Idempotency-Key", "in": "header", "schema": {"type": "string"}},
                ],
                "requestBody": {
                    "required": True,
                    "content": {"application/json": {"schema": shape.json_schema()}},
                },
                "responses": {
                    "200": answers.answer("Run", "It has ended: its outcome"),
                    "202": answers.answer("Accepted", "Accepted; follow it at its URL"),
                    "default": answers.PROBLEM,
                },
            }
        }
    for path, summary in _PATHS.items():
        body = bodies.of(path)
        named = [part[1:-1] for part in path.split("/") if part.startswith("{")]
        responses = answers.of(path)
        operation: dict[str, Any] = {
            "summary": summary,
            "parameters": [
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in named
            ]
            + [
                {
                    "name": name,
                    "in": "query",
                    "schema": {"type": "number" if name in _NUMBERS else "string"},
                }
                for name in _QUERIES.get(path, _WAITS if responses.keys() >= {"200", "202"} else ())
            ],
            "responses": responses,
        }
        if body is not None:
            operation["requestBody"] = body
        paths[path] = {"get" if body is None else "post": operation}
    info = {"title": "headwater", "version": "1"}
    return {
        "openapi": "3.1.0",
        "info": info,
        "paths": paths,
        "components": {
            "schemas": answers.SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"token": []}, {}],
    }
