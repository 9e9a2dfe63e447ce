"""Replay: recorded deliveries, fed to a fresh execution that must ask for the same calls again."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Sequence
from typing import Protocol

from headwater.core.execution import Asked, Delivery, Execution, Step
from headwater.durable.session import current, in_durable
from headwater.errors import NonDeterminismError

NOTHING = "nothing"


class RecordedCall(Protocol):
    """A call as the journal keeps it."""

    @property
    def number(self) -> int:
        """From 1."""
        ...

    @property
    def kind(self) -> str:
        """What was called."""
        ...

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def digest(self) -> bytes:
        """Over what the arguments meant."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """One turn as the journal keeps it.

    Args:
        delivery: What was delivered.
        now_ms: Run time then.
        calls: What the function asked for, numbers ascending.
    """

    delivery: Delivery
    now_ms: int
    calls: Sequence[RecordedCall] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Rebuilt:
    """What a replay led to.

    Args:
        step: The last turn's; `None` if there was none.
        changed: Calls whose arguments mean something else today: the host holds the run if one of
            them writes, and warns if it reads.
    """

    step: Step | None
    changed: Sequence[Asked]

    @property
    def numbers(self) -> Sequence[int]:
        """Numbers of the calls that changed."""
        return tuple(call.number for call in self.changed)


class FreshOnly(logging.Filter):
    """A log filter that drops what a durable function logged before; for handlers of the host."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is new."""
        return not (in_durable() and current().replaying)


def rebuild(execution: Execution, entries: Iterable[Recorded]) -> Rebuilt:
    """Feed recorded deliveries to a fresh execution. None of the calls it asks for is to be sent.

    Args:
        execution: Fresh: nothing was delivered to it.
        entries: From the first turn on.

    Raises:
        NonDeterminismError: A call has another kind or name than recorded, or is missing, or is new.
        ConfinementError, LivelockError: As when it was delivered.
    """
    step: Step | None = None
    changed: list[Asked] = []
    execution.replaying = True
    for entry in entries:
        step = execution.deliver(entry.delivery, now_ms=entry.now_ms)
        changed += _compare(entry.calls, step.asked)
    execution.replaying = False
    return Rebuilt(step=step, changed=changed)


def _compare(recorded: Sequence[RecordedCall], asked: Sequence[Asked]) -> list[Asked]:
    """Return the calls with another digest; anything else that differs is an error."""
    changed = []
    for place in range(max(len(recorded), len(asked))):
        was = recorded[place] if place < len(recorded) else None
        now = asked[place] if place < len(asked) else None
        if was is None or now is None or _name(was) != _name(now):
            number = was.number if was is not None else asked[place].number
            raise NonDeterminismError(number, _name(was), _name(now))
        assert was.number == now.number, "numbers count up in both"
        if was.digest != now.digest:
            changed.append(now)
    return changed


def _name(call: RecordedCall | Asked | None) -> str:
    return NOTHING if call is None else f"{call.kind} {call.name}"
