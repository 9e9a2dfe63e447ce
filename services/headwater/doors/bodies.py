"""What the gateway takes, as JSON schemas for OpenAPI."""

from __future__ import annotations

from typing import Any

_TEXT: dict[str, Any] = {"type": "string"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_AMOUNT: dict[str, Any] = {"type": "number", "minimum": 0}
_COUNT: dict[str, Any] = {"type": "integer", "minimum": 0}

_SAID = {
    "reason": _TEXT,
    "by": {**_TEXT, "description": "Who wants it, where there are no tokens"},
}
_ADDED = {
    "add_steps": _COUNT,
    "add_tokens": _COUNT,
    "add_usd": {**_AMOUNT, "description": "US dollars"},
    "repeat_writes": {
        **_FLAG,
        "description": "Whether writes that may have happened are made again",
    },
}
_OPERATION = _SAID | {
    "rate": {**_AMOUNT, "description": "Records a second; 0 for as fast as it goes"},
    "dry_run": {**_FLAG, "description": "Count, and write nothing"},
    "again": {**_FLAG, "description": "Take records that were sent back before too"},
    "operation": {**_TEXT, "description": "Its name: the same name goes on where it was"},
}
_AIM = {"to": {**_TEXT, "description": "Another topic than the one a record came from"}}
_CHOSEN = {
    "all": {**_FLAG, "description": "Has to be said where nothing narrows it"},
    "ids": {"oneOf": [_TEXT, {"type": "array", "items": _TEXT}], "description": "Records, or runs"},
    "agent": _TEXT,
    "tenant": _TEXT,
    "error": _TEXT,
    "source": _TEXT,
    "since_ms": {**_COUNT, "description": "Milliseconds since 1970"},
}
_RECORDS = _CHOSEN | {"topic": _TEXT}


def _object(required: str = "", /, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


_RUN = "/api/v1/runs/{id}"
_EDIT = _object("value", value={"description": "The task"}, **_OPERATION, **_AIM)
_BODIES = {
    f"{_RUN}/cancel": _object(**_SAID),
    f"{_RUN}/pause": _object(**_SAID),
    f"{_RUN}/resume": _object(
        **_SAID,
        **_ADDED,
        attempt={**_COUNT, "description": "Which failure is meant; without it, the one now seen"},
    ),
    f"{_RUN}/discard": _object(**_SAID),
    f"{_RUN}/signals/{{name}}": _object(**_SAID, value={"description": "What the run is told"}),
    "/api/v1/quarantine/replay": _object(**_RECORDS, **_OPERATION, **_AIM),
    "/api/v1/quarantine/discard": _object(**_RECORDS, **_OPERATION),
    "/api/v1/quarantine/{record}/edit": _EDIT,
    "/api/v1/dlq/replay": _object(**_CHOSEN, **_OPERATION, repeat_writes=_ADDED["repeat_writes"]),
    "/api/v1/dlq/resume": _object(
        **_CHOSEN,
        **_OPERATION,
        **_ADDED,
        despite_no={**_FLAG, "description": "Runs, too, that failed on a person's no"},
    ),
    "/api/v1/dlq/discard": _object(**_CHOSEN, **_OPERATION),
    "/api/v1/dlq/{record}/edit": _EDIT,
}
_DECISION = _object(
    "digest",
    digest={**_TEXT, "description": "Of the arguments that were looked at"},
    reason=_TEXT,
    by={**_TEXT, "description": "Who decides, where there are no tokens"},
    value={"description": "For happened: what the call returned"},
)


def fields(path: str) -> frozenset[str]:
    """Return what the body of what is sent to a path may say."""
    return frozenset(_BODIES[path]["properties"])


def of(path: str) -> dict[str, Any] | None:
    """Return the body of what is sent to a path, None where nothing is."""
    decided = path.startswith("/api/v1/approvals/{approval}/")
    schema = _DECISION if decided else _BODIES.get(path)
    if schema is None:
        return None
    return {
        "required": bool(schema["required"]),
        "content": {"application/json": {"schema": schema}},
    }
