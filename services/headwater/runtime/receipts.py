"""Receipts: what the log has of calls that began or were answered before their partition came to us."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable

from headwater.contracts.messages import Ask, Intent, Reply, Result
from headwater.contracts.records import Partition, Record
from headwater.core.envelope import Coder
from headwater.core.messages import life_of
from headwater.errors import PoisonError, SettingsError
from headwater.log.port import Log, Reader
from headwater.runtime import doneset
from headwater.runtime.answering import Item

logger = logging.getLogger(__name__)

_CallOf = tuple[str, int, str]
"""Run, number, and which life of the run."""
RECORDS_MAX = 1_000
WAIT_MS = 100
SKEW_MS = 60_000
"""How far the clocks of two brokers may differ; receipts of so much longer ago are read too."""
SETTLED_MS = 30_000
"""A backlog of which nothing more has come for so long has ended, and shown what was under way elsewhere."""


class Known:
    """What is known of one claim's calls: where to go on, what is done, and receipts of the rest.

    Args:
        next_offset: The group's offset.
        done: Offsets beyond it that are done.
        gained_ms: When the claim came.
        place: Where the receipts of its calls are.
    """

    def __init__(
        self, next_offset: int, done: frozenset[int], gained_ms: int, place: Partition
    ) -> None:
        self.place = place
        self.next_offset = next_offset
        self.done = done
        self.reader: Reader | None = None
        """Goes on reading while a former owner may still answer."""
        self.wanted = False
        """Whether somebody waits for the log to be read to the end that it has now."""
        self.seen_ms = 0
        """What was noted before this moment has been taken in, as far as somebody wanted that."""
        self.looking_ms: int | None = None
        """When the end was taken that is being read to."""
        self.lost = False
        self.lock = threading.Lock()
        """Held by whoever reads: a process that ends closes what another thread may be reading."""
        self._gained_ms = gained_ms
        self._results: dict[tuple[str, int], list[tuple[str, Result]]] = {}
        self._intents: dict[_CallOf, Intent] = {}
        self._inherited: set[int] = set()
        self._last: Record | None = None
        self._came_ms = 0

    def note(self, receipt: Intent | Result, request: str) -> None:
        """Take a receipt in: an answer counts whatever came before or after, the first of two wins.

        A later intent counts, and whatever the same attempt writes; a renewal by whoever was
        replaced meanwhile does not.

        Args:
            receipt: What was noted.
            request: Id of the request that it is about.
        """
        if receipt.offset < self.next_offset or receipt.offset in self.done:
            return
        if isinstance(receipt, Result):
            reply = receipt.reply
            noted = self._results.setdefault((reply.run, reply.number), [])
            noted.append((life_of(request), receipt))
            return
        call = call_of(receipt, request)
        known = self._intents.get(call)
        same = known is not None and known.attempt == receipt.attempt
        if known is None or same or receipt.begun_ms > known.begun_ms:
            self._intents[call] = receipt

    def take(self, record: Record, now_ms: int) -> None:
        """Count a delivered request: one from before the gain may be under way elsewhere."""
        self._last, self._came_ms = record, now_ms
        if self._before(record):
            self._inherited.add(record.offset)

    def end(self, offset: int) -> None:
        """Count a request as done with."""
        self._inherited.discard(offset)

    def answer(self, item: Item) -> Reply | None:
        """Return the answer that the log has.

        It is one to this very request, or to one that a person had sent again. A task that is
        published again after its window is a run of the same id, whose calls are others.
        """
        noted = self._results.get((item.ask.run, item.ask.number), ())
        return next((one.reply for life, one in noted if _answers(item, life, one)), None)

    def intent(self, item: Item) -> Intent | None:
        """Return who began a call last, as far as the log says."""
        return self._intents.get(call_of(item.ask, item.meta.id))

    def settled(self, now_ms: int) -> bool:
        """Say whether nobody else can be answering calls of this partition any more.

        Receipts are read where a request was open at the gain, so one comes, however late.
        """
        last = self._last
        if last is None or self._inherited:
            return False
        passed = not self._before(last) or last.offset >= self.next_offset + doneset.WINDOW
        return passed or now_ms - self._came_ms > SETTLED_MS

    def _before(self, record: Record) -> bool:
        return record.time_ms <= self._gained_ms + SKEW_MS


class Receipts:
    """Reads the receipts of a group's partitions.

    Args:
        log: The log.
        group: The effector's group.
        topic: The topic of its receipts; empty for none, then only offsets are read.
        codec: Decodes receipts.
        clock: Wall clock in milliseconds.
    """

    def __init__(
        self, log: Log, *, group: str, topic: str, codec: Coder, clock: Callable[[], int]
    ) -> None:
        self.topic = topic
        self._log = log
        self._group = group
        self._codec = codec
        self._clock = clock

    def restore(self, place: Partition) -> Known:
        """Return what a claim begins with; blocks, so never on a member's thread.

        Receipts are read from the append time of the first request that is not done: none of it, or
        of a later one, is older.

        Raises:
            SettingsError: The group has no offset there, or a receipt is of a later version.
            TransientError: The log is away.
        """
        next_offset, text = self._log.committed(self._group, place)
        try:
            done = doneset.decode(next_offset, text)
        except doneset.UndecodableError as error:
            logger.error(  # noqa: TRY400 - the words say all; where it was raised says nothing
                "what %s noted beside its offset in %s cannot be read (%s): calls beyond it that are "
                "done are begun again, unless a receipt says otherwise",
                self._group,
                place,
                error,
            )
            done = frozenset()
        receipts = Partition(self.topic, place.number)
        known = Known(next_offset, done, self._clock(), receipts)
        first = self._first(place, next_offset, done) if self.topic else None
        if first is not None:
            start = self._log.offset_at(receipts, first.time_ms - SKEW_MS)
            known.reader = self._log.read({receipts: start})
            while not known.reader.at_end:
                self._fold(known, known.reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS))
        return known

    def follow(self, known: Known, *, wait_ms: int) -> bool:
        """Take in what others wrote since; false, and no more is read, once nobody can."""
        with known.lock:
            if known.reader is None:
                return False
            if known.lost or known.settled(self._clock()):
                reader, known.reader = known.reader, None
                reader.close()
                return False
            if known.wanted and known.looking_ms is None:
                known.wanted = False
                known.looking_ms = self._clock()
                known.reader = self._anew(known.reader, known.place)
            if known.looking_ms is None or not known.reader.at_end:
                self._fold(known, known.reader.poll(records_max=RECORDS_MAX, wait_ms=wait_ms))
            if known.looking_ms is not None and known.reader.at_end:
                known.seen_ms, known.looking_ms = known.looking_ms, None
        return True

    def _anew(self, reader: Reader, place: Partition) -> Reader:
        """Return a reader that goes on where another was, and knows the end there is now."""
        anew = self._log.read({place: reader.next_offset(place)})
        reader.close()
        return anew

    def _first(self, place: Partition, start: int, done: frozenset[int]) -> Record | None:
        """Return the first request that is not done."""
        reader = self._log.read({place: start})
        try:
            while not reader.at_end:
                for record in reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS):
                    if record.offset not in done:
                        return record
        finally:
            reader.close()
        return None

    def _fold(self, known: Known, records: Iterable[Record]) -> None:
        for record in records:
            try:
                receipt = self._codec.decode(record.value or b"")
            except PoisonError as error:
                if error.code == "unknown-schema":
                    raise SettingsError(
                        f"a receipt in {record.partition} at {record.offset} is of a later version of "
                        "headwater: run that one, so that no answer is bought again"
                    ) from error
                logger.exception("no receipt: %s at %d", record.partition, record.offset)
                continue
            if isinstance(receipt, (Intent, Result)):
                known.note(receipt, (record.header("ce_causationid") or b"").decode())


def call_of(of: Ask | Intent, request: str) -> _CallOf:
    """Return which call a request is, or a note about it: of two runs of one id there may be both here."""
    return of.run, of.number, life_of(request)


def _answers(item: Item, life: str, noted: Result) -> bool:
    """Say whether what was noted of a call of its run and number, in this life, answers a request.

    An attempt that a person named is of this run, also where only one of the two requests says its
    life: code of before names none.
    """
    undone = item.ask.undone
    if noted.reply.attempt in undone:
        return True
    ours = life == life_of(item.meta.id)
    return ours and (bool(undone) or noted.offset == item.record.offset)
