"""The decider of approvals: one writer per tenant that asks people and takes each decision once."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Literal

from headwater.approvals.rows import Approval
from headwater.approvals.rules import ENDS, Rules, Said
from headwater.contracts.approvals import (
    ApprovalEvent,
    Decide,
    Decided,
    Decision,
    Petition,
    Withdraw,
)
from headwater.contracts.messages import Wake
from headwater.contracts.records import Partition, Record
from headwater.core.decider import Timer, Turn
from headwater.core.messages import Address, Key, RunId
from headwater.errors import PoisonError

logger = logging.getLogger(__name__)

Message = Petition | Decide | Withdraw | Wake
KEPT_S = 30 * 86_400
"""How long a decision is remembered, so that a second one is refused: thirty days."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Routes:
    """Where approvals sends things.

    Args:
        inbox: Agent's name to its inbox topic.
        events: The topic of approvals' events.
        has: Whether an agent, by its name, has an inbox partition; none has one that is not there.
    """

    inbox: Callable[[str], str]
    events: str
    has: Callable[[str, int], bool]


class Approvals:
    """Asks people, and tells runs what they decided.

    A decision counts as `Rules` say. Every other is refused, and the refusal recorded.

    Args:
        routes: Where things go.
        kept_s: How long a decision is remembered.
    """

    name = "approvals"
    takes = Message

    def __init__(self, routes: Routes, *, kept_s: int = KEPT_S) -> None:
        self._routes = routes
        self._rules = Rules()
        self._kept_ms = kept_s * 1000

    def react(self, turn: Turn, message: Message) -> None:
        """Take one message.

        Raises:
            PoisonError: A decision about what this tenant was never asked.
        """
        match message:
            case Petition():
                self._ask(turn, message)
            case Decide():
                self._decide(turn, message)
            case Withdraw():
                self._withdraw(turn, message)
            case _:
                self._wake(turn, message)

    def refused(
        self, turn: Turn, record: Record, message: Message | None, error: PoisonError
    ) -> None:
        """A decision that is refused as a record leaves what is asked as it was."""

    def forget(self, partition: Partition) -> None:
        """Nothing is kept beside the rows."""

    def _ask(self, turn: Turn, petition: Petition) -> None:
        tenant, run = turn.meta.tenant, RunId.parse(petition.run)
        if run is None or not self._routes.has(run.agent, run.partition):
            raise PoisonError("unknown-target", f"run {petition.run!r} has no address here")
        if turn.get(Approval, tenant, petition.approval) is not None:
            return
        row = Approval(
            tenant=tenant,
            approval=petition.approval,
            petition=petition,
            asked_ms=turn.now_ms,
            correlation_id=turn.meta.correlation_id,
            traceparent=turn.meta.traceparent,
        )
        turn.put(row)
        self._arm(turn, row, petition.expires_ms)
        self._say(turn, row, "asked")

    def _decide(self, turn: Turn, decide: Decide) -> None:
        tenant = turn.meta.tenant
        row = turn.get(Approval, tenant, decide.approval)
        if row is None:
            raise PoisonError(
                "unknown-approval", f"tenant {tenant} was not asked {decide.approval!r}"
            )
        end, by = ENDS[decide.verdict], turn.meta.actor
        said = Said(decide=decide, by=by, now_ms=turn.now_ms)
        if self._rules.again(row, said):
            return
        wrong = self._rules.unfit(row, said)
        if row.state == "open" and turn.now_ms >= row.petition.expires_ms:
            self._end(turn, row, "expired")
        if wrong:
            logger.warning("approval %s: %s's decision is refused: %s", row.approval, by, wrong)
            self._say(turn, row, "refused", by=by, why=wrong, decision=turn.meta.id)
            return
        self._end(
            turn, row, end, by=by, why=decide.reason, value=decide.value, decision=turn.meta.id
        )

    def _withdraw(self, turn: Turn, withdraw: Withdraw) -> None:
        row = turn.get(Approval, turn.meta.tenant, withdraw.approval)
        if row is None or row.state != "open" or row.petition.run != withdraw.run:
            return
        self._end(turn, row, "withdrawn", why=withdraw.reason, tell=withdraw.tell)

    def _wake(self, turn: Turn, wake: Wake) -> None:
        _, tenant, approval = wake.name
        row = turn.get(Approval, tenant, approval)
        assert row is not None, "a petition has one timer: until it ends, and until it is forgotten"
        if row.state == "open":
            self._end(turn, row, "expired")
        else:
            turn.drop(row)

    def _end(
        self,
        turn: Turn,
        row: Approval,
        end: Decision,
        *,
        by: str = "",
        why: str = "",
        value: bytes = b"",
        decision: str = "",
        tell: bool = True,
    ) -> None:
        """End a petition: remember how, tell the run, and whoever looks."""
        row = dataclasses.replace(row, state=end, by=by, reason=why, decided_ms=turn.now_ms)
        told = dataclasses.replace(row.petition, shown=b"")  # what was shown is in the event
        turn.put(dataclasses.replace(row, petition=told))
        self._arm(turn, row, turn.now_ms + self._kept_ms)
        self._say(turn, row, end, by=by, why=why, decision=decision)
        run = RunId.parse(row.petition.run)
        assert run is not None, "nobody is asked for a run without an address"
        if not tell:
            return
        decided = Decided(
            run=row.petition.run,
            number=row.petition.number,
            approval=row.approval,
            decision=end,
            digest=row.petition.digest,
            by=by,
            reason=why,
            at_ms=turn.now_ms,
            value=value,
        )
        to = Address(self._routes.inbox(run.agent), row.petition.run, run.partition)
        runid = ("ce_runid", row.petition.run.encode())
        turn.send(decided, to, meta=row.meta(by), headers=(runid,))

    def _arm(self, turn: Turn, row: Approval, due_ms: int) -> None:
        turn.put(Timer(name=timer_name(row), due_ms=due_ms, meta=row.meta()))

    def _say(
        self,
        turn: Turn,
        row: Approval,
        status: Literal["asked", "refused"] | Decision,
        *,
        by: str = "",
        why: str = "",
        decision: str = "",
    ) -> None:
        petition = row.petition
        event = ApprovalEvent(
            approval=row.approval,
            tenant=row.tenant,
            run=petition.run,
            number=petition.number,
            about=petition.about,
            name=petition.name,
            words=petition.words,
            digest=petition.digest,
            shown=petition.shown,
            to=petition.to,
            expires_ms=petition.expires_ms,
            requester=petition.requester,
            status=status,
            by=by,
            why=why,
            decision=decision,
            asked_ms=row.asked_ms,
            at_ms=turn.now_ms,
        )
        to = Address(self._routes.events, petition.run)
        turn.send(event, to, meta=row.meta(by), headers=(("ce_runid", petition.run.encode()),))


def timer_name(row: Approval) -> Key:
    """Return the name of a petition's one timer."""
    return ("approval", row.tenant, row.approval)
