"""Cuts: a failed run goes on before the turn that failed, or is dropped by an operator."""

from __future__ import annotations

import dataclasses
import logging

from headwater.contracts.messages import Closed, Control, Operation, Reopen, Resume, Spent, Start
from headwater.core.allowance import NOTHING, minus, plus, raised
from headwater.core.decider import Turn
from headwater.core.execution import Answer, Begin, Cancel, Cut, Parked, Released, Tick
from headwater.core.messages import Address
from headwater.errors import PoisonError
from headwater.runs.holds import Holds
from headwater.runs.life import Life
from headwater.runs.people import People
from headwater.runs.routes import Routes
from headwater.runs.rows import Again, Entry, OpenCall, Redelivery, Run
from headwater.runs.spending import bill
from headwater.runs.visit import Visit

logger = logging.getLogger(__name__)


class Cuts:
    """Resumes and discards failed runs.

    A run that failed has given its slot back, so a resume goes to admission for another and comes
    again with it. Then the failing turn is taken back: a cut stands in its place in the journal, what
    it was given waits to be delivered once more, before what came since, and calls are numbered on
    above every number ever issued. So nothing that was answered is asked again.

    Args:
        life: Closes and drops runs.
        people: Told when nobody waits for them any more.
        holds: Keeps what is to be delivered again.
        routes: Where things go.
    """

    def __init__(self, life: Life, people: People, holds: Holds, routes: Routes) -> None:
        self._life = life
        self._people = people
        self._holds = holds
        self._routes = routes

    def resume(self, visit: Visit, control: Control) -> None:
        """Have a failed run go on; anything else says why it does not."""
        run, asked = visit.run, control.resume or Resume()
        if run.state != "failed":
            self._nothing(visit, control)
        elif asked.attempt and asked.attempt != run.attempt:
            self._refuse(visit, _before(asked, run))
        elif self._life.awaits_children(visit):
            self._refuse(visit, "its children have not ended yet; try again when they have")
        elif (wrote := self._wrote(visit)) and not asked.repeat_writes:
            visit.writes = wrote
            self._refuse(visit, f"it would repeat writes: {', '.join(wrote)}")
        elif not asked.slot:
            terms = dataclasses.replace(asked, attempt=run.attempt)
            visit.send(
                Reopen(run=run.run, reason=control.reason, resume=terms),
                self._routes.admission(visit.opened.tenant),
                meta=visit.turn.meta,
            )
        else:
            self._cut(visit, control, asked, wrote)
            return
        self.give_back(visit.turn, control, visit)

    def is_stale(self, visit: Visit, control: Control) -> bool:
        """Say of a resume that is for an earlier attempt, and came late, that it does nothing."""
        run, asked = visit.run, control.resume
        if asked is None or asked.attempt in {0, run.attempt}:
            return False
        self._nothing(visit, control, _before(asked, run))
        self.give_back(visit.turn, control, visit)
        return True

    def discard(self, visit: Visit, control: Control) -> None:
        """Drop a failed run, and record who wanted it; anything else says why it does not."""
        if visit.run.state != "failed":
            self._nothing(visit, control)
            return
        visit.change(reason=control.reason)
        turn = visit.turn
        self._life.discard(visit)
        visit.send(
            Operation(
                action="discard",
                id=turn.meta.id,
                actor=turn.meta.actor,
                reason=control.reason,
                at_ms=turn.now_ms,
                run=visit.run.run,
            ),
            Address(self._routes.audit, visit.run.run),
            meta=turn.meta,
        )

    def unheard(self, visit: Visit, control: Control) -> None:
        """Say of a word to a failed run that nobody hears it."""
        why = f"{control.verb} did nothing: the run has failed"
        if control.verb == "signal":
            why = f"signal {control.name} was dropped: the run has failed; resume it, then send it again"
        visit.change(reason=why)
        visit.writes = self._wrote(visit)
        visit.say("failed")

    def refused(self, visit: Visit, control: Control, error: PoisonError) -> None:
        """Say of a failed run, a word to which was refused as a record, that it stays so."""
        if visit.run.state == "failed":
            self._refuse(visit, str(error), control.verb)

    def give_back(self, turn: Turn, control: Control, visit: Visit | None = None) -> None:
        """Return the slot that admission took, where nothing came of it, but none that its run still has."""
        slot = "" if control.resume is None else control.resume.slot
        uses = visit is not None and (
            visit.slot == slot
            and (visit.run.state != "failed" or self._life.awaits_children(visit))
        )
        if slot and not uses:
            closed = Closed(slot=slot)
            turn.send(closed, self._routes.admission(turn.meta.tenant))

    def started_again(self, visit: Visit, start: Start) -> None:
        """A task that is published again while its failed run is kept has taken a slot in vain.

        Admission told of it as of a new run, so what it is has to be told again. So has a parent whose
        own task was published again, and which asks for a child of the same id.
        """
        run, turn = visit.run, visit.turn
        if start.reply_to is not None:
            self._life.asked_again(visit, start.reply_to)
        elif run.state == "failed":
            logger.warning("%s failed and is kept: resume it, replay it or discard it", run.run)
            closed = Closed(slot=start.slot)
            visit.send(closed, self._routes.admission(turn.meta.tenant), meta=turn.meta)
            visit.writes = self._wrote(visit)
            visit.say("failed")

    def _cut(self, visit: Visit, control: Control, asked: Resume, wrote: tuple[str, ...]) -> None:
        run, turn, told = visit.run, visit.turn, _told(visit)
        journal = [*visit.scan(Entry)]
        kept = [entry for entry in journal if entry.seq < run.cut]
        taken = [entry for entry in journal if entry.seq >= run.cut]
        numbers = {made.number for entry in taken for made in entry.calls}
        for entry in taken:
            visit.drop(entry)
        for call in [call for call in visit.scan(OpenCall) if call.number in numbers]:
            self._people.abandon(visit, call, "the turn that asked was taken back")
        self._people.resumed(visit)
        before = run.again
        again = Again(
            attempt=run.attempt + 1,
            at_ms=turn.now_ms,
            added=asked.added if before is None else plus(before.added, asked.added),
            told=told,
        )
        limits = raised(visit.opened.limits, again.added)
        cancelled = any(isinstance(entry.delivery, Cancel) for entry in kept)
        back = _back(taken, numbers, by_limit=bool(run.cancelling))
        if not journal:
            back.append(Redelivery(delivery=Begin(signals=visit.opened.signals)))
        elif not back and any(isinstance(entry.delivery, Begin) for entry in journal):
            # The timer that was dropped as it failed is armed by a delivery. A run that could not begin
            # as it was resumed before has its beginning waiting.
            back.append(Redelivery(delivery=Tick()))
        cut = Cut(
            attempt=again.attempt,
            limits=limits,
            actor=visit.actor,
            reason=control.reason,
            error=run.error,
            writes=wrote,
        )
        self._life.revive(visit)
        visit.change(
            state="open",
            reason="",
            seq=run.cut,
            offset=turn.at.offset,
            now_ms=max(run.now_ms, turn.now_ms),
            cleanup=limits.cleanup_steps if cancelled else None,
            cancelling="",
            asking_ms=turn.now_ms if visit.run.asking else 0,
            waited_ms=0,
            ending="",
            error="",
            detail="",
            cut=0,
            again=again,
        )
        visit.put(
            Entry(
                run=run.run,
                seq=visit.run.seq,
                offset=turn.at.offset,
                time_ms=visit.run.now_ms,
                delivery=cut,
                above=run.number,
            )
        )
        self._holds.put_back(visit, back)
        visit.say("waiting", f"resumed: {control.reason}" if control.reason else "resumed")
        self._holds.drain_later(visit)

    def _wrote(self, visit: Visit) -> tuple[str, ...]:
        """Name the writes that a cut would take back."""
        return self._life.writes(visit, since=visit.run.cut)

    def _refuse(self, visit: Visit, why: str, verb: str = "resume") -> None:
        visit.change(reason=f"{verb} refused: {why}")
        visit.say("failed")

    def _nothing(self, visit: Visit, control: Control, why: str = "") -> None:
        run = visit.run
        state = run.ending if run.state == "closing" else run.state
        status = "waiting" if state == "open" else state
        visit.say(status or "held", f"{control.verb} did nothing: {why or f'the run is {state}'}")


def _before(asked: Resume, run: Run) -> str:
    return f"attempt {asked.attempt} was resumed before; this is {run.attempt}"


def _told(visit: Visit) -> Spent:
    """Return what admission or the parent was told, in all: never less than the time before."""
    again = visit.run.again
    before = NOTHING if again is None else again.told
    return plus(before, minus(bill(visit), before))


def _back(taken: list[Entry], numbers: set[int], *, by_limit: bool) -> list[Redelivery]:
    """Return what is to be delivered again: nothing about calls that are taken back themselves.

    If a limit cancelled the run, its cancellation comes first, and is not delivered again.
    """
    back: list[Redelivery] = []
    for place, entry in enumerate(taken):
        delivery = entry.delivery
        assert not isinstance(delivery, Cut), "the newest cut is before whatever failed since"
        if isinstance(delivery, Answer | Parked | Released) and delivery.number in numbers:
            continue
        if isinstance(delivery, Cancel) and by_limit and not place:
            continue
        back.append(Redelivery(delivery=delivery, attempt=entry.attempt, usage=entry.usage))
    return back
