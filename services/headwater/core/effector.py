"""An effector: one way to touch the outside world."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from enum import StrEnum
from typing import Protocol, runtime_checkable

from headwater.contracts.messages import Ask, Failed, InDoubt, ReplyTo, Usage
from headwater.core.messages import Meta

occupying: ContextVar[Callable[[], Callable[[], None]] | None] = ContextVar(
    "occupying", default=None
)
"""Told by a thread that works for the call under way when it begins; what it returns, when it ends.

It raises where the call has ended before: that thread must not begin.
"""


UNKNOWN = "Unknown"
"""Error of a call of what this process does not have."""


class Safety(StrEnum):
    """What may be done again after a crash, in rising order of care."""

    READ = "read"
    PAID = "paid"
    WRITE = "write"
    IRREVERSIBLE = "irreversible"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One request's terms.

    Args:
        id: `run/number`: the idempotency key, and the reply's address.
        safety: What may be done again.
        order_key: Calls of one tool and tenant with the same key start in order; empty for any.
        not_after_ms: Do not start later.
        reply_to: The inbox that waits.
        meta: Who, for whom and because of what.
    """

    id: str
    safety: Safety
    order_key: str
    not_after_ms: int
    reply_to: ReplyTo
    meta: Meta


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A call answered: its encoded value and what the attempt cost."""

    value: bytes
    usage: Usage | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One try at a call.

    Args:
        id: Unique among the call's tries; the run charges each once.
        number: From 1, within this process.
        heartbeat: Says that the call goes on; its state reaches the next attempt (`last_state`).
        progress: Publishes a piece of text as a `Token`.
        last_state: What the previous attempt's last heartbeat said.
    """

    id: str
    number: int
    heartbeat: Callable[[object], None]
    progress: Callable[[str], Awaitable[None]]
    last_state: object = None


class Effector(Protocol):
    """One way to touch the outside world; slow, parallel, and perhaps called again."""

    @property
    def name(self) -> str:
        """Name of its request topic: `model`, or `tool.<service>`."""
        ...

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed | InDoubt:
        """Do it.

        Raises:
            TransientError: Try again in place, with backoff.
            PoisonError: The request cannot be understood; it is quarantined and answered `Failed`.
        """
        ...


@runtime_checkable
class Verifier(Protocol):
    """An effector that can find out whether a call happened."""

    async def verify(self, call: Call, ask: Ask, attempt: Attempt) -> Done | InDoubt | None:
        """Say what a call led to, without making it.

        Returns:
            Its answer; `None` if it never happened; `InDoubt` if there is no way to know.

        Raises:
            TransientError: Ask again later.
        """
        ...
