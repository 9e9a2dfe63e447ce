"""Problems: errors over HTTP as `application/problem+json` (RFC 9457)."""

from __future__ import annotations

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from headwater.errors import PoisonError, TransientError


class ProblemError(Exception):
    """An error that a caller can do something about.

    Args:
        status: HTTP status.
        title: What kind of problem it is.
        detail: What is wrong with what, and what to do.
        code: Short kebab-case class.
    """

    def __init__(self, status: int, title: str, detail: str, code: str = "") -> None:
        super().__init__(detail)
        self.status, self.title, self.detail, self.code = status, title, detail, code


def problem(status: int, title: str, detail: str, code: str = "") -> Response:
    """Return a problem."""
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail}
    if code:
        body["code"] = code
    headers = {"retry-after": "1"} if status == 503 else None  # noqa: PLR2004 - service unavailable
    return JSONResponse(
        body, status_code=status, media_type="application/problem+json", headers=headers
    )


async def _problem(request: Request, error: Exception) -> Response:
    match error:
        case ProblemError():
            return problem(error.status, error.title, error.detail, error.code)
        case PoisonError():
            return problem(422, "The task does not fit", str(error), error.code)
        case TransientError():
            return problem(503, "The log is away", str(error), "away")
        case HTTPException():
            asked = f"{request.method} {request.url.path}"
            return problem(error.status_code, error.detail, f"{asked}: see /openapi.json")
        case _:
            return problem(500, "Something broke here", type(error).__name__)


HANDLERS: dict[Any, Any] = {
    ProblemError: _problem,
    PoisonError: _problem,
    TransientError: _problem,
    HTTPException: _problem,
    Exception: _problem,
}
