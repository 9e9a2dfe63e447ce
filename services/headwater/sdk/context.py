"""The context: what belongs to a run, for the agent that it is."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import logging
import random
import uuid
from collections.abc import Callable, MutableMapping
from typing import Any, NoReturn, TypeVar, overload

import pydantic
import pydantic_core

from headwater.contracts.messages import Limits
from headwater.core.execution import Cut, RunInfo
from headwater.core.judge import EXPIRES_S, AskPerson
from headwater.durable.running import Session
from headwater.sdk.calls import ask
from headwater.sdk.events import Events
from headwater.sdk.types import NANO, Budget

T = TypeVar("T")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RunView:
    """What an agent may know of its run.

    Args:
        id: Run id.
        task_id: The task's id.
        tenant: Whose it is.
        actor: Who asked.
        deadline: When the task stops being wanted, in UTC.
        attempt: 1, and one more for each resume.
        steps: Steps it may take in all; `None` for no limit.
        tokens: Tokens it may use in all; `None` for no limit.
        usd: US dollars it may spend in all; `None` for no limit.
        wall_s: Seconds it may take in all; `None` for no limit.

    Example:
        >>> async def answer(ctx: Context, question: str) -> str:
        ...     left = ctx.run.left
        ...     return "in short" if left.usd is not None and left.usd < 0.05 else "at length"
    """

    id: str
    task_id: str
    tenant: str
    actor: str
    deadline: datetime.datetime | None
    attempt: int
    steps: int | None
    tokens: int | None
    usd: float | None
    wall_s: float | None
    _left: Callable[[], Limits | None] = dataclasses.field(repr=False, compare=False)
    _limits: Limits = dataclasses.field(repr=False, compare=False)

    @property
    def left(self) -> Budget:
        """What it may still spend, as this turn began: what is open is taken off, what is answered settled.

        It is journaled where it is read, so that a replay reads the same. A replay of a turn that code
        of before wrote, which did not read it, says what the run may spend in all.
        """
        limits = self._left() or self._limits
        return Budget(
            steps=limits.steps,
            tokens=limits.tokens,
            usd=_usd(limits),
            wall_s=_wall_s(limits),
            cleanup_steps=limits.cleanup_steps,
        )


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's yes.

    Args:
        by: Who they are.
        at: When they decided, in UTC.
        reason: Why, in their words.
    """

    by: str
    at: datetime.datetime
    reason: str


class _Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that says nothing twice: silent on replay."""

    def __init__(self, logger: logging.Logger, session: Session, run: str) -> None:
        super().__init__(logger, {"run": run})
        self._session = session
        self._run = run

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        return not self._session.replaying and super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        kwargs["extra"] = {**(kwargs.get("extra") or {}), "run": self._run}
        return f"[{self._run}] {msg}", kwargs


class Context:
    """What belongs to the run: its identity, its time and chance, messages in and events out."""

    def __init__(
        self, session: Session, info: RunInfo, events: Events, task: Callable[[Any], bytes]
    ) -> None:
        self._session = session
        self._events = events
        self._task = task
        self._info = info
        self._view = _view(info, session)
        self._cut: Cut | None = None
        name = info.run.split(".", 1)[0]
        self.log = _Log(logging.getLogger(f"headwater.agents.{name}"), session, info.run)
        """A logger that leaves out what a replay would say again."""

    @property
    def run(self) -> RunView:
        """The run: from a resume on another attempt, perhaps with more to spend."""
        cut = self._session.cut
        if cut is not self._cut:
            self._cut = cut
            assert cut is not None, "a cut is followed by another at most"
            info = dataclasses.replace(self._info, attempt=cut.attempt, limits=cut.limits)
            self._view = _view(info, self._session)
        return self._view

    def now(self) -> datetime.datetime:
        """Return the run's time, in UTC; the same when it is replayed."""
        return _utc(self._session.now_ms)

    def uuid(self) -> uuid.UUID:
        """Return a fresh UUID; the same when the run is replayed."""
        return self._session.uuid()

    @property
    def random(self) -> random.Random:
        """The run's own generator; it draws the same when the run is replayed."""
        return self._session.random

    @overload
    async def receive(self, name: str, *, timeout_s: float | None = None) -> Any: ...
    @overload
    async def receive(self, name: type[T], *, timeout_s: float | None = None) -> T: ...
    async def receive(self, name: str | type[T], *, timeout_s: float | None = None) -> Any:
        """Wait for a signal.

        Args:
            name: The signal's name; or a type, which waits for the signal of the type's name and
                reads its value as that type.
            timeout_s: How long to wait.

        Returns:
            The signal's value: of the type, or as JSON has it.

        Raises:
            TimeoutError: None came in time.
            pydantic.ValidationError: It does not fit the type.
        """
        async with asyncio.timeout(timeout_s):
            of = name if isinstance(name, str) else name.__name__
            signal = await self._session.receive(of)
        type_: Any = Any if isinstance(name, str) else name
        return pydantic.TypeAdapter(type_).validate_json(signal.value or b"null")

    async def approve(
        self, words: str, subject: Any = None, *, to: str = "", expires_s: float = EXPIRES_S
    ) -> Approval:
        """Wait until a person approves.

        It is no step of the budget, and the time they take does not count as the run's.

        Args:
            words: What is asked, for people.
            subject: What it is about: anything that JSON can carry. Their decision is about this.
            to: Who may decide: `group:<name>`, an actor, or empty for anybody but who asked for the run.
            expires_s: How long they may take.

        Raises:
            Denied: They said no, nobody decided in time, or the answer came too late to act on.
            ValueError: Nothing is asked, or there is no time for it.
        """
        if not words or not 0 < expires_s < float("inf"):
            raise ValueError("approve needs words, and expires_s over 0 seconds")
        if to == "group:":
            raise ValueError("approve: to names a group: group:payments, not 'group:'")
        given = pydantic_core.to_jsonable_python(subject)
        arguments = json.dumps({"words": words, "subject": given}, sort_keys=True).encode()
        asks = AskPerson(words=words, to=to, expires_s=expires_s)
        value = await ask("person", "approve", arguments, ask=asks)
        said = json.loads(value)
        return Approval(by=said["by"], at=_utc(said["at_ms"]), reason=said["reason"])

    def emit(self, event: Any) -> None:
        """Publish an event beside the run's outcome, when the turn commits.

        Args:
            event: A pydantic model or a dataclass; its CloudEvents type is its class's name. Name the
                class in the agent's `emits=[...]`, so that its schema is published with the app's.

        Raises:
            SettingsError: It is neither.
            ValueError: A field does not fit its type.
        """
        kind, value = self._events.encode(event)
        self._session.emit(kind, value)

    def patched(self, id: str) -> bool:  # noqa: A002 - what it is
        """Say whether this run takes the code behind a patch, so that runs that are open can go on.

        Args:
            id: Of the patch: one word for one change of this agent's code, for good.

        Returns:
            Yes, and journaled, where the run gets here for the first time; no where it got past here
            before the patch was there. A run's first answer stays.

        Example:
            >>> async def answer(ctx: Context, question: str) -> str:
            ...     if ctx.patched("search-first"):
            ...         facts = await search(question)
            ...     else:
            ...         facts = await guess(question)
            ...     return facts
        """
        return self._session.patched(id)

    def continue_as(self, task: Any) -> NoReturn:
        """End the journal here, and begin a fresh one of this same run with another task.

        Call numbers go on counting; what was spent, the budget, the time the run began and whoever
        waits for its outcome stay. Open calls are withdrawn (children are cancelled), timers go, and
        signals that nobody has received wait for the fresh function. It does not return, and nothing
        that runs after it counts. A run that was cancelled ends instead.

        Args:
            task: Of the agent's input type.

        Raises:
            ValueError: It is not of that type.
        """
        self._session.continue_as(self._task(task))


def _view(info: RunInfo, session: Session) -> RunView:
    limits = info.limits
    return RunView(
        id=info.run,
        task_id=info.task_id,
        tenant=info.tenant,
        actor=info.actor,
        deadline=None if info.deadline_ms is None else _utc(info.deadline_ms),
        attempt=info.attempt,
        steps=limits.steps,
        tokens=limits.tokens,
        usd=_usd(limits),
        wall_s=_wall_s(limits),
        _left=session.left,
        _limits=limits,
    )


def _usd(limits: Limits) -> float | None:
    return None if limits.usd_nano is None else limits.usd_nano / NANO


def _wall_s(limits: Limits) -> float | None:
    return None if limits.wall_ms is None else limits.wall_ms / 1000


def _utc(time_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
