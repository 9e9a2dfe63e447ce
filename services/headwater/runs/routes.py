"""Routes: where runs send things, and what they know of what the app declares."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from headwater.contracts.messages import Limits, Spent
from headwater.core.execution import Asked
from headwater.core.messages import Address


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolTerms:
    """What a run must know of a tool: its service, and what may be done again."""

    service: str
    safety: str


class Catalogue(Protocol):
    """What this app declares, as far as a run must know it."""

    def tool(self, name: str) -> ToolTerms | None:
        """Return a tool's terms."""
        ...

    def model(self, name: str) -> bool:
        """Say whether there is such a model."""
        ...

    def limits(self, agent: str) -> Limits | None:
        """Return a child agent's own limits, or `None` if there is no such agent."""
        ...

    def price_ceiling(self, asked: Asked) -> tuple[Spent | None, str]:
        """Return the most a model call can cost, or `None` and why that is unknown."""
        ...

    def shown(self, kind: str, name: str, arguments: bytes) -> bytes:
        """Return a call's arguments as JSON, for people."""
        ...

    def decides(self, tool: str) -> str:
        """Return who decides about a tool's calls: `group:<name>`, an actor, or empty for anybody."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where runs send things: topic names, and which partition a key or child belongs to.

    Args:
        inbox: Agent's name to its inbox topic.
        request: `model` or `tool.<service>` to its request topic.
        events: Agent's name to its outcome topic.
        dead: Agent's name to its dead-letter topic.
        life: The life-cycle topic.
        audit: The topic of what operators did.
        admission: Tenant to the address of its admission inbox.
        approvals: Tenant to the address of its approvals inbox.
        place: (tenant, agent, task id) to an inbox partition.
    """

    inbox: Callable[[str], str]
    request: Callable[[str], str]
    events: Callable[[str], str]
    dead: Callable[[str], str]
    life: str
    audit: str
    admission: Callable[[str], Address]
    approvals: Callable[[str], Address]
    place: Callable[[str, str, str], int]
