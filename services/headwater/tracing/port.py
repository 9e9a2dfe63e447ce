"""The port of tracing: what loops tell of turns and calls, and what that must say about itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from headwater.contracts.messages import Usage

Attribute = str | int | float | bool | Sequence[str]


class Place(Protocol):
    """Where a record is (`core.messages.Position`)."""

    @property
    def topic(self) -> str:
        """Full topic name."""
        ...

    @property
    def number(self) -> int:
        """Number of the partition."""
        ...

    @property
    def offset(self) -> int:
        """Offset in it."""
        ...

    @property
    def span_id(self) -> bytes:
        """The derived id of the span that the turn there is, 8 bytes."""
        ...


class Carrier(Protocol):
    """What a record says about its origin (`core.messages.Meta`)."""

    @property
    def id(self) -> str:
        """The message's id."""
        ...

    @property
    def tenant(self) -> str:
        """Whose it is."""
        ...

    @property
    def traceparent(self) -> bytes:
        """Trace context, as it came."""
        ...


class Turned(Protocol):
    """A turn that was taken and committed (`runtime.committing.Taken`)."""

    @property
    def at(self) -> Place:
        """Where its record is."""
        ...

    @property
    def meta(self) -> Carrier:
        """The record's meta."""
        ...

    @property
    def message(self) -> Any:
        """What it was."""
        ...

    @property
    def started_ns(self) -> int:
        """When it began."""
        ...

    @property
    def ended_ns(self) -> int:
        """When it ended."""
        ...

    @property
    def sent(self) -> int:
        """How many records it sent."""
        ...

    @property
    def refused(self) -> str:
        """Code of the refusal, if it was one."""
        ...


class Tracing(Protocol):
    """What loops tell about turns and calls, after the fact."""

    def committed(self, decider: str, taken: Sequence[Turned], *, seconds: float) -> None:
        """Record a committed batch of turns (`runtime.deciding.Observer`)."""
        ...

    def turn(
        self,
        at: Place,
        meta: Carrier,
        name: str,
        started_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Attribute],
        *,
        span_id: bytes,
        error: str = "",
    ) -> None:
        """Record one turn."""
        ...

    def call(
        self,
        meta: Carrier,
        *,
        call_id: str,
        attempt: str,
        kind: str,
        name: str,
        started_ns: int,
        ended_ns: int,
        usage: Usage | None = None,
        error: str = "",
    ) -> None:
        """Record one attempt at a call."""
        ...

    def close(self) -> None:
        """Send what is left and stop."""
        ...
