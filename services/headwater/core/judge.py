"""A judge decides whether a call may be made; runs alone send calls, so it cannot be bypassed."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from headwater.core.execution import Asked
from headwater.core.messages import Meta


@dataclasses.dataclass(frozen=True, slots=True)
class Allow:
    """The call is sent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deny:
    """The call is answered with `Denied`, in the same turn."""

    reason: str


Verdict = Allow | Deny


class Judge(Protocol):
    """A pure function of the call and a version of the rules; verdict and version are journaled."""

    @property
    def version(self) -> str:
        """Version of the rules."""
        ...

    def judge(self, call: Asked, meta: Meta) -> Verdict:
        """Decide; the same for the same call, meta and version."""
        ...


class AllowAll:
    """The judge of an app that brings none."""

    version = "allow-all"

    def judge(self, call: Asked, meta: Meta) -> Verdict:
        """Allow it."""
        return Allow()
