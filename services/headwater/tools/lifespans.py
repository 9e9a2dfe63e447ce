"""Lifespans: what a role sets up once per process, and takes down at its end."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

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
    steps = lifespan(settings)
    try:
        deps = await anext(steps)
    except Exception as error:
        raise SettingsError(f"lifespan {name} failed: {type(error).__name__}: {error}") from error
    try:
        yield deps
    finally:
        with contextlib.suppress(StopAsyncIteration):
            await anext(steps)
            raise SettingsError(f"lifespan {name} yields twice")
