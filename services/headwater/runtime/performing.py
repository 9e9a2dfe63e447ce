"""Performing: the loop of one effector; calls are slow, parallel and at least once."""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any, Protocol

from headwater.contracts.messages import Ask, Failed, Intent, Reply, Usage
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.blobs import Blobs
from headwater.core.effector import Effector
from headwater.core.envelope import Envelope
from headwater.core.messages import Meta
from headwater.durable.confine import wall_ns
from headwater.errors import PoisonError, SettingsError, TransientError
from headwater.log.port import Claim, Log, Poll, Worker
from headwater.runtime.answering import Answering, Item
from headwater.runtime.claiming import Claiming
from headwater.runtime.guarding import Plain
from headwater.runtime.lanes import Bounds, Lanes, Queued
from headwater.runtime.noting import Lease, Noting, Wanted
from headwater.runtime.receipts import Receipts
from headwater.runtime.retrying import AbandonedError, Retry, Retrying, Sleep
from headwater.tracing import context

__all__ = ["CallObserver", "Lease", "Performing", "Retry"]

logger = logging.getLogger(__name__)

POLL_MS = 100
"""How long a poll waits, and so how late a mark, a pause or a stop can be."""

CUT_S = 5.0
"""How long a call that is cut off may take to notice."""
HURRY_MS = 5
"""How long a poll waits while calls are being noted, since a call begins after the next transaction."""
HOLD_S = 5.0
"""How long a member that stops keeps its partitions; longer calls go on under their leases."""
HURRIED_S = 1.0
"""How long polls are short after a call was noted."""
TELL_MS = 60_000
"""How long the log says nothing more of leases that are not renewed, once it said so."""


class CallObserver(Protocol):
    """Watches what was answered: spans."""

    def call(
        self,
        meta: Meta,
        *,
        call_id: str,
        attempt: str,
        kind: str,
        name: str,
        started_ns: int,
        ended_ns: int,
        usage: Usage | None = None,
        error: str = "",
    ) -> None:
        """Called once per answer, after it is in the log."""
        ...


class Performing:
    """Polls, starts what may start, replies, marks.

    What becomes of a lost claim's requests: one that has not started is dropped, for the new owner
    has it. One whose try is under way ends that try, and its reply is still appended, because the
    run takes each number once; it is not tried again. Should the claim come back meanwhile, the
    request is not started a second time: the try under way counts for the new claim.

    Args:
        log: For replies.
        worker: The membership.
        group: Its group.
        effector: What performs.
        envelope: Opens requests and seals replies.
        quarantine: Builds the record that keeps a refused request.
        tokens: Topic of streamed pieces.
        clock: Wall clock in milliseconds.
        bounds: How much is under way at once.
        retry: How calls are tried again.
        threaded: Whether the consumer has a thread of its own; off for one that steps by hand.
        observer: Told after each answer.
        sleep: Waits between two tries.
        receipts: Topic of receipts; empty for none, then any call may be repeated.
        holder: Name of this process, for receipts.
        lease: How long a noted call may go on unseen.
        blobs: Where large values are; `None` if there is no such store.
        doing: Makes the calls; by default here, whatever they do.
    """

    def __init__(
        self,
        *,
        log: Log,
        worker: Worker,
        group: str,
        effector: Effector,
        envelope: Envelope,
        quarantine: Callable[[Record, PoisonError], Draft],
        tokens: str,
        clock: Callable[[], int],
        bounds: Bounds | None = None,
        retry: Retry | None = None,
        threaded: bool = True,
        observer: CallObserver | None = None,
        sleep: Sleep = asyncio.sleep,
        receipts: str = "",
        holder: str = "",
        lease: Lease | None = None,
        blobs: Blobs | None = None,
        doing: Plain | None = None,
    ) -> None:
        self._observer = observer
        self._log = log
        self._name = effector.name
        self._envelope = envelope
        self._quarantine = quarantine
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._retrying = Retrying(retry or Retry(), clock=clock, sleep=sleep)
        self._answering = Answering(
            effector=effector,
            envelope=envelope,
            append=log.append,
            retrying=self._retrying,
            tokens=tokens,
            clock=clock,
            quiet_s_max=self._bounds.quiet_s_max,
            blobs=blobs,
            doing=doing,
        )
        self._noting = Noting(
            answering=self._answering,
            append=self._append,
            envelope=envelope,
            topic=receipts,
            holder=holder,
            clock=clock,
            lease=lease or Lease(),
        )
        self._lanes: Lanes[Item] = Lanes(self._bounds)
        self._claiming = Claiming(
            worker=worker,
            name=self._name,
            group=group,
            receipts=Receipts(log, group=group, topic=receipts, codec=envelope.codec, clock=clock),
            known=self._noting.known,
            bounds=self._bounds,
            retrying=self._retrying,
            clock=clock,
            threaded=threaded,
            spawn=self._spawn,
            parting=self._part,
        )
        self._under_way: dict[tuple[Partition, int], Item] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stopping = False
        self._noted_s = 0.0
        self._tell_ms = 0
        self._failure: BaseException | None = None
        self.stepped_s = time.monotonic()
        """When the last step ended, for health."""

    @property
    def claims(self) -> frozenset[Claim]:
        """Claims that are being worked on."""
        return self._claiming.claims

    @property
    def busy(self) -> int:
        """How many requests wait or are under way; not those that wait for another process."""
        return len(self._lanes) + self._lanes.running - self.waiting

    @property
    def waiting(self) -> int:
        """How many calls wait for another process that may be making them."""
        return len(self._noting.waiting)

    def next_ms(self) -> int | None:
        """Return when the next lease of another process ends that a call waits for; `None` for none."""
        return min(self._noting.waiting.values(), default=None)

    async def step(self, wait_ms: int = 0) -> int:
        """Do one round; return how many requests came.

        Raises:
            Exception: What a task of ours died of; never an error of the effector's, which is an answer.
        """
        poll = await self._follow(records_max=self._bounds.poll_max, wait_ms=wait_ms)
        for claim, record in poll.records:
            if claim in self._noting.known:
                self._take(claim, record)
        await self._claiming.press()
        self._start()
        await self._note()
        await self._claiming.mark(now=not poll.records and self._claiming.idle)
        self.stepped_s = time.monotonic()
        if self._failure is not None:
            raise self._failure
        return len(poll.records)

    async def run(self, stop: asyncio.Event, *, drain_s: float = 25.0, leave: bool = False) -> None:
        """Step until told to stop; then finish what is under way, within `drain_s`, and mark it.

        Args:
            stop: Set to stop.
            drain_s: How long calls that are under way may take to end.
            leave: Whether to give the partitions up at once.

        Raises:
            Exception: What a task of ours died of.
        """
        try:
            while not stop.is_set():
                hurried = time.monotonic() - self._noted_s < HURRIED_S
                await self.step(HURRY_MS if hurried else POLL_MS)
            await self.drain(drain_s)
        finally:
            await self._cut()
            await self.close(leave=leave)

    async def drain(self, drain_s: float) -> None:
        """Take nothing more; wait for what is under way, cut off what is late, mark what is done.

        The membership goes on for a little, so that a short call costs nobody a rebalance. What is
        under way by then is noted, and goes on under its lease while others have the partitions.
        """
        self._stopping = True
        self._lanes.discard(lambda _: True)
        self._noting.stop()
        self._answering.stop()
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._claiming.stop()
        if drain_s > 0:
            await self._part(self._claiming.claims)
        while self._tasks and (left_s := began_s + drain_s - loop.time()) > 0 and not self._failure:
            await self.wait(min(left_s, POLL_MS / 1000))
            await self._note()
            if not self._claiming.left:
                await self._follow(records_max=1, wait_ms=0)
                if self._noting.topic and loop.time() - began_s > HOLD_S:
                    await self._claiming.leave()
            self.stepped_s = time.monotonic()
        await self._cut()
        await self._claiming.mark(now=True)
        if self._failure is not None:
            raise self._failure

    async def wait(self, timeout_s: float) -> None:
        """Wait until a call that is under way ends, or the time is over."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *, leave: bool = False) -> None:
        """End the membership."""
        await self._claiming.close(leave=leave)

    async def _follow(self, *, records_max: int, wait_ms: int) -> Poll:
        """Poll, and drop what waits of the claims that were lost."""
        poll = await self._claiming.poll(records_max=records_max, wait_ms=wait_ms)
        if poll.lost:
            self._lanes.discard(functools.partial(_of, poll.lost))
        return poll

    def _take(self, claim: Claim, record: Record) -> None:
        if not self._claiming.take(claim, record):
            return
        item = self._under_way.get((record.partition, record.offset))
        if item is not None and item.record == record:
            item.claim = claim
            return
        try:
            item = self._open(claim, record)
        except PoisonError as error:
            self._spawn(self._refuse(claim, record, error))
            return
        ask = item.ask
        self._lanes.put(
            Queued(item=item, tenant=item.meta.tenant, name=ask.name, order_key=ask.order_key)
        )

    def _open(self, claim: Claim, record: Record) -> Item:
        meta, ask = self._envelope.open(record)
        if not isinstance(ask, Ask):
            raise PoisonError("unexpected", f"{type(ask).__name__} is no request")
        return Item(claim, record, meta, ask)

    async def _note(self) -> None:
        """Write what calls are about to begin, renew leases, and see what others have written."""
        self._claiming.look()
        self._noting.look()
        await asyncio.sleep(0)  # calls that were just started say what they are about to do
        await self._intend(self._noting.wanted())
        for item, intent in self._noting.renewals().items():
            self._spawn(self._lease(item, intent))

    async def _intend(self, wanted: Sequence[Wanted]) -> None:
        """Note calls before they begin: all that are waiting share a transaction."""
        if not wanted:
            return
        self._noted_s = time.monotonic()
        drafts: dict[Claim, list[Draft]] = {}
        for one in wanted:
            draft = self._noting.draft(one.item, one.intent)
            drafts.setdefault(one.item.claim, []).append(draft)
        self._noting.written(wanted, await self._claiming.intend(drafts))

    async def _part(self, claims: Collection[Claim]) -> None:
        """Note what is under way of claims that go to others, so that they wait for it.

        That is a fact and no beginning, so it needs no transaction.
        """
        new = self._noting.hand_over(claims, self._under_way.values())
        if new:
            logger.info("%s hands %d calls under way over", self._name, len(new))
        await asyncio.gather(*(self._lease(item, intent) for item, intent in new.items()))

    async def _lease(self, item: Item, intent: Intent) -> None:
        """Begin or renew a lease, which counts once it is in the log."""
        if await self._renew(self._noting.draft(item, intent)):
            self._noting.noted(item, intent)

    async def _renew(self, draft: Draft) -> bool:
        """Renew or end a lease; a later try is soon enough, and nobody is kept waiting."""
        try:
            await self._log.append(draft)
        except TransientError as error:
            now_ms = self._clock()
            if now_ms >= self._tell_ms:  # each call under way tries every few seconds
                self._tell_ms = now_ms + TELL_MS
                logger.warning("leases of %s are not renewed: %s", self._name, error)
            return False
        return True

    def _start(self) -> None:
        while not self._stopping and (queued := self._lanes.next()) is not None:
            item = queued.item
            self._under_way[item.record.partition, item.record.offset] = item
            self._spawn(self._perform(queued))

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            error = task.exception()
        else:
            error = (
                None if self._stopping else RuntimeError("a task was cancelled by nobody of ours")
            )
        if error is not None:
            logger.critical("a task of %s died: %r", self._name, error)
            self._failure = self._failure or error
            self._stopping = True
        self._start()

    async def _perform(self, queued: Queued[Item]) -> None:
        item = queued.item
        began_ns = wall_ns()
        try:
            reply = await self._ours(item)
            ended_ns = wall_ns()
            reply = await self._send(item, reply)
            await self._noting.sent(item, reply)
            self._claiming.done(item.claim, item.record)
            self._tell(item, reply, began_ns, ended_ns)
        except AbandonedError:
            logger.info("%s of %s is another process's now", item.ask.name, item.call_id)
        finally:
            item.ended = True
            place = item.record.partition, item.record.offset
            if self._under_way.get(place) is item:
                del self._under_way[place]
            self._lanes.done(queued)

    async def _ours(self, item: Item) -> Reply:
        """Answer a call; also one that was let go of as its claim came back, with its request.

        Raises:
            AbandonedError: It is another process's.
        """
        while True:
            claim = item.claim
            try:
                return await self._reply(item)
            except AbandonedError:
                if item.claim == claim or self._stopping:
                    raise
                item.begun = False

    async def _reply(self, item: Item) -> Reply:
        try:
            return await self._noting.reply(item)
        except PoisonError as error:
            await self._keep(item.record, error)
            return self._answering.refusal(item, error)

    async def _send(self, item: Item, reply: Reply) -> Reply:
        """Append a reply, and return it; a request that cannot be answered, or not so, is kept for people."""
        try:
            draft = self._answering.seal(item, reply)
        except PoisonError as error:
            await self._keep(item.record, error)
            reply = self._answering.refusal(item, error)
            draft = self._answering.seal(item, reply)
        try:
            await self._append(draft)
        except PoisonError as error:
            logger.exception("the reply to %s cannot be written", item.call_id)
            await self._keep(item.record, error)
            return self._answering.refusal(item, error)
        except SettingsError as error:
            if self._addressed(draft):
                raise
            await self._keep(item.record, PoisonError("unanswerable", str(error)))
        return reply

    def _addressed(self, draft: Draft) -> bool:
        """Say whether there is such a place; a stranger's request may name any."""
        return self._log.has(Partition(draft.topic, draft.partition or 0))

    async def _refuse(self, claim: Claim, record: Record, error: PoisonError) -> None:
        """Keep what cannot be read before it counts as done; answer it if it says whom."""
        await self._keep(record, error)
        ask = self._readable(record)
        if ask is not None:
            meta = Meta(id=f"{record.partition}@{record.offset}", tenant=_tenant(record))
            item = Item(claim, record, meta, ask)
            await self._send(item, self._answering.refusal(item, error))
        self._claiming.done(claim, record)

    def _readable(self, record: Record) -> Ask | None:
        """Return the request in a record whose headers are what is wrong."""
        try:
            message = self._envelope.codec.decode(record.value or b"")
        except PoisonError:
            return None
        return message if isinstance(message, Ask) else None

    async def _keep(self, record: Record, error: PoisonError) -> None:
        place = record.partition
        logger.warning("%s refused %s@%d: %s", self._name, place, record.offset, error)
        await self._append(self._quarantine(record, error))

    def _tell(self, item: Item, reply: Reply, began_ns: int, ended_ns: int) -> None:
        if self._observer is None or not context.sampled(item.meta.traceparent):
            return
        self._observer.call(
            item.meta,
            call_id=item.call_id,
            attempt=reply.attempt,
            kind=self._answering.kind,
            name=item.ask.name,
            started_ns=began_ns,
            ended_ns=ended_ns,
            usage=reply.usage,
            error=reply.outcome.error if isinstance(reply.outcome, Failed) else "",
        )

    async def _append(self, draft: Draft) -> None:
        await self._retrying.forever(f"a reply of {self._name}", lambda: self._log.append(draft))

    async def _cut(self) -> None:
        """Cut off what is still under way; it is not answered, so its next owner begins it again."""
        self._stopping = True
        if self._tasks:
            logger.warning("%d calls of %s were cut off", len(self._tasks), self._name)
        releases = self._noting.releases()
        for task in [*self._tasks]:
            task.cancel()
        if self._tasks:
            _, deaf = await asyncio.wait(self._tasks, timeout=CUT_S)
            if deaf:
                logger.error("%d calls of %s do not let themselves be cut", len(deaf), self._name)
        await asyncio.gather(*(self._renew(draft) for draft in releases))


def _of(claims: frozenset[Claim], item: Item) -> bool:
    return item.claim in claims


def _tenant(record: Record) -> str:
    return (record.header("ce_tenantid") or b"").decode("utf-8", "replace")
