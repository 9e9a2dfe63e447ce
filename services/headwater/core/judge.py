"""A judge decides whether a call may be made; runs alone send calls, so it cannot be bypassed."""

from __future__ import annotations

import dataclasses
from typing import Protocol

from headwater.core.execution import Asked
from headwater.core.messages import Meta

EXPIRES_S = 86_400.0
"""How long a person may take unless somebody says otherwise: a day."""


@dataclasses.dataclass(frozen=True, slots=True)
class Allow:
    """The call is sent."""


@dataclasses.dataclass(frozen=True, slots=True)
class Deny:
    """The call is answered with `Denied`, in the same turn."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True)
class AskPerson:
    """The call waits until a person lets it be sent, or says no.

    Args:
        words: What is asked, for people.
        to: Who may decide: `group:<name>`, an actor, or empty for anybody but who asked for the run.
        expires_s: How long they may take.
    """

    words: str
    to: str = ""
    expires_s: float = EXPIRES_S


Verdict = Allow | Deny | AskPerson


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
