"""Lifespans: what a role sets up once per process, and takes down at its end."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from typing import Any

from headwater.durable.failure import redact
from headwater.errors import SettingsError


@contextlib.asynccontextmanager
async def entered(
    lifespan: Callable[..., AsyncIterator[Any]] | None, settings: Any
) -> AsyncIterator[Any]:
    """Run a lifespan around a body; yield what it yields, `None` if there is none.

    Raises:
        SettingsError: It failed before it yielded; the message names it.
    """
    if lifespan is None:
        yield None
        return
    name = getattr(lifespan, "__name__", "lifespan")
    async with contextlib.AsyncExitStack() as stack:
        try:
            steps: Any = lifespan(settings)
            if inspect.iscoroutine(steps):
                steps.close()
                raise TypeError("it never yields")
            manager = contextlib.asynccontextmanager(lambda: steps)()
            deps = await stack.enter_async_context(manager)
        except Exception as error:
            raise SettingsError(
                f"lifespan {name} failed at the start: {type(error).__name__}: {redact(str(error))}; "
                "it is an async generator of the settings that yields once"
            ) from error
        yield deps
