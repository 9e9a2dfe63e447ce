"""Noting: what an effector writes down before and after a call, by how careful the call is.

A read notes nothing. What is paid for, and every write, notes its answer before it is sent. A write
in an order, and whatever is irreversible, also notes beforehand that it is about to begin, under a
lease, in a transaction that only the owner of the partition can commit.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import uuid
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable

from headwater.contracts.messages import Failed, InDoubt, Intent, Reply, Result
from headwater.contracts.records import Draft, Partition
from headwater.core.decider import Sent
from headwater.core.effector import Safety
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, digest
from headwater.log.port import Claim
from headwater.runtime.answering import Answering, Item
from headwater.runtime.receipts import Known
from headwater.runtime.retrying import AbandonedError

logger = logging.getLogger(__name__)

UNBEGUN_MAX = 10_000
"""How many intents whose call never began are remembered."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """How long a call that was noted may go on unseen.

    Args:
        lease_ms: A call whose process says nothing for so long may be taken up by another.
        skew_ms: How far the clocks of two processes may differ.
        still_ms: A process that has not polled for so long stood still, and may have lost its
            partitions without knowing; 0 never suspects that.
        settle_ms: How long such a process begins nothing but reads, until it has heard of it.
        blind_ms: How long before a call that another process began is made again its answer may have
            been noted unseen; whoever has not read the log for longer reads it to its end once more.
    """

    lease_ms: int = 10_000
    skew_ms: int = 1_000
    still_ms: int = 0
    settle_ms: int = 0
    blind_ms: int = 1_000


@dataclasses.dataclass(slots=True, eq=False)
class Wanted:
    """An intent that waits for the next transaction."""

    item: Item
    intent: Intent
    written: asyncio.Future[bool]


class Noting:
    """Answers one call after another, each noted as its safety asks.

    Args:
        answering: Makes replies.
        append: Writes one record, however long that takes.
        envelope: Seals receipts.
        topic: Topic of receipts; empty for none, then nothing is noted.
        holder: Name of this process.
        clock: Wall clock in milliseconds.
        lease: For how long.
    """

    def __init__(
        self,
        *,
        answering: Answering,
        append: Callable[[Draft], Awaitable[None]],
        envelope: Envelope,
        topic: str,
        holder: str,
        clock: Callable[[], int],
        lease: Lease,
    ) -> None:
        self.known: dict[Claim, Known] = {}
        """What the log says of the claims that are being worked on."""
        self.waiting: dict[Item, int] = {}
        """Calls that wait for the lease of another process, and until when at the latest."""
        self._answering = answering
        self._append = append
        self._envelope = envelope
        self.topic = topic
        self._holder = holder
        self._clock = clock
        self._lease = lease
        self._wanted: list[Wanted] = []
        self._held: dict[Item, Intent] = {}
        self._unbegun: deque[str] = deque(maxlen=UNBEGUN_MAX)
        self._pulse: asyncio.Future[None] | None = None
        self._alones: dict[str, tuple[asyncio.Lock, int]] = {}
        self._parting: frozenset[Partition] = frozenset()
        self._looked_ms = clock()
        self._settled_ms = 0
        self._stopping = False

    async def reply(self, item: Item) -> Reply:
        """Return a call's answer: the recorded one, or a new one that is recorded as it has to be.

        Raises:
            PoisonError: The request cannot be understood.
            AbandonedError: The call is another process's by now.
        """
        if not self.topic:
            return await self._answering.reply(item, wanted=lambda: self._mine(item))
        if item.safety is not Safety.IRREVERSIBLE:
            return await self._noted(item)
        async with self._alone(item.call_id):
            return await self._noted(item)

    async def _noted(self, item: Item, tried: Intent | None = None) -> Reply:
        recorded = await self._others(item)
        if recorded is not None:
            return recorded
        before = self._intent(item) or tried
        settled = await (self._once_more(item) if before is None else self._settle(item, before))
        if settled is not None:
            return await self._note(item, settled)
        attempt = ""
        if self._expects(item):
            intended = await self._intend(item)
            if isinstance(intended, Reply):
                return intended
            attempt = intended
        elif (late := await self._awake(item)) is not None:
            return late
        item.begun = True
        try:
            reply = self._over(item, before) or await self._answering.reply(
                item,
                wanted=lambda: self._mine(item),
                attempt=attempt,
                again=lambda: self._goes_on(item),
            )
            return await self._note(item, reply)
        except AbandonedError:
            if self._goes_on(item) or not self._mine(item):
                raise
            tried = self._held.get(item) or self._new(item)
        finally:
            self._held.pop(item, None)
        return await self._anew(item, tried)

    async def _anew(self, item: Item, tried: Intent) -> Reply:
        """Begin a call again that another may have begun since, between two tries.

        Its lease ran out, or it had none and this process stood still.
        """
        item.begun = False
        if item.safety is not Safety.IRREVERSIBLE:
            return await self._noted(item, tried)
        self._unbegun.append(tried.attempt)  # or it would not have been tried again
        return await self._noted(item)

    @contextlib.asynccontextmanager
    async def _alone(self, call_id: str) -> AsyncIterator[None]:
        """Let a request wait for another of the same call: of one in doubt there may be two."""
        lock, waiting = self._alones.get(call_id, (asyncio.Lock(), 0))
        self._alones[call_id] = (lock, waiting + 1)
        try:
            async with lock:
                yield
        finally:
            lock, waiting = self._alones.pop(call_id)
            if waiting > 1:
                self._alones[call_id] = (lock, waiting - 1)

    async def _once_more(self, item: Item) -> Reply | None:
        """Look once more before a call is made that a person said did not happen; they may be wrong."""
        if not item.ask.undone:
            return None
        found = await self._answering.settle(
            item, item.ask.undone[-1], self._clock(), wanted=lambda: self._mine(item)
        )
        return None if found is None or isinstance(found.outcome, InDoubt) else found

    def wanted(self) -> list[Wanted]:
        """Take the intents that are to be written now."""
        wanted, self._wanted = self._wanted, []
        return wanted

    def written(self, wanted: Iterable[Wanted], held: frozenset[Claim]) -> None:
        """Say which intents are in the log; the others may be, or not, and their calls never begin."""
        for one in wanted:
            there = one.item.claim in held
            if there and not one.item.ended and not one.written.cancelled():
                self._held[one.item] = one.intent
                one.item.until_ms = one.intent.until_ms
            else:
                self._unbegun.append(one.intent.attempt)
            if not one.written.done():
                one.written.set_result(there)

    def hand_over(self, claims: Collection[Claim], items: Iterable[Item]) -> dict[Item, Intent]:
        """Return the notes of calls under way that have none, for whoever gets their partitions.

        Also of a claim before, whose partition has come back and not yet all that was under way. Until
        this process has polled, no other call begins there unnoted.
        """
        if not self.topic:
            return {}
        places = {claim.partition for claim in claims}
        self._parting |= places
        new = {
            item: self._new(item)
            for item in items
            if item.record.partition in places
            and item.begun
            and not item.ended
            and item not in self._held
        }
        for item in new:
            item.until_ms = 0
        self._held |= new
        return new

    def draft(self, item: Item, intent: Intent) -> Draft:
        """Return an intent's record, in the partition that goes with the request's."""
        return self._seal(item, intent, "intent")

    def noted(self, item: Item, intent: Intent) -> None:
        """Say that a lease is in the log; one that came too late, or after none, prolongs nothing."""
        held, now_ms = self._held.get(item), self._clock()
        if held is None or held.attempt != intent.attempt:
            return
        if intent.until_ms == intent.begun_ms + self._lease.lease_ms:  # the first: was it in time?
            still_ms = self._lease.still_ms
            if still_ms and now_ms - intent.begun_ms > still_ms:
                return  # the partition may have gone before others could read of it
        elif now_ms >= item.until_ms:
            return
        item.until_ms = intent.until_ms

    def renewals(self) -> dict[Item, Intent]:
        """Return the notes that renew leases which have used up a third.

        One that ran out is not renewed: another process may have taken the call up by now.
        """
        now_ms = self._clock()
        new: dict[Item, Intent] = {}
        for item, intent in self._held.items():
            if 0 < intent.until_ms - now_ms < self._lease.lease_ms * 2 // 3:
                new[item] = dataclasses.replace(intent, until_ms=now_ms + self._lease.lease_ms)
        self._held |= new
        return new

    def releases(self) -> list[Draft]:
        """Return the records that end the leases of calls which may be made again at once."""
        now_ms = self._clock()
        return [
            self.draft(item, dataclasses.replace(intent, until_ms=now_ms - self._lease.skew_ms - 1))
            for item, intent in self._held.items()
            if not _careful(item)
        ]

    async def sent(self, item: Item, reply: Reply) -> None:
        """Let go of a call that was handed over while its answer was on its way.

        Its heir waits for it. What was noted already it finds; a read is noted now.
        """
        if self._held.pop(item, None) is not None and item.safety is Safety.READ:
            await self._append(self._result(item, reply))

    async def _awake(self, item: Item) -> Reply | None:
        """Wait, where this process stood still, until it knows what it lost; return an heir's answer.

        So does whoever would begin on a claim that is about to go. A call that is noted before it begins
        needs none of this: its note tells. What stood still makes reads at once.
        """
        place = item.record.partition
        while place in self._parting or (item.safety is not Safety.READ and self._still()):
            await self._looked()
            known = self.known.get(item.claim)
            if known is None or self._stopping:
                raise AbandonedError
            if (reply := known.answer(item)) is not None:
                return reply
        return None

    def _still(self) -> bool:
        """Say whether this process stood still a moment ago."""
        now_ms, lease = self._clock(), self._lease
        if lease.still_ms and now_ms - self._looked_ms > lease.still_ms:
            self._settled_ms, self._looked_ms = now_ms + lease.settle_ms, now_ms
        return now_ms < self._settled_ms

    def look(self) -> None:
        """Have those who wait for a lease, or for this process to settle, look again: it has polled."""
        self._still()
        self._looked_ms = self._clock()
        self._parting = frozenset()
        pulse, self._pulse = self._pulse, None
        if pulse is not None and not pulse.done():
            pulse.set_result(None)

    def stop(self) -> None:
        """Begin nothing more: who waits for a lease leaves the call to the next owner."""
        self._stopping = True
        self.look()

    async def _others(self, item: Item) -> Reply | None:
        """Wait while another process may be making this call; return its answer if there is one."""
        try:
            while True:
                known = self.known.get(item.claim)
                if known is None or self._stopping:
                    raise AbandonedError
                if (reply := known.answer(item)) is not None:
                    return reply
                intent = self._intent(item)
                if intent is None:
                    return None
                over_ms = intent.until_ms + self._lease.skew_ms
                if self._clock() > over_ms:
                    return None
                self.waiting[item] = over_ms + 1
                await self._looked()
        finally:
            self.waiting.pop(item, None)

    def _intent(self, item: Item) -> Intent | None:
        """Return who began a call, unless nothing came of it: here, or as a person said."""
        known = self.known.get(item.claim)
        intent = None if known is None else known.intent(item)
        if intent is None or intent.attempt in self._unbegun or intent.attempt in item.ask.undone:
            return None
        return intent

    async def _settle(self, item: Item, before: Intent) -> Reply | None:
        """Answer for a process that began a call and is gone; `None` if the call is to be made."""
        if item.safety is Safety.IRREVERSIBLE:
            return await self._answering.settle(
                item, before.attempt, before.begun_ms, wanted=lambda: self._mine(item)
            )
        return self._over(item, before)

    def _over(self, item: Item, before: Intent | None) -> Reply | None:
        """Answer a call that was begun before, and may have done something, once its time is over."""
        ask = item.ask
        if before is None or item.safety is Safety.IRREVERSIBLE or self._clock() < ask.not_after_ms:
            return None
        detail = (
            f"{ask.name} was begun by {before.holder or 'another process'}, which "
            f"{'stood still' if before.holder == self._holder else 'is gone'}, and its time is over; "
            "what it wrote is not undone"
        )
        return Reply(
            run=ask.run,
            number=ask.number,
            attempt=before.attempt,
            outcome=Failed(
                error="ToolTimeout" if self._answering.kind == "tool" else "Timeout", detail=detail
            ),
        )

    def _expects(self, item: Item) -> bool:
        """Say whether a call is noted before it begins: never one whose time is over already."""
        return _careful(item) and self._clock() < item.ask.not_after_ms

    async def _intend(self, item: Item) -> str | Reply:
        """Note that a call is about to begin; return its attempt only while the note still holds.

        Of a call that was begun before, return the answer instead if one was noted by then: nothing is
        made again whose answer was there first.

        Raises:
            AbandonedError: The partition is another's, or nobody knows.
        """
        known = self.known.get(item.claim)
        inherited = known is not None and known.intent(item) is not None
        while True:
            intent = self._new(item)
            wanted = Wanted(item, intent, asyncio.get_running_loop().create_future())
            self._wanted.append(wanted)
            if not await wanted.written:
                raise AbandonedError
            if inherited and (recorded := await self._answered(item, intent)) is not None:
                self._held.pop(item, None)
                return recorded
            known = self.known.get(item.claim)
            ours = known is not None and not (inherited and known.lost)
            # By its first lease: that it was renewed since may not be in the log yet.
            if ours and self._clock() < intent.until_ms:
                return intent.attempt
            # This process stood still: another may have begun the call meanwhile.
            self._held.pop(item, None)
            self._unbegun.append(intent.attempt)
            if not ours:
                raise AbandonedError

    async def _answered(self, item: Item, mine: Intent) -> Reply | None:
        """Read on up to our own note, and beyond if we stood still; return the answer that is there.

        Whoever began the call before may answer it at any time. What was noted before our note is
        never missed, and what came after it only within `blind_ms`.
        """
        asked_ms = self._clock()
        while (known := self.known.get(item.claim)) is not None and known.reader is not None:
            # Asked in this order, for another thread reads: an answer that comes in between is seen.
            intent, seen_ms = known.intent(item), known.seen_ms
            if (reply := known.answer(item)) is not None:
                return reply
            fresh_ms = self._clock() - self._lease.blind_ms
            if intent is not None and intent.attempt == mine.attempt and mine.begun_ms >= fresh_ms:
                return None
            if seen_ms > asked_ms and seen_ms >= fresh_ms:
                return None
            known.wanted |= mine.begun_ms < fresh_ms
            await self._looked()
        return None

    async def _looked(self) -> None:
        """Wait until what others have noted was read once more."""
        if self._pulse is None:
            self._pulse = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._pulse)

    async def _note(self, item: Item, reply: Reply) -> Reply:
        """Write the answer down before anybody hears of it; a doubt is no answer."""
        noted = item.safety is not Safety.READ or item in self._held
        if noted and not isinstance(reply.outcome, InDoubt):
            await self._append(self._result(item, reply))
        return reply

    def _result(self, item: Item, reply: Reply) -> Draft:
        return self._seal(item, Result(offset=item.record.offset, reply=reply), "result")

    def _new(self, item: Item) -> Intent:
        now_ms = self._clock()
        return Intent(
            run=item.ask.run,
            number=item.ask.number,
            offset=item.record.offset,
            attempt=uuid.uuid4().hex,
            holder=self._holder,
            begun_ms=now_ms,
            until_ms=now_ms + self._lease.lease_ms,
        )

    def _mine(self, item: Item) -> bool:
        return item.claim in self.known

    def _goes_on(self, item: Item) -> bool:
        """Say whether a call may be tried again: under its lease, whosever the partition is by now.

        By what others can read of it: they go on from that. Unnoted where this process has not stood still.
        """
        if item in self._held:
            return self._clock() < item.until_ms
        return self._mine(item) and (item.safety is Safety.READ or not self._still())

    def _seal(self, item: Item, receipt: Intent | Result, kind: str) -> Draft:
        # By the request: a run of the same id has calls of the same names, and compaction keeps one.
        meta = item.meta
        own = digest(meta.id, kind).hex()
        return self._envelope.seal(
            Sent(
                message=receipt,
                to=Address(self.topic, f"{meta.id}/{kind}", item.record.partition.number),
                meta=dataclasses.replace(meta, id=own, causation_id=meta.id),
            )
        )


def _careful(item: Item) -> bool:
    """Say whether a call is noted before it begins, by its safety and order."""
    ordered = item.safety is Safety.WRITE and bool(item.ask.order_key)
    return ordered or item.safety is Safety.IRREVERSIBLE
