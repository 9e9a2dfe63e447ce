"""Calls: what an agent awaits, and the errors it can catch."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from headwater import errors
from headwater.contracts.messages import Answered, Failed
from headwater.core.execution import CallKind
from headwater.durable.running import current

_BY_KIND: Mapping[str, type[errors.CallError]] = {
    "tool": errors.ToolError,
    "model": errors.ModelError,
    "agent": errors.AgentError,
}
_BY_NAME: Mapping[str, type[errors.CallError]] = {
    "BudgetExceeded": errors.BudgetExceeded,
    "Denied": errors.Denied,
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

    Raises:
        CallError: It failed, timed out, was denied or would pass the budget.
    """
    session = current()
    if timeout_s is not None:
        options["timeout_ms"] = round(timeout_s * 1000)
    future = session.ask(kind, name, arguments, digest=digest, options=options)
    number = session.calls_made
    try:
        async with asyncio.timeout(timeout_s):
            outcome = await future
    except TimeoutError:
        message = f"{kind} {name} did not answer within {timeout_s:g} s"
        error = errors.ToolTimeout if kind == "tool" else _BY_KIND[kind]
        raise error(message, error="Timeout", call_id=str(number)) from None
    if isinstance(outcome, Answered):
        return outcome.value
    if isinstance(outcome, Failed):
        error = _BY_NAME.get(outcome.error, _BY_KIND[kind])
        raise error(outcome.detail, error=outcome.error, call_id=str(number))
    raise _BY_KIND[kind](
        f"nobody knows whether {kind} {name} happened", error="InDoubt", call_id=str(number)
    )
