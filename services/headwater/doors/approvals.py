"""The door of people's decisions: what waits for them, and their word."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from headwater.approvals.rows import Approval
from headwater.approvals.rules import Rules, Said
from headwater.contracts import headers as hygiene
from headwater.contracts.approvals import Decide, Petition, Verdict
from headwater.core.decider import Sent
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.doors import given
from headwater.doors.callers import Caller, caller_of, only_tenant
from headwater.doors.problems import ProblemError
from headwater.errors import PoisonError
from headwater.log.port import Log

VERDICTS: Mapping[str, tuple[Verdict, str]] = {
    "approve": ("approve", "approved"),
    "deny": ("deny", "denied"),
    "happened": ("happened", "happened"),
    "not-happened": ("not-happened", "not-happened"),
    "give-up": ("give-up", "given-up"),
}
"""Each verdict, and the status it leads to."""
WAIT_S_MAX = 60.0
_LOOK_S = 0.05
_DIGEST_BYTES = 16


class Result(Protocol):
    """A tool's result type (`contracts.derive.Shape`)."""

    def from_json(self, data: bytes | str) -> Any:
        """Read JSON."""
        ...

    def encode(self, value: Any) -> bytes:
        """Return framed Avro."""
        ...


class Index(Protocol):
    """What people are asked (`views.approvals.ApprovalIndex`)."""

    def get(self, approval: str, *, tenant: str = "") -> dict[str, Any] | None:
        """Return one approval."""
        ...

    def find(
        self, *, tenant: str = "", status: str = "", run: str = "", to: str = "", limit: int = 50
    ) -> list[dict[str, Any]]:
        """Return approvals."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Approvals:
    """Answers `/api/v1/approvals`.

    Args:
        log: Where decisions are appended.
        envelope: Seals them.
        address: Tenant to the address of its approvals inbox.
        index: What people are asked.
        results: Tool's name to the type of its result.
        clock: Time in milliseconds, for what expires.
        callers: Bearer token to who that is.
        body_bytes_max: Largest body.
    """

    log: Log
    envelope: Envelope
    address: Callable[[str], Address]
    index: Index
    results: Mapping[str, Result]
    clock: Callable[[], int]
    callers: Mapping[str, Caller] = dataclasses.field(default_factory=dict)
    body_bytes_max: int = 512 * 1024

    def routes(self) -> list[Route]:
        """Return the routes."""
        return [
            Route("/api/v1/approvals", self.list),
            Route("/api/v1/approvals/{approval}", self.show),
            Route("/api/v1/approvals/{approval}/{verdict}", self.decide, methods=["POST"]),
            Route("/api/v1/approvals/{approval}/{verdict}/check", self.check, methods=["POST"]),
        ]

    async def list(self, request: Request) -> Response:
        """Return what people are asked, the soonest to expire first."""
        caller, query = caller_of(request, self.callers), request.query_params
        found = self.index.find(
            tenant=only_tenant(caller, query.get("tenant", "")),
            status=query.get("status", ""),
            run=query.get("run", ""),
            to=query.get("to", ""),
            limit=int(given.number(request, "limit", 50, 1_000)),
        )
        return JSONResponse({"approvals": found})

    async def show(self, request: Request) -> Response:
        """Return one: what is asked, about what, who may decide, and how it ended."""
        return JSONResponse(self._known(request, caller_of(request, self.callers)))

    async def decide(self, request: Request) -> Response:
        """Send a decision; with `wait_s`, wait until it is taken or refused."""
        wait_s = given.number(request, "wait_s", 0.0, WAIT_S_MAX)
        known, message, who, end = await self._said(request)
        meta = Meta(id=secrets.token_hex(16), tenant=known["tenant"], actor=who.actor)
        to = self.address(known["tenant"])
        await self.log.append(self.envelope.seal(Sent(message=message, to=to, meta=meta)))
        after = await self._taken(known, meta.id, (end, who.actor), wait_s) if wait_s else None
        if after is not None:
            return JSONResponse(after)
        sent = {"approval": known["id"], "sent": message.verdict, "decision": meta.id}
        return JSONResponse(sent, status_code=202)

    async def check(self, request: Request) -> Response:
        """Refuse what `decide` would not send, and what nobody would take, and send nothing."""
        known, message, who, _ = await self._said(request)
        rules, row = Rules(), _row(known)
        said = Said(decide=message, by=who.actor, now_ms=self.clock())
        again = rules.again(row, said)
        if not again and (wrong := rules.unfit(row, said)):
            raise _refused(wrong)
        checked = {"approval": known["id"], "verdict": message.verdict}
        return JSONResponse({**checked, "again": again, "sent": False})

    async def _said(self, request: Request) -> tuple[dict[str, Any], Decide, Caller, str]:
        """Return what is decided about, the decision, who makes it, and the status that it leads to."""
        caller = caller_of(request, self.callers)
        if request.path_params["verdict"] not in VERDICTS:
            raise ProblemError(404, "No such verdict", f"there are: {', '.join(VERDICTS)}")
        verdict, end = VERDICTS[request.path_params["verdict"]]
        known = self._known(request, caller)
        told = given.json_of(await given.body(request, self.body_bytes_max) or b"{}")
        if not isinstance(told, dict):
            raise ProblemError(
                422, "Not an object", "the body is a JSON object: {digest, reason, value}"
            )
        who = self._who(caller, told)
        message = Decide(
            approval=known["id"],
            verdict=verdict,
            digest=_digest(told),
            groups=who.groups,
            reason=str(told.get("reason") or "").encode(errors="replace").decode(),
            value=self._value(known, told) if verdict == "happened" else b"",
        )
        return known, message, who, end

    def _known(self, request: Request, caller: Caller) -> dict[str, Any]:
        approval = request.path_params["approval"]
        tenant = only_tenant(caller, request.query_params.get("tenant", ""))
        found = self.index.get(approval, tenant=tenant)
        if found is None:
            raise ProblemError(
                404, "No such approval", f"nobody is asked {approval!r}, as far as is known here"
            )
        return found

    def _who(self, caller: Caller, told: Mapping[str, Any]) -> Caller:
        """Return who decides: the token's actor; where there are no tokens, whoever they say they are."""
        said = told.get("by") or ""
        if self.callers:
            if not caller.actor:
                raise ProblemError(
                    403, "Who decides?", "this token names no actor, so nobody decides"
                )
            if said not in ("", caller.actor):
                raise ProblemError(403, "Not you", f"the token is {caller.actor}'s, not {said}'s")
            return caller
        if not isinstance(said, str) or not said:
            raise ProblemError(422, "Who decides?", 'say who you are: {"by": "ana"}')
        hygiene.text({"by": said.encode(errors="replace")}, "by")
        return Caller(actor=said, groups=("*",))

    def _value(self, known: Mapping[str, Any], told: Mapping[str, Any]) -> bytes:
        """Return what a call that happened returned, as its tool writes it."""
        result = self.results.get(known["name"])
        if result is None or "value" not in told:
            raise ProblemError(
                422, "What did it return?", f"say what {known['name']} returned: {{value: ...}}"
            )
        try:
            return result.encode(result.from_json(json.dumps(told["value"])))
        except PoisonError as error:
            raise ProblemError(
                422, "Not what it returns", f"value: {error}", "invalid-value"
            ) from error

    async def _taken(
        self, known: Mapping[str, Any], decision: str, wanted: tuple[str, str], wait_s: float
    ) -> dict[str, Any] | None:
        """Return the approval once the decision was taken, now or by the same person before.

        Raises:
            ProblemError: It was refused.
        """
        until = time.monotonic() + wait_s
        while time.monotonic() < until:
            found = self.index.get(known["id"], tenant=known["tenant"])
            assert found is not None, "it was known before"
            for refusal in found["refused"]:
                if refusal["decision"] == decision:
                    raise _refused(refusal["why"])
            if (found["status"], found.get("by")) == wanted:
                return found
            await asyncio.sleep(_LOOK_S)
        return None


def _refused(why: str) -> ProblemError:
    return ProblemError(409, "Refused", why, "refused")


def _row(known: Mapping[str, Any]) -> Approval:
    """Return an approval as the rules look at it; its arguments are in its digest."""
    petition = Petition(
        approval=known["id"],
        run=known["run"],
        number=known["number"],
        about=known["about"],
        name=known["name"],
        words=known["words"],
        digest=bytes.fromhex(known["digest"]),
        shown=b"",
        to=known["to"],
        expires_ms=known["expires_ms"],
        requester=known["requester"],
    )
    return Approval(
        tenant=known["tenant"],
        approval=known["id"],
        petition=petition,
        asked_ms=known["asked_ms"],
        state=known["status"],
        by=known.get("by", ""),
    )


def _digest(told: Mapping[str, Any]) -> bytes:
    """Return the digest of the arguments that were looked at."""
    try:
        found = bytes.fromhex(told.get("digest") or "")
    except (ValueError, TypeError):
        found = b""
    if len(found) != _DIGEST_BYTES:
        raise ProblemError(
            422, "About what?", "send the digest of what you looked at, as the approval shows it"
        )
    return found
