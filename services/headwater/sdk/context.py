"""The context: what belongs to a run, for the agent that it is."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import logging
import random
import uuid
from collections.abc import MutableMapping
from typing import Any, TypeVar

import pydantic

from headwater.contracts.derive import shape_of
from headwater.core.execution import RunInfo
from headwater.durable.running import Session

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
        steps: Steps it may take; `None` for no limit.
        usd: US dollars it may spend; `None` for no limit.
    """

    id: str
    task_id: str
    tenant: str
    actor: str
    deadline: datetime.datetime | None
    attempt: int
    steps: int | None
    usd: float | None


class _Log(logging.LoggerAdapter[logging.Logger]):
    """A logger that says nothing twice: silent on replay."""

    def __init__(self, logger: logging.Logger, session: Session, run: str) -> None:
        super().__init__(logger, {"run": run})
        self._session = session

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - logging's own name
        return not self._session.replaying and super().isEnabledFor(level)

    def process(
        self, msg: Any, kwargs: MutableMapping[str, Any]
    ) -> tuple[Any, MutableMapping[str, Any]]:
        return f"[{self.extra['run']}] {msg}" if self.extra else msg, kwargs


class Context:
    """What belongs to the run: its identity, its time and chance, messages in and events out."""

    def __init__(self, session: Session, info: RunInfo) -> None:
        self._session = session
        self.run = RunView(
            id=info.run,
            task_id=info.task_id,
            tenant=info.tenant,
            actor=info.actor,
            deadline=None if info.deadline_ms is None else _utc(info.deadline_ms),
            attempt=info.attempt,
            steps=info.limits.steps,
            usd=None if info.limits.usd_nano is None else info.limits.usd_nano / 1e9,
        )
        name = info.run.split(".", 1)[0]
        self.log = _Log(logging.getLogger(f"headwater.agents.{name}"), session, info.run)
        """A logger that leaves out what a replay would say again."""

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

    def emit(self, event: Any) -> None:
        """Publish an event beside the run's outcome; its CloudEvents type is its class's name."""
        kind = event.__class__
        self._session.emit(kind.__name__, shape_of(kind).encode(event))


def _utc(time_ms: int) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC)
