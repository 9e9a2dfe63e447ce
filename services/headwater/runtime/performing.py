"""Performing: the loop of one effector; calls are slow, parallel and at least once."""

from __future__ import annotations

import asyncio
import concurrent.futures
import dataclasses
import functools
import logging
import time
import uuid
from collections.abc import Callable
from typing import Any, ParamSpec, Protocol, TypeVar

import stamina

from headwater.contracts.messages import (
    Answered,
    Ask,
    Failed,
    InDoubt,
    Outcome,
    Reply,
    Token,
    Usage,
)
from headwater.contracts.records import Draft, Record
from headwater.core.decider import Sent
from headwater.core.effector import Attempt, Call, Done, Effector, Safety
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, digest
from headwater.durable.failure import describe, redact
from headwater.errors import PoisonError, TransientError
from headwater.log.port import Claim, Log, Worker
from headwater.runtime.lanes import Bounds, Lanes, Queued
from headwater.tracing import context

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

VALUE_BYTES_MAX = 512 * 1024
_IDLE_MS = 100


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How a call is tried again in place, only its own order key waiting.

    Args:
        total_s: Longest time spent on one call's tries; then the error is the answer.
        wait_s_min: First wait.
        wait_s_max: Longest wait.
        jitter_s: Random time added to each.
    """

    total_s: float = 300.0
    wait_s_min: float = 0.2
    wait_s_max: float = 20.0
    jitter_s: float = 0.5


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


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One request in hand."""

    claim: Claim
    record: Record
    meta: Meta
    ask: Ask

    @property
    def call_id(self) -> str:
        """The idempotency key."""
        return f"{self.ask.run}/{self.ask.number}"


class _Progress:
    """How far one claim is: everything below the watermark is answered."""

    __slots__ = ("marked", "next_offset", "open", "paused")

    def __init__(self, next_offset: int) -> None:
        self.next_offset = next_offset
        self.marked = next_offset
        self.open: set[int] = set()
        self.paused = False

    @property
    def watermark(self) -> int:
        """Offsets that were never delivered count as done."""
        return min(self.open, default=self.next_offset)


class Performing:
    """Polls, starts what may start, replies, marks.

    A request of a lost claim that has not started is dropped: the new owner has it. One that is
    under way goes on and its reply is still appended, because the run takes each number once.

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
    ) -> None:
        self._observer = observer
        self._log = log
        self._worker = worker
        self._group = group
        self._effector = effector
        self._envelope = envelope
        self._quarantine = quarantine
        self._tokens = tokens
        self._clock = clock
        self._bounds = bounds or Bounds()
        self._retry = retry or Retry()
        self._lanes: Lanes[Item] = Lanes(self._bounds)
        self._claims: dict[Claim, _Progress] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = (
            concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=effector.name)
            if threaded
            else None
        )
        self._failure: BaseException | None = None
        self.stepped_s = time.monotonic()
        """When the last step ended, for health."""

    @property
    def claims(self) -> frozenset[Claim]:
        """Claims that are being worked on."""
        return frozenset(self._claims)

    @property
    def busy(self) -> int:
        """How many requests wait or are under way."""
        return len(self._lanes) + self._lanes.running

    async def step(self, wait_ms: int = 0) -> int:
        """Do one round; return how many requests came.

        Raises:
            Exception: What a task of ours died of; never an error of the effector's, which is an answer.
        """
        poll = await self._member(
            self._worker.poll, records_max=self._bounds.queued_max, wait_ms=wait_ms
        )
        for claim in poll.lost:
            self._claims.pop(claim, None)
            self._lanes.discard(functools.partial(_of, claim))
        for claim in poll.gained:
            next_offset, _ = await self._blocking(self._log.committed, self._group, claim.partition)
            self._claims[claim] = _Progress(next_offset)
            await self._member(self._worker.resume, {claim: next_offset})
        for claim, record in poll.records:
            if claim in self._claims:
                await self._enqueue(claim, record)
        self._start()
        await self._mark()
        self.stepped_s = time.monotonic()
        if self._failure is not None:
            raise self._failure
        return len(poll.records)

    async def run(self, stop: asyncio.Event, *, drain_s: float = 25.0) -> None:
        """Step until told to stop; then finish what is under way, within `drain_s`, and mark it."""
        try:
            while not stop.is_set():
                await self.step(_IDLE_MS)
            await self.drain(drain_s)
        finally:
            await self.close()

    async def drain(self, drain_s: float) -> None:
        """Take nothing more; wait for what is under way."""
        self._lanes.discard(lambda _: True)
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=drain_s)
            for task in late:
                task.cancel()
            if late:
                logger.warning("%d calls of %s were cut off", len(late), self._effector.name)
                await asyncio.wait(late)
        await self._mark()

    async def wait(self, timeout_s: float) -> None:
        """Wait until a call that is under way ends, or the time is over."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)

    async def close(self, *, leave: bool = False) -> None:
        """End the membership."""
        await self._member(self._worker.close, leave=leave)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    async def _enqueue(self, claim: Claim, record: Record) -> None:
        progress = self._claims[claim]
        progress.next_offset = record.offset + 1
        progress.open.add(record.offset)
        try:
            meta, ask = self._envelope.open(record)
            if not isinstance(ask, Ask):
                raise PoisonError("unexpected", f"{type(ask).__name__} is no request")
        except PoisonError as error:
            self._spawn(self._refuse(claim, record, error))
            return
        item = Item(claim, record, meta, ask)
        self._lanes.put(
            Queued(item=item, tenant=meta.tenant, name=ask.name, order_key=ask.order_key)
        )
        if len(progress.open) > self._bounds.queued_max and not progress.paused:
            progress.paused = True
            await self._member(self._worker.pause, [claim])

    def _start(self) -> None:
        while (queued := self._lanes.next()) is not None:
            self._spawn(self._perform(queued))

    def _spawn(self, coroutine: Any) -> None:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("a task of %s died: %r", self._effector.name, error)
            self._failure = error
        else:
            self._start()

    async def _perform(self, queued: Queued[Item]) -> None:
        item = queued.item
        began_ns = time.time_ns()
        try:
            reply = await self._reply(item)
            ended_ns = time.time_ns()
            await self._append(self._seal(item, reply))
            self._done(item.claim, item.record)
            self._tell(item, reply, began_ns, ended_ns)
        finally:
            self._lanes.done(queued)

    def _tell(self, item: Item, reply: Reply, began_ns: int, ended_ns: int) -> None:
        if self._observer is None or not context.sampled(item.meta.traceparent):
            return
        self._observer.call(
            item.meta,
            call_id=item.call_id,
            attempt=reply.attempt,
            kind=self._effector.name.partition(".")[0],
            name=item.ask.name,
            started_ns=began_ns,
            ended_ns=ended_ns,
            usage=reply.usage,
            error=reply.outcome.error if isinstance(reply.outcome, Failed) else "",
        )

    def _done(self, claim: Claim, record: Record) -> None:
        progress = self._claims.get(claim)
        if progress is not None:
            progress.open.discard(record.offset)

    async def _reply(self, item: Item) -> Reply:
        ask = item.ask
        outcome: Outcome
        usage: Usage | None = None
        attempt_id = uuid.uuid4().hex
        try:
            result = await self._tries(item, attempt_id)
        except PoisonError as error:
            await self._append(self._quarantine(item.record, error))
            result = Failed(error=error.code, detail=str(error))
        if isinstance(result, Done):
            usage = result.usage
            outcome = Answered(value=result.value)
            if len(result.value) > VALUE_BYTES_MAX:
                outcome = Failed(
                    error="TooLarge",
                    detail=f"the answer has {len(result.value)} bytes; at most {VALUE_BYTES_MAX}",
                )
        else:
            outcome = result
        return Reply(
            run=ask.run, number=ask.number, attempt=attempt_id, outcome=outcome, usage=usage
        )

    async def _tries(self, item: Item, attempt_id: str) -> Done | Failed | InDoubt:
        """Try, and try again in place while the world is away."""
        ask, states = item.ask, [None]
        number = 0
        left_s = (ask.not_after_ms - self._clock()) / 1000
        if left_s <= 0:
            return Failed(error="DeadlineExceeded", detail=f"{ask.name} was asked too long ago")
        try:
            async for attempt in stamina.retry_context(
                on=TransientError,
                attempts=None,
                timeout=min(self._retry.total_s, left_s),
                wait_initial=self._retry.wait_s_min,
                wait_max=self._retry.wait_s_max,
                wait_jitter=self._retry.jitter_s,
            ):
                with attempt:
                    number += 1
                    return await self._effector.perform(
                        self._call(item), ask, self._attempt(item, attempt_id, number, states)
                    )
        except TransientError as error:
            return Failed(error=_class(error), detail=redact(str(error)))
        except PoisonError:
            raise
        except Exception as error:  # noqa: BLE001 - whatever users' code raises is the call's answer
            name, words = describe(error)
            logger.info("%s of %s failed: %s: %s", ask.name, item.call_id, name, words)
            return Failed(error=name, detail=words)
        raise AssertionError("the last try returns or raises")

    def _call(self, item: Item) -> Call:
        ask = item.ask
        return Call(
            id=item.call_id,
            safety=Safety(ask.safety),
            order_key=ask.order_key,
            not_after_ms=ask.not_after_ms,
            reply_to=ask.reply_to,
            meta=item.meta,
        )

    def _attempt(self, item: Item, attempt_id: str, number: int, states: list[Any]) -> Attempt:
        pieces = 0

        def heartbeat(state: object) -> None:
            states[0] = state

        async def progress(text: str) -> None:
            nonlocal pieces
            pieces += 1
            token = Token(
                run=item.ask.run,
                number=item.ask.number,
                attempt=f"{number}.{attempt_id}",
                seq=pieces,
                text=text,
            )
            to = Address(self._tokens, item.ask.run)
            await self._log.append(self._envelope.seal(Sent(message=token, to=to, meta=item.meta)))

        return Attempt(
            id=attempt_id,
            number=number,
            heartbeat=heartbeat,
            progress=progress,
            last_state=states[0],
        )

    def _seal(self, item: Item, reply: Reply) -> Draft:
        to, meta = item.ask.reply_to, item.meta
        own = digest(item.call_id, reply.attempt).hex()
        trace = context.below(meta.traceparent, context.call_span_id(item.call_id, reply.attempt))
        return self._envelope.seal(
            Sent(
                message=reply,
                to=Address(to.topic, to.run, to.partition),
                meta=dataclasses.replace(meta, id=own, causation_id=meta.id, traceparent=trace),
                headers=(("ce_runid", to.run.encode()),),
            )
        )

    async def _refuse(self, claim: Claim, record: Record, error: PoisonError) -> None:
        """Keep what nobody can read, before it counts as done."""
        logger.warning(
            "%s refused %s@%d: %s", self._effector.name, record.partition, record.offset, error
        )
        await self._append(self._quarantine(record, error))
        self._done(claim, record)

    async def _append(self, draft: Draft) -> None:
        """Append, however long the log is away; said once."""
        said = False
        async for attempt in stamina.retry_context(
            on=TransientError, attempts=None, timeout=None, wait_max=5.0
        ):
            with attempt:
                try:
                    await self._log.append(draft)
                except TransientError as error:
                    if not said:
                        logger.warning("a reply of %s waits: %s", self._effector.name, error)
                        said = True
                    raise

    async def _mark(self) -> None:
        for claim, progress in [*self._claims.items()]:
            if progress.paused and len(progress.open) < self._bounds.queued_max // 2:
                progress.paused = False
                await self._member(self._worker.resume, {claim: None})
            if progress.watermark > progress.marked:
                progress.marked = progress.watermark
                await self._member(self._worker.mark, claim, progress.marked)

    async def _member(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Call the membership, always on its one thread."""
        if self._thread is None:
            return function(*args, **kwargs)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def _blocking(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        if self._thread is None:
            return function(*args, **kwargs)
        return await asyncio.to_thread(function, *args, **kwargs)


def _class(error: BaseException) -> str:
    return type(error).__name__


def _of(claim: Claim, item: Item) -> bool:
    return item.claim == claim
