"""A durable function as its host sees it: deliveries in, calls out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal, Protocol

import msgspec

from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import Answered, Failed, InDoubt, Limits

CallKind = Literal["model", "tool", "agent", "person"]


class Asked(Frozen, kw_only=True):
    """A call the function made; numbers count up for the life of the run.

    Args:
        number: From 1.
        kind: What is called.
        name: The model's, tool's or agent's name.
        arguments: As the callee's codec wrote them.
        digest: 16 bytes over what the arguments mean (message timestamps left out).
        options: What the host needs besides: keys and values are the caller's and host's affair
            (`order_key`, `timeout_ms`, `limits`, `ceiling`, `ask`), never journaled, rebuilt at replay.
    """

    number: int
    kind: CallKind
    name: str
    arguments: bytes
    digest: bytes
    options: Mapping[str, Any] = msgspec.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Emitted:
    """An event the function published with `ctx.emit`: its CloudEvents type and its encoded value."""

    type: str
    value: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A message from outside for `ctx.receive`; its value is JSON."""

    name: str
    value: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Begin:
    """Call the function; `signals` came before it did, and nobody has received them."""

    signals: tuple[Signal, ...] = ()


class Answer(Frozen, kw_only=True):
    """The answer to call `number`."""

    number: int
    outcome: Answered | Failed | InDoubt


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cancel:
    """Raise `CancelledError` in the function."""

    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Nothing but that time has gone on: timers that are due by `now_ms` fire, as before every delivery."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """Call `number` waits for a person: its own time limit does not run meanwhile."""

    number: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Released:
    """A person let call `number` be sent: its own time limit begins now.

    Args:
        number: The call.
        approval: What was decided.
        by: Who did.
        reason: Why.
        at_ms: When.
    """

    number: int
    approval: str
    by: str
    reason: str
    at_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The turns that followed here were taken back, and what they were given is delivered again.

    Args:
        attempt: Which attempt of the run begins here.
        limits: What the run may spend from here on.
        actor: Who wanted it.
        reason: Why.
        error: Class of the error that had ended the run.
        writes: Calls taken back that had changed the world.
    """

    attempt: int
    limits: Limits
    actor: str = ""
    reason: str = ""
    error: str = ""
    writes: tuple[str, ...] = ()


Delivery = Begin | Answer | Signal | Cancel | Tick | Parked | Released | Cut


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Returned:
    """The function returned; its value as the agent's output codec wrote it."""

    value: bytes


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Raised:
    """The function raised; `cancelled` if that was the cancellation it was asked for."""

    error: str
    detail: str
    stack: str = ""
    cancelled: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Continued:
    """The function asked for a fresh journal with another task.

    Args:
        task: The task, as the agent's input codec wrote it.
        signals: Those that came and that nobody had received.
    """

    task: bytes
    signals: tuple[Signal, ...] = ()


class Step(Frozen, kw_only=True):
    """What one delivery led to.

    Args:
        asked: New calls, in the order they were made, numbers ascending.
        withdrawn: Numbers of calls whose waiter was cancelled; a late answer goes nowhere.
        emitted: Events, in order.
        wake_ms: When the function's earliest timer is due (run time); `None` if it has none.
        receiving: Names the function waits for with `ctx.receive`; empty string means any.
        patched: Ids of patches first used in this step.
        ended: How the function ended, if it did.
    """

    asked: Sequence[Asked] = ()
    withdrawn: Sequence[int] = ()
    emitted: Sequence[Emitted] = ()
    wake_ms: int | None = None
    receiving: Sequence[str] = ()
    patched: Sequence[str] = ()
    ended: Returned | Raised | Continued | None = None


class Execution(Protocol):
    """A durable function, suspended; deterministic, so it may be dropped at any time and replayed."""

    replaying: bool
    """Whether what is delivered was delivered before; the function's logs of it are left out."""

    def recall(self, *, above: int = 0, patched: Collection[str] = ()) -> None:
        """Tell it what the journal knows of the turn that is delivered next.

        Args:
            above: The turn's calls get numbers above this one: the last that was ever issued, where a
                journal begins afresh or was cut.
            patched: Ids of patches that the turn used first; asked of only while it is replayed.
        """
        ...

    def hear_left(self, left: Callable[[], Limits | None] | None) -> None:
        """Take who says, until told otherwise, what the run may still spend; `None` between turns.

        What is said is `None` where the journal does not say.
        """
        ...

    def deliver(self, delivery: Delivery, *, now_ms: int) -> Step:
        """Run until everything waits again.

        Args:
            delivery: The first is `Begin`, but for cuts; nothing may follow an end.
            now_ms: Run time, never falling: what `time` and `datetime` tell the function.

        Raises:
            NonDeterminismError, ConfinementError, LivelockError: The run must be held.
        """
        ...

    def close(self) -> None:
        """Drop it: what its `finally` blocks ask, log or emit is discarded."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """What a function may know of its run.

    Args:
        run: Run id; seeds the run's `random` and `uuid`.
        task_id: Task id.
        tenant: Tenant.
        actor: Who asked.
        correlation_id: The task's `ce_id`.
        deadline_ms: When the task stops being wanted.
        limits: What the run may spend.
        attempt: 1, and one more for each resume.
        journal: How often it has continued as another task; what it draws is apart from before.
        by_reference: Whether conversations may be kept in a store of blobs.
    """

    run: str
    task_id: str
    tenant: str
    actor: str
    correlation_id: str
    deadline_ms: int | None
    limits: Limits
    attempt: int = 1
    journal: int = 0
    by_reference: bool = False


class AgentFunction(Protocol):
    """An agent as the decider of runs hosts it."""

    @property
    def name(self) -> str:
        """The agent's name."""
        ...

    @property
    def limits(self) -> Limits:
        """What a run may spend unless its start says otherwise."""
        ...

    def begin(self, info: RunInfo, task: bytes) -> Execution:
        """Return a fresh execution; `task` is the framed Avro datum of the input.

        Raises:
            PoisonError: The task cannot be decoded as the agent's input type.
        """
        ...

    def outcome_json(self, value: bytes) -> bytes:
        """Return a result as JSON, for people and HTTP."""
        ...
