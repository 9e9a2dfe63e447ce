"""What approvals remembers: what people are asked, and how they decided."""

from __future__ import annotations

import dataclasses
from typing import Literal

from headwater.contracts.approvals import Petition
from headwater.core.messages import Key, Meta


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A petition, and its end once it has one.

    Args:
        tenant: Whose.
        approval: Its id.
        petition: What is asked.
        asked_ms: Since when.
        state: `open`, or how it ended.
        by: Who decided.
        reason: Why.
        decided_ms: When.
        correlation_id: The task's `ce_id`.
        traceparent: The run's trace.
    """

    tenant: str
    approval: str
    petition: Petition
    asked_ms: int
    state: Literal[
        "open",
        "approved",
        "denied",
        "happened",
        "not-happened",
        "given-up",
        "expired",
        "withdrawn",
    ] = "open"
    by: str = ""
    reason: str = ""
    decided_ms: int = 0
    correlation_id: str = ""
    traceparent: bytes = b""

    @property
    def key(self) -> Key:
        """Filed by tenant."""
        return (self.tenant, self.approval)

    def meta(self, actor: str = "") -> Meta:
        """Return the meta of what follows from it: the run's own, spoken by whoever decided."""
        return Meta(
            id=self.approval,
            tenant=self.tenant,
            correlation_id=self.correlation_id,
            actor=actor,
            traceparent=self.traceparent,
        )


KINDS = (Approval,)
