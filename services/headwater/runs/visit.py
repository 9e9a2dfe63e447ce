"""A visit: one run within one turn, its changes gathered before any of them is written."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from typing import Any

import msgspec

from headwater.contracts.messages import Ask, CallNote, Limits, Reply, RunEvent, Status
from headwater.contracts.records import Headers
from headwater.core.allowance import raised
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Address, Key, Meta, RunId, life_of
from headwater.core.state import Layer, R, Row, State
from headwater.runs.rows import KINDS, OpenCall, Opened, Run

RUN_TIMER = "run"


def timer_name(run: str) -> Key:
    """Return the name of a run's one timer."""
    return (RUN_TIMER, run)


def remembered(state: State, run: str) -> list[Row]:
    """Return every row of a run, so that its next turn can be tried somewhere else."""
    found: list[Row] = [row for kind in KINDS for row in state.scan(kind, run)]
    timer = state.get(Timer, *timer_name(run))
    return found if timer is None else [*found, timer]


class Visit:
    """One run in one turn: its rows as they become, and what is to be sent.

    Nothing reaches the turn before `write`, so a delivery that cannot be taken leaves no trace.
    """

    __slots__ = (
        "_before",
        "_layer",
        "_remark",
        "_sends",
        "_status",
        "actor",
        "gone",
        "id",
        "meta",
        "notes",
        "opened",
        "outcome",
        "run",
        "sleeps_ms",
        "turn",
        "writes",
    )

    def __init__(self, turn: Turn, opened: Opened, run: Run) -> None:
        parsed = RunId.parse(run.run)
        assert parsed is not None, run.run
        self.id = parsed
        self.turn = turn
        self.opened = opened
        self.meta = opened.meta()
        """The task's meta: whatever wakes the run, it speaks in this name."""
        self.gone = False
        """Whether the run's rows were dropped: it is closed, and its row is not written again."""
        self.actor = ""
        """The person whose word this is, if it is one's."""
        self.undo(run)

    def undo(self, run: Run) -> None:
        """Forget what was gathered since the last write; the row is `run` again."""
        self.run = self._before = run
        self.notes: list[CallNote] = []
        self.outcome = b""
        """The result as JSON, for the event that tells it."""
        self.writes: tuple[str, ...] = ()
        """Calls that changed the world, for the event that tells of them."""
        self.sleeps_ms: int | None = None
        """Until when its function sleeps, as far as this turn left it; `None` for not at all."""
        self._remark = ""
        self._status: Status | None = None
        self._layer = Layer(self.turn.layer)
        self._sends: list[tuple[Any, Address, Headers, Meta]] = []

    @property
    def limits(self) -> Limits:
        """What the run may spend, with what resumes added."""
        again = self.run.again
        return self.opened.limits if again is None else raised(self.opened.limits, again.added)

    @property
    def since_ms(self) -> int:
        """When its wall clock began: with it, or with its last resume."""
        again = self.run.again
        return self.opened.started_ms if again is None else again.at_ms

    @property
    def deadline_ms(self) -> int | None:
        """When the task stops being wanted; who resumes a run later than that wants it still."""
        again, deadline_ms = self.run.again, self.opened.deadline_ms
        late = again is not None and deadline_ms is not None and deadline_ms <= again.at_ms
        return None if late else deadline_ms

    @property
    def slot(self) -> str:
        """The slot it has: its root's, or from its first resume on one of its own."""
        return self.opened.start.slot if self.run.again is None else self.run.run

    def get(self, kind: type[R], *key: str | int) -> R | None:
        """Return another row, this visit's writes included."""
        return self._layer.get(kind, *key)

    def scan(self, kind: type[R]) -> Iterator[R]:
        """Return the run's rows of a kind, this visit's writes included."""
        return self._layer.scan(kind, self.run.run)

    def scan_all(self, kind: type[R], *prefix: str | int) -> Iterator[R]:
        """Return rows that are not filed by run, this visit's writes included."""
        return self._layer.scan(kind, *prefix)

    def asked_for(self, reply: Reply) -> bool:
        """Say whether an answer, which this turn's record is, is to a call of this run.

        It may be to one of the run of the same id that there was before: a task that is published again
        after its window has a run of that id, which counts its calls from one, and asks other things.
        """
        if reply.spent is None:
            life = life_of(self.turn.meta.causation_id)
            return not life or life == str(self.opened.life)
        call = self.get(OpenCall, reply.run, reply.number)
        return call is None or call.child == reply.attempt

    def change(self, **changes: Any) -> None:
        """Change fields of the run's row."""
        self.run = msgspec.structs.replace(self.run, **changes)

    def reopen(self, opened: Opened) -> None:
        """Have the run begin again as this says."""
        self.opened = opened
        self.put(opened)

    def put(self, row: Row) -> None:
        """Write another row."""
        self._layer.put(row)

    def drop(self, row: Row) -> None:
        """Remove another row."""
        self._layer.drop(row)

    def send(
        self, message: Any, to: Address, headers: Headers = (), *, meta: Meta | None = None
    ) -> None:
        """Send a message in the task's name, or in another's."""
        self._sends.append((message, to, headers, meta or self.meta))

    def say(self, status: Status, remark: str = "") -> None:
        """Have the life cycle told at the end of the visit; the last word counts."""
        self._status, self._remark = status, remark

    def set_timer(self, due_ms: int | None) -> None:
        """Keep the run's one timer row at its earliest due time."""
        if due_ms == self.run.wake_ms:
            return
        timer = Timer(name=timer_name(self.run.run), due_ms=due_ms or 0, meta=self.meta)
        if due_ms is None:
            self.drop(timer)
        else:
            self.put(timer)
        self.change(wake_ms=due_ms)

    def write(self, events: Address) -> None:
        """Write everything into the turn: rows, messages, and one event if there is news.

        What it waits for is news too: people look for such runs, and tell them what they wait for.
        """
        turn, meta = self.turn, self.meta
        if not self.gone and self.run is not self._before:
            self.put(self.run)
        turn.layer.take(self._layer)
        for message, to, headers, whose in self._sends:
            # Whatever answers a request names it as its cause.
            life = self.opened.life if isinstance(message, Ask) else None
            turn.send(message, to, meta=whose, headers=headers, life=life)
        if self._status is not None or self.notes or self.run.reason != self._before.reason:
            turn.send(self._event(self._status or "waiting"), events, meta=meta)
        self.undo(self.run)

    def _event(self, status: Status) -> RunEvent:
        run, opened = self.run, self.opened
        parent = opened.start.reply_to
        reason = run.reason
        if not reason and self.sleeps_ms is not None and status in ("started", "waiting"):
            reason = self._sleeps(self.sleeps_ms)
        return RunEvent(
            run=run.run,
            task_id=opened.start.task_id,
            agent=self.id.agent,
            tenant=opened.tenant,
            status=status,
            reason=reason,
            error=run.error,
            detail=self._remark or run.detail,
            parent="" if parent is None else parent.run,
            calls=tuple(self.notes),
            steps=run.spent.steps,
            tokens=run.spent.tokens,
            usd_nano=run.spent.usd_nano,
            started_ms=opened.started_ms,
            at_ms=self.turn.now_ms,
            outcome=self.outcome,
            version=run.version,
            attempt=run.attempt,
            actor=self.actor,
            writes=self.writes,
        )

    def _sleeps(self, until_ms: int) -> str:
        """Return until when it sleeps; empty if it also waits for a call, which its events name.

        Nothing is kept for that: a run that sleeps again and again would be a record each time.
        """
        if any(not call.withdrawn for call in self.scan(OpenCall)):
            return ""
        until = datetime.datetime.fromtimestamp(until_ms // 1_000, datetime.UTC)
        return f"sleep until {until:%Y-%m-%dT%H:%M:%SZ}"
