"""The effector of tools: it runs one service's functions."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Mapping
from typing import Any

from headwater.contracts.messages import Ask, Failed, InDoubt
from headwater.core.blobs import inline
from headwater.core.effector import UNKNOWN, Attempt, Call, Done, Safety
from headwater.durable.failure import describe, redact
from headwater.errors import PoisonError, ToolError
from headwater.sdk import types
from headwater.sdk.tools import Tool


class Tools:
    """Runs the tools of one service.

    Args:
        service: The service's name.
        tools: Its tools, by name.
        deps: What the role's lifespan yielded.
    """

    def __init__(self, service: str, tools: Mapping[str, Tool[Any, Any]], deps: Any = None) -> None:
        self.name = f"tool.{service}"
        self._tools = tools
        self.deps = deps

    @property
    def intends(self) -> bool:
        """Whether a call may be noted before it begins: an irreversible one, or a write in an order."""
        return any(
            tool.safety is Safety.IRREVERSIBLE
            or (tool.safety is Safety.WRITE and tool.order_key is not None)
            for tool in self._tools.values()
        )

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed:
        """Run one call.

        Raises:
            TransientError: The tool says that the world is away for now.
            PoisonError: The arguments do not fit the tool's parameters.
            TimeoutError, ToolError: An irreversible tool ended so that nobody knows what it did.
        """
        tool = self._tools.get(ask.name)
        if tool is None:
            known = ", ".join(sorted(self._tools)) or "none"
            return Failed(
                error=UNKNOWN, detail=f"no tool named {ask.name!r} here; there are: {known}"
            )
        kwargs = tool.decode(inline(ask.arguments))
        timeout = asyncio.timeout(tool.timeout_s)
        try:
            async with timeout:
                result = await tool.invoke(self._call(call, ask, attempt), kwargs)
        except TimeoutError:
            if not timeout.expired() or call.safety is Safety.IRREVERSIBLE:
                raise
            return Failed(
                error="ToolTimeout",
                detail=f"{ask.name} took over {tool.timeout_s:g} s; what it wrote is not undone",
            )
        except PoisonError as error:
            name, words = describe(error)  # the tool's own; the request was in order
            if call.safety is Safety.IRREVERSIBLE:
                raise ToolError(words, error=name) from error
            return Failed(error=name, detail=words)
        try:
            return Done(value=tool.encode(result))
        except PoisonError as error:
            return Failed(
                error="InvalidResult",
                detail=f"{ask.name} returned what is not of its declared type: {redact(str(error))}",
            )

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> Done | InDoubt | None:
        """Ask a tool's own `verify` whether a call happened.

        Raises:
            TransientError: It says that the world is away for now.
            PoisonError: The arguments or the result do not fit the tool.
        """
        tool = self._tools.get(ask.name)
        if tool is None or tool.verifier is None:
            return InDoubt(since_ms=0)
        found = await tool.found(self._call(call, ask, attempt), tool.decode(inline(ask.arguments)))
        return None if found is None else Done(value=tool.encode(found))

    def _call(self, call: Call, ask: Ask, attempt: Attempt) -> types.Call[Any]:
        return types.Call(
            deps=self.deps,
            idempotency_key=call.id,
            run=ask.run,
            actor=call.meta.actor,
            deadline=datetime.datetime.fromtimestamp(call.not_after_ms / 1000, datetime.UTC),
            attempt=attempt.number,
            heartbeat=attempt.heartbeat,
            progress=attempt.progress,
            last_state=attempt.last_state,
        )
