"""A world for the performing loop: a log in memory, an effector that does as told, time that jumps."""

from __future__ import annotations

import asyncio
import functools
import itertools
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from headwater.contracts import quarantine
from headwater.contracts.catalog import Schemas
from headwater.contracts.codec import Codec
from headwater.contracts.messages import Ask, Failed, InDoubt, Reply, ReplyTo, Token
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent
from headwater.core.effector import Attempt, Call, Done
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.errors import TransientError
from headwater.log.local import LocalLog
from headwater.log.local_faults import Faults, Point
from headwater.runtime.lanes import Bounds
from headwater.runtime.performing import Performing
from headwater.runtime.retrying import Retry

REQUESTS = "ns.req.tool.cards.v1"
INBOX = "ns.inbox.desk.v1"
TOKENS = "ns.evt.tokens.v1"
RECEIPTS = "ns.receipt.tool.cards.v1"
QUARANTINE = "ns.quarantine.req.tool.cards.v1"
GROUP = "ns.tools.cards"
BEGIN_MS = 1_700_000_000_000
HOUR_MS = 3_600_000

CODEC = Codec(Schemas())
Result = Done | Failed | InDoubt
Behave = Callable[[Call, Ask, Attempt], Awaitable[Result]]


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time jumps to the next timer, so that no test sleeps."""

    def __init__(self) -> None:
        super().__init__()
        self._now_s = 0.0
        self._real_select = self._selector.select
        self._selector.select = self._select

    def time(self) -> float:
        """Return the virtual time in seconds."""
        return self._now_s

    def _select(self, timeout: float | None) -> Any:
        assert timeout is not None, "nothing will ever happen"
        self._now_s += timeout
        return self._real_select(0)


def play(scene: Callable[[], Coroutine[Any, Any, None]]) -> Callable[[], None]:
    """Make a coroutine function a test that runs in virtual time."""

    @functools.wraps(scene)
    def test(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            runner.run(scene(*args, **kwargs))

    return test


class Away(Faults):
    """The log is away for some appends."""

    def __init__(self) -> None:
        self.away = False
        self.refused = 0

    def at(self, point: Point, who: str) -> None:
        """Refuse appends while away."""
        if point is Point.APPEND and self.away:
            self.refused += 1
            raise TransientError("the log is away")


class Hands:
    """An effector that does as told, and remembers what it began.

    Args:
        behave: What it does; by default it answers with the call's number.
        name: Its name.
    """

    def __init__(self, behave: Behave | None = None, name: str = "tool.cards") -> None:
        self.name = name
        self._behave = behave
        self.began: list[int] = []
        self.under_way = 0
        self.most = 0
        self.gates: dict[int, asyncio.Event] = {}

    def hold(self, *numbers: int) -> None:
        """Have these calls wait until they are let go."""
        self.gates |= {number: asyncio.Event() for number in numbers}

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Result:
        """Do as told."""
        self.began.append(ask.number)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        try:
            if (gate := self.gates.get(ask.number)) is not None:
                await gate.wait()
            if self._behave is not None:
                return await self._behave(call, ask, attempt)
            return Done(value=b"%d" % ask.number)
        finally:
            self.under_way -= 1


class World:
    """One effector's group, its requests, and the inbox of the runs that ask."""

    def __init__(self, hands: Hands | None = None, *, partitions: int = 1, **options: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self.faults = Away()
        self.log = LocalLog(clock=self.now_ms, faults=self.faults)
        self.log.create(REQUESTS, partitions=partitions)
        self.log.create(RECEIPTS, partitions=partitions, compacted=True)
        for topic in (INBOX, TOKENS, QUARANTINE):
            self.log.create(topic, max_bytes=4 * 1024 * 1024)
        self.log.begin_group(GROUP, [REQUESTS])
        self.hands = hands or Hands()
        self.envelope = Envelope(CODEC, source="tests")
        self._options = options
        self._numbers = itertools.count()
        self.sleeps: list[float] = []
        self.workers: list[Any] = []

    def now_ms(self) -> int:
        """Return the loop's virtual time as a date."""
        return BEGIN_MS + round(self._loop.time() * 1000)

    async def sleep(self, seconds: float) -> None:
        """Sleep in virtual time, and remember."""
        self.sleeps.append(seconds)
        await asyncio.sleep(seconds)

    def performing(self, instance: str = "a", **more: Any) -> Performing:
        """Start a member of the group."""
        worker = self.log.work([REQUESTS], group=GROUP, instance=instance)
        self.workers.append(worker)
        options: dict[str, Any] = {
            "bounds": Bounds(mark_ms_min=0),
            "retry": Retry(jitter_s=0.0),
            "threaded": False,
            **self._options,
            **more,
        }
        return Performing(
            log=self.log,
            worker=worker,
            group=GROUP,
            effector=self.hands,
            envelope=self.envelope,
            quarantine=lambda record, error: quarantine.keep(record, error, group=GROUP),
            tokens=TOKENS,
            clock=self.now_ms,
            sleep=self.sleep,
            receipts=RECEIPTS,
            holder=instance,
            **options,
        )

    async def ask(self, **fields: Any) -> Ask:
        """Publish a request; every field has a default."""
        number = fields.pop("number", next(self._numbers))
        partition = fields.pop("partition", 0)
        tenant = fields.pop("tenant", "t1")
        own = fields.pop("id", f"ask-{number}")
        defaults = {"safety": "read", "name": "block", "arguments": b"", "order_key": ""}
        ask = Ask(
            run="desk.0.r",
            number=number,
            not_after_ms=fields.pop("not_after_ms", self.now_ms() + HOUR_MS),
            reply_to=fields.pop(
                "reply_to", ReplyTo(topic=INBOX, partition=0, run="desk.0.r", number=number)
            ),
            **(defaults | fields),
        )
        meta = Meta(id=own, tenant=tenant, correlation_id="c-1", actor="ana", causation_id="x")
        await self.log.append(
            self.envelope.seal(Sent(message=ask, to=Address(REQUESTS, "k", partition), meta=meta))
        )
        return ask

    async def publish(self, value: bytes | None, **fields: Any) -> None:
        """Publish any bytes as a request."""
        await self.log.append(Draft(topic=REQUESTS, key=b"k", value=value, partition=0, **fields))

    def records(self, topic: str) -> list[Record]:
        """Return every record of a topic."""
        places = [Partition(topic, n) for n in range(self.log.partitions(topic))]
        return [*self.log.read(dict.fromkeys(places, 0)).poll(records_max=100_000, wait_ms=0)]

    def replies(self) -> list[Reply]:
        """Return the replies so far."""
        return [CODEC.decode(record.value or b"") for record in self.records(INBOX)]

    def outcomes(self) -> dict[int, Any]:
        """Return number to outcome."""
        return {reply.number: reply.outcome for reply in self.replies()}

    def receipts(self) -> list[Any]:
        """Return the receipts so far."""
        return [CODEC.decode(record.value or b"") for record in self.records(RECEIPTS)]

    def tokens(self) -> list[Token]:
        """Return the tokens so far."""
        return [CODEC.decode(record.value or b"") for record in self.records(TOKENS)]

    def marked(self, partition: int = 0) -> int | None:
        """Return the group's offset."""
        return self.log.offset(GROUP, Partition(REQUESTS, partition))


async def settle(*loops: Performing, rounds: int = 20) -> None:
    """Step, and let what is under way go on, without letting time pass."""
    for _ in range(rounds):
        for loop in loops:
            await loop.step()
        for _ in range(10):
            await asyncio.sleep(0)


async def finish(*loops: Performing) -> None:
    """Step until nothing comes and nothing is under way, however much time that takes."""
    quiet = 0
    while quiet < 3:
        came = 0
        for loop in loops:
            came += await loop.step()
        for _ in range(10):
            await asyncio.sleep(0)
        busy = [loop for loop in loops if loop.busy]
        if busy and not came:
            await busy[0].wait(1.0)
        quiet = 0 if busy or came else quiet + 1
