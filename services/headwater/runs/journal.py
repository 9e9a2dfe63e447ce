"""The journal: suspended executions while they may be used, and their replay from entries."""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import NamedTuple

from headwater.contracts.messages import Limits
from headwater.contracts.records import Partition
from headwater.core.execution import Answer, Asked, Delivery, Execution, Parked, Step
from headwater.core.messages import RunId
from headwater.errors import NonDeterminismError
from headwater.runs.rows import Entry, Made, Run

logger = logging.getLogger(__name__)


class Head(NamedTuple):
    """How far an execution got: entries delivered, and the offset of the last."""

    seq: int
    offset: int


def head(run: Run) -> Head:
    """Return the head that a run's row has."""
    return Head(run.seq, run.offset)


class Cache:
    """Suspended executions, each used only if its head equals its run's row; least used go first.

    Args:
        executions_max: Most executions kept; an evicted one is replayed when it is needed again.
    """

    def __init__(self, executions_max: int) -> None:
        self._max = executions_max
        self._kept: OrderedDict[str, tuple[Head, Execution]] = OrderedDict()

    def take(self, run: Run) -> Execution | None:
        """Take a run's execution out, if it is where the row says; a stale one is closed."""
        kept = self._kept.pop(run.run, None)
        if kept is None:
            return None
        at, execution = kept
        if at != head(run):
            execution.close()
            return None
        return execution

    def keep(self, run: Run, execution: Execution) -> None:
        """Keep an execution that waits, at the head its turn leads to."""
        self._kept[run.run] = (head(run), execution)
        if len(self._kept) > self._max:
            _, (_, oldest) = self._kept.popitem(last=False)
            oldest.close()

    def forget(self, partition: Partition) -> None:
        """Close every execution of a partition: its claim, or a commit over it, was lost."""
        for run in [*self._kept]:
            parsed = RunId.parse(run)
            assert parsed is not None, run
            if parsed.partition == partition.number:
                self._kept.pop(run)[1].close()


def deliver(
    execution: Execution,
    delivery: Delivery,
    now_ms: int,
    make: Callable[[Asked], Made],
    left: Callable[[], Limits | None],
) -> list[Step]:
    """Deliver, and go on with what calls get at once instead of being sent: a denial, or a wait.

    Args:
        execution: What waits.
        delivery: What has come.
        now_ms: Run time.
        make: Told every call, in order; returns it as the journal keeps it.
        left: Says what the run may still spend, if the function asks.

    Returns:
        The steps this led to: one, and one more for each call that was not sent.
    """
    steps: list[Step] = []
    waiting: deque[Delivery] = deque([delivery])
    execution.hear_left(left)
    while waiting:
        step = execution.deliver(waiting.popleft(), now_ms=now_ms)
        steps.append(step)
        for asked in step.asked:
            if (at_once := _at_once(make(asked))) is not None:
                waiting.append(at_once)
        if step.ended is not None:
            break
    execution.hear_left(None)
    return steps


def replay(
    execution: Execution,
    entries: Iterable[Entry],
    writes: Callable[[Made], bool],
    *,
    whole: Callable[[Delivery], Delivery] = lambda delivery: delivery,
    told: Callable[[Asked], None] = lambda asked: None,
) -> Step | None:
    """Deliver a journal again to a fresh execution; nothing it asks is sent.

    Args:
        execution: A fresh one.
        entries: The journal, in order.
        writes: Whether a call changes the world, so that other arguments cannot be let pass.
        whole: Returns a delivery with its value, where that is by reference.
        told: Told every call.

    Returns:
        The last step; `None` if the journal is empty.

    Raises:
        NonDeterminismError: The code asks for something else than the journal has.
    """
    execution.replaying = True
    last: Step | None = None
    for entry in entries:
        recorded = deque(entry.calls)

        def make(asked: Asked, recorded: deque[Made] = recorded) -> Made:
            told(asked)
            return _compare(asked, recorded.popleft() if recorded else None, writes)

        def left(told: Limits | None = entry.left) -> Limits | None:
            return told

        execution.recall(above=entry.above, patched=entry.patched)
        last = deliver(execution, whole(entry.delivery), entry.time_ms, make, left)[-1]
        if recorded:
            missing = recorded[0]
            raise NonDeterminismError(missing.number, f"{missing.kind} {missing.name}", "nothing")
    execution.replaying = False
    return last


def _at_once(made: Made) -> Delivery | None:
    """Return what a call gets in the turn that made it, instead of being sent."""
    if made.denied is not None:
        return Answer(number=made.number, outcome=made.denied)
    return Parked(number=made.number) if made.approval else None


def _compare(asked: Asked, made: Made | None, writes: Callable[[Made], bool]) -> Made:
    actual = f"{asked.kind} {asked.name}"
    if made is None:
        raise NonDeterminismError(asked.number, "nothing", actual)
    expected = f"{made.kind} {made.name}"
    if (asked.number, actual) != (made.number, expected):
        raise NonDeterminismError(asked.number, expected, actual)
    if asked.digest != made.digest:
        if writes(made):
            raise NonDeterminismError(
                asked.number, f"{expected} with other arguments", f"{actual} with these"
            )
        logger.warning("call %d (%s) is replayed with other arguments", asked.number, actual)
    return made
