"""People: what a run asks of a person, and what their decision leads to.

A person is asked before a call is sent (the judge's word, or a tool's `approve_if`), by the agent
itself (`ctx.approve`), and when nobody knows whether an irreversible call happened. Whatever waits
for them is kept beside the open call, so that a decision can be taken once and about this alone.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Protocol

from headwater.contracts.approvals import About, Decided, Petition, Withdraw
from headwater.contracts.messages import (
    Answered,
    Ask,
    BlobRef,
    CallNote,
    Failed,
    InDoubt,
    Outcome,
    Reply,
    Spent,
    Start,
)
from headwater.core.blobs import ref_of
from headwater.core.envelope import rfc3339
from headwater.core.execution import Answer, Delivery, Parked, Released
from headwater.core.judge import AskPerson
from headwater.core.messages import digest
from headwater.runs.routes import Catalogue, Routes
from headwater.runs.rows import Asking, OpenCall
from headwater.runs.spending import settle
from headwater.runs.visit import Visit

SHOWN_BYTES_MAX = 256 * 1024
"""Most JSON that a person is shown; nobody reads more, and what is not read is not approved."""
DOUBT_S = 7 * 86_400.0
"""How long a person may take to find out whether a call happened: a week."""
DENIALS = frozenset({"Denied", "Expired", "Withdrawn"})
"""Failures of calls that were never sent because a judge or a person did not let them."""
_LETTING = frozenset({"approved", "not-happened"})


class Dispatch(Protocol):
    """Sends a call (`runs.calls.Calls.dispatch`)."""

    def __call__(self, visit: Visit, message: Ask | Start, /) -> None:
        """Send it."""
        ...


class People:
    """Asks people for one agent's runs.

    Args:
        catalogue: Says calls to people.
        routes: Where petitions go.
        dispatch: Sends a call.
    """

    def __init__(self, catalogue: Catalogue, routes: Routes, dispatch: Dispatch) -> None:
        self._catalogue = catalogue
        self._routes = routes
        self._dispatch = dispatch

    def refuse(self, kind: str, name: str, arguments: bytes) -> Failed | None:
        """Refuse a call that is too long for a person to read."""
        size = len(self._catalogue.shown(kind, name, arguments))
        if size <= SHOWN_BYTES_MAX:
            return None
        return Failed(
            error="TooLarge",
            detail=f"a person would be shown {size} bytes of {kind} {name}; at most {SHOWN_BYTES_MAX}",
        )

    def ask(self, visit: Visit, call: OpenCall, arguments: bytes, asks: AskPerson) -> OpenCall:
        """Ask a person before a call is sent; return it as it then waits."""
        about: About = "agent" if call.kind == "person" else "tool"
        expires_ms = visit.turn.now_ms + round(asks.expires_s * 1000)
        call = dataclasses.replace(call, unsent=True)
        return self._petition(visit, call, about, arguments, asks.words, asks.to, expires_ms)

    def doubt(self, visit: Visit, call: OpenCall, reply: Reply) -> Delivery | None:
        """Ask a person whether a call happened; `None` if there is nothing new to ask."""
        assert isinstance(reply.outcome, InDoubt), reply
        if call.asking is not None or reply.attempt in call.undone:
            return None
        if not isinstance(call.ask, Ask) or call.withdrawn:
            return Answer(number=call.number, outcome=reply.outcome)
        begun = rfc3339(reply.outcome.since_ms)
        words = f"did {call.name} happen? It was begun at {begun} and nobody knows its end"
        to, now_ms = self._catalogue.decides(call.name), visit.turn.now_ms
        waiting = self._petition(
            visit, call, "doubt", call.ask.arguments, words, to, now_ms + round(DOUBT_S * 1000),
            attempt=reply.attempt,
        )  # fmt: skip
        visit.put(waiting)
        visit.notes.append(_note(waiting, "", ""))
        return Parked(number=call.number)

    def decided(self, visit: Visit, message: Decided) -> Reply | Released | None:
        """Take a decision: the call's answer, its release, or nothing if nobody waits for it any more.

        It counts once, before it expires, and only for the arguments that are about to be sent.
        """
        call = visit.get(OpenCall, message.run, message.number)
        asking = None if call is None else call.asking
        if call is None or asking is None or asking.approval != message.approval:
            return None
        wrong = self.unfit(visit, call, asking, message)
        decision = "" if wrong else message.decision
        verdict = wrong or ": ".join(part for part in (decision, message.reason) if part)
        call = _heard(visit, call)
        visit.notes.append(_note(call, message.by, verdict, approval=asking.approval))
        if decision in _LETTING and asking.about != "agent":
            return self._release(visit, call, asking, message)
        visit.put(call)
        outcome = _outcome(call, asking, message, wrong)
        return Reply(run=call.run, number=call.number, attempt=asking.approval, outcome=outcome)

    def withdraw(
        self, visit: Visit, call: OpenCall, reason: str, *, tell: bool = False
    ) -> OpenCall:
        """Say that nobody waits for a decision any more; return the call as it is then.

        With `tell` it goes on waiting, for the word that it was withdrawn.
        """
        asking = call.asking
        assert asking is not None, call
        visit.send(
            Withdraw(approval=asking.approval, run=call.run, reason=reason, tell=tell),
            self._routes.approvals(visit.opened.tenant),
        )
        if tell:
            return call
        visit.notes.append(
            _note(call, "", f"withdrawn: {reason}", approval=asking.approval, over=True)
        )
        return _heard(visit, call)

    def abandon(self, visit: Visit, call: OpenCall, reason: str) -> None:
        """The function no longer waits for a call: nor does anybody for a decision about it."""
        if call.asking is None:
            self.leave(visit, call, reason)
            return
        call = self.withdraw(visit, call, reason)
        visit.drop(call)
        settle(visit, call, Spent(steps=0 if call.unsent else 1))

    def suspend(self, visit: Visit, call: OpenCall, reason: str) -> None:
        """The function does not wait for a call until a resume: meanwhile no decision sends it."""
        if call.asking is not None:
            self._keep(visit, call, reason)
        if call.ask is not None:
            visit.put(dataclasses.replace(call, left=True))

    def resumed(self, visit: Visit) -> None:
        """The function waits again for what it was suspended from."""
        for call in [call for call in visit.scan(OpenCall) if call.left]:
            visit.put(dataclasses.replace(call, left=False))

    def leave(self, visit: Visit, call: OpenCall, reason: str) -> None:
        """Have a call that was sent stay open and booked, and tell people why nobody waits for it."""
        visit.put(dataclasses.replace(call, withdrawn=True))
        visit.notes.append(
            CallNote(
                number=call.number,
                kind=call.kind,
                name=call.name,
                state="asked",
                child=call.child,
                detail=reason,
            )
        )

    def ended(self, visit: Visit, reason: str, *, kept: bool) -> None:
        """The run has ended: withdraw what it asked; of a failed one (`kept`), doubts stay."""
        if not visit.run.asking:
            return
        for call in [call for call in visit.scan(OpenCall) if call.asking is not None]:
            if kept:
                self._keep(visit, call, reason)
            else:
                self.abandon(visit, call, reason)

    def _keep(self, visit: Visit, call: OpenCall, reason: str) -> None:
        """Have what people are asked wait for a resume: a doubt stays theirs, all else is taken back."""
        assert call.asking is not None, call
        if call.asking.about != "doubt":
            self.withdraw(visit, call, reason, tell=True)

    def unfit(self, visit: Visit, call: OpenCall, asking: Asking, message: Decided) -> str:
        """Return why a decision cannot count, in words; empty if it does."""
        if message.decision not in _LETTING:
            return ""
        if call.left:
            return f"{message.decision} came while the run did not wait for it"
        if visit.turn.now_ms >= asking.expires_ms:
            return f"expired at {rfc3339(asking.expires_ms)}, before the run could act on it"
        if message.digest != _about_to_send(call, asking):
            return "the decision is about other arguments"
        if self._is_gone(call):
            return f"this app has no {call.kind} named {call.name} any more"
        return ""

    def _is_gone(self, call: OpenCall) -> bool:
        """Say whether there is nowhere to send a call: the app was changed while it waited."""
        if call.kind == "tool":
            return self._catalogue.tool(call.name) is None
        if call.kind == "model":
            return not self._catalogue.model(call.name)
        return call.kind == "agent" and self._catalogue.limits(call.name) is None

    def _petition(
        self,
        visit: Visit,
        call: OpenCall,
        about: About,
        arguments: bytes | BlobRef,
        words: str,
        to: str,
        expires_ms: int,
        *,
        attempt: str = "",
    ) -> OpenCall:
        approval = digest(call.run, visit.opened.life, call.number, about, attempt, size=8).hex()
        asking = Asking(
            approval=approval,
            about=about,
            words=words,
            digest=bound(call.name, arguments),
            expires_ms=expires_ms,
            attempt=attempt,
        )
        visit.send(
            Petition(
                approval=approval,
                run=call.run,
                number=call.number,
                about=about,
                name=call.name,
                words=words,
                digest=asking.digest,
                shown=self._shown(call, arguments),
                to=to,
                expires_ms=expires_ms,
                requester=visit.meta.actor,
            ),
            self._routes.approvals(visit.opened.tenant),
            (("ce_runid", call.run.encode()),),
        )
        run = visit.run
        visit.change(asking=run.asking + 1, asking_ms=run.asking_ms or visit.turn.now_ms)
        return dataclasses.replace(call, asking=asking)

    def _shown(self, call: OpenCall, arguments: bytes | BlobRef) -> bytes:
        """Return arguments for people; of those that went by reference, where they are."""
        if isinstance(arguments, BlobRef):
            return b'{"blob":"%b","bytes":%d}' % (arguments.name.encode(), arguments.size)
        return self._catalogue.shown(call.kind, call.name, arguments)

    def _release(self, visit: Visit, call: OpenCall, asking: Asking, message: Decided) -> Released:
        """Send the call now: never later than the approval, or the task, allows."""
        ask = call.ask
        assert ask is not None, call
        if isinstance(ask, Ask):
            undone = (*call.undone, asking.attempt) if asking.about == "doubt" else call.undone
            limits_ms = [visit.turn.now_ms + call.wait_ms, asking.expires_ms]
            if visit.deadline_ms is not None and visit.run.cleanup is None:
                limits_ms.append(visit.deadline_ms)
            ask = dataclasses.replace(ask, not_after_ms=min(limits_ms), undone=undone)
            call = dataclasses.replace(call, undone=undone)
        self._dispatch(visit, ask)
        kept = ask if keeps(ask) else None
        visit.put(dataclasses.replace(call, unsent=False, ask=kept))
        return Released(
            number=call.number,
            approval=asking.approval,
            by=message.by,
            reason=message.reason,
            at_ms=message.at_ms,
        )


def bound(name: str, arguments: bytes | BlobRef) -> bytes:
    """Return the digest that a decision is bound to: the same however the arguments travel."""
    ref = arguments if isinstance(arguments, BlobRef) else ref_of(arguments)
    return digest("approval", name, ref.name)


def keeps(message: Ask | Start) -> bool:
    """Say whether a call's request is kept while it is open: a person may have it sent once more."""
    return isinstance(message, Ask) and message.safety == "irreversible"


def _about_to_send(call: OpenCall, asking: Asking) -> bytes:
    """Return the digest of what would be sent now; `ctx.approve` sends nothing."""
    if call.ask is None:
        return asking.digest
    arguments = call.ask.arguments if isinstance(call.ask, Ask) else call.ask.task.value
    return bound(call.name, arguments)


def _heard(visit: Visit, call: OpenCall) -> OpenCall:
    """Return a call that no longer waits for a person; once nothing does, time counts again."""
    run = visit.run
    visit.change(asking=run.asking - 1)
    if not visit.run.asking:
        waited_ms = run.waited_ms + max(0, visit.turn.now_ms - run.asking_ms)
        visit.change(asking_ms=0, waited_ms=waited_ms)
    return dataclasses.replace(call, asking=None)


def _outcome(call: OpenCall, asking: Asking, message: Decided, wrong: str) -> Outcome:
    """Return what a decision that sends nothing tells the function."""
    if not wrong and message.decision == "approved":
        said = {"by": message.by, "at_ms": message.at_ms, "reason": message.reason}
        return Answered(value=json.dumps(said).encode())
    if message.decision == "happened":
        return Answered(value=message.value)
    who = message.by or "nobody"
    reason = f": {message.reason}" if message.reason else ""
    if asking.about == "doubt":
        said_ = wrong or f"{who} could say, {message.decision}{reason}"
        return Failed(error="InDoubt", detail=f"nobody knows whether {call.name} happened; {said_}")
    error = "Denied"
    if wrong:
        why, error = wrong, "Expired" if wrong.startswith("expired") else error
    elif message.decision == "expired":
        why, error = f"nobody decided before {rfc3339(asking.expires_ms)}", "Expired"
    elif message.decision == "withdrawn":
        why, error = f"withdrawn{reason}", "Withdrawn"
    else:
        why = f"{message.decision} by {who}{reason}"
    return Failed(error=error, detail=f"{asking.words}: {why}")


def _note(
    call: OpenCall, by: str, verdict: str, *, approval: str = "", over: bool = False
) -> CallNote:
    """Return what the life cycle tells of a call that a person is asked about."""
    return CallNote(
        number=call.number,
        kind=call.kind,
        name=call.name,
        state="failed" if over else "waiting",
        approval=approval or (call.asking.approval if call.asking else ""),
        by=by,
        verdict=verdict,
    )
