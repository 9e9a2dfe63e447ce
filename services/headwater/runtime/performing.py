"""Performing: the loop of one effector; calls are slow, parallel and at least once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, ParamSpec, Protocol, TypeVar

from headwater.contracts.messages import Ask, Failed, Reply, Usage
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.effector import Effector
from headwater.core.envelope import Envelope
from headwater.core.messages import Meta
from headwater.durable.confine import wall_ns
from headwater.errors import PoisonError, TransientError
from headwater.log.port import Claim, Log, Poll, Work, Worker
from headwater.runtime.answering import Answering, Item
from headwater.runtime.lanes import Bounds, Lanes, Queued
from headwater.runtime.noting import Lease, Noting, Wanted
from headwater.runtime.receipts import Known, Receipts
from headwater.runtime.retrying import AbandonedError, Retry, Retrying, Sleep
from headwater.runtime.watermark import Watermark
from headwater.tracing import context

__all__ = ["CallObserver", "Lease", "Performing", "Retry"]

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

POLL_MS = 100
"""How long a poll waits, and so how late a mark, a pause or a stop can be."""

CUT_S = 5.0
"""How long a call that is cut off may take to notice."""
HURRY_MS = 5
"""How long a poll waits while calls are being noted, since a call begins after the next transaction."""
HOLD_S = 5.0
"""How long a member that stops keeps its partitions; longer calls go on under their leases."""
LATE_S = 1.0
"""An event loop that stands still for longer is warned of."""
_LOOKUPS = 4


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
    ) -> None:
        self._observer = observer
        self._log = log
        self._worker = worker
        self._group = group
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
        self._receipts = Receipts(
            log, group=group, topic=receipts, codec=envelope.codec, clock=clock
        )
        self._lanes: Lanes[Item] = Lanes(self._bounds)
        self._claims: dict[Claim, Watermark] = {}
        self._begun: list[tuple[Claim, Known]] = []
        self._read: set[Known] = set()
        self._under_way: dict[tuple[Partition, int], Item] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._marked_ms = 0
        self._stopping = False
        self._left = False
        self._noted_s = 0.0
        self._thread = (
            concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=self._name)
            if threaded
            else None
        )
        self._lookups = concurrent.futures.ThreadPoolExecutor(_LOOKUPS, f"{self._name}-offsets")
        self._tails = concurrent.futures.ThreadPoolExecutor(_LOOKUPS, f"{self._name}-receipts")
        self._failure: BaseException | None = None
        self.stepped_s = time.monotonic()
        """When the last step ended, for health."""

    @property
    def claims(self) -> frozenset[Claim]:
        """Claims that are being worked on."""
        return frozenset(self._claims)

    @property
    def busy(self) -> int:
        """How many requests wait or are under way; not those that wait for another process."""
        return len(self._lanes) + self._lanes.running - len(self._noting.waiting)

    def next_ms(self) -> int | None:
        """Return when the next lease of another process ends that a call waits for; `None` for none."""
        return min(self._noting.waiting.values(), default=None)

    async def step(self, wait_ms: int = 0) -> int:
        """Do one round; return how many requests came.

        Raises:
            Exception: What a task of ours died of; never an error of the effector's, which is an answer.
        """
        poll = await self._member(
            self._worker.poll, records_max=self._bounds.poll_max, wait_ms=wait_ms
        )
        await self._follow(poll)
        for claim, record in poll.records:
            if claim in self._claims:
                self._take(claim, record)
        await self._press()
        self._start()
        await self._note()
        idle = not poll.records and all(mark.idle for mark in self._claims.values())
        await self._mark(now=idle)
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
                hurried = time.monotonic() - self._noted_s < LATE_S
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
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        await self._member(self._worker.pause, [*self._claims])
        if drain_s > 0:
            await self._intend(self._noting.hand_over(self._under_way.values()))
        while self._tasks and (left_s := began_s + drain_s - loop.time()) > 0 and not self._failure:
            await self.wait(min(left_s, POLL_MS / 1000))
            await self._note()
            if not self._left:
                poll = await self._member(self._worker.poll, records_max=1, wait_ms=0)
                await self._follow(poll)
                if self._receipts.topic and loop.time() - began_s > HOLD_S:
                    await self._leave()
            self.stepped_s = time.monotonic()
        await self._cut()
        await self._mark(now=True)
        if self._failure is not None:
            raise self._failure

    async def _leave(self) -> None:
        """Give the partitions up, while calls that were noted go on."""
        await self._mark(now=True)
        await self._member(self._worker.close, leave=True)
        self._left = True
        self._forget([*self._claims])

    async def wait(self, timeout_s: float) -> None:
        """Wait until a call that is under way ends, or the time is over."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *, leave: bool = False) -> None:
        """End the membership."""
        if not self._left:
            await self._member(self._worker.close, leave=leave)
        self._forget([*self._claims])
        for known in self._read:  # a task that was cut off closes nothing
            known.lost = True
            await asyncio.to_thread(self._receipts.follow, known, wait_ms=0)
        self._lookups.shutdown(wait=False)
        self._tails.shutdown(wait=False)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _follow(self, poll: Poll) -> None:
        """Drop the claims that were lost, and find out where those gained begin."""
        if poll.lost:
            self._forget(poll.lost)
            self._lanes.discard(functools.partial(_of, poll.lost))
        for claim in poll.gained:
            self._claims[claim] = Watermark(claim)
            if self._thread is None:
                await self._begin(claim)
            else:
                self._spawn(self._begin(claim))
        begun, self._begun = self._begun, []
        for claim, known in begun:
            if not self._stopping and (mark := self._claims.get(claim)) is not None:
                mark.begin(known.next_offset, known.done)
                self._noting.known[claim] = known
                await self._member(self._worker.resume, {claim: known.next_offset})
            else:
                known.lost = True
            if self._thread is not None:
                self._read.add(known)
                self._spawn(self._tail(known))

    def _forget(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._claims.pop(claim, None)
            known = self._noting.known.pop(claim, None)
            if known is not None:
                known.lost = True
                if self._thread is None:
                    self._receipts.follow(known, wait_ms=0)

    async def _begin(self, claim: Claim) -> None:
        """Look up where a claim goes on, and what was noted of its calls, while the others go on."""

        async def restored() -> Known:
            if self._thread is None:
                return self._receipts.restore(claim.partition)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(
                self._lookups, self._receipts.restore, claim.partition
            )

        what = f"the offset of {self._group} in {claim.partition}"
        known = await self._retrying.forever(what, restored)
        self._begun.append((claim, known))

    async def _tail(self, known: Known) -> None:
        """Go on reading what a former owner may still note."""
        loop = asyncio.get_running_loop()
        follow = functools.partial(self._receipts.follow, known, wait_ms=POLL_MS)
        while await loop.run_in_executor(self._tails, follow):
            known.lost |= self._stopping
        self._read.discard(known)

    def _take(self, claim: Claim, record: Record) -> None:
        known = self._noting.known[claim]
        known.take(record)
        if not self._claims[claim].take(record):
            known.end(record.offset)
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
        if self._thread is None:
            for known in self._noting.known.values():
                self._receipts.follow(known, wait_ms=0)
        self._noting.look()
        await asyncio.sleep(0)  # calls that were just started say what they are about to do
        await self._intend(self._noting.wanted())
        for draft in self._noting.renewals():
            self._spawn(self._renew(draft))

    async def _intend(self, wanted: Sequence[Wanted]) -> None:
        """Note calls before they begin: all that are waiting share a transaction."""
        if not wanted:
            return
        self._noted_s = time.monotonic()
        work = [
            Work(
                claim=claim,
                next_offset=mark.value,
                metadata=mark.done_set,
                drafts=[
                    self._noting.draft(w.item, w.intent) for w in wanted if w.item.claim == claim
                ],
            )
            for claim, mark in self._claims.items()
            if claim in self._noting.known and any(w.item.claim == claim for w in wanted)
        ]
        held: frozenset[Claim] = frozenset()
        if work and not self._left:
            held = await self._member(self._worker.intend, work)
        self._noting.written(wanted, held)

    async def _renew(self, draft: Draft) -> None:
        """Renew or end a lease; a later try is soon enough, and nobody is kept waiting."""
        try:
            await self._log.append(draft)
        except TransientError as error:
            logger.warning("a lease of %s was not renewed: %s", self._name, error)

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
            reply = await self._reply(item)
            ended_ns = wall_ns()
            await self._send(item, reply)
            self._done(item.claim, item.record)
            self._tell(item, reply, began_ns, ended_ns)
        except AbandonedError:
            logger.info("%s of %s is another process's now", item.ask.name, item.call_id)
        finally:
            item.ended = True
            place = item.record.partition, item.record.offset
            if self._under_way.get(place) is item:
                del self._under_way[place]
            self._lanes.done(queued)

    async def _reply(self, item: Item) -> Reply:
        try:
            return await self._noting.reply(item)
        except PoisonError as error:
            await self._keep(item.record, error)
            return self._answering.refusal(item, error)

    async def _send(self, item: Item, reply: Reply) -> None:
        """Append a reply; a request that cannot be answered at all is kept for people."""
        draft = self._answering.seal(item, reply)
        try:
            await self._append(draft)
        except PoisonError as error:
            logger.exception("the reply to %s cannot be written", item.call_id)
            await self._keep(item.record, error)

    async def _refuse(self, claim: Claim, record: Record, error: PoisonError) -> None:
        """Keep what cannot be read before it counts as done; answer it if it says whom."""
        await self._keep(record, error)
        ask = self._readable(record)
        if ask is not None:
            meta = Meta(id=f"{record.partition}@{record.offset}", tenant=_tenant(record))
            item = Item(claim, record, meta, ask)
            await self._send(item, self._answering.refusal(item, error))
        self._done(claim, record)

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

    def _done(self, claim: Claim, record: Record) -> None:
        mark = self._claims.get(claim)
        if mark is not None:
            mark.done(record.offset)
        known = self._noting.known.get(claim)
        if known is not None:
            known.end(record.offset)

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

    async def _press(self) -> None:
        """Pause partitions with too much in hand, and let those go on that have room again."""
        over = [m for m in self._claims.values() if not m.paused and m.over(self._bounds)]
        under = [m for m in self._claims.values() if m.paused and m.under(self._bounds)]
        await self._turn(over, paused=True)
        await self._turn(under, paused=False)

    async def _turn(self, marks: Iterable[Watermark], *, paused: bool) -> None:
        for mark in marks:
            mark.paused = paused
            if paused:
                await self._member(self._worker.pause, [mark.claim])
            else:
                await self._member(self._worker.resume, {mark.claim: None})

    async def _mark(self, *, now: bool) -> None:
        if not now and self._clock() - self._marked_ms < self._bounds.mark_ms_min:
            return
        self._marked_ms = self._clock()
        for claim, mark in [*self._claims.items()]:
            if mark.marking() and not self._left:
                await self._member(self._worker.mark, claim, mark.value, mark.done_set)

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

    async def _member(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the membership, always on its one thread."""
        if self._thread is None:
            return function(*args, **kwargs)

        def timed() -> tuple[T, float]:
            return function(*args, **kwargs), time.monotonic()

        loop = asyncio.get_running_loop()
        result, ended_s = await loop.run_in_executor(self._thread, timed)
        if (late_s := time.monotonic() - ended_s) > LATE_S:
            logger.warning(
                "the event loop of %s stood still for %.1f s, and its members with it: some async "
                "function of the app blocks; a plain `def` runs in a thread instead",
                self._name,
                late_s,
            )
        return result


def _of(claims: frozenset[Claim], item: Item) -> bool:
    return item.claim in claims


def _tenant(record: Record) -> str:
    return (record.header("ce_tenantid") or b"").decode("utf-8", "replace")
