"""The messages that headwater's own processes exchange; each is Avro, its schema derived from its type.

`schemas/<message>/v1.avsc` is the published form; a test keeps it equal to these types. Times are
milliseconds since 1970 (`_ms`), money is billionths of a US dollar (`usd_nano`).
"""

from __future__ import annotations

import dataclasses
from typing import Literal

from headwater.contracts import approvals, ctl
from headwater.contracts.frozen import Frozen

Key = tuple[str | int, ...]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """One header of a foreign record, as it came."""

    name: str
    value: bytes | None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class BlobRef:
    """A value too large to travel, by what it is: the store of blobs has it under its tenant.

    Args:
        name: `hwb1l-` and 64 hex digits of the value's blake2b-256; `hwb1n-` if the value names others.
        size: Its bytes.
    """

    name: str
    size: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A task's record as its producer published it, and where.

    A child's task was never published: its topic is empty and its value the caller's encoding, by
    reference if that is large.
    """

    topic: str = ""
    partition: int = -1
    offset: int = -1
    key: bytes | None = None
    value: bytes | BlobRef
    headers: tuple[Header, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a run may spend; `None` means no limit of this kind."""

    steps: int | None = 100
    tokens: int | None = None
    usd_nano: int | None = 1_000_000_000
    wall_ms: int | None = 3_600_000
    cleanup_steps: int = 10


class Spent(Frozen, kw_only=True):
    """What a run has spent, or one call has: steps, tokens in and out, money."""

    steps: int = 0
    tokens: int = 0
    usd_nano: int = 0


class ReplyTo(Frozen, kw_only=True):
    """Where the answer of a call goes: the inbox partition of the run that asked, and its number."""

    topic: str
    partition: int
    run: str
    number: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Admit:
    """Intake to admission: a task whose type, tenant and size are in order.

    Args:
        agent: The agent's name.
        task_id: Hash of (tenant, agent, ce_source, ce_id).
        digest: Hash of the task's datum, not of its bytes.
        task: The record as published.
    """

    agent: str
    task_id: str
    digest: bytes
    task: Task


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """On what terms a failed run goes on.

    Args:
        attempt: The attempt that failed, so that the same word twice counts once; 0 for whichever it is.
        added: What its limits are raised by.
        repeat_writes: Whether calls that changed the world may be made again.
        slot: The slot that admission has taken for it; empty before.
    """

    attempt: int = 0
    added: Spent = dataclasses.field(default_factory=Spent)
    repeat_writes: bool = False
    slot: str = ""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Control:
    """A person's or a parent's word to a run: `target` is a task id or a run id.

    Args:
        target: Task id or run id.
        verb: What to do.
        name: A signal's name.
        value: A signal's value, JSON.
        reason: Why; journaled.
        resume: The terms, where a failed run is resumed.
    """

    target: str
    verb: Literal["cancel", "pause", "resume", "signal", "discard"]
    name: str = ""
    value: bytes = b""
    reason: str = ""
    resume: Resume | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Reopen:
    """A failed run to admission: an operator resumes it, so it needs a slot again."""

    run: str
    reason: str = ""
    resume: Resume


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """A slot has ended, whatever ended it."""

    slot: str
    spent: Spent = dataclasses.field(default_factory=Spent)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wake:
    """A partition's owner to itself: the timer of this name is due."""

    name: Key
    due_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin a run.

    Args:
        run: `agent.partition.task id`.
        task_id: The task's id; a child's is derived from its parent's run id, when that run began, and the
            call's number.
        slot: The root's open-run slot at admission.
        task: The record as published, or as the parent encoded it.
        limits: What it may spend; `None` means the agent's own.
        reply_to: The parent's call, for a child.
    """

    run: str
    task_id: str
    slot: str
    task: Task
    limits: Limits | None = None
    reply_to: ReplyTo | None = None


class Answered(Frozen, kw_only=True):
    """A call's answer: single-object Avro of the callee's result type, or JSON of a model's reply."""

    value: bytes | BlobRef


class Failed(Frozen, kw_only=True):
    """A call's failure: the error's class and its words, redacted."""

    error: str
    detail: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class InDoubt:
    """Nobody knows whether an irreversible call happened."""

    since_ms: int


Outcome = Answered | Failed | InDoubt


class Usage(Frozen, kw_only=True):
    """What one attempt at a call cost."""

    model: str = ""
    input_tokens: int = 0
    output_tokens: int = 0
    usd_nano: int = 0


class Reply(Frozen, kw_only=True):
    """An effector's or a child's answer to call `number` of `run`.

    Args:
        run: The run that asked.
        number: Its call.
        attempt: Id of the attempt; each is charged once.
        outcome: What came of it.
        usage: What the attempt cost, if it cost anything.
        spent: What a child spent in all; `None` from effectors.
    """

    run: str
    number: int
    attempt: str
    outcome: Answered | Failed | InDoubt
    usage: Usage | None = None
    spent: Spent | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """A partition's owner to itself: go on with the held messages of this run."""

    run: str


class Ask(Frozen, kw_only=True):
    """A run's request to an effector.

    Args:
        run: The run that asks.
        number: Its call; (run, number) is the idempotency key.
        name: The tool's or model's name.
        arguments: Single-object Avro of a tool's parameters; JSON for a model; by reference if large.
        safety: What may be done again after a crash.
        order_key: Calls of one tool with the same key start in order; empty means any order.
        not_after_ms: Do not start later than this.
        reply_to: Where the answer goes.
        undone: Attempts that a person has said did not happen, so that their notes stop nothing.
    """

    run: str
    number: int
    name: str
    arguments: bytes | BlobRef
    safety: Literal["read", "paid", "write", "irreversible"]
    order_key: str = ""
    not_after_ms: int
    reply_to: ReplyTo
    undone: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Intent:
    """An effector's receipt that a call is about to begin; written again to renew its lease.

    Args:
        run: The run that asked.
        number: Its call.
        offset: Offset of the request.
        attempt: Id of the attempt.
        holder: The instance that makes it.
        begun_ms: When it was first written.
        until_ms: Until when the call may still act, and nobody else may begin it.
    """

    run: str
    number: int
    offset: int
    attempt: str
    holder: str = ""
    begun_ms: int
    until_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """An effector's receipt that a call was answered, written before the answer is sent.

    Args:
        offset: Offset of the request.
        reply: The answer, as it was or will be sent.
    """

    offset: int
    reply: Reply


Status = Literal[
    "accepted",
    "held",
    "started",
    "waiting",
    "paused",
    "completed",
    "failed",
    "cancelled",
    "quarantined",
    "discarded",
]


class CallNote(Frozen, kw_only=True):
    """A call as the life cycle tells it: for the journey a person reads, not for replay.

    Args:
        number: Its number.
        kind: What is called.
        name: Its name.
        state: `waiting` is for a person.
        child: The child's run id.
        detail: Why it failed or was denied; of one that is asked, why its run no longer waits for it.
        usage: What it cost.
        approval: Id of what a person was asked.
        by: Who decided.
        verdict: How, and why.
    """

    number: int
    kind: str
    name: str
    state: Literal["asked", "waiting", "answered", "failed", "denied"]
    child: str = ""
    detail: str = ""
    usage: Usage | None = None
    approval: str = ""
    by: str = ""
    verdict: str = ""


class RunEvent(Frozen, kw_only=True):
    """One step of a run's life, on `evt.runs`.

    Args:
        run: Run id; empty while the task is held by admission.
        task_id: Task id.
        agent: Agent's name.
        tenant: Tenant.
        status: Where the run is now.
        reason: Why it is held, paused or cancelled; what it waits for.
        error: Class of the error that ended it.
        detail: The error's words.
        parent: The parent's run id, for a child.
        calls: Calls asked and answered by this turn.
        steps: Steps so far.
        tokens: Tokens so far.
        usd_nano: Money so far.
        started_ms: When the run began; 0 before.
        at_ms: When this happened.
        outcome: JSON of the result, at `completed`.
        version: Version of the app that took the turn.
        attempt: 1, and one more for each resume.
        actor: Who did this, where a person did.
        writes: At `failed`: the calls that changed the world and that a resume would make again.
    """

    run: str
    task_id: str
    agent: str
    tenant: str
    status: Status
    reason: str = ""
    error: str = ""
    detail: str = ""
    parent: str = ""
    calls: tuple[CallNote, ...] = ()
    steps: int = 0
    tokens: int = 0
    usd_nano: int = 0
    started_ms: int = 0
    at_ms: int = 0
    outcome: bytes = b""
    version: str = ""
    attempt: int = 1
    actor: str = ""
    writes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """`audit.operators`: what an operator did to kept records or to a run, who and why.

    Args:
        action: What was done.
        id: The operation's id; the same one again goes on where it was.
        actor: Who.
        reason: Why.
        at_ms: When.
        run: The run it was done to; empty if it was done to records.
        topic: Topic of the kept records.
        partition: Their partition.
        offsets: Those it was done to, as pairs: first and last of each range.
        next_offset: How far the operation has looked.
        to: Where replayed records went, if somebody said where.
        repeat_writes: Whether calls that changed the world may be made again.
        value: The value that was sent instead of the kept one.
        original: The kept one's value, beside it.
    """

    action: Literal["replay", "discard", "resume", "edit"]
    id: str
    actor: str
    reason: str = ""
    at_ms: int
    run: str = ""
    topic: str = ""
    partition: int = -1
    offsets: tuple[int, ...] = ()
    next_offset: int = -1
    to: str = ""
    repeat_writes: bool = False
    value: bytes | None = None
    original: bytes | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunFailed:
    """The outcome of a run that failed or was cancelled, on `evt.<agent>`."""

    run: str
    task_id: str
    agent: str
    error: str
    detail: str
    steps: int = 0
    tokens: int = 0
    usd_nano: int = 0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """A piece of a model's streamed answer, or a tool's progress; kept ten minutes."""

    run: str
    number: int
    attempt: str
    seq: int
    text: str


INBOX = (Admit, Control, Reopen, Closed, Wake, Start, Reply, Drain)
SHIPPED = (
    *INBOX,
    *approvals.SHIPPED,
    Ask,
    Intent,
    Result,
    RunEvent,
    RunFailed,
    Operation,
    Token,
    *ctl.SHIPPED,
)
