"""Types that authors name: budgets, what a tool is told of its call, what a model answered."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Awaitable, Callable
from typing import Any, Generic, TypeVar

from headwater.contracts.messages import Limits
from headwater.errors import SettingsError

Deps = TypeVar("Deps")
T = TypeVar("T")
NANO = 1_000_000_000
_NEVER = datetime.datetime.max.replace(tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What a run may spend; `None` is no limit of that kind.

    Args:
        steps: Calls of models, tools and agents.
        tokens: Tokens read and written.
        usd: US dollars.
        wall_s: Seconds from its start.
        cleanup_steps: Calls it may still make once it is cancelled.

    Raises:
        SettingsError: One is negative or no number.

    Example:
        >>> Budget(steps=50, usd=0.25).limits().usd_nano
        250000000
    """

    steps: int | None = 100
    tokens: int | None = None
    usd: float | None = 1.0
    wall_s: float | None = 3_600
    cleanup_steps: int = 10

    def __post_init__(self) -> None:
        for name in ("steps", "tokens", "usd", "wall_s", "cleanup_steps"):
            value = getattr(self, name)
            if value is not None and not 0 <= value < float("inf"):
                raise SettingsError(
                    f"budget {name}={value}: it must be a number from 0 on, or None for no limit"
                )

    def limits(self) -> Limits:
        """Return the budget as it travels."""
        return Limits(
            steps=self.steps,
            tokens=self.tokens,
            usd_nano=None if self.usd is None else round(self.usd * NANO),
            wall_ms=None if self.wall_s is None else round(self.wall_s * 1000),
            cleanup_steps=self.cleanup_steps,
        )


def _unheard(state: object) -> None:
    """Nobody listens to a call that was made by hand."""


async def _unread(text: str) -> None:
    """Nobody follows a call that was made by hand."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[Deps]):
    """What a tool is told of the call it answers.

    Args:
        deps: What the role's lifespan yielded.
        idempotency_key: The same for every attempt at this call, and for no other.
        run: Id of the run that asked.
        actor: Who asked for the task.
        deadline: When the call stops being wanted, in UTC.
        attempt: From 1, within this process.
        heartbeat: Says that the call goes on; its argument reaches the next attempt.
        progress: Publishes a piece of text to whoever follows the run; a sync tool calls it without `await`.
        last_state: What the previous attempt's last heartbeat said.

    Example:
        >>> Call(deps=None, idempotency_key="k1").attempt
        1
    """

    deps: Deps
    idempotency_key: str = "local"
    run: str = ""
    actor: str = ""
    deadline: datetime.datetime = _NEVER
    attempt: int = 1
    heartbeat: Callable[[object], None] = _unheard
    progress: Callable[[str], Awaitable[None]] = _unread
    last_state: Any = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ModelReply(Generic[T]):
    """A model's whole answer.

    Args:
        output: The answer, in the type asked for.
        model: Name the provider gave.
        input_tokens: Tokens read, repairs included.
        output_tokens: Tokens written, repairs included.
        usd: What it cost, in US dollars.
        messages: The conversation so far as pydantic-ai's JSON, the answer included; to go on, pass
            it with the next prompt behind it.
    """

    output: T
    model: str
    input_tokens: int
    output_tokens: int
    usd: float
    messages: list[dict[str, Any]]
