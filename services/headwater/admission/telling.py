"""Telling: what the life cycle and the world hear of tasks that admission has."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

from headwater.admission.rows import Queued, Seen
from headwater.contracts.messages import Admit, Control, Reopen, RunEvent, RunFailed, Status, Task
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Encoded, Turn
from headwater.core.messages import Address, Meta, RunId
from headwater.errors import PoisonError

Aside = Callable[[Record, str, PoisonError], Draft]
"""Builds what keeps a held task that is refused: (the task as published, its tenant, why)."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where admission sends things.

    Args:
        inbox: Agent's name to its inbox topic.
        events: Agent's name to its outcome topic.
        life: The life-cycle topic.
        partitions: Agent's name to how many inbox partitions it had when it was counted.
        has: Whether an agent, by its name, has an inbox partition now.
        dedupe_s: Agent's name to how long its tasks are remembered.
    """

    inbox: Callable[[str], str]
    events: Callable[[str], str]
    life: str
    partitions: Callable[[str], int]
    has: Callable[[str, int], bool]
    dedupe_s: Mapping[str, int]

    def check_place(self, target: str) -> None:
        """Refuse a run's id that has no address here.

        Raises:
            PoisonError: It is no run's id, or there is no such agent or partition.
        """
        run = RunId.parse(target)
        if run is None:
            raise _homeless(target)
        if error := self.gone(target):
            raise error
        if not self.has(run.agent, run.partition):
            raise _homeless(target)

    def gone(self, target: str) -> PoisonError | None:
        """Return why nobody takes what waited for a slot, if its agent is gone.

        Its partition was there when it came. Here an inbox may be known as it was before it grew.
        """
        run = RunId.parse(target)
        assert run is not None, target
        if run.agent in self.dedupe_s:
            return None
        return _homeless(target, f": this app has no agent named {run.agent!r}")


def _homeless(target: str, why: str = "") -> PoisonError:
    return PoisonError("unknown-target", f"run {target!r} has no address here{why}")


class Telling:
    """Tells of tasks.

    Args:
        routes: Where things go.
        aside: Builds what keeps a held task that nobody here takes any more.
    """

    def __init__(self, routes: Routes, aside: Aside) -> None:
        self._routes = routes
        self._aside = aside

    def say(
        self,
        turn: Turn,
        status: Status,
        seen: Seen,
        meta: Meta,
        *,
        reason: str = "",
        error: str = "",
        detail: str = "",
        attempt: int = 1,
    ) -> None:
        """Tell the life cycle where a task, or a run, is now."""
        event = RunEvent(
            run=seen.run,
            task_id=seen.task_id,
            agent=seen.agent,
            tenant=seen.tenant,
            status=status,
            reason=reason,
            error=error,
            detail=detail,
            at_ms=turn.now_ms,
            attempt=attempt,
        )
        turn.send(event, Address(self._routes.life, seen.run), meta=meta)

    def cancelled(self, turn: Turn, control: Control, seen: Seen, row: Queued) -> None:
        """Publish the outcome of a task that was cancelled while it was held."""
        failed = RunFailed(
            run=seen.run,
            task_id=seen.task_id,
            agent=seen.agent,
            error="Cancelled",
            detail=control.reason or "cancelled while it was held",
        )
        turn.send(
            Encoded(type=f"{seen.agent}.cancelled", value=failed),
            Address(self._routes.events(seen.agent), seen.run),
            meta=row.meta(),
            headers=(("ce_runid", seen.run.encode()),),
        )
        reason = with_lost(control.reason, row)
        self.say(turn, "cancelled", seen, row.meta(), reason=reason, error="Cancelled")

    def task_refused(
        self, turn: Turn, row: Queued, admit: Admit, seen: Seen, error: PoisonError
    ) -> None:
        """Put a task aside that nobody here takes any more, as it was published.

        No outcome is published: the topic of an agent that is gone may be gone with it.
        """
        turn.relay(self._aside(_as_published(admit.task, turn.now_ms), row.tenant, error))
        detail = with_lost(str(error), row)
        self.say(turn, "quarantined", seen, row.meta(), error=error.code, detail=detail)

    def stays_failed(self, turn: Turn, row: Queued, why: str) -> None:
        """Say of a run whose resume waited, and does so no more, that it stays failed."""
        reopen = row.wanted
        assert isinstance(reopen, Reopen), "a task waits as a new run"
        seen, reason = as_seen(row.tenant, reopen.run), with_lost(why, row)
        attempt = reopen.resume.attempt
        self.say(turn, "failed", seen, row.meta(), reason=reason, attempt=attempt)


def with_lost(why: str, row: Queued) -> str:
    """Return why a row waits no more, and how many words are dropped with it."""
    if not row.controls:
        return why
    lost = f"{len(row.controls)} signals or resumes that waited with it are dropped"
    return f"{why}; {lost}" if why else lost


def as_seen(tenant: str, run: str) -> Seen:
    """Return a run as its events tell of it; its task may be forgotten."""
    parsed = RunId.parse(run)
    assert parsed is not None, run
    return Seen(tenant=tenant, task_id=parsed.task, agent=parsed.agent, digest=b"", run=run)


def _as_published(task: Task, time_ms: int) -> Record:
    """Return a task's record as its producer published it."""
    assert isinstance(task.value, bytes), "a child's task does not pass here"
    return Record(
        partition=Partition(task.topic, task.partition),
        offset=task.offset,
        time_ms=time_ms,
        key=task.key,
        value=task.value,
        headers=tuple((header.name, header.value) for header in task.headers),
    )
