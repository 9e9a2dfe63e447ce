"""Claiming: one effector's membership, the partitions it has, and how far each of them is.

A gained claim is restored off the consumer's thread, while the others go on: where its group goes on,
what beyond that is done, and what was noted of its calls. It is resumed after that.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import logging
import time
from collections.abc import Callable, Collection, Coroutine, Iterable
from typing import Any, ParamSpec, TypeVar

from headwater.contracts.records import Draft, Record
from headwater.log.port import Claim, Poll, Work, Worker
from headwater.runtime.lanes import Bounds
from headwater.runtime.receipts import Known, Receipts
from headwater.runtime.retrying import Retrying
from headwater.runtime.watermark import Watermark

logger = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

TAIL_MS = 100
"""How long one read of others' receipts waits."""
PART_S = 2.0
"""How long partitions that are about to go may wait for notes of calls under way."""
LATE_S = 1.0
"""An event loop that stands still for longer is warned of."""
_LOOKUPS = 4


class Claiming:
    """Keeps the claims of one effector.

    Args:
        worker: The membership.
        name: The effector's name.
        group: Its group.
        receipts: Reads what a claim begins with.
        known: Filled with what the log says of each claim that is being worked on.
        bounds: How much is under way at once.
        retrying: Waits for a log that is away.
        clock: Wall clock in milliseconds.
        threaded: Whether the consumer has a thread of its own.
        spawn: Has something go on beside the loop.
        parting: Told of claims that are about to go to others, where the consumer has a thread.
    """

    def __init__(
        self,
        *,
        worker: Worker,
        name: str,
        group: str,
        receipts: Receipts,
        known: dict[Claim, Known],
        bounds: Bounds,
        retrying: Retrying,
        clock: Callable[[], int],
        threaded: bool,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        parting: Callable[[Collection[Claim]], Coroutine[Any, Any, None]],
    ) -> None:
        self.left = False
        """Whether the partitions were given up."""
        self._worker = worker
        self._name = name
        self._group = group
        self._receipts = receipts
        self._known = known
        self._bounds = bounds
        self._retrying = retrying
        self._clock = clock
        self._spawn = spawn
        self._parting = parting
        self._loop: asyncio.AbstractEventLoop | None = None
        self._marks: dict[Claim, Watermark] = {}
        self._begun: list[tuple[Claim, Known]] = []
        self._read: set[Known] = set()
        self._marked_ms = 0
        self._stopping = False
        self._thread = (
            concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix=name) if threaded else None
        )
        if threaded:
            worker.parting(self._part)
        self._lookups = concurrent.futures.ThreadPoolExecutor(_LOOKUPS, f"{name}-offsets")
        self._tails = concurrent.futures.ThreadPoolExecutor(_LOOKUPS, f"{name}-receipts")

    @property
    def claims(self) -> frozenset[Claim]:
        """Claims that are ours."""
        return frozenset(self._marks)

    @property
    def idle(self) -> bool:
        """Whether nothing that was taken is open."""
        return all(mark.idle for mark in self._marks.values())

    async def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Poll, drop the claims that were lost, restore those that were gained, begin those restored."""
        self._loop = asyncio.get_running_loop()
        poll = await self._member(self._worker.poll, records_max=records_max, wait_ms=wait_ms)
        self._forget(poll.lost)
        for claim in poll.gained:
            self._marks[claim] = Watermark(claim)
            if self._thread is None:
                await self._begin(claim)
            else:
                self._spawn(self._begin(claim))
        begun, self._begun = self._begun, []
        for claim, known in begun:
            if not self._stopping and (mark := self._marks.get(claim)) is not None:
                mark.begin(known.next_offset, known.done)
                self._known[claim] = known
                await self._member(self._worker.resume, {claim: known.next_offset})
            else:
                known.lost = True
            if self._thread is not None:
                self._read.add(known)
                self._spawn(self._tail(known))
        return poll

    def take(self, claim: Claim, record: Record) -> bool:
        """Count a delivered record as under way; false if it was done before."""
        known = self._known[claim]
        known.take(record, self._clock())
        open_ = self._marks[claim].take(record)
        if not open_:
            known.end(record.offset)
        return open_

    def done(self, claim: Claim, record: Record) -> None:
        """Count a record as done, if its claim is still ours."""
        if (mark := self._marks.get(claim)) is not None:
            mark.done(record.offset)
        if (known := self._known.get(claim)) is not None:
            known.end(record.offset)

    async def press(self) -> None:
        """Pause partitions with too much in hand, and let those go on that have room again."""
        over = [m for m in self._marks.values() if not m.paused and m.over(self._bounds)]
        under = [m for m in self._marks.values() if m.paused and m.under(self._bounds)]
        for mark in over:
            mark.paused = True
            await self._member(self._worker.pause, [mark.claim])
        for mark in under:
            mark.paused = False
            await self._member(self._worker.resume, {mark.claim: None})

    async def mark(self, *, now: bool) -> None:
        """Commit how far each claim is, in the background, and not too often."""
        if not now and self._clock() - self._marked_ms < self._bounds.mark_ms_min:
            return
        self._marked_ms = self._clock()
        for claim, mark in [*self._marks.items()]:
            if mark.marking() and not self.left:
                await self._member(self._worker.mark, claim, mark.value, mark.done_set)

    async def intend(self, drafts: dict[Claim, list[Draft]]) -> frozenset[Claim]:
        """Write intents with how far their claims are; return the claims whose intents are written."""
        work = [
            Work(claim=claim, next_offset=m.value, metadata=m.done_set, drafts=drafts[claim])
            for claim, m in self._marks.items()
            if claim in drafts and claim in self._known
        ]
        if self.left or not work:
            return frozenset()
        return await self._member(self._worker.intend, work)

    def look(self) -> None:
        """Take in what others have noted, where no thread does."""
        if self._thread is None:
            for known in self._known.values():
                self._receipts.follow(known, wait_ms=0)

    async def stop(self) -> None:
        """Take nothing more; the membership goes on."""
        self._stopping = True
        await self._member(self._worker.pause, [*self._marks])

    async def leave(self) -> None:
        """Give the partitions up at once."""
        await self.mark(now=True)
        await self._member(self._worker.close, leave=True)
        self.left = True
        self._forget([*self._marks])

    async def close(self, *, leave: bool) -> None:
        """End the membership."""
        if not self.left:
            await self._member(self._worker.close, leave=leave)
        self._forget([*self._marks])
        for known in self._read:  # a task that was cut off closes nothing
            known.lost = True
            await asyncio.to_thread(self._receipts.follow, known, wait_ms=0)
        self._lookups.shutdown(wait=False)
        self._tails.shutdown(wait=False)
        if self._thread is not None:
            self._thread.shutdown(wait=False)

    def _part(self, claims: Collection[Claim]) -> None:
        """Have the event loop say what is under way, on the consumer's thread, which waits for it.

        What was answered since the last mark is marked: reads leave no receipts.
        """
        if self._loop is None:
            return
        said = asyncio.run_coroutine_threadsafe(self._parted(claims), self._loop)
        try:
            for claim, (value, done_set) in said.result(PART_S).items():
                self._worker.mark(claim, value, done_set)
        except TimeoutError:
            said.cancel()
            logger.warning(
                "%s gave partitions up before it had noted all calls under way: they may be made again",
                self._name,
            )

    async def _parted(self, claims: Collection[Claim]) -> dict[Claim, tuple[int, str]]:
        """Note what is under way of claims that go to others; return how far those are."""
        await self._parting(claims)
        marks = [mark for claim in claims if (mark := self._marks.get(claim)) is not None]
        return {mark.claim: (mark.value, mark.done_set) for mark in marks if mark.marking()}

    def _forget(self, claims: Iterable[Claim]) -> None:
        for claim in claims:
            self._marks.pop(claim, None)
            known = self._known.pop(claim, None)
            if known is not None:
                known.lost = True
                if self._thread is None:
                    self._receipts.follow(known, wait_ms=0)

    async def _begin(self, claim: Claim) -> None:
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
        follow = functools.partial(self._receipts.follow, known, wait_ms=TAIL_MS)
        while await loop.run_in_executor(self._tails, follow):
            known.lost |= self._stopping
        self._read.discard(known)

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
