"""Retrying: the same call again in place while the world is away, by stamina's backoff."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import random
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import TypeVar

import stamina

from headwater.durable.failure import redact
from headwater.errors import TransientError

logger = logging.getLogger(__name__)
T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]


_said: ContextVar[bool] = ContextVar("said", default=False)
"""Whether this task has just said itself that it tries again."""


def _unsaid(_: logging.LogRecord) -> bool:
    return not _said.get()


logging.getLogger("stamina").addFilter(_unsaid)  # it would name neither the call nor the error


class AbandonedError(Exception):
    """Nobody wants the call of this process any more; it has no answer here."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a call is tried again in place, only its own order key waiting.

    Args:
        total_s: Longest time spent on one call's tries and the waits between; then the error is the answer.
        wait_s_min: First wait; each is twice the one before.
        wait_s_max: Longest wait, unless the other side asks for a longer one.
        jitter_s: Up to so much random time is added to each.
    """

    total_s: float = 300.0
    wait_s_min: float = 0.2
    wait_s_max: float = 20.0
    jitter_s: float = 0.5


class Retrying:
    """Tries until it works, the time is over, or nobody wants it.

    stamina computes the waits; the clock and the sleep are given, so that a test's time can stand in.

    Args:
        policy: How long, and how often.
        clock: Time in milliseconds.
        sleep: Waits for so many seconds.
        draw: A number from 0 to 1, for the jitter.
    """

    def __init__(
        self,
        policy: Retry,
        *,
        clock: Callable[[], int],
        sleep: Sleep = asyncio.sleep,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._sleep = sleep
        self._draw = draw

    async def call(
        self,
        what: str,
        attempt: Callable[[int], Awaitable[T]],
        *,
        within_s: float,
        wanted: Callable[[], bool],
    ) -> T:
        """Return what an attempt returns.

        Args:
            what: For the log: `model small, call 3 of desk.0.a1`.
            attempt: Makes one try; its argument counts from 1.
            within_s: No try begins later than this after the first, and none after `total_s`.
            wanted: Asked before every try but the first.

        Raises:
            TransientError: The last try's; no time is left for another.
            AbandonedError: Nobody wants it any more.
        """
        policy, began_ms, slept_s = self._policy, self._clock(), 0.0
        bound_s = min(within_s, policy.total_s)
        over = False

        def again(error: Exception) -> bool | float:
            """Tell stamina to go on without a wait of its own: we have slept already."""
            return 0.0 if isinstance(error, TransientError) and not over else False

        async for one in stamina.retry_context(
            on=again,
            attempts=None,
            timeout=None,
            wait_initial=policy.wait_s_min,
            wait_max=policy.wait_s_max,
            wait_jitter=0.0,
        ):
            with one:
                if one.num > 1 and not wanted():
                    raise AbandonedError
                _said.set(False)
                try:
                    return await attempt(one.num)
                except TransientError as error:
                    wait_s = one.next_wait + policy.jitter_s * self._draw()
                    wait_s = max(wait_s, error.retry_after_s)
                    # Under a clock that stands still, what was slept is what was spent.
                    spent_s = max(slept_s, (self._clock() - began_ms) / 1000)
                    over = spent_s + wait_s > bound_s
                    if not over:
                        logger.warning(
                            "%s: try %d came to nothing, another follows in %.1f s: %s",
                            what,
                            one.num,
                            wait_s,
                            redact(str(error)),
                        )
                        slept_s += wait_s
                        await self._sleep(wait_s)
                    _said.set(True)
                    raise
        raise AssertionError("the last try returns or raises")  # pragma: no cover - it did

    async def forever(self, what: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Return what an attempt returns, however long the log is away; said once.

        Args:
            what: For the message: `a reply of tool.cards`.
            attempt: Makes one try.
        """
        wait_s = self._policy.wait_s_min
        said = False
        while True:
            try:
                return await attempt()
            except TransientError as error:
                if not said:
                    logger.warning("%s waits: %s", what, error)
                    said = True
                await self._sleep(wait_s + self._policy.jitter_s * self._draw())
                wait_s = min(wait_s * 2, self._policy.wait_s_max)
