"""Calls: reserve, judge, and send what a run asks for; or say why not, in the same turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection

from headwater.contracts.messages import (
    Ask,
    BlobRef,
    CallNote,
    Failed,
    Limits,
    ReplyTo,
    Spent,
    Start,
    Task,
)
from headwater.core.allowance import NOTHING, ceiling
from headwater.core.execution import Asked, Cut
from headwater.core.judge import AskPerson, Deny, Judge
from headwater.core.messages import Address, RunId, digest
from headwater.runs.people import People, keeps
from headwater.runs.routes import Catalogue, Routes
from headwater.runs.rows import Entry, Made, OpenCall
from headwater.runs.spending import allowance, lacking, reserve
from headwater.runs.values import Large, shortened
from headwater.runs.visit import Visit

ARGUMENTS_BYTES_MAX = 512 * 1024
_STEP = Spent(steps=1)


class Calls:
    """Makes the calls of one agent's runs.

    Args:
        catalogue: What the app declares.
        judge: Who may deny.
        routes: Where things go.
        call_ms_max: How long after it was asked a call may still be started.
        large: When arguments go by reference; `None` for never.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        judge: Judge,
        routes: Routes,
        *,
        call_ms_max: int,
        large: Large | None = None,
    ) -> None:
        self._catalogue = catalogue
        self._judge = judge
        self._routes = routes
        self._call_ms_max = call_ms_max
        self._large = large
        self.people = People(catalogue, routes, self.dispatch)

    @property
    def rules(self) -> str:
        """Version of the rules that judge."""
        return self._judge.version

    def wrote(self, entry: Entry, unsent: Collection[int] = ()) -> list[str]:
        """Name the calls of an entry that may have changed the world; `unsent` ones have not."""
        if isinstance(entry.delivery, Cut):
            return [*entry.delivery.writes]
        return [
            f"{made.number} {made.kind} {made.name}"
            for made in entry.calls
            if made.denied is None
            and made.number not in unsent
            and made.kind != "person"
            and self.writes(made)
        ]

    def writes(self, made: Made) -> bool:
        """Say whether a call changes the world."""
        if made.kind in {"agent", "person"}:
            return True
        if made.kind == "model":
            return False
        terms = self._catalogue.tool(made.name)
        return terms is None or terms.safety != "read"

    def make(self, visit: Visit, asked: Asked) -> Made:
        """Send a call, or return it with the answer it gets at once."""
        made = Made(number=asked.number, kind=asked.kind, name=asked.name, digest=asked.digest)
        visit.change(number=asked.number)
        for node in nodes_of(asked):  # also of a call that is denied: the next one refers to them
            visit.turn.keep(node)
        made, denied = self._send(visit, asked, made)
        if denied is not None:
            made = dataclasses.replace(made, denied=denied)
        waits = "waiting" if made.approval else "asked"
        visit.notes.append(
            CallNote(
                number=asked.number,
                kind=asked.kind,
                name=asked.name,
                state=waits if denied is None else "denied",  # type: ignore[arg-type] # one of its states
                child=made.child,
                detail="" if denied is None else denied.detail,
                approval=made.approval,
            )
        )
        return made

    def _send(self, visit: Visit, asked: Asked, made: Made) -> tuple[Made, Failed | None]:
        size = len(asked.arguments)
        bytes_max = ARGUMENTS_BYTES_MAX if self._large is None else self._large.bytes_max
        if size > bytes_max:
            return made, Failed(
                error="TooLarge",
                detail=f"the arguments are {size} bytes; a call carries at most {bytes_max}",
            )
        cost, limits, refusal = self._cost(visit, asked)
        if refusal is not None:
            return made, refusal
        over = lacking(visit, cost)
        if over:
            given = "" if visit.opened.start.reply_to is None else ", as given by its parent"
            return made, Failed(
                error="BudgetExceeded",
                detail=f"{asked.kind} {asked.name} would pass the run's limit of {over}{given}",
            )
        verdict = self._judge.judge(asked, visit.meta)
        if isinstance(verdict, Deny):
            return made, Failed(error="Denied", detail=verdict.reason)
        if asked.kind == "person":
            verdict = asked.options["ask"]
        asks = verdict if isinstance(verdict, AskPerson) else None
        if asks is not None:
            refusal = self.people.refuse(asked.kind, asked.name, asked.arguments)
            if refusal is not None:
                return made, refusal
        reserve(visit, cost)
        message = self._message(visit, asked, limits)
        call = OpenCall(
            run=visit.run.run,
            number=asked.number,
            kind=asked.kind,
            name=asked.name,
            reserved=cost,
            child=message.run if isinstance(message, Start) else "",
            wait_ms=self._wait_ms(asked),
            ask=message if message is not None and (asks or keeps(message)) else None,
        )
        if asks is not None:
            call = self.people.ask(visit, call, asked.arguments, asks)
        else:
            assert message is not None, "only what asks a person sends nothing"
            self.dispatch(visit, message)
        visit.put(call)
        approval = "" if call.asking is None else call.asking.approval
        if call.child or approval:
            made = dataclasses.replace(made, child=call.child, approval=approval)
        return made, None

    def _cost(self, visit: Visit, asked: Asked) -> tuple[Spent, Limits | None, Failed | None]:
        """Return what to reserve, a child's limits, or the refusal; asking a person costs nothing."""
        if asked.kind == "person":
            return NOTHING, None, None
        if asked.kind == "tool":
            if self._catalogue.tool(asked.name) is None:
                return NOTHING, None, _unknown(asked)
            return _STEP, None, None
        if asked.kind == "agent":
            wanted = asked.options.get("limits") or self._catalogue.limits(asked.name)
            if wanted is None:
                return NOTHING, None, _unknown(asked)
            limits = allowance(visit).share(wanted)
            cost = ceiling(limits)
            return dataclasses.replace(cost, steps=cost.steps + 1), limits, None
        most, why = self._catalogue.price_ceiling(asked)
        if most is None:
            if visit.limits.usd_nano is not None:
                return Spent(), None, Failed(error="BudgetExceeded", detail=why)
            most = Spent()
        return dataclasses.replace(most, steps=1), None, None

    def _wait_ms(self, asked: Asked) -> int:
        return int(asked.options.get("timeout_ms") or self._call_ms_max)

    def _message(self, visit: Visit, asked: Asked, limits: Limits | None) -> Ask | Start | None:
        """Return what a call sends; asking a person is all there is of some."""
        if asked.kind == "person":
            return None
        return (
            self._start(visit, asked, limits) if asked.kind == "agent" else self._ask(visit, asked)
        )

    def _start(self, visit: Visit, asked: Asked, limits: Limits | None) -> Start:
        task_id = digest(visit.run.run, visit.opened.life, asked.number).hex()
        place = self._routes.place(visit.opened.tenant, asked.name, task_id)
        return Start(
            run=str(RunId(asked.name, place, task_id)),
            task_id=task_id,
            slot=visit.slot,
            task=Task(value=self._arguments(visit, asked)),
            limits=limits,
            reply_to=self._reply_to(visit, asked),
        )

    def _ask(self, visit: Visit, asked: Asked) -> Ask:
        terms = self._catalogue.tool(asked.name) if asked.kind == "tool" else None
        not_after_ms = visit.run.now_ms + self._wait_ms(asked)
        if visit.deadline_ms is not None and visit.run.cleanup is None:
            not_after_ms = min(not_after_ms, visit.deadline_ms)
        return Ask(
            run=visit.run.run,
            number=asked.number,
            name=asked.name,
            arguments=self._arguments(visit, asked),
            safety="paid" if terms is None else terms.safety,  # type: ignore[arg-type] # a Safety's value
            order_key=str(asked.options.get("order_key") or ""),
            not_after_ms=not_after_ms,
            reply_to=self._reply_to(visit, asked),
        )

    def dispatch(self, visit: Visit, message: Ask | Start) -> None:
        """Send a call: a child's start to its inbox, anything else to its effector."""
        if isinstance(message, Start):
            child = RunId.parse(message.run)
            assert child is not None, message.run
            visit.send(
                message,
                Address(self._routes.inbox(child.agent), message.run, child.partition),
                (("ce_runid", message.run.encode()),),
            )
            return
        terms = None if message.safety == "paid" else self._catalogue.tool(message.name)
        service = "model" if terms is None else f"tool.{terms.service}"
        spread = message.order_key or f"{message.run}/{message.number}"
        visit.send(
            message,
            Address(
                self._routes.request(service), f"{visit.opened.tenant}|{message.name}|{spread}"
            ),
            (("ce_runid", visit.run.run.encode()),),
        )

    def _arguments(self, visit: Visit, asked: Asked) -> bytes | BlobRef:
        return shortened(visit.turn, self._large, asked.arguments)

    def _reply_to(self, visit: Visit, asked: Asked) -> ReplyTo:
        return ReplyTo(
            topic=visit.turn.at.topic,
            partition=visit.turn.at.number,
            run=visit.run.run,
            number=asked.number,
        )


def nodes_of(asked: Asked) -> tuple[bytes, ...]:
    """Return the parts of a conversation that a call is the first to refer to."""
    found: tuple[bytes, ...] = asked.options.get("nodes", ())
    return found


def _unknown(asked: Asked) -> Failed:
    return Failed(error="Unknown", detail=f"this app declares no {asked.kind} named {asked.name!r}")
