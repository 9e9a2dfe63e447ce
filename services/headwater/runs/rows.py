"""What the decider of runs remembers: a run, how it began, its journal, its open calls, what is held."""

from __future__ import annotations

import dataclasses
from typing import Literal

import msgspec

from headwater.contracts.approvals import About, Decided
from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import (
    Ask,
    BlobRef,
    Control,
    Failed,
    Header,
    Limits,
    Reply,
    Spent,
    Start,
    Usage,
    Wake,
)
from headwater.core.allowance import raised
from headwater.core.execution import (
    Answer,
    Begin,
    Cancel,
    Cut,
    Parked,
    Released,
    RunInfo,
    Signal,
    Tick,
)
from headwater.core.messages import Key, Meta

State = Literal["open", "paused", "held", "closing", "failed"]
Ending = Literal["", "completed", "failed", "cancelled"]


class Opened(Frozen, kw_only=True):
    """How a run began; written once, and again when it continues as another task.

    Args:
        start: What began it; its task is the one that was published.
        task: What it continues as; by reference if large.
        signals: Those that came before it continued, and that nobody had received.
        journal: How often it has continued.
        wrote: Calls of journals before this one that may have changed the world; the first of them.
        attempt: Which attempt it was when it continued.
        added: What resumes had added to its limits by then.
    """

    run: str
    start: Start
    tenant: str
    actor: str
    correlation_id: str
    causation_id: str
    traceparent: bytes
    deadline_ms: int | None
    carried: tuple[Header, ...]
    limits: Limits
    started_ms: int
    task: bytes | BlobRef = b""
    signals: tuple[Signal, ...] = ()
    journal: int = 0
    wrote: tuple[str, ...] = ()
    attempt: int = 1
    added: Spent = msgspec.field(default_factory=Spent)

    @property
    def key(self) -> Key:
        """Filed by run."""
        return (self.run,)

    @property
    def life(self) -> int:
        """Tells runs of one id apart: a task that is published again after its window is another run."""
        return self.started_ms

    @property
    def input(self) -> bytes | BlobRef:
        """The task that its function was last begun with."""
        return self.task if self.journal else self.start.task.value

    def info(self, *, by_reference: bool = False) -> RunInfo:
        """Return what its function may know of it as it begins."""
        return RunInfo(
            run=self.run,
            task_id=self.start.task_id,
            tenant=self.tenant,
            actor=self.actor,
            correlation_id=self.correlation_id,
            deadline_ms=self.deadline_ms,
            limits=raised(self.limits, self.added),
            attempt=self.attempt,
            journal=self.journal,
            by_reference=by_reference,
        )

    def meta(self) -> Meta:
        """Return the task's meta: whatever wakes the run, it speaks in this name."""
        return Meta(
            id=self.start.task_id,
            tenant=self.tenant,
            correlation_id=self.correlation_id,
            causation_id=self.causation_id,
            actor=self.actor,
            traceparent=self.traceparent,
            deadline_ms=self.deadline_ms,
            carried=self.carried,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Again:
    """What a resume changed about a run.

    Args:
        attempt: Which attempt this is: 2 after the first resume.
        at_ms: When it was resumed: its wall clock began anew.
        added: What its limits were raised by, in all.
        told: What it had cost when it failed, as admission or its parent was told.
    """

    attempt: int
    at_ms: int
    added: Spent
    told: Spent


class Run(Frozen, kw_only=True):
    """Where a run is: its head, what it may still spend, and how it ended if it did.

    Args:
        run: Run id.
        state: `open` takes deliveries; `paused` and `held` keep them; `closing` has ended and waits
            for its children; `failed` has ended and is kept for an operator.
        reason: Why it is paused or held.
        seq: Entries delivered; 0 means that its function is still to begin.
        offset: Offset of the last entry's record.
        now_ms: Run time of the last entry.
        number: Last call number issued, in this journal or one before.
        reserved: Set aside for calls that are open.
        spent: Settled.
        cleanup: Steps left for `except` and `finally` once cancelled; `None` before.
        cancelling: Class of the error it will end with if the cancellation ends it.
        wake_ms: When its timer row is due.
        held: Messages held as rows.
        held_next: Number of the next one.
        asking: Calls that wait for a person.
        asking_ms: Since when there are any; 0 while there are none.
        waited_ms: How long there were any before; no wall clock counts meanwhile.
        journal_bytes: Rough size of its journal.
        ending: How it ended.
        error: Class of the error.
        detail: Its words.
        value: A child's encoded result, until the parent has it; by reference if large.
        version: Version of the app that wrote the newest entry.
        cut: If it failed, the first entry that a resume takes back; 0 before.
        again: What resumes changed; `None` before the first.
        kept_until_ms: Once it has failed, until when its rows are kept.
    """

    run: str
    state: State = "open"
    reason: str = ""
    seq: int = 0
    offset: int = -1
    now_ms: int = 0
    number: int = 0
    reserved: Spent = msgspec.field(default_factory=Spent)
    spent: Spent = msgspec.field(default_factory=Spent)
    cleanup: int | None = None
    cancelling: str = ""
    wake_ms: int | None = None
    held: int = 0
    held_next: int = 0
    asking: int = 0
    asking_ms: int = 0
    waited_ms: int = 0
    journal_bytes: int = 0
    ending: Ending = ""
    error: str = ""
    detail: str = ""
    value: bytes | BlobRef = b""
    version: str = ""
    cut: int = 0
    again: Again | None = None
    kept_until_ms: int = 0

    @property
    def attempt(self) -> int:
        """1, and one more for each resume."""
        return 1 if self.again is None else self.again.attempt

    @property
    def key(self) -> Key:
        """Filed by run."""
        return (self.run,)


class Made(Frozen, kw_only=True):
    """A call as the journal keeps it.

    Args:
        number: Its number.
        kind: What was called.
        name: Its name.
        digest: Of its arguments.
        child: The child's run id.
        denied: The answer it got at once instead of being sent.
        approval: Id of what a person was asked instead of sending it.
    """

    number: int
    kind: str
    name: str
    digest: bytes
    child: str = ""
    denied: Failed | None = None
    approval: str = ""


class Entry(Frozen, kw_only=True):
    """One delivery of a run and the calls it led to: the journal is a run's entries.

    Args:
        run: Run id.
        seq: From 1.
        offset: Of the record delivered.
        time_ms: Run time.
        delivery: What was delivered.
        calls: What was asked, in order.
        attempt: For an answer: id of the attempt that was charged.
        usage: For an answer: what it cost.
        judged: Version of the rules that judged the calls; empty if there were none.
        patched: Ids of patches that this turn used first.
        above: The calls' numbers begin above this one, where a journal begins afresh or was cut; 0
            where they just go on.
        kept: Names of the blobs that the run's further calls may refer to.
        left: What the run might still spend as the turn began, where its function asked for it.
    """

    run: str
    seq: int
    offset: int
    time_ms: int
    delivery: Begin | Answer | Signal | Cancel | Tick | Parked | Released | Cut
    calls: tuple[Made, ...] = ()
    attempt: str = ""
    usage: Usage | None = None
    judged: str = ""
    patched: tuple[str, ...] = ()
    above: int = 0
    kept: tuple[str, ...] = ()
    left: Limits | None = None

    @property
    def key(self) -> Key:
        """Filed by run, in order."""
        return (self.run, self.seq)


class Asking(Frozen, kw_only=True):
    """What a person is asked about a call.

    Args:
        approval: Id of the petition.
        about: What is asked about.
        words: What is asked.
        digest: Of the arguments that are asked about.
        expires_ms: Until when an answer counts.
        attempt: The attempt in doubt.
    """

    approval: str
    about: About
    words: str
    digest: bytes
    expires_ms: int
    attempt: str = ""


class OpenCall(Frozen, kw_only=True):
    """A call that was made and not yet answered.

    Args:
        run: Run id.
        number: Its number.
        kind: What is called.
        name: Its name.
        reserved: Set aside for it.
        child: The child's run id.
        asking: What a person is asked about it, if it waits for one.
        unsent: Whether it waits for a person before it is sent.
        ask: What is sent when a person says so: the first time, or once more.
        wait_ms: How long after it is sent it may still begin.
        undone: Attempts that a person said did not happen.
        withdrawn: Whether the function no longer waits for it.
        settled: Whether what it cost is booked, and only its answer is to be delivered.
        left: Whether a limit's cancellation left it; a resume has the function wait for it again.
    """

    run: str
    number: int
    kind: Literal["model", "tool", "agent", "person"]
    name: str
    reserved: Spent
    child: str = ""
    asking: Asking | None = None
    unsent: bool = False
    ask: Ask | Start | None = None
    wait_ms: int = 0
    undone: tuple[str, ...] = ()
    withdrawn: bool = False
    settled: bool = False
    left: bool = False

    @property
    def key(self) -> Key:
        """Filed by run and number."""
        return (self.run, self.number)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Redelivery:
    """A delivery that a cut took back, to be delivered again; what it cost is booked already."""

    delivery: Begin | Answer | Signal | Cancel | Tick | Parked | Released
    attempt: str = ""
    usage: Usage | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A message kept because its run cannot take it now; what a cut took back has lower numbers."""

    run: str
    seq: int
    message: Start | Reply | Control | Wake | Decided | Redelivery

    @property
    def key(self) -> Key:
        """Filed by run, in order of arrival."""
        return (self.run, self.seq)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Overrun:
    """A second attempt's bill for a call that was answered already: recorded apart, once."""

    run: str
    attempt: str
    usage: Usage

    @property
    def key(self) -> Key:
        """Filed by run and attempt."""
        return (self.run, self.attempt)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Ahead:
    """A run that a later version of the app wrote last, and that waits for such code."""

    version: str
    run: str

    @property
    def key(self) -> Key:
        """Filed by version, because a version's runs are let go together."""
        return (self.version, self.run)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retained:
    """A run that failed, and the hour, counted since 1970, after which it may go."""

    bucket: int
    run: str

    @property
    def key(self) -> Key:
        """Filed by hour, because they go together."""
        return (self.bucket, self.run)


KINDS = (Opened, Run, Entry, OpenCall, Held, Overrun)
"""Filed by run."""
BUCKETS = (Ahead, Retained)
"""Filed by what they wait for."""
