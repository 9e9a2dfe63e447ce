"""What a caller gives: checked at the door, where somebody listens, by the rules of intake."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from starlette.requests import Request

from headwater.contracts import headers as hygiene
from headwater.core.messages import RunId
from headwater.doors.problems import ProblemError
from headwater.errors import PoisonError


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


def check_run(run: str) -> None:
    """Refuse what can be no run's id, and no task's.

    Raises:
        ProblemError: There can be no such run.
    """
    hexadecimal = len(run) == 32 and all(c in "0123456789abcdef" for c in run)  # noqa: PLR2004 - a task id
    if not hexadecimal and RunId.parse(run) is None:
        raise ProblemError(404, "No such run", f"{run!r} is neither a task id nor a run id")
