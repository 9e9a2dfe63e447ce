"""What a caller gives: checked at the door, where somebody listens, by the rules of intake."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from starlette.requests import Request

from headwater.contracts import headers as hygiene
from headwater.contracts.messages import Resume, Spent
from headwater.core.messages import RunId
from headwater.doors.callers import Caller
from headwater.doors.problems import ProblemError
from headwater.errors import PoisonError

_MOST = 1e9
"""No amount that a person means is more: dollars, steps, tokens."""


async def body(request: Request, bytes_max: int) -> bytes:
    """Return a request's body.

    Raises:
        ProblemError: It is too large.
    """
    found = b""
    async for piece in request.stream():
        found += piece
        if len(found) > bytes_max:
            raise ProblemError(413, "Too large", f"the body is over {bytes_max} bytes", "too-large")
    return found


def json_of(body: bytes) -> Any:
    """Return a body's JSON.

    Raises:
        ProblemError: It is none.
    """
    try:
        return json.loads(body, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise ProblemError(422, "Not JSON", str(error), "invalid-json") from error


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON")


def check(key: str, value: bytes, headers: Sequence[tuple[str, bytes]]) -> None:
    """Apply intake's rules for what a caller chose.

    Raises:
        PoisonError: Intake would put the record in quarantine.
    """
    if len(value) > hygiene.VALUE_BYTES_MAX:
        most = hygiene.VALUE_BYTES_MAX
        raise PoisonError("too-large", f"the task has {len(value)} bytes as Avro; at most {most}")
    try:
        hygiene.sizes(key.encode(), tuple(headers))
        found = hygiene.unique(tuple(headers))
        hygiene.text(found, "ce_id")
        hygiene.deadline_ms(found)
    except PoisonError as error:
        said = str(error).replace("ce_id", "Idempotency-Key").replace("ce_deadline", "ce-deadline")
        raise PoisonError(error.code, said) from error


def number(request: Request, name: str, default: float, most: float) -> float:
    """Return a number of the query, between 0 and `most`.

    Raises:
        ProblemError: It is no number.
    """
    text = request.query_params.get(name)
    if not text:
        return default
    try:
        found = float(text)
    except ValueError as error:
        raise ProblemError(422, "Not a number", f"{name} {text!r} is no number") from error
    return min(max(0.0, found), most)


def words(told: Mapping[str, Any], name: str) -> str:
    """Return a text of a body; half of a surrogate pair becomes a question mark."""
    return str(told.get(name) or "").encode(errors="replace").decode()


def actor(told: Mapping[str, Any], caller: Caller) -> str:
    """Return who wants something: as their token says, or, where there are no tokens, as they say.

    Raises:
        PoisonError: That is no name.
    """
    if not caller.anybody:
        return caller.actor
    said = words(told, "by")
    if said:
        hygiene.text({"by": said.encode()}, "by")
    return said


def amount(told: Mapping[str, Any], name: str) -> float:
    """Return an amount of a body, 0 if it is not there.

    Raises:
        ProblemError: It is no number from 0 on.
    """
    found = told.get(name) or 0
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not 0 <= found < _MOST:
        raise ProblemError(422, "Not an amount", f"{name} {found!r}: a number from 0 on")
    return found


def terms(told: Mapping[str, Any], known: Mapping[str, Any] | None) -> Resume:
    """Return on what terms a run is to be resumed.

    Without an attempt, it is the one that the caller can have seen: so the same word twice is one.

    Raises:
        ProblemError: An amount is none.
    """
    failed = known is not None and known["status"] == "failed"
    seen = known["attempt"] if known is not None and failed else 0
    return Resume(
        attempt=int(amount(told, "attempt")) or seen,
        added=Spent(
            steps=int(amount(told, "add_steps")),
            tokens=int(amount(told, "add_tokens")),
            usd_nano=round(amount(told, "add_usd") * 1e9),
        ),
        repeat_writes=told.get("repeat_writes") is True,
    )


def check_verb(verb: str, known: Mapping[str, Any] | None) -> None:
    """Refuse what can be seen to do nothing.

    Raises:
        ProblemError: The run has ended, or has not failed.
    """
    status = None if known is None else known["status"]
    if verb == "resume" and status in {"completed", "cancelled", "quarantined", "discarded"}:
        raise ProblemError(409, "Nothing to resume", f"the run is {status}", "not-resumable")
    if verb == "discard" and status not in {None, "failed"}:
        detail = f"the run is {status}; only a failed one is discarded (see cancel)"
        raise ProblemError(409, "Nothing to discard", detail, "not-failed")


def check_run(run: str, tenant: str) -> None:
    """Refuse what can be no run's id, and no task's, nor the name of one of a tenant's.

    Raises:
        ProblemError: There can be no such run.
    """
    hexadecimal = len(run) == 32 and all(c in "0123456789abcdef" for c in run)  # noqa: PLR2004 - a task id
    if not hexadecimal and RunId.parse(run) is None:
        raise ProblemError(
            404,
            "No such run",
            f"{run!r} is no run id, no task id, and no --id of a task of tenant {tenant} seen here",
        )
