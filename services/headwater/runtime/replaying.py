"""Replaying: kept records are gone through once, in order, in transactions, under an operation's id.

What a batch of records leads to, the note of which they were, and how far the operation has looked
are one transaction, and the note is what a second process goes by: it fences the first, reads the
notes, and goes on. So an operation is done once, whoever dies half-way and however often it is begun.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import logging
import threading
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Protocol

from headwater.contracts.messages import Operation
from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.replays import Skipped
from headwater.errors import HeadwaterError, WorkRefusedError
from headwater.log.port import Claim, Log, Owner, Work

logger = logging.getLogger(__name__)

INSTANCE = "operator"
"""One name for whoever carries an operation out: a second process fences the first."""
BATCH = 5_000
_SLICE = 250
"""How many records are read or planned before the thread that writes has its turn: its client takes the
interpreter once for each record that was written, and gets it only when it is let go."""
REASONS_MAX = 100
"""How many records that were skipped are named one by one."""
_JOIN_S = 60.0
_WAIT_MS = 200
_FAR_MS = 253_402_300_799_999
"""The last millisecond of the year 9999: the offset of this time is the end."""

Make = Callable[[Record], Draft | Skipped | None]
"""What a record leads to: a draft, a reason to skip it, or nothing because nobody meant it."""


class Ledger(Protocol):
    """What was done before (`views.ledger.Ledger`)."""

    def catch_up(self) -> None:
        """Read what was committed before this was called."""
        ...

    def of(self, place: Partition, offset: int) -> Operation | None:
        """Return what was done last to the record at a place."""
        ...

    def looked(self, id: str, place: Partition) -> int:  # noqa: A002 - what it is
        """Return how far an operation has looked."""
        ...


class TakenOverError(HeadwaterError):
    """Another process carries this operation out now; ask there, or begin it again."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What an operator wants done to the records of one topic.

    Args:
        operation: What is noted of it: action, id, actor, reason; the rest is filled in.
        topic: Where the kept records are.
        make: What each leads to.
        offsets: First and last offset that can be meant; `None` for all.
        again: Whether records are meant, too, to which something was done before.
        rate: Most records a second; 0 for as many as go.
        sends: Whether drafts are written; if not, the note is all.
    """

    operation: Operation
    topic: str
    make: Make
    offsets: tuple[int, int] | None = None
    again: bool = False
    rate: float = 0.0
    sends: bool = True


@dataclasses.dataclass(slots=True, kw_only=True)
class Progress:
    """How far an operation is, for whoever watches; written by its thread alone.

    Args:
        done: Records that were dealt with.
        skipped: Kind of reason to how many were skipped.
        reasons: (Id of a record, why) of the first that were.
        looked: Records looked at.
        total: Records there were when it began, about: offsets that nobody gets count too.
    """

    done: int = 0
    skipped: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    reasons: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    looked: int = 0
    total: int = 0

    def skip(self, record: Record, reason: Skipped) -> None:
        """Count a record that was skipped."""
        self.skipped[reason.kind] += 1
        if len(self.reasons) < REASONS_MAX:
            self.reasons.append((id_of(record), reason.why))


def id_of(record: Record) -> str:
    """Return how people name a kept record."""
    return f"{record.partition.topic}:{record.partition.number}@{record.offset}"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Plan:
    """What one batch leads to."""

    meant: Sequence[tuple[Record, Draft]]
    skipped: Sequence[tuple[Record, Skipped]]
    looked: int
    next_offset: int


class Replaying:
    """Carries one order out.

    Args:
        log: The log.
        order: What is wanted.
        ledger: What was done before.
        note: Seals the note of a batch.
        group: Name of the operation's own group, with its id.
        clock: Wall clock in milliseconds, for the note.
        progress: Told as it goes on.
    """

    def __init__(
        self,
        log: Log,
        order: Order,
        *,
        ledger: Ledger,
        note: Callable[[Operation], Draft],
        group: str,
        clock: Callable[[], int],
        progress: Progress | None = None,
    ) -> None:
        self._log = log
        self._order = order
        self._ledger = ledger
        self._note = note
        self._group = group
        self._clock = clock
        self.progress = progress or Progress()
        count = log.partitions(order.topic)
        self._places = [Partition(order.topic, number) for number in range(count)]
        self._ends = {place: self._end(place) for place in self._places}
        self.progress.total += sum(
            max(0, end - self._start(place)) for place, end in self._ends.items()
        )

    def preview(self, stop: threading.Event) -> Progress:
        """Count what would be done; write nothing."""
        self._ledger.catch_up()
        for place in self._places:
            for plan in self._plans(place, self._start(place), stop):
                self._count(plan)
                self.progress.done += len(plan.meant)
        return self.progress

    def run(self, stop: threading.Event) -> Progress:
        """Do it, until it is done or told to stop; what was done by then is done.

        Raises:
            TakenOverError: Another process carries the operation out now.
            SettingsError: The log does not take what is written, or may not be read.
        """
        if self.progress.total == 0:
            return self.progress
        owner = self._log.own([self._order.topic], group=self._group, instance=INSTANCE)
        try:
            left = [*self._places]
            while left and not stop.is_set():
                claims = self._join(owner, stop)
                self._ledger.catch_up()
                while left and self._through(owner, claims.get(left[0]), left[0], stop):
                    left.pop(0)
        finally:
            owner.close(leave=True)
        return self.progress

    def _join(self, owner: Owner, stop: threading.Event) -> dict[Partition, Claim]:
        """Return the claims of all partitions: whoever had them before is fenced by then."""
        until = time.monotonic() + _JOIN_S
        claims: dict[Partition, Claim] = {}
        while len(claims) < len(self._places) and not stop.is_set():
            poll = owner.poll(records_max=1, wait_ms=_WAIT_MS)
            claims = {place: of for place, of in claims.items() if of not in poll.lost}
            claims |= {claim.partition: claim for claim in poll.gained}
            if time.monotonic() > until:
                raise TakenOverError(
                    f"{self._group} did not get every partition of {self._order.topic} within "
                    f"{_JOIN_S:g} s: another process carries this operation out, ask there"
                )
        return claims

    def _through(
        self, owner: Owner, claim: Claim | None, place: Partition, stop: threading.Event
    ) -> bool:
        """Go through one partition; `False` if its claim was lost, or we are to stop."""
        if claim is None:
            return False
        start = self._start(place)
        if self._order.again:
            # What was done before counts for nothing here, but for what this operation has done.
            start = max(start, self._ledger.looked(self._order.operation.id, place))
        began, done = time.monotonic(), self.progress.done
        plans = self._plans(place, start, stop)
        # The next batch is read and planned while this one is written: half of either is waiting.
        with concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="replaying") as pool:
            ahead = pool.submit(next, plans, None)
            try:
                while (plan := ahead.result()) is not None:
                    ahead = pool.submit(next, plans, None)
                    if not self._commit(owner, claim, plan):
                        return False
                    if rate := self._order.rate:
                        due_s = (self.progress.done - done) / rate - (time.monotonic() - began)
                        stop.wait(max(0.0, due_s))
            finally:
                concurrent.futures.wait([ahead])
                plans.close()
        return not stop.is_set()

    def _batches(
        self, place: Partition, start: int, stop: threading.Event
    ) -> Iterator[list[Record]]:
        """Yield the records of a partition, up to the end that it had when this began."""
        end, rate = self._ends[place], self._order.rate
        most = min(BATCH, max(1, int(rate))) if rate else BATCH
        if start >= end:
            return
        reader = self._log.read({place: start})
        try:
            batch: list[Record] = []
            while not stop.is_set():
                some = min(_SLICE, most - len(batch))
                found = reader.poll(records_max=some, wait_ms=_WAIT_MS)
                batch += [record for record in found if record.offset < end]
                over = reader.at_end or (bool(found) and found[-1].offset >= end - 1)
                if batch and (over or len(batch) >= most):
                    yield batch
                    batch = []
                if over:
                    return
        finally:
            reader.close()

    def _plans(
        self, place: Partition, start: int, stop: threading.Event
    ) -> Generator[_Plan, None, None]:
        """Yield what the batches of a partition lead to."""
        make, ledger, again = self._order.make, self._ledger, self._order.again
        for batch in self._batches(place, start, stop):
            meant: list[tuple[Record, Draft]] = []
            skipped: list[tuple[Record, Skipped]] = []
            for number, record in enumerate(batch):
                if not number % _SLICE:
                    time.sleep(0)  # lets the interpreter go, and takes no time
                made = make(record)
                if made is None:
                    continue
                if not again and (before := ledger.of(place, record.offset)) is not None:
                    who = before.actor or "?"
                    made = Skipped(kind="done before", why=f"{before.action} by {who}")
                if isinstance(made, Skipped):
                    skipped.append((record, made))
                else:
                    meant.append((record, made))
            yield _Plan(
                meant=meant,
                skipped=skipped,
                looked=len(batch),
                next_offset=batch[-1].offset + 1,
            )

    def _count(self, plan: _Plan) -> None:
        self.progress.looked += plan.looked
        for record, reason in plan.skipped:
            self.progress.skip(record, reason)

    def _commit(self, owner: Owner, claim: Claim, plan: _Plan) -> bool:
        """Write what a batch leads to, and the note of it; `False` if the claim was lost."""
        if claim in owner.poll(records_max=1, wait_ms=0).lost:
            return False
        try:
            held = self._write(owner, claim, plan.meant, plan.next_offset)
        except WorkRefusedError as error:
            if not self._one_by_one(owner, claim, plan.meant, error):
                return False
            self._count(plan)
            return True
        if held:
            self._count(plan)
            self.progress.done += len(plan.meant)
        return held

    def _write(
        self,
        owner: Owner,
        claim: Claim,
        planned: Sequence[tuple[Record, Draft]],
        next_offset: int,
    ) -> bool:
        drafts = [draft for _, draft in planned] if self._order.sends else []
        if planned:
            noted = dataclasses.replace(
                self._order.operation,
                at_ms=self._clock(),
                topic=claim.partition.topic,
                partition=claim.partition.number,
                offsets=ranges([record.offset for record, _ in planned]),
                next_offset=next_offset,
            )
            drafts.append(self._note(noted))
        work = Work(claim=claim, next_offset=next_offset, drafts=drafts)
        return claim in owner.commit([work])

    def _one_by_one(
        self,
        owner: Owner,
        claim: Claim,
        planned: Sequence[tuple[Record, Draft]],
        error: WorkRefusedError,
    ) -> bool:
        """The log refused a batch: write halves of it, down to the record that fails alone."""
        if len(planned) <= 1:
            for record, draft in planned:
                why = f"{draft.topic} does not take it: {error}"
                self.progress.skip(record, Skipped(kind="refused by the log", why=why))
            return True
        middle = len(planned) // 2
        for half in (planned[:middle], planned[middle:]):
            try:
                held = self._write(owner, claim, half, half[-1][0].offset + 1)
            except WorkRefusedError as worse:
                held = self._one_by_one(owner, claim, half, worse)
            else:
                self.progress.done += len(half)
            if not held:
                return False
        return True

    def _start(self, place: Partition) -> int:
        return 0 if self._order.offsets is None else self._order.offsets[0]

    def _end(self, place: Partition) -> int:
        end = self._log.offset_at(place, _FAR_MS)
        return end if self._order.offsets is None else min(end, self._order.offsets[1] + 1)


def ranges(offsets: Sequence[int]) -> tuple[int, ...]:
    """Return ascending offsets as pairs of the first and the last of each run of neighbours.

    Example:
        >>> ranges([3, 4, 5, 9])
        (3, 5, 9, 9)
    """
    found: list[int] = []
    for offset in offsets:
        if found and found[-1] == offset - 1:
            found[-1] = offset
        else:
            found += (offset, offset)
    return tuple(found)
