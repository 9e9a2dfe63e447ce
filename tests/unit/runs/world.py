"""A world of one agent and one partition: turns without a log, rows and messages to look at."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Coroutine
from typing import Any

from headwater.contracts.messages import (
    Answered,
    Ask,
    BlobRef,
    Control,
    Drain,
    Failed,
    Limits,
    Reply,
    RunEvent,
    Spent,
    Start,
    Task,
    Usage,
    Wake,
)
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.blobs import AbsentError, ref_of
from headwater.core.decider import Encoded, Sent, Timer, Turn
from headwater.core.execution import Asked, Raised, RunInfo
from headwater.core.judge import AllowAll, Judge
from headwater.core.messages import Address, Meta, Position, RunId
from headwater.core.state import Rows
from headwater.durable.running import Running, Session
from headwater.errors import BlobLostError, PoisonError
from headwater.runs.bounds import Bounds
from headwater.runs.decider import Runs
from headwater.runs.life import Facts
from headwater.runs.routes import Routes, ToolTerms
from headwater.runs.rows import OpenCall

AGENT = "worker"
INBOX = f"hw.inbox.{AGENT}.v1"
Function = Callable[[Session], Coroutine[Any, Any, bytes]]


@dataclasses.dataclass
class Agent:
    """An agent whose function sees the session itself."""

    function: Function
    name: str = AGENT
    limits: Limits = dataclasses.field(default_factory=Limits)
    begun: int = 0

    def begin(self, info: RunInfo, task: bytes) -> Running:
        if task == b"rotten":
            raise PoisonError("invalid-input", "the task cannot be read")
        self.begun += 1
        return Running(self.function, seed=info.run)

    def outcome_json(self, value: bytes) -> bytes:
        return b'"%b"' % value


class Catalogue:
    """Tools of the service `main`, agents with default limits, models at a fixed price."""

    price: Spent | None = Spent(tokens=100, usd_nano=1_000_000)

    def tool(self, name: str) -> ToolTerms | None:
        return (
            None
            if name == "nobody"
            else ToolTerms(service="main", safety=name.split("-", maxsplit=1)[0])
        )

    def model(self, name: str) -> bool:
        return True

    def limits(self, agent: str) -> Limits | None:
        return None if agent == "nobody" else Limits()

    def price_ceiling(self, asked: Asked) -> tuple[Spent | None, str]:
        return self.price, "no price is known: name a prices file"

    def shown(self, kind: str, name: str, arguments: bytes) -> bytes:
        return b'"%b"' % arguments

    def decides(self, tool: str) -> str:
        return "group:payments"


def routes() -> Routes:
    return Routes(
        inbox=lambda agent: f"hw.inbox.{agent}.v1",
        request=lambda service: f"hw.req.{service}.v1",
        events=lambda agent: f"hw.evt.{agent}.v1",
        dead=lambda agent: f"hw.dlq.{agent}.v1",
        life="hw.evt.runs.v1",
        audit="hw.audit.operators.v1",
        admission=lambda tenant: Address("hw.inbox.admission.v1", tenant, 0),
        approvals=lambda tenant: Address("hw.inbox.approvals.v1", tenant, 0),
        place=lambda tenant, agent, task: 0,
    )


def dead_letter(record: Record, topic: str, error: Raised, facts: Facts) -> Draft:
    return Draft(
        topic=topic,
        key=record.key,
        value=record.value,
        headers=(("e", error.error.encode()), ("writes", ", ".join(facts.writes).encode())),
    )


class Shelf:
    """A store of blobs: a turn finds there what was fetched for it, and only that."""

    def __init__(self) -> None:
        self.values: dict[tuple[str, str], bytes] = {}
        self.lost: set[str] = set()
        self.fetched: list[tuple[str, ...]] = []
        self.puts: list[str] = []
        self._at_hand: set[tuple[str, str]] = set()

    def get(self, tenant: str, name: str) -> bytes | BlobLostError | None:
        if (tenant, name) not in self._at_hand:
            return None
        if name in self.lost:
            return BlobLostError(name, tenant, "is not there")
        return self.values[tenant, name]

    def fetch(self, absent: AbsentError) -> None:
        self.fetched.append(absent.names)
        self._at_hand |= {(absent.tenant, name) for name in absent.names}

    def passed(self) -> None:
        self._at_hand.clear()

    def keep(self, turn: Turn) -> None:
        self.puts += turn.kept
        self.values |= {(turn.meta.tenant, name): value for name, value in turn.kept.items()}

    def put(self, value: bytes, tenant: str = "t1") -> BlobRef:
        ref = ref_of(value)
        self.values[tenant, ref.name] = value
        return ref


BOUNDS = {field.name for field in dataclasses.fields(Bounds)}
"""Options that are bounds on runs; the others are the decider's own."""


class World:
    """Takes turns, keeps rows, collects what was sent; `crash` forgets all but rows."""

    version = "1"

    def __init__(self, function: Function, *, judge: Judge | None = None, **options: Any) -> None:
        limits = options.pop("limits", Limits())
        self.agent = Agent(function, limits=limits)
        self.catalogue = Catalogue()
        self.judge = judge or AllowAll()
        self.options = options
        self.rows = Rows()
        self.sent: list[Sent] = []
        self.drafts: list[Draft] = []
        self.letters: list[Record] = []
        self.shelf = Shelf()
        self.offset = 0
        self.now_ms = 1_000_000
        self.tenant = "t1"
        self.run = str(RunId(AGENT, 0, "task1"))
        self.decider = self._decider()

    def _decider(self) -> Runs:
        return Runs(
            self.agent,
            catalogue=self.catalogue,
            judge=self.judge,
            routes=routes(),
            dead_letter=self._dead_letter,
            version=self.version,
            bounds=Bounds(**{k: v for k, v in self.options.items() if k in BOUNDS}),
            **{k: v for k, v in self.options.items() if k not in BOUNDS},
        )

    def _dead_letter(self, record: Record, topic: str, error: Raised, facts: Facts) -> Draft:
        self.letters.append(record)
        return dead_letter(record, topic, error, facts)

    def crash(self) -> None:
        """Lose everything that is not a row."""
        self.decider.forget(Partition(INBOX, 0))
        self.decider = self._decider()

    def take(
        self,
        message: Any,
        *,
        tenant: str | None = None,
        deadline_ms: int | None = None,
        commit: bool = True,
        cause: str | None = None,
    ) -> None:
        """Take one turn; without `commit` its writes come to nothing, as after an abort.

        An answer's cause is by default the newest request of its number.
        """
        self.offset += 1
        at = Position("topic-id", INBOX, 0, self.offset)
        meta = Meta(
            id=f"m{self.offset}",
            tenant=tenant or self.tenant,
            correlation_id="c1",
            causation_id=self.request(message) if cause is None else cause,
            deadline_ms=deadline_ms,
        )
        record = Record(
            partition=Partition(INBOX, 0),
            offset=self.offset,
            time_ms=self.now_ms,
            key=b"k",
            value=b"v",
        )
        while True:
            try:
                turn = self._turn(message, at, meta, record)
            except AbsentError as absent:
                self.shelf.fetch(absent)
            else:
                break
        self.shelf.passed()
        if not commit:
            self.offset -= 1
            return
        self.shelf.keep(turn)
        for kind, key, row in turn.layer.written():
            if row is None:
                self.rows.discard(kind, key)
            else:
                self.rows.set(kind, key, row)
        self.sent += [item for item in turn.sent if isinstance(item, Sent)]
        self.drafts += [item for item in turn.sent if isinstance(item, Draft)]

    def request(self, reply: Any) -> str:
        """Return the id of the newest request that an answer can be to; empty if there is none."""
        ids = [
            sent.meta.id
            for sent in self.sent
            if isinstance(sent.message, Ask)
            and isinstance(reply, Reply)
            and (sent.message.run, sent.message.number) == (reply.run, reply.number)
        ]
        return ids[-1] if ids else ""

    def child(self, number: int) -> str:
        """Return the child that is open under a number; empty if there is none."""
        call = self.rows.get(OpenCall, self.run, number)
        return "" if call is None else call.child

    def _turn(self, message: Any, at: Position, meta: Meta, record: Record) -> Turn:
        turn = Turn(self.rows, at=at, meta=meta, now_ms=self.now_ms, at_hand=self.shelf)
        if isinstance(message, Wake):
            timer = self.rows.get(Timer, *message.name)
            assert timer is not None, message
            turn.drop(timer)
        try:
            self.decider.react(turn, message)
        except PoisonError as error:
            turn = Turn(self.rows, at=at, meta=meta, now_ms=self.now_ms, at_hand=self.shelf)
            self.decider.refused(turn, record, message, error)
        return turn

    def start(self, **more: Any) -> None:
        deadline_ms = more.pop("deadline_ms", None)
        task = more.pop(
            "task", Task(topic="hw.cmd.worker.v1", partition=2, offset=7, key=b"key", value=b"in")
        )
        self.take(
            Start(run=self.run, task_id="task1", slot="slot1", task=task, **more),
            deadline_ms=deadline_ms,
        )

    def answer(
        self,
        number: int,
        value: bytes | BlobRef = b"ok",
        *,
        attempt: str = "a1",
        usage: Usage | None = None,
        spent: Spent | None = None,
        **more: Any,
    ) -> None:
        if spent is not None:
            attempt = self.child(number)
        self.take(
            Reply(
                run=self.run,
                number=number,
                attempt=attempt,
                outcome=Answered(value=value),
                usage=usage,
                spent=spent,
            ),
            **more,
        )

    def fail(self, number: int, error: str = "Boom") -> None:
        self.take(
            Reply(
                run=self.run,
                number=number,
                attempt="a1",
                outcome=Failed(error=error, detail="it broke"),
            )
        )

    def control(self, verb: Any, name: str = "", value: bytes = b"null", **more: Any) -> None:
        self.take(
            Control(target=self.run, verb=verb, name=name, value=value, reason="because"), **more
        )

    def wake(self) -> None:
        """Let the run's timer come due."""
        timer = next(self.rows.scan(Timer))
        self.now_ms = max(self.now_ms, timer.due_ms)
        self.take(Wake(name=timer.name, due_ms=timer.due_ms))

    def drain(self) -> None:
        """Take the drains the run sent itself, until it sends none."""
        while drains := self.messages(Drain):
            self.sent = [item for item in self.sent if not isinstance(item.message, Drain)]
            self.take(drains[0])

    def messages(self, kind: type) -> list[Any]:
        return [item.message for item in self.sent if isinstance(item.message, kind)]

    def statuses(self) -> list[str]:
        return [event.status for event in self.messages(RunEvent)]

    def outcomes(self) -> list[tuple[str, Any]]:
        """Return (type, value) of what went to `evt.worker`."""
        return [
            (item.message.type, item.message.value)
            for item in self.sent
            if isinstance(item.message, Encoded)
        ]

    def asked(self) -> list[int]:
        """Return the numbers of the requests and children sent, in order."""
        return [
            item.message.number if hasattr(item.message, "number") else item.message.reply_to.number
            for item in self.sent
            if type(item.message).__name__ in {"Ask", "Start"}
        ]


async def call(
    session: Session,
    name: str = "read-thing",
    kind: Any = "tool",
    arguments: bytes = b"x",
    **options: Any,
) -> bytes:
    """Make a call and return its value; a failure raises its error's name."""
    outcome = await session.ask(kind, name, arguments, options=options)
    if isinstance(outcome, Answered):
        return outcome.value
    raise RuntimeError(outcome.error if isinstance(outcome, Failed) else "in doubt")


async def gathered(session: Session, *names: str) -> bytes:
    """Call tools in parallel and join their answers."""
    return b"+".join(await asyncio.gather(*(call(session, name) for name in names)))
