"""Replaying: kept records are gone through once, in order, in transactions, under an operation's id.

What a batch of records leads to, the note of which they were, and how far the operation has looked
are one transaction, and the note is what a second process goes by: it fences the first, reads the
notes, and goes on. So an operation is done once, whoever dies half-way and however often it is begun.

Different operations over the records of one topic write under one name, in whichever process they are:
who takes a turn ends what another was at, and reads its notes before it goes on.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import logging
import math
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from headwater.contracts.messages import Operation
from headwater.contracts.records import Draft, Partition, Record
from headwater.contracts.replays import Skipped
from headwater.errors import HeadwaterError, WorkRefusedError
from headwater.log.port import Claim, Log, Owner, Work
from headwater.runtime.stretches import CutShortError, Reading, Stretch

logger = logging.getLogger(__name__)

INSTANCE = "operator"
"""One name for whoever carries an operation out: a second process fences the first."""
BATCH = 20_000
"""Most records of one transaction."""
BATCH_BYTES = 32 * 1024 * 1024
"""About how many bytes of them; the first transactions are small, and tell how large records are."""
BATCH_S = 1.0
"""About how long a transaction may be open: the cluster ends one that is open for long."""
_FIRST = 250
_GROWTH_MAX = 4.0
REASONS_MAX = 100
"""How many records that were skipped are named one by one."""
_JOIN_S = 60.0
_WAIT_MS = 200
_GIVE_WAY_S, _GIVE_WAY_S_MAX = 0.01, 1.0
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
        repeats: Actions that stand in nobody's way where one of them was done before.
        rate: Most records a second; 0 for as many as go.
        sends: Whether drafts are written; if not, the note is all.
    """

    operation: Operation
    topic: str
    make: Make
    offsets: tuple[int, int] | None = None
    again: bool = False
    repeats: frozenset[str] = frozenset()
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

    def skip(self, of: str, reason: Skipped) -> None:
        """Count a record that was skipped."""
        self.skipped[reason.kind] += 1
        if len(self.reasons) < REASONS_MAX:
            self.reasons.append((of, reason.why))


def id_of(place: Partition, offset: int) -> str:
    """Return how people name a kept record."""
    return f"{place.topic}:{place.number}@{offset}"


class Replaying:
    """Carries one order out.

    Args:
        log: The log.
        order: What is wanted.
        ledger: What was done before.
        note: Seals the note of a batch.
        group: Name of the operation's own group, with its id.
        writer: Under which name anything is done to the topic's records, by whichever operation of
            whichever process: who begins last knows what was done, and ends what others are at.
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
        writer: str,
        clock: Callable[[], int],
        progress: Progress | None = None,
    ) -> None:
        self._log = log
        self._order = order
        self._ledger = ledger
        self._note = note
        self._group = group
        self._writer = writer
        self._claims: dict[Partition, Claim] = {}
        self._losses = 0
        self._clock = clock
        self.progress = progress or Progress()
        count = log.partitions(order.topic)
        self._places = [Partition(order.topic, number) for number in range(count)]
        self._ends = {place: self._end(place) for place in self._places}
        self.progress.total += sum(
            max(0, end - self._start(place)) for place, end in self._ends.items()
        )

    def preview(self, stop: threading.Event) -> Progress:
        """Count what would be done; write nothing.

        Raises:
            SettingsError: The log may not be read.
        """
        self._ledger.catch_up()
        for place in self._places:
            with contextlib.closing(Reading(self._log, place, stop)) as reading:
                for stretch in self._stretches(reading, place, self._start(place), stop):
                    try:
                        collections.deque(stretch.drafts(), maxlen=0)
                    except CutShortError as cut:
                        _tell(cut)
                        return self.progress
                    self.progress.done += len(stretch.offsets)
                    self._count(place, stretch)
        return self.progress

    def run(self, stop: threading.Event) -> Progress:
        """Do it, until it is done or told to stop; what was done by then is done.

        Raises:
            TakenOverError: Another process carries the operation out now.
            SettingsError: The log does not take what is written, or may not be read.
        """
        if self.progress.total == 0:
            return self.progress
        owner = self._log.own(
            [self._order.topic], group=self._group, instance=INSTANCE, writer=self._writer
        )
        try:
            left = [*self._places]
            while left and not stop.is_set():
                self._join(owner, stop)
                self._ledger.catch_up()
                while left and self._through(owner, left[0], stop):
                    left.pop(0)
                if left:
                    self._give_way(stop)
        finally:
            owner.close(leave=True)
        return self.progress

    def _join(self, owner: Owner, stop: threading.Event) -> None:
        """Have the claims of all partitions: whoever had them before is fenced by then."""
        until = time.monotonic() + _JOIN_S
        self._poll(owner, wait_ms=0)
        while len(self._claims) < len(self._places) and not stop.is_set():
            self._poll(owner, wait_ms=_WAIT_MS)
            if time.monotonic() > until:
                raise TakenOverError(
                    f"{self._group} did not get every partition of {self._order.topic} within "
                    f"{_JOIN_S:g} s: another process carries this operation out, ask there"
                )

    def _poll(self, owner: Owner, *, wait_ms: int) -> None:
        poll = owner.poll(records_max=1, wait_ms=wait_ms)
        kept = {place: of for place, of in self._claims.items() if of not in poll.lost}
        self._claims = kept | {claim.partition: claim for claim in poll.gained}

    def _give_way(self, stop: threading.Event) -> None:
        """Wait a little, longer each time in a row: two who take turns too fast get nothing done."""
        self._losses += 1
        stop.wait(random.uniform(0, min(_GIVE_WAY_S_MAX, _GIVE_WAY_S * 2**self._losses)))  # noqa: S311 - no secret

    def _through(self, owner: Owner, place: Partition, stop: threading.Event) -> bool:
        """Go through one partition; `False` if its claim was lost, or we are to stop."""
        claim = self._claims.get(place)
        if claim is None:
            return False
        start = self._start(place)
        if self._order.again or self._order.repeats:
            # What was done before counts for nothing here, but for what this operation has done.
            start = max(start, self._ledger.looked(self._order.operation.id, place))
        began, done = time.monotonic(), self.progress.done
        with contextlib.closing(Reading(self._log, place, stop)) as reading:
            for stretch in self._stretches(reading, place, start, stop):
                if not self._commit(owner, claim, reading, stretch):
                    return False
                if rate := self._order.rate:
                    due_s = (self.progress.done - done) / rate - (time.monotonic() - began)
                    stop.wait(max(0.0, due_s))
        return not stop.is_set()

    def _stretches(
        self, reading: Reading, place: Partition, start: int, stop: threading.Event
    ) -> Iterator[Stretch]:
        """Yield a partition's stretches, up to the end that it had when this began.

        Each is as large as the one before makes seem good.
        """
        order, end = self._order, self._ends[place]
        most = min(BATCH, max(1, int(order.rate))) if order.rate else BATCH
        size = min(most, _FIRST)
        while start < end and not stop.is_set():
            until = min(start + size, end)
            stretch = self._stretch(reading, place, start, until)
            yield stretch
            room = min(BATCH_BYTES / max(1, stretch.bytes), BATCH_S / max(1e-9, stretch.took_s))
            size = min(most, math.ceil(size * min(_GROWTH_MAX, room)))
            start = until

    def _stretch(self, reading: Reading, place: Partition, start: int, until: int) -> Stretch:
        return Stretch(
            functools.partial(reading.between, start, until),
            self._order.make if self._order.again else self._make,
            functools.partial(self._noted, place, next_offset=until),
            (start, until),
            sends=self._order.sends,
            again=self._ledger.catch_up,
        )

    def _make(self, record: Record) -> Draft | Skipped | None:
        """Return what a record leads to, unless something was done to it before."""
        made = self._order.make(record)
        if made is None:
            return None
        before = self._ledger.of(record.partition, record.offset)
        if before is None or before.action in self._order.repeats:
            return made
        return Skipped(kind="done before", why=f"{before.action} by {before.actor or '?'}")

    def _noted(self, place: Partition, offsets: Sequence[int], *, next_offset: int) -> Draft:
        return self._note(
            dataclasses.replace(
                self._order.operation,
                at_ms=self._clock(),
                topic=place.topic,
                partition=place.number,
                offsets=ranges(offsets),
                next_offset=next_offset,
            )
        )

    def _count(self, place: Partition, stretch: Stretch) -> None:
        self.progress.looked += stretch.looked
        for offset, reason in stretch.skipped:
            self.progress.skip(id_of(place, offset), reason)

    def _commit(self, owner: Owner, claim: Claim, reading: Reading, stretch: Stretch) -> bool:
        """Write what a stretch leads to, and the note of it; `False` if that came to nothing."""
        self._poll(owner, wait_ms=0)
        began = time.monotonic()
        try:
            held = self._try(owner, claim, reading, stretch)
        except CutShortError as cut:
            _tell(cut)
            return False
        stretch.took_s = time.monotonic() - began
        return held

    def _try(self, owner: Owner, claim: Claim, reading: Reading, stretch: Stretch) -> bool:
        work = Work(claim=claim, next_offset=stretch.until, drafts=stretch)
        try:
            held = claim in owner.commit([work])
        except WorkRefusedError as error:
            # The producer is another now: somebody may have written before it was made.
            self._ledger.catch_up()
            return self._halved(owner, claim, reading, stretch, error)
        if held:
            self._losses = 0
            self.progress.done += len(stretch.offsets)
            self._count(claim.partition, stretch)
        return held

    def _halved(
        self,
        owner: Owner,
        claim: Claim,
        reading: Reading,
        stretch: Stretch,
        error: WorkRefusedError,
    ) -> bool:
        """The log refused some: write halves of them, down to the record that fails alone."""
        place = claim.partition
        if stretch.until - stretch.start == 1:
            for draft in stretch.drafts():
                why = f"{draft.topic} does not take it: {error}"
                skipped = Skipped(kind="refused by the log", why=why)
                self.progress.skip(id_of(place, stretch.start), skipped)
            self._count(place, stretch)
            return True
        middle = (stretch.start + stretch.until) // 2
        return all(
            self._try(owner, claim, reading, self._stretch(reading, place, start, until))
            for start, until in ((stretch.start, middle), (middle, stretch.until))
        )

    def _start(self, place: Partition) -> int:
        return 0 if self._order.offsets is None else self._order.offsets[0]

    def _end(self, place: Partition) -> int:
        end = self._log.offset_at(place, _FAR_MS)
        return end if self._order.offsets is None else min(end, self._order.offsets[1] + 1)


def _tell(cut: CutShortError) -> None:
    """Raise what broke, if it was not that we were told to stop."""
    if cut.__cause__ is not None:
        raise cut.__cause__


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
