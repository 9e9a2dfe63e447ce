"""Calls: reserve, judge, and send what a run asks for; or say why not, in the same turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Protocol

from headwater.contracts.messages import Ask, CallNote, Failed, Limits, ReplyTo, Spent, Start, Task
from headwater.core.allowance import Allowance, ceiling
from headwater.core.execution import Asked
from headwater.core.judge import Deny, Judge
from headwater.core.messages import Address, RunId, digest
from headwater.runs.rows import Made, OpenCall
from headwater.runs.visit import Visit

ARGUMENTS_BYTES_MAX = 512 * 1024


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ToolTerms:
    """What a run must know of a tool: its service, and what may be done again."""

    service: str
    safety: str


class Catalogue(Protocol):
    """What this app declares, as far as a run must know it."""

    def tool(self, name: str) -> ToolTerms | None:
        """Return a tool's terms."""
        ...

    def limits(self, agent: str) -> Limits | None:
        """Return a child agent's own limits, or `None` if there is no such agent."""
        ...

    def price_ceiling(self, asked: Asked) -> tuple[Spent | None, str]:
        """Return the most a model call can cost, or `None` and why that is unknown."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where runs send things: topic names, and which partition a key or child belongs to.

    Args:
        inbox: Agent's name to its inbox topic.
        request: `model` or `tool.<service>` to its request topic.
        events: Agent's name to its outcome topic.
        dead: Agent's name to its dead-letter topic.
        life: The life-cycle topic.
        admission: Tenant to the address of its admission inbox.
        place: (tenant, agent, task id) to an inbox partition.
    """

    inbox: Callable[[str], str]
    request: Callable[[str], str]
    events: Callable[[str], str]
    dead: Callable[[str], str]
    life: str
    admission: Callable[[str], Address]
    place: Callable[[str, str, str], int]


class Calls:
    """Makes the calls of one agent's runs.

    Args:
        catalogue: What the app declares.
        judge: Who may deny.
        routes: Where things go.
        call_ms_max: How long after it was asked a call may still be started.
    """

    def __init__(
        self, catalogue: Catalogue, judge: Judge, routes: Routes, *, call_ms_max: int
    ) -> None:
        self._catalogue = catalogue
        self._judge = judge
        self._routes = routes
        self._call_ms_max = call_ms_max

    @property
    def rules(self) -> str:
        """Version of the rules that judge."""
        return self._judge.version

    def writes(self, made: Made) -> bool:
        """Say whether a call changes the world."""
        if made.kind == "agent":
            return True
        if made.kind == "model":
            return False
        terms = self._catalogue.tool(made.name)
        return terms is None or terms.safety != "read"

    def make(self, visit: Visit, asked: Asked) -> Made:
        """Send a call, or return it with the answer it gets at once."""
        made = Made(number=asked.number, kind=asked.kind, name=asked.name, digest=asked.digest)
        visit.change(number=asked.number)
        made, denied = self._send(visit, asked, made)
        if denied is not None:
            made = dataclasses.replace(made, denied=denied)
        visit.notes.append(
            CallNote(
                number=asked.number,
                kind=asked.kind,
                name=asked.name,
                state="asked" if denied is None else "denied",
                child=made.child,
                detail="" if denied is None else denied.detail,
            )
        )
        return made

    def _send(self, visit: Visit, asked: Asked, made: Made) -> tuple[Made, Failed | None]:
        if len(asked.arguments) > ARGUMENTS_BYTES_MAX:
            return made, Failed(
                error="TooLarge",
                detail=f"the arguments are {len(asked.arguments)} bytes; "
                f"a call carries at most {ARGUMENTS_BYTES_MAX}",
            )
        cost, limits, refusal = self._cost(visit, asked)
        if refusal is not None:
            return made, refusal
        lacking = _lacking(visit, cost)
        if lacking:
            return made, Failed(
                error="BudgetExceeded",
                detail=f"{asked.kind} {asked.name} would pass the run's limit of {lacking}",
            )
        verdict = self._judge.judge(asked, visit.meta)
        if isinstance(verdict, Deny):
            return made, Failed(error="Denied", detail=verdict.reason)
        _reserve(visit, cost)
        child = self._child(visit, asked, limits) if asked.kind == "agent" else ""
        if not child:
            self._request(visit, asked)
        visit.put(
            OpenCall(
                run=visit.run.run,
                number=asked.number,
                kind=asked.kind,
                name=asked.name,
                reserved=cost,
                child=child,
            )
        )
        return (dataclasses.replace(made, child=child) if child else made), None

    def _cost(self, visit: Visit, asked: Asked) -> tuple[Spent, Limits | None, Failed | None]:
        """Return what to reserve, a child's limits, or the refusal."""
        if asked.kind == "tool":
            if self._catalogue.tool(asked.name) is None:
                return Spent(), None, _unknown(asked)
            return Spent(steps=1), None, None
        if asked.kind == "agent":
            wanted = asked.options.get("limits") or self._catalogue.limits(asked.name)
            if wanted is None:
                return Spent(), None, _unknown(asked)
            limits = _allowance(visit).share(wanted)
            cost = ceiling(limits)
            return dataclasses.replace(cost, steps=cost.steps + 1), limits, None
        most, why = self._catalogue.price_ceiling(asked)
        if most is None:
            if visit.opened.limits.usd_nano is not None:
                return Spent(), None, Failed(error="BudgetExceeded", detail=why)
            most = Spent()
        return dataclasses.replace(most, steps=1), None, None

    def _child(self, visit: Visit, asked: Asked, limits: Limits | None) -> str:
        tenant = visit.opened.tenant
        task_id = digest(visit.run.run, asked.number).hex()
        place = self._routes.place(tenant, asked.name, task_id)
        child = str(RunId(asked.name, place, task_id))
        visit.send(
            Start(
                run=child,
                task_id=task_id,
                slot=visit.opened.start.slot,
                task=Task(value=asked.arguments),
                limits=limits,
                reply_to=self._reply_to(visit, asked),
            ),
            Address(self._routes.inbox(asked.name), child, place),
            (("ce_runid", child.encode()),),
        )
        return child

    def _request(self, visit: Visit, asked: Asked) -> None:
        terms = self._catalogue.tool(asked.name) if asked.kind == "tool" else None
        service = "model" if terms is None else f"tool.{terms.service}"
        order_key = str(asked.options.get("order_key") or "")
        wait_ms = asked.options.get("timeout_ms") or self._call_ms_max
        not_after_ms = visit.run.now_ms + int(wait_ms)
        if visit.opened.deadline_ms is not None and visit.run.cleanup is None:
            not_after_ms = min(not_after_ms, visit.opened.deadline_ms)
        spread = order_key or f"{visit.run.run}/{asked.number}"
        visit.send(
            Ask(
                run=visit.run.run,
                number=asked.number,
                name=asked.name,
                arguments=asked.arguments,
                safety="paid" if terms is None else terms.safety,  # type: ignore[arg-type] # a Safety's value
                order_key=order_key,
                not_after_ms=not_after_ms,
                reply_to=self._reply_to(visit, asked),
            ),
            Address(self._routes.request(service), f"{visit.opened.tenant}|{asked.name}|{spread}"),
            (("ce_runid", visit.run.run.encode()),),
        )

    def _reply_to(self, visit: Visit, asked: Asked) -> ReplyTo:
        return ReplyTo(
            topic=visit.turn.at.topic,
            partition=visit.turn.at.number,
            run=visit.run.run,
            number=asked.number,
        )


def _allowance(visit: Visit) -> Allowance:
    return Allowance(limits=visit.opened.limits, reserved=visit.run.reserved, spent=visit.run.spent)


def _lacking(visit: Visit, cost: Spent) -> str:
    """Return which limit a cost would pass; in cleanup, steps come from their own small budget."""
    allowance = _allowance(visit)
    if visit.run.cleanup is None:
        return allowance.lacking(cost)
    if cost.steps > visit.run.cleanup:
        return f"{visit.opened.limits.cleanup_steps} steps for cleaning up"
    unstepped = dataclasses.replace(allowance.limits, steps=None)
    return dataclasses.replace(allowance, limits=unstepped).lacking(cost)


def _reserve(visit: Visit, cost: Spent) -> None:
    visit.change(reserved=_allowance(visit).reserve(cost).reserved)
    if visit.run.cleanup is not None:
        visit.change(cleanup=visit.run.cleanup - cost.steps)


def settle(visit: Visit, call: OpenCall, spent: Spent) -> None:
    """Give a call's reserve back and book what it spent."""
    settled = _allowance(visit).settle(call.reserved, spent)
    visit.change(reserved=settled.reserved, spent=settled.spent)


def _unknown(asked: Asked) -> Failed:
    return Failed(error="Unknown", detail=f"this app declares no {asked.kind} named {asked.name!r}")
