"""The decider of admission: one writer per tenant that deduplicates, counts, places and forwards."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable

from headwater.admission.memory import Memory, arm
from headwater.admission.placement import Placement
from headwater.admission.quotas import Quotas
from headwater.admission.rows import Queued, Reopening, Seen, Slot, Tenant
from headwater.admission.telling import Aside, Routes, Telling, as_seen, with_lost
from headwater.contracts.messages import (
    Admit,
    Closed,
    Control,
    Reopen,
    Resume,
    Start,
    Status,
    Wake,
)
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Address, Meta, RunId
from headwater.core.state import State
from headwater.errors import PoisonError

Message = Admit | Control | Reopen | Closed | Wake
ASKED_MAX = 100
"""Resumes that may be on their way back to one run, so that each goes back once."""
CONTROLS_MAX = 1_000
"""Signals and resumes kept for one held task."""


class Admission:
    """Admits tasks.

    Args:
        routes: Where things go.
        placement: Which partitions a tenant may use.
        quotas: How many runs a tenant may have open.
        aside: Builds what keeps a held task that nobody here takes any more.
        bucket_ms: How finely ends of deduplication are bundled.
        expiries_max: Remembered tasks forgotten in one turn; the rest follows in the next.
        releases_max: Held tasks started in one turn; the rest follows in the next.
    """

    name = "admission"
    takes = Message

    def __init__(
        self,
        routes: Routes,
        *,
        placement: Placement,
        quotas: Quotas,
        aside: Aside,
        bucket_ms: int = 60_000,
        expiries_max: int = 500,
        releases_max: int = 50,
    ) -> None:
        self._routes = routes
        self._placement = placement
        self._quotas = quotas
        self._telling = Telling(routes, aside)
        self._memory = Memory(routes, bucket_ms=bucket_ms, expiries_max=expiries_max)
        self._releases_max = releases_max

    def react(self, turn: Turn, message: Message) -> None:
        """Take one message.

        Raises:
            PoisonError: A conflict of ids, or control for nothing that can be addressed.
        """
        match message:
            case Admit():
                self._admit(turn, message)
            case Reopen():
                self._reopen(turn, message)
            case Closed():
                self._closed(turn, message)
            case Control():
                self._control(turn, message)
            case _:
                self._wake(turn, message)

    def patient(self, state: State, meta: Meta) -> bool:
        """Say whether a tenant's slot may be given back a little later: no task waits for one."""
        counts = state.get(Tenant, meta.tenant)
        return counts is None or not counts.queued

    def refused(
        self, turn: Turn, record: Record, message: Message | None, error: PoisonError
    ) -> None:
        """Nothing was open yet, so nothing is to be closed; whoever resumes a run looks at its events."""
        if isinstance(message, Reopen) and RunId.parse(message.run) is not None:
            row = Queued.of(turn.meta, message, -1)
            self._telling.stays_failed(turn, row, f"resume refused: {error}")

    def forget(self, partition: Partition) -> None:
        """Nothing is kept beside the rows."""

    def _admit(self, turn: Turn, admit: Admit) -> None:
        tenant = turn.meta.tenant
        known = turn.get(Seen, tenant, admit.task_id)
        if known is not None and known.digest:
            if known.digest != admit.digest:
                raise PoisonError(
                    "conflict",
                    f"task {admit.task_id} was published before with another payload: "
                    "give it another ce_id",
                )
            return
        if admit.agent not in self._routes.dedupe_s:
            raise PoisonError("unknown-agent", f"this app has no agent named {admit.agent!r}")
        counts = turn.get(Tenant, tenant) or Tenant(tenant=tenant)
        count = self._routes.partitions(admit.agent)
        place = self._placement.place(tenant, admit.task_id, count)
        run = str(RunId(admit.agent, place, admit.task_id))
        self._routes.check_place(run)
        if self._is_open(turn, tenant, run):
            return  # forgotten while its run is still open, or is to be again: not a new task
        seen = Seen(
            tenant=tenant, task_id=admit.task_id, agent=admit.agent, digest=admit.digest, run=run
        )
        until = self._memory.until(turn, admit.agent)
        if known is None:
            self._memory.remember(turn, seen, until)
        else:
            seen = dataclasses.replace(seen, until=until)
        counts = self._release(turn, counts)  # a quota that was raised serves who waits first
        if self._has_room(turn, counts):
            turn.put(seen)
            self._start(turn, counts, admit, run, turn.meta)
            return
        turn.put(dataclasses.replace(seen, queued=counts.queued_next))
        self._queue(turn, counts, admit)
        self._telling.say(turn, "held", seen, turn.meta, reason=self._over(tenant))

    def _reopen(self, turn: Turn, reopen: Reopen) -> None:
        """Take a slot for a failed run that is resumed, or have it wait for one; once."""
        tenant, run = turn.meta.tenant, reopen.run
        self._routes.check_place(run)
        slot = turn.get(Slot, tenant, run)
        if slot is not None:
            self._again(turn, reopen, slot)
            return
        waiting = self._waiting(turn, run)
        if waiting is not None:
            self._second(turn, reopen, waiting)
            return
        counts = turn.get(Tenant, tenant) or Tenant(tenant=tenant)
        counts, task = self._unqueue(turn, counts, run)
        counts = self._release(turn, counts)
        paused = task is not None and task.paused
        if self._has_room(turn, counts) and not paused:
            self._go_on(turn, counts, reopen, turn.meta)
            self._pass_on(turn, () if task is None else task.words(), run)
            return
        turn.put(Reopening(tenant=tenant, run=run))
        self._queue(turn, counts, reopen, task)
        self._tell_waits(turn, reopen, paused=paused)

    def _second(self, turn: Turn, reopen: Reopen, waiting: Queued) -> None:
        """The same word twice is one; on other terms it is dropped, and told of."""
        assert isinstance(waiting.wanted, Reopen), "that is what waits"
        if waiting.wanted.resume != reopen.resume:
            more = "; one on other terms was dropped"
            self._tell_waits(turn, reopen, more, paused=waiting.paused)

    def _tell_waits(self, turn: Turn, reopen: Reopen, more: str = "", *, paused: bool) -> None:
        status: Status = "paused" if paused else "held"
        reason = f"resume, {'paused' if paused else self._over(turn.meta.tenant)}{more}"
        seen, attempt = as_seen(turn.meta.tenant, reopen.run), reopen.resume.attempt
        self._telling.say(turn, status, seen, turn.meta, reason=reason, attempt=attempt)

    def _again(self, turn: Turn, reopen: Reopen, slot: Slot) -> None:
        """Ask a run that has a slot again whether it is to be resumed, behind whatever that was sent with.

        Its task may have come first, and the run, being kept, gives such a slot back: then it asks for
        one once more. If it goes on already it says so. Only a slot that nobody gives back is still there
        when it has asked again because of this: the resume has that one.
        """
        terms, lost = reopen.resume, turn.meta.causation_id in slot.asked
        if lost:
            terms = dataclasses.replace(terms, slot=slot.slot)
        word = Control(target=reopen.run, verb="resume", reason=reopen.reason, resume=terms)
        asked = self._send(turn, word, turn.meta)
        kept = () if lost else (*slot.asked, asked)[-ASKED_MAX:]
        turn.put(dataclasses.replace(slot, asked=kept))

    def _is_open(self, turn: Turn, tenant: str, run: str) -> bool:
        """Say whether a run has a slot, or waits for one to be resumed with: it never has two."""
        slot = turn.get(Slot, tenant, run)
        return slot is not None or turn.get(Reopening, tenant, run) is not None

    def _unqueue(self, turn: Turn, counts: Tenant, run: str) -> tuple[Tenant, Queued | None]:
        """A forgotten task that waits to begin as a run that is to go on is no new one.

        What was said to it meanwhile was meant for that run.
        """
        parsed = RunId.parse(run)
        assert parsed is not None, run
        seen = turn.get(Seen, counts.tenant, parsed.task)
        row = None if seen is None else turn.get(Queued, counts.tenant, seen.queued)
        if seen is None or row is None or seen.run != run:
            return counts, None
        turn.drop(row)
        turn.put(dataclasses.replace(seen, queued=-1))
        return dataclasses.replace(counts, queued=counts.queued - 1), row

    def _has_room(self, turn: Turn, counts: Tenant) -> bool:
        waits = turn.get(Timer, "release", counts.tenant) is not None
        return counts.slots < self._quotas.runs(counts.tenant) and not waits

    def _over(self, tenant: str) -> str:
        return f"quota: {self._quotas.runs(tenant)} runs open"

    def _queue(
        self,
        turn: Turn,
        counts: Tenant,
        wanted: Admit | Reopen,
        task: Queued | None = None,
    ) -> None:
        row = Queued.of(turn.meta, wanted, counts.queued_next)
        if task is not None:
            row = dataclasses.replace(
                row, paused=task.paused, controls=task.controls, senders=task.senders
            )
        turn.put(row)
        turn.put(
            dataclasses.replace(
                counts, queued=counts.queued + 1, queued_next=counts.queued_next + 1
            )
        )

    def _go_on(self, turn: Turn, counts: Tenant, reopen: Reopen, meta: Meta) -> Tenant:
        """Take a slot for a resume and send it to its run."""
        parsed = RunId.parse(reopen.run)
        assert parsed is not None, reopen.run
        turn.put(Slot(tenant=counts.tenant, slot=reopen.run))
        counts = dataclasses.replace(counts, slots=counts.slots + 1)
        turn.put(counts)
        turn.send(
            Control(
                target=reopen.run,
                verb="resume",
                reason=reopen.reason,
                resume=dataclasses.replace(reopen.resume, slot=reopen.run),
            ),
            Address(self._routes.inbox(parsed.agent), reopen.run, parsed.partition),
            meta=meta,
        )
        return counts

    def _start(self, turn: Turn, counts: Tenant, admit: Admit, run: str, meta: Meta) -> Tenant:
        parsed = RunId.parse(run)
        assert parsed is not None, run
        turn.put(Slot(tenant=counts.tenant, slot=run))
        counts = dataclasses.replace(counts, slots=counts.slots + 1)
        turn.put(counts)
        turn.send(
            Start(run=run, task_id=admit.task_id, slot=run, task=admit.task),
            Address(self._routes.inbox(admit.agent), run, parsed.partition),
            meta=meta,
            headers=(("ce_runid", run.encode()),),
        )
        seen = turn.get(Seen, counts.tenant, admit.task_id)
        assert seen is not None, "it was written in this turn, or when the task was held"
        self._telling.say(turn, "accepted", seen, meta)
        return counts

    def _closed(self, turn: Turn, closed: Closed) -> None:
        tenant = turn.meta.tenant
        slot = turn.get(Slot, tenant, closed.slot)
        counts = turn.get(Tenant, tenant)
        if slot is None or counts is None:
            return
        turn.drop(slot)
        counts = dataclasses.replace(counts, slots=counts.slots - 1)
        turn.put(counts)
        self._release(turn, counts)

    def _release(self, turn: Turn, counts: Tenant) -> Tenant:
        """Start held tasks, oldest first, while there are slots free; return the counts.

        A turn lets go of a bounded number. While more could go, a timer stands that goes on with them.
        """
        left = self._releases_max
        while left >= 0 and (rows := self._first(turn, counts, left + 1)):
            for row in rows[:left]:
                counts = self._let_go(turn, counts, row)
            left -= len(rows)
        if left < 0:
            arm(turn, "release", counts.tenant, turn.now_ms)
        return counts

    def _first(self, turn: Turn, counts: Tenant, at_most: int) -> list[Queued]:
        """Return what waits first, for as many slots as are free."""
        free = self._quotas.runs(counts.tenant) - counts.slots
        if free <= 0 or not counts.queued:
            return []
        waiting = (row for row in turn.scan(Queued, counts.tenant) if not row.paused)
        return list(itertools.islice(waiting, min(free, at_most)))

    def _let_go(self, turn: Turn, counts: Tenant, row: Queued) -> Tenant:
        """Give what waits first a slot; what nobody here would ever give it back for gets none."""
        turn.drop(row)
        counts = dataclasses.replace(counts, queued=counts.queued - 1)
        turn.put(counts)
        if isinstance(row.wanted, Reopen):
            turn.drop(Reopening(tenant=row.tenant, run=row.wanted.run))
            if error := self._routes.gone(row.wanted.run):
                self._telling.stays_failed(turn, row, f"resume refused: {error}")
                return counts
            counts = self._go_on(turn, counts, row.wanted, row.meta())
            self._pass_on(turn, row.words(), row.wanted.run)
            return counts
        seen = turn.get(Seen, row.tenant, row.wanted.task_id)
        assert seen is not None, "a held task is remembered"
        if error := self._routes.gone(seen.run):
            turn.put(dataclasses.replace(seen, digest=b"", queued=-1))  # so that it may come again
            self._telling.task_refused(turn, row, row.wanted, seen, error)
            return counts
        turn.put(dataclasses.replace(seen, queued=-1))
        # A resume is for a run that failed before. Behind the start it would be for this one's failure.
        self._pass_on(turn, [word for word in row.words() if word[0].verb == "resume"], seen.run)
        counts = self._start(turn, counts, row.wanted, seen.run, row.meta())
        self._pass_on(turn, [word for word in row.words() if word[0].verb != "resume"], seen.run)
        return counts

    def _pass_on(self, turn: Turn, words: Iterable[tuple[Control, Meta]], run: str) -> None:
        """Send what was said to what waited, in order, in the name of who said it."""
        for control, meta in words:
            self._send(turn, dataclasses.replace(control, target=run), meta)

    def _wake(self, turn: Turn, wake: Wake) -> None:
        what, whose = wake.name
        if what == "expiry":
            self._memory.expire(turn, int(whose))
            return
        counts = turn.get(Tenant, whose)
        assert counts is not None, "a tenant with held tasks has counts"
        self._release(turn, counts)

    def _control(self, turn: Turn, control: Control) -> None:
        tenant, run = turn.meta.tenant, RunId.parse(control.target)
        if control.verb == "discard" and control.resume is not None:
            self._dropped(turn, control)
            return
        seen = turn.get(Seen, tenant, control.target if run is None else run.task)
        if run is not None and (seen is None or seen.run != control.target):
            self._say_to(turn, control)
            return
        if seen is None:
            raise PoisonError(
                "unknown-target", f"tenant {tenant} has no task or run {control.target!r}"
            )
        row = None if seen.queued < 0 else turn.get(Queued, tenant, seen.queued)
        if row is None:
            self._say_to(turn, dataclasses.replace(control, target=seen.run))
            return
        self._control_held(turn, control, seen, row)

    def _control_held(self, turn: Turn, control: Control, seen: Seen, row: Queued) -> None:
        counts = turn.get(Tenant, seen.tenant)
        assert counts is not None, "a tenant with held tasks has counts"
        if control.verb == "cancel":
            turn.drop(row)
            turn.put(dataclasses.replace(seen, queued=-1))
            turn.put(dataclasses.replace(counts, queued=counts.queued - 1))
            self._telling.cancelled(turn, control, seen, row)
            # A run of that id that failed before may be kept: it says that it still is.
            self._send(turn, dataclasses.replace(control, target=seen.run), turn.meta)
        elif control.verb == "signal":
            self._keep(turn, control, row)
        else:
            if control.verb == "discard":
                raise PoisonError("not-failed", f"{seen.task_id} has not begun: cancel it instead")
            ends_pause = row.paused and control.resume in (None, Resume())
            if control.verb == "resume" and not ends_pause:
                # Its run may have failed so long ago that its task was taken for a new one.
                row = self._keep(turn, control, row)
            self._pause(turn, control, seen, row)

    def _pause(self, turn: Turn, control: Control, seen: Seen, row: Queued) -> None:
        """Have what waits for a slot wait though one be free, or no longer."""
        paused = control.verb == "pause"
        turn.put(dataclasses.replace(row, paused=paused))
        attempt = row.wanted.resume.attempt if isinstance(row.wanted, Reopen) else 1
        status: Status = "paused" if paused else "held"
        self._telling.say(turn, status, seen, row.meta(), reason=control.reason, attempt=attempt)
        counts = turn.get(Tenant, row.tenant)
        assert counts is not None, "a tenant with held tasks has counts"
        if not paused:
            self._release(turn, counts)

    def _keep(self, turn: Turn, control: Control, row: Queued) -> Queued:
        """Have a word wait with what waits for a slot."""
        if len(row.controls) >= CONTROLS_MAX:
            raise PoisonError("too-many", f"{CONTROLS_MAX} words wait for {control.target}")
        row = row.keep(control, turn.meta)
        turn.put(row)
        return row

    def _say_to(self, turn: Turn, control: Control) -> None:
        """Forward a word to a run, which hears none while its resume waits for a slot: that takes it."""
        waiting = self._waiting(turn, control.target)
        if waiting is None or control.verb == "discard":
            self._forward(turn, control, turn.meta)
        elif control.verb == "signal":
            self._keep(turn, control, waiting)
        elif control.verb == "cancel":
            self._stop_waiting(turn, control.target)
            self._telling.stays_failed(turn, waiting, f"resume cancelled: {control.reason}")
        elif control.verb == "pause" or waiting.paused:
            self._pause(turn, control, as_seen(waiting.tenant, control.target), waiting)
            if control.verb == "resume" and control.resume not in (None, Resume()):
                # Its run asks on these terms, or says why not.
                self._forward(turn, control, turn.meta)
        else:
            self._forward(turn, control, turn.meta)

    def _forward(self, turn: Turn, control: Control, meta: Meta) -> None:
        self._routes.check_place(control.target)
        if control.verb == "discard":
            self._discarded(turn, control.target)
        self._send(turn, control, meta)

    def _send(self, turn: Turn, control: Control, meta: Meta) -> str:
        run = RunId.parse(control.target)
        assert run is not None, control.target
        to = Address(self._routes.inbox(run.agent), control.target, run.partition)
        return turn.send(control, to, meta=meta)

    def _discarded(self, turn: Turn, run: str) -> None:
        """Its run is told, and tells of it; of what waited with its resume it knows nothing."""
        waiting = self._stop_waiting(turn, run)
        if waiting is not None and waiting.controls:
            self._telling.stays_failed(turn, waiting, "it is to be discarded")

    def _dropped(self, turn: Turn, control: Control) -> None:
        """A run that says itself that it is no more may have asked for a slot just before."""
        waiting = self._stop_waiting(turn, control.target)
        if waiting is not None:
            seen, reason = (
                as_seen(waiting.tenant, control.target),
                with_lost(control.reason, waiting),
            )
            self._telling.say(turn, "discarded", seen, turn.meta, reason=reason)

    def _stop_waiting(self, turn: Turn, run: str) -> Queued | None:
        """Nobody resumes a run that is discarded or cancelled; meanwhile its task would not be taken."""
        tenant = turn.meta.tenant
        waiting = self._waiting(turn, run)
        if waiting is None:
            return None
        turn.drop(Reopening(tenant=tenant, run=run))
        turn.drop(waiting)
        counts = turn.get(Tenant, tenant)
        assert counts is not None, "a tenant with held tasks has counts"
        turn.put(dataclasses.replace(counts, queued=counts.queued - 1))
        return waiting

    def _waiting(self, turn: Turn, run: str) -> Queued | None:
        """Return what waits for a slot to resume a run with, if that does."""
        tenant = turn.meta.tenant
        if turn.get(Reopening, tenant, run) is None:
            return None
        queued = turn.scan(Queued, tenant)
        return next(of for of in queued if isinstance(of.wanted, Reopen) and of.wanted.run == run)
