"""The messages about people's decisions: a run asks, a person decides, the run is told."""

from __future__ import annotations

import dataclasses
from typing import Literal

About = Literal["agent", "tool", "doubt"]
"""What is asked about: `agent` is `ctx.approve`, `tool` a call before it is sent, `doubt` a call that
may or may not have happened."""
Verdict = Literal["approve", "deny", "happened", "not-happened", "give-up"]
Decision = Literal[
    "approved",
    "denied",
    "happened",
    "not-happened",
    "given-up",
    "expired",
    "withdrawn",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Petition:
    """A run to approvals: a person has to decide.

    Args:
        approval: Its id, derived from the call.
        run: The run that asks; the answer goes to the address in it.
        number: Its call.
        about: What is asked about.
        name: The tool's, model's or agent's name; `approve` for `ctx.approve`.
        words: What is asked, for people.
        digest: Over name and arguments: the decision is about these and no others.
        shown: The arguments as JSON, for people.
        to: Who may decide: `group:<name>`, an actor, or empty for anybody but the requester.
        expires_ms: Until when.
        requester: Who asked for the run; may not decide.
    """

    approval: str
    run: str
    number: int
    about: About
    name: str
    words: str
    digest: bytes
    shown: bytes
    to: str = ""
    expires_ms: int
    requester: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decide:
    """A person to approvals, through a door that knows who they are.

    Args:
        approval: What they decide.
        verdict: How.
        digest: Of the arguments they saw.
        groups: Groups the person is in; `*` is all.
        reason: Why.
        value: For `happened`: the call's result as its callee's codec writes it.
    """

    approval: str
    verdict: Verdict
    digest: bytes
    groups: tuple[str, ...] = ()
    reason: str = ""
    value: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Withdraw:
    """A run to approvals: nobody waits for this decision any more.

    Args:
        approval: Which.
        run: The run that asked.
        reason: Why.
        tell: Whether the run wants to hear of it: a failed one may be resumed.
    """

    approval: str
    run: str
    reason: str
    tell: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """Approvals to the run that asked: this is what became of it.

    Args:
        run: The run.
        number: Its call.
        approval: Which.
        decision: How it ended.
        digest: Of the arguments that were decided about.
        by: Who decided; empty where nobody did.
        reason: Why, in their words.
        at_ms: When.
        value: The result of a call that happened.
    """

    run: str
    number: int
    approval: str
    decision: Decision
    digest: bytes
    by: str = ""
    reason: str = ""
    at_ms: int
    value: bytes = b""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalEvent:
    """One step of a decision's life, on `evt.approvals`; each tells the whole, so any one is enough.

    But for what is refused once it has ended: then `shown` is empty.

    Args:
        status: `asked`, how it ended, or `refused`: somebody may not decide this, or not so.
        by: Who decided or was refused.
        why: The reason given; of a refusal what is wrong.
        decision: Id of the message that decided or was refused.
    """

    approval: str
    tenant: str
    run: str
    number: int
    about: About
    name: str
    words: str
    digest: bytes
    shown: bytes
    to: str
    expires_ms: int
    requester: str
    status: Literal[
        "asked",
        "approved",
        "denied",
        "happened",
        "not-happened",
        "given-up",
        "expired",
        "withdrawn",
        "refused",
    ]
    by: str = ""
    why: str = ""
    decision: str = ""
    asked_ms: int
    at_ms: int


INBOX = (Petition, Decide, Withdraw)
SHIPPED = (*INBOX, Decided, ApprovalEvent)
