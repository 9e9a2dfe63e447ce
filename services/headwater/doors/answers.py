"""What the gateway answers, as JSON schemas for OpenAPI."""

from __future__ import annotations

from typing import Any, get_args

from headwater.contracts.messages import Status

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER: dict[str, Any] = {"type": "integer"}
_FLAG: dict[str, Any] = {"type": "boolean"}
_ANY: dict[str, Any] = {}


def _object(required: str, **properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "required": required.split(), "properties": properties}


def _list(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _maybe(of: dict[str, Any]) -> dict[str, Any]:
    return {**of, "type": [of["type"], "null"]}


def _told(text: str, of: dict[str, Any]) -> dict[str, Any]:
    return {**of, "description": text}


def ref(name: str) -> dict[str, Any]:
    """Return a reference to one of the schemas."""
    return {"$ref": f"#/components/schemas/{name}"}


_USAGE = _object(
    "model input_tokens output_tokens usd_nano",
    model=_TEXT,
    input_tokens=_NUMBER,
    output_tokens=_NUMBER,
    usd_nano=_told("Billionths of a US dollar", _NUMBER),
)
_CALL = _object(
    "number kind name state",
    number=_NUMBER,
    kind=_TEXT,
    name=_TEXT,
    state=_told("asked, waiting, answered, failed or denied", _TEXT),
    child=_told("Run id of a child agent", _TEXT),
    detail=_TEXT,
    usage=_USAGE,
    approval=_told("Which approval it waits for", _TEXT),
    verdict=_TEXT,
    by=_TEXT,
    asked_ms=_NUMBER,
    answered_ms=_NUMBER,
    decided_ms=_NUMBER,
)
_RUN = _object(
    "status calls",
    id=_told("What was asked for, where nothing is known of it", _TEXT),
    run=_TEXT,
    task_id=_TEXT,
    agent=_TEXT,
    tenant=_TEXT,
    status={"enum": [*(one for one in get_args(Status) if one != "started"), "unknown"]},
    reason=_told("Why it is held or paused; what it waits for", _TEXT),
    error=_TEXT,
    detail=_TEXT,
    parent=_TEXT,
    calls=_list(ref("Call")),
    steps=_NUMBER,
    tokens=_NUMBER,
    usd_nano=_told("Billionths of a US dollar", _NUMBER),
    accepted_ms=_told("Milliseconds since 1970, as all times", _NUMBER),
    started_ms=_NUMBER,
    at_ms=_NUMBER,
    outcome=_told("What it returned, once it is completed", _ANY),
    version=_TEXT,
    attempt=_NUMBER,
    actor=_TEXT,
    writes=_list(_TEXT),
    correlation_id=_TEXT,
)
_APPROVAL = _object(
    "id tenant run status arguments digest",
    id=_TEXT,
    tenant=_TEXT,
    run=_TEXT,
    number=_NUMBER,
    about={"enum": ["agent", "tool", "doubt"]},
    name=_TEXT,
    words=_TEXT,
    arguments=_ANY,
    digest=_told("Of the arguments: a decision sends it back", _TEXT),
    to=_TEXT,
    requester=_TEXT,
    asked_ms=_NUMBER,
    expires_ms=_NUMBER,
    status=_TEXT,
    refused=_list(_object("by why at_ms", by=_TEXT, why=_TEXT, at_ms=_NUMBER, decision=_TEXT)),
    by=_TEXT,
    reason=_TEXT,
    decided_ms=_NUMBER,
    decision=_TEXT,
)
_KEPT = _object(
    "id code message at_ms",
    id=_TEXT,
    code=_TEXT,
    message=_TEXT,
    topic=_TEXT,
    partition=_NUMBER,
    offset=_NUMBER,
    deliveries=_NUMBER,
    tenant=_TEXT,
    run=_TEXT,
    attempt=_NUMBER,
    writes=_TEXT,
    done=_maybe(_TEXT),
    done_by=_maybe(_TEXT),
    at_ms=_NUMBER,
    bytes=_NUMBER,
)
_WHOLE = _object(
    "id code message at_ms key value headers decoded undecoded",
    **_KEPT["properties"],
    done_reason=_maybe(_TEXT),
    done_at_ms=_maybe(_NUMBER),
    key=_maybe(_told("Text; `base64:` and base64 where it is none", _TEXT)),
    value=_maybe(_told("As `key`", _TEXT)),
    headers={"type": "object", "additionalProperties": _maybe(_TEXT)},
    decoded=_told("The value as the agent's input type; null if it is none", _ANY),
    undecoded=_told("Why it is none", _TEXT),
)
_OPERATION = _object(
    "operation state done skipped",
    operation=_TEXT,
    action=_TEXT,
    state=_told("running, done, failed or stopped", _TEXT),
    dry_run=_FLAG,
    tenant=_TEXT,
    actor=_TEXT,
    done=_NUMBER,
    skipped={"type": "object", "additionalProperties": _NUMBER},
    reasons=_list(_object("id why", id=_TEXT, why=_TEXT)),
    looked=_NUMBER,
    total=_NUMBER,
    error=_TEXT,
)
SCHEMAS: dict[str, dict[str, Any]] = {
    "Run": _RUN,
    "Call": _CALL,
    "Runs": _object("runs", runs=_list(ref("Run"))),
    "Accepted": _object(
        "task_id id status url",
        task_id=_TEXT,
        id=_told("The task's own name: its Idempotency-Key, or one that was drawn", _TEXT),
        status={"const": "unknown"},
        url=_told("Where it is followed", _TEXT),
    ),
    "Sent": _object("run sent", run=_TEXT, sent=_TEXT, name=_TEXT),
    "Approval": _APPROVAL,
    "Approvals": _object("approvals", approvals=_list(ref("Approval"))),
    "Decided": _object("approval sent decision", approval=_TEXT, sent=_TEXT, decision=_TEXT),
    "Checked": _object(
        "approval verdict again sent",
        approval=_TEXT,
        verdict=_TEXT,
        again=_told("Whether the same was decided before: it would change nothing", _FLAG),
        sent={"const": False},
    ),
    "Kept": _KEPT,
    "KeptWhole": _WHOLE,
    "Records": _object("records", records=_list(ref("Kept"))),
    "Begun": _object("operation", operation=_TEXT, url=_TEXT),
    "Operation": _OPERATION,
    "Document": {"type": "object", "description": "OpenAPI 3.1"},
    "Health": _object(
        "ok",
        ok=_FLAG,
        stalled=_told("Loops that stand still", _NUMBER),
        claims=_told("Partitions that are worked on", _NUMBER),
        restoring=_told("Partitions whose rows are being read back", _NUMBER),
        log=_told("Whether Kafka answers", _FLAG),
    ),
    "Problem": _object(
        "title status detail",
        type=_TEXT,
        title=_TEXT,
        status=_NUMBER,
        detail=_TEXT,
        code=_TEXT,
    ),
}
_SENT = ("cancel", "pause", "resume", "discard", "{name}")
_GIVEN = {
    "/api/v1/runs": "Runs",
    "/api/v1/runs/{id}": "Run",
    "/api/v1/approvals": "Approvals",
    "/api/v1/approvals/{approval}": "Approval",
    "/api/v1/quarantine": "Records",
    "/api/v1/quarantine/{record}": "KeptWhole",
    "/api/v1/dlq": "Records",
    "/api/v1/dlq/{record}": "KeptWhole",
    "/api/v1/operations/{operation}": "Operation",
    "/openapi.json": "Document",
    "/livez": "Health",
    "/readyz": "Health",
}


def answer(name: str, words: str, media: str = "application/json") -> dict[str, Any]:
    """Return a response of a schema."""
    return {"description": words, "content": {media: {"schema": ref(name)}}}


PROBLEM = answer("Problem", "Why not", "application/problem+json")
"""What is answered instead, with whichever status."""


def of(path: str) -> dict[str, Any]:
    """Return the responses of a path, by status."""
    if path.startswith("/api/v1/approvals/{approval}/"):
        if path.endswith("/check"):
            return {"200": answer("Checked", "It would be taken"), "default": PROBLEM}
        return {
            "200": answer("Approval", "Taken, where wait_s was given"),
            "202": answer("Decided", "Sent"),
            "default": PROBLEM,
        }
    if path.startswith("/api/v1/runs/") and path.endswith(_SENT):
        return {"202": answer("Sent", "Sent"), "default": PROBLEM}
    if path in _GIVEN:
        given = {"200": answer(_GIVEN[path], "OK")}
        health = {"503": answer("Health", "Not now")} if _GIVEN[path] == "Health" else {}
        return given | (health or {"default": PROBLEM})
    if path == "/metrics":
        return {"200": {"description": "OK", "content": {"text/plain": {"schema": _TEXT}}}}
    if path.endswith("/events"):
        stream = {"text/event-stream": {"schema": _TEXT}}
        return {"200": {"description": "Events", "content": stream}, "default": PROBLEM}
    return {"202": answer("Begun", "Begun: follow the operation"), "default": PROBLEM}
