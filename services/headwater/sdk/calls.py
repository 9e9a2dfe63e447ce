"""Calls: what an agent awaits, and the errors it can catch."""

from __future__ import annotations

import asyncio
import contextvars
import functools
from collections.abc import Mapping
from typing import Any, NoReturn

from headwater import errors
from headwater.contracts.messages import Answered, Failed, Outcome
from headwater.contracts.shape import Shape
from headwater.core.blobs import inline
from headwater.core.execution import CallKind
from headwater.durable.running import current

RUN: contextvars.ContextVar[str] = contextvars.ContextVar("headwater_run", default="")
"""Id of the run whose function this is, for the ids of its calls."""

_BY_KIND: Mapping[str, type[errors.CallError]] = {
    "tool": errors.ToolError,
    "model": errors.ModelError,
    "agent": errors.AgentError,
    "person": errors.Denied,
}
_UNSENT = frozenset({"TooLarge", "Unknown"})
"""Further failures of calls that were never sent; each is of its call's kind."""
_REFUSED: Mapping[str, type[errors.CallError]] = {
    "BudgetExceeded": errors.BudgetExceeded,
    "Denied": errors.Denied,
    "Expired": errors.Denied,
    "Withdrawn": errors.Denied,
}
_SENT: Mapping[str, type[errors.CallError]] = {
    "DeadlineExceeded": errors.DeadlineExceeded,
    "ToolTimeout": errors.ToolTimeout,
}


async def ask(
    kind: CallKind,
    name: str,
    arguments: bytes,
    *,
    digest: bytes | None = None,
    timeout_s: float | None = None,
    **options: Any,
) -> bytes:
    """Make a call and wait for its answer.

    Args:
        kind: What is called.
        name: Its name.
        arguments: As the callee's codec wrote them.
        digest: 16 bytes over what the arguments mean; by default over the arguments.
        timeout_s: How long to wait, not counting the time that a person takes to let it be sent; then
            the call is withdrawn.
        options: What the host needs besides.

    Raises:
        CallError: It failed, timed out, was denied or would pass the budget.
    """
    session = current()
    if timeout_s is not None:
        options["timeout_ms"] = round(timeout_s * 1000)
    future = session.ask(kind, name, arguments, digest=digest, options=options)
    number = session.calls_made
    if timeout_s is None:
        return _value(kind, name, number, await future)
    try:
        async with asyncio.timeout(timeout_s) as limit:
            future.parked = functools.partial(_park, limit, timeout_s)
            outcome = await future
    except TimeoutError:
        message = f"{kind} {name} did not answer within {timeout_s:g} s"
        error = errors.ToolTimeout if kind == "tool" else _BY_KIND[kind]
        raise error(message, error="Timeout", call_id=_id(number)) from None
    return _value(kind, name, number, outcome)


def _value(kind: CallKind, name: str, number: int, outcome: Outcome) -> bytes:
    """Return what a call was answered, or raise what came of it instead."""
    if isinstance(outcome, Answered):
        return inline(outcome.value)
    call_id = _id(number)
    if isinstance(outcome, Failed):
        _fail(kind, outcome, call_id)
    raise _BY_KIND[kind](
        f"nobody knows whether {kind} {name} happened", error="InDoubt", call_id=call_id
    )


def encoded(what: str, shape: Shape[Any], value: Any) -> bytes:
    """Return a value as its codec writes it.

    Raises:
        ValueError: It does not fit the declared type: a mistake of the agent's own code.
    """
    try:
        return shape.encode(value)
    except errors.PoisonError as error:
        raise ValueError(f"{what} does not fit its declared type: {error}") from error


def _park(limit: asyncio.Timeout, timeout_s: float, parked: bool) -> None:
    """Stop a call's time while a person is asked, and begin it anew afterwards."""
    limit.reschedule(None if parked else asyncio.get_running_loop().time() + timeout_s)


def _fail(kind: CallKind, failed: Failed, call_id: str) -> NoReturn:
    if failed.error in _REFUSED:
        raise _REFUSED[failed.error](failed.detail, error=failed.error)
    if failed.error in _UNSENT:
        raise _BY_KIND[kind](failed.detail, error=failed.error)
    error = _SENT.get(failed.error, _BY_KIND[kind])
    raise error(failed.detail, error=failed.error, call_id=call_id)


def _id(number: int) -> str:
    run = RUN.get()
    return f"{run}/{number}" if run else str(number)
