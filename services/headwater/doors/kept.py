"""Kept records over HTTP: quarantine, dead letters, and what operators do to them."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from headwater.contracts.messages import Resume, Spent
from headwater.contracts.quarantine import quarantine_topic, reason
from headwater.contracts.records import Record
from headwater.contracts.shape import Shape
from headwater.contracts.topics import Names
from headwater.contracts.wanted import Wanted, place_of, tenant_of
from headwater.doors import bodies, given
from headwater.doors.callers import Caller, only_tenant
from headwater.doors.problems import ProblemError
from headwater.doors.shelf import Shelf
from headwater.errors import HeadwaterError, PoisonError, TransientError

LIST_MAX = 1_000
IDS_MAX = 1_000
RATE_MAX = 1e6


class Operator(Protocol):
    """Carries wishes out (`runtime.operating.Operating`)."""

    def begin(self, wish: Any) -> str:
        """Begin what is wanted; return the operation's id."""
        ...

    def state(self, id: str) -> dict[str, Any] | None:  # noqa: A002 - what it is
        """Return how far an operation is."""
        ...


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What these doors stand in front of.

    Args:
        shelf: Kept records.
        operator: Carries wishes out.
        wish: Makes a wish (`runtime.operating.Wish`).
        names: Names of the namespace's topics.
        quarantines: Every quarantine topic.
        agents: Agent's name to its input type.
        schemas: Writer schemas.
    """

    shelf: Shelf
    operator: Operator
    wish: Callable[..., Any]
    names: Names
    quarantines: Sequence[str]
    agents: Mapping[str, Shape[Any]]
    schemas: Any


class KeptDoor:
    """Answers what is asked of kept records.

    Args:
        kept: What it stands in front of.
        caller: Says who asks.
        body_bytes_max: Largest body.
    """

    def __init__(
        self,
        kept: Kept,
        caller: Callable[[Request], Caller],
        body_bytes_max: int,
    ) -> None:
        self._of = kept
        self._caller = caller
        self._body_bytes_max = body_bytes_max

    def routes(self) -> list[BaseRoute]:
        """Return the routes."""
        post = ["POST"]
        return [
            Route("/api/v1/quarantine", self.list_quarantine),
            Route("/api/v1/quarantine/replay", self.replay_quarantine, methods=post),
            Route("/api/v1/quarantine/discard", self.discard_quarantine, methods=post),
            Route("/api/v1/quarantine/{record}", self.show_quarantine),
            Route("/api/v1/quarantine/{record}/edit", self.edit, methods=post),
            Route("/api/v1/dlq", self.list_letters),
            Route("/api/v1/dlq/replay", self.replay_letters, methods=post),
            Route("/api/v1/dlq/resume", self.resume_letters, methods=post),
            Route("/api/v1/dlq/discard", self.discard_letters, methods=post),
            Route("/api/v1/dlq/{record}", self.show_letter),
            Route("/api/v1/dlq/{record}/edit", self.edit_letter, methods=post),
            Route("/api/v1/operations/{operation}", self.operation),
        ]

    async def list_quarantine(self, request: Request) -> Response:
        """Return the newest quarantined records, or those of a foreign topic."""
        self._operator(request)
        told = dict(request.query_params)
        topics, wanted = self._records(told)
        if told.get("topic"):
            await self._need(topics, str(told["topic"]))
        return await self._list(request, topics, wanted)

    async def show_quarantine(self, request: Request) -> Response:
        """Return one kept record, and its value as JSON if it can be decoded."""
        self._operator(request)
        record = await self._record(request)
        return JSONResponse({**self._of.shelf.whole(record), **self._decoded(record)})

    async def replay_quarantine(self, request: Request) -> Response:
        """Send kept records back to where they came from."""
        caller = self._operator(request)
        return await self._begin(request, caller, "replay", letters=False)

    async def discard_quarantine(self, request: Request) -> Response:
        """Note of kept records that nobody wants them any more."""
        caller = self._operator(request)
        return await self._begin(request, caller, "discard", letters=False)

    async def edit(self, request: Request) -> Response:
        """Send a kept record back with another value, which is given as JSON."""
        caller = self._operator(request)
        return await self._edit(request, caller, await self._record(request))

    async def edit_letter(self, request: Request) -> Response:
        """Publish the task of a failed run again, with another value, as a new run."""
        caller = self._caller(request)
        return await self._edit(request, caller, await self._letter(request, caller))

    async def _edit(self, request: Request, caller: Caller, record: Record) -> Response:
        told = await self._told(request)
        _, shape = self._shape(record, str(told.get("to") or ""))
        if shape is None:
            raise ProblemError(
                422, "Nothing to encode it with", "no agent takes records of this topic: say --to "
                "where it is to go, replay it as it is, or discard it",
            )  # fmt: skip
        value = shape.encode(shape.from_json(json.dumps(told.get("value"))))
        before = self._decoded(record)["decoded"]
        if before is not None and shape.encode(shape.from_json(json.dumps(before))) == value:
            raise ProblemError(
                422, "Nothing was changed", "the value is the same: replay the record instead"
            )
        one = frozenset({(record.partition, record.offset)})
        wish = self._wish(
            told,
            caller,
            "replay",
            letters=self._is_letter(record),
            topics=(record.partition.topic,),
            wanted=Wanted(places=one, tenant=caller.tenant),
            value=value,
            original=record.value,
        )
        return self._answer(wish)

    async def list_letters(self, request: Request) -> Response:
        """Return the newest dead letters."""
        caller, told = self._caller(request), dict(request.query_params)
        topics, wanted = self._letters(told, caller)
        return await self._list(request, topics, wanted)

    async def show_letter(self, request: Request) -> Response:
        """Return one dead letter."""
        record = await self._letter(request, self._caller(request))
        return JSONResponse({**self._of.shelf.whole(record), **self._decoded(record)})

    async def replay_letters(self, request: Request) -> Response:
        """Publish the tasks of failed runs again, as new ones."""
        return await self._begin(request, self._caller(request), "replay", letters=True)

    async def resume_letters(self, request: Request) -> Response:
        """Have failed runs go on."""
        return await self._begin(request, self._caller(request), "resume", letters=True)

    async def discard_letters(self, request: Request) -> Response:
        """Drop failed runs."""
        return await self._begin(request, self._caller(request), "discard", letters=True)

    async def operation(self, request: Request) -> Response:
        """Return how far an operation is."""
        caller, name = self._caller(request), request.path_params["operation"]
        found = self._of.operator.state(name)
        if found is None or (caller.tenant and found["tenant"] != caller.tenant):
            detail = (
                f"this gateway knows no operation {name!r}: begun again, it goes on where it was"
            )
            raise ProblemError(404, "No such operation", detail)
        return JSONResponse(found)

    async def _need(self, topics: Sequence[str], named: str) -> None:
        """Refuse a topic that somebody named and that is not there.

        Raises:
            ProblemError: It is not.
        """
        if not await asyncio.to_thread(self._of.shelf.has, topics):
            raise ProblemError(404, "No such topic", f"there is no topic {named!r} here")

    async def _list(self, request: Request, topics: Sequence[str], wanted: Wanted) -> Response:
        limit = int(given.number(request, "limit", 50, LIST_MAX))
        found = await asyncio.to_thread(self._of.shelf.newest, topics, wanted, limit=max(1, limit))
        return JSONResponse({"records": found})

    async def _record(self, request: Request) -> Record:
        name = request.path_params["record"]
        found = await asyncio.to_thread(self._of.shelf.get, name)
        if found is None:
            raise _missing(name)
        return found

    async def _letter(self, request: Request, caller: Caller) -> Record:
        record = await self._record(request)
        foreign = bool(caller.tenant) and tenant_of(record, reason(record)) != caller.tenant
        if foreign or not self._is_letter(record):
            raise _missing(request.path_params["record"])
        return record

    def _is_letter(self, record: Record) -> bool:
        return record.partition.topic in map(self._of.names.dlq, self._of.agents)

    async def _begin(
        self, request: Request, caller: Caller, verb: str, *, letters: bool
    ) -> Response:
        told = await self._told(request)
        topics, wanted = self._letters(told, caller) if letters else self._records(told)
        if not letters and any(
            topic in map(self._of.names.dlq, self._of.agents) for topic in topics
        ):
            raise ProblemError(
                422, "Dead letters", "a dead letter of a run is dealt with under dlq: its task was taken "
                "once, so sent back as it was it would be taken for the same one",
            )  # fmt: skip
        for name, among in (("topic", topics), ("to", (str(told.get("to") or ""),))):
            if told.get(name) and not letters:
                await self._need(among, str(told[name]))
        if strange := told.keys() - bodies.fields(
            f"/api/v1/{'dlq' if letters else 'quarantine'}/{verb}"
        ):
            detail = f"{min(strange)!r} says nothing here: see /openapi.json"
            raise ProblemError(422, "Not a field", detail)
        if told.get("all") is not True and not _narrow(told):
            raise ProblemError(
                422, "Everything?", "name records by ids, topic, agent, tenant, error or since_ms; "
                "or say all: true",
            )  # fmt: skip
        wish = self._wish(told, caller, verb, letters=letters, topics=topics, wanted=wanted)
        return self._answer(wish)

    def _answer(self, wish: Any) -> Response:
        try:
            operation = self._of.operator.begin(wish)
        except (PoisonError, TransientError):
            raise
        except HeadwaterError as error:
            raise ProblemError(429, "Busy", str(error)) from error
        url = f"/api/v1/operations/{operation}"
        return JSONResponse(
            {"operation": operation, "url": url}, status_code=202, headers={"location": url}
        )

    def _wish(self, told: Mapping[str, Any], caller: Caller, verb: str, **more: Any) -> Any:
        rate = given.amount(told, "rate")
        again = told.get("again") is True
        # What may be done twice gets a name of its own, or a second time would go on with the first.
        fresh = secrets.token_hex(8) if again or verb == "resume" else ""
        added = Spent(
            steps=int(given.amount(told, "add_steps")),
            tokens=int(given.amount(told, "add_tokens")),
            usd_nano=round(given.amount(told, "add_usd") * 1e9),
        )
        return self._of.wish(
            verb=verb,
            actor=given.actor(told, caller),
            reason=given.words(told, "reason"),
            to=given.words(told, "to"),
            rate=min(rate, RATE_MAX),
            repeat_writes=told.get("repeat_writes") is True,
            despite_no=told.get("despite_no") is True,
            again=again,
            dry_run=told.get("dry_run") is True,
            resume=Resume(added=added) if verb == "resume" else None,
            name=given.words(told, "operation") or fresh,
            **more,
        )

    def _records(self, told: Mapping[str, Any]) -> tuple[tuple[str, ...], Wanted]:
        """Return the topics of kept records that are meant, and which of theirs."""
        wanted = self._wanted(told)
        named = str(told.get("topic") or "")
        if (told.get("agent") and (named or wanted.places)) or (named and wanted.places):
            detail = "records are named by ids, by topic or by agent: say one of these"
            raise ProblemError(422, "Which ones?", detail)
        mine = tuple(self._of.quarantines)
        if wanted.places:
            return tuple(sorted({place.topic for place, _ in wanted.places})), wanted
        if agent := str(told.get("agent") or ""):
            named = named or self._of.names.cmd(self._agent(agent))
        if not named:
            return mine, wanted
        if named.count(".") > 2 and quarantine_topic(named) in mine:  # noqa: PLR2004 - ns.kind.name.v1
            return (quarantine_topic(named),), wanted
        return (named,), wanted

    def _letters(self, told: Mapping[str, Any], caller: Caller) -> tuple[tuple[str, ...], Wanted]:
        """Return the topics of dead letters that are meant, and which of theirs: a tenant's own alone."""
        wanted = self._wanted(told)
        wanted = dataclasses.replace(wanted, tenant=only_tenant(caller, wanted.tenant))
        agent = str(told.get("agent") or "")
        agents = [self._agent(agent)] if agent else [*self._of.agents]
        return tuple(self._of.names.dlq(name) for name in agents), wanted

    def _agent(self, name: str) -> str:
        if name not in self._of.agents:
            known = ", ".join(sorted(self._of.agents))
            raise ProblemError(404, "No such agent", f"{name!r}; there are: {known}")
        return name

    def _wanted(self, told: Mapping[str, Any]) -> Wanted:
        ids = told.get("ids") or ()
        if isinstance(ids, str):
            ids = [ids]
        if not isinstance(ids, list | tuple) or len(ids) > IDS_MAX:
            raise ProblemError(422, "Not a list", f"ids: a list of at most {IDS_MAX}")
        places = {one: place_of(str(one)) for one in ids}
        source = str(told.get("source") or "")
        return Wanted(
            places=frozenset(place for place in places.values() if place is not None),
            runs=frozenset(str(one) for one, place in places.items() if place is None),
            source=source,
            tenant=str(told.get("tenant") or ""),
            error=str(told.get("error") or told.get("code") or ""),
            since_ms=_since_ms(told),
        )

    async def _told(self, request: Request) -> dict[str, Any]:
        body = await given.body(request, self._body_bytes_max)
        told = given.json_of(body) if body else {}
        if not isinstance(told, dict):
            raise ProblemError(422, "Not an object", "the body is a JSON object")
        return told

    def _operator(self, request: Request) -> Caller:
        caller = self._caller(request)
        if caller.tenant:
            detail = (
                "quarantine holds records of every tenant, so it wants a token that names no tenant"
            )
            raise ProblemError(403, "Not yours", detail)
        return caller

    def _shape(self, record: Record, to: str) -> tuple[str, Shape[Any] | None]:
        """Return the agent whose task a record is, and its type."""
        names = self._of.names
        topic = to or reason(record).source.topic
        for agent, shape in self._of.agents.items():
            if topic == names.cmd(agent) or record.partition.topic == names.dlq(agent):
                return agent, shape
        return "", None

    def _decoded(self, record: Record) -> dict[str, Any]:
        _, shape = self._shape(record, "")
        if shape is None:
            return {"decoded": None, "undecoded": "no agent takes records of this topic"}
        try:
            value = shape.decode(record.value or b"", self._of.schemas)
            return {"decoded": json.loads(shape.to_json(value)), "undecoded": ""}
        except (PoisonError, TransientError) as error:
            return {"decoded": None, "undecoded": str(error)}


def _narrow(told: Mapping[str, Any]) -> bool:
    names = ("ids", "topic", "agent", "tenant", "error", "source", "since_ms")
    return any(told.get(name) for name in names)


def _since_ms(told: Mapping[str, Any]) -> int:
    said = told.get("since_ms") or 0
    try:
        found = int(said)
    except (TypeError, ValueError) as error:
        raise ProblemError(422, "Not a time", "since_ms: milliseconds since 1970") from error
    if found < 0 or (said and not found):  # it would narrow nothing
        raise ProblemError(422, "Not a time", "since_ms: milliseconds since 1970, from 1 on")
    return found


def _missing(record: str) -> ProblemError:
    return ProblemError(
        404, "No such record", f"nothing is kept as {record!r}; its list names what is"
    )
