"""Deciding: the loop of one decider over the partitions it owns.

It has no error branch: whatever goes wrong with a commit, its claim comes back as lost, then
perhaps gained, and is restored.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from headwater.contracts.messages import Wake
from headwater.contracts.records import Draft, Partition, Record
from headwater.core import blobs
from headwater.core.decider import Decider, Sent, Timer, Turn
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, Position, digest, new_position
from headwater.durable import confine
from headwater.errors import (
    UNKEEPABLE,
    UNWRITABLE,
    PoisonError,
    TransientError,
    WorkRefusedError,
)
from headwater.log.port import Claim, Log, Owner, Work
from headwater.runtime.aside import Aside, Nobody
from headwater.runtime.committing import Batch, Bisect, new_taken, requeue
from headwater.runtime.observing import Observer, Unobserved
from headwater.runtime.owned import Owned
from headwater.runtime.pace import Pace, Share
from headwater.runtime.restoring import Restored, Restorer
from headwater.runtime.trying import Trying
from headwater.runtime.values import PUT_S_MAX, Fetch, needs

logger = logging.getLogger(__name__)

_RESTORE_POLL_MS = 10
_IDLE_MS = 200
_COMMITS = 8
"""While more waits than was taken, turns go on for so many times what the last commit took."""
_FETCH_POLL_MS = 2
_AHEAD_MAX = 32
"""How many records behind one that waits for a value are looked at for what they need."""

Opener = Callable[[Record], tuple[Meta, Any]]
Quarantine = Callable[[Record, PoisonError], Draft]


class Deciding:
    """Polls, restores, takes turns, commits, applies, tells the observer; one thread makes every call.

    Args:
        log: Only asked for topic ids.
        owner: The membership.
        decider: What reacts.
        envelope: Seals what turns send.
        restorer: Reads gained claims' rows.
        quarantine: Builds the record that keeps a refused one.
        state: The decider's state topic, or `None` if it has no rows.
        opener: Reads a record as (meta, message); by default the envelope does.
        clock: Wall clock in milliseconds; it only suggests when timers are due.
        pace: Bounds.
        observer: Told after each commit.
        store: Where values by reference are; `None` if there is no such store.
        trying: Where turns are taken at posts, and those of suspects tried; `None` takes any here.
    """

    def __init__(
        self,
        *,
        log: Log,
        owner: Owner,
        decider: Decider[Any],
        envelope: Envelope,
        restorer: Restorer,
        quarantine: Quarantine,
        state: str | None,
        clock: Callable[[], int],
        opener: Opener | None = None,
        pace: Pace | None = None,
        observer: Observer | None = None,
        store: blobs.Blobs | None = None,
        trying: Trying | None = None,
    ) -> None:
        self._trying = trying
        self._log = log
        self._owner = owner
        self._decider = decider
        self._envelope = envelope
        self._open = envelope.open if opener is None else opener
        self._restorer = restorer
        self._quarantine = quarantine
        self._state = state
        self._clock = clock
        self._pace = pace or Pace()
        self._observer: Observer = observer or Unobserved()
        self._blobs = store
        self._owned: dict[Claim, Owned] = {}
        self._bisect = Bisect(records_max=self._pace.records_max, now=self._pace.records_max)
        self._commit_s = 0.0
        self._wall_less_monotonic_ns = 0
        self._culprit: tuple[Partition, int] | None = None
        self._why = UNWRITABLE
        self.stepped_s = time.monotonic()
        """When the last step ended, for health."""
        self.oldest_ms: int | None = None
        """When the oldest record was appended that was polled and not yet taken, as of that step."""

    @property
    def claims(self) -> frozenset[Claim]:
        """Claims that are restored and being worked on."""
        return frozenset(self._owned)

    @property
    def restoring(self) -> int:
        """How many claims are still being restored."""
        return len(self._restorer)

    def backlog(self) -> int:
        """Return how many records were polled and not yet taken."""
        return sum(len(owned.backlog) for owned in self._owned.values())

    def next_ms(self) -> int | None:
        """Return when the earliest timer may be due."""
        dues = [due for owned in self._owned.values() if (due := owned.timers.next_ms())]
        return min(dues, default=None)

    def step(self, wait_ms: int = 0) -> int:
        """Do one round; return how many records and wakes were committed."""
        self._poll(wait_ms)
        batches = self._turns()
        self._wakes(batches)
        done = self._commit(batches) if batches else 0
        waiting = [owned.backlog[0].time_ms for owned in self._owned.values() if owned.backlog]
        self.oldest_ms = min(waiting, default=None)
        self.stepped_s = time.monotonic()
        return done

    def run(self, stop: threading.Event, *, leave: bool = False) -> None:
        """Step until told to stop; what was taken by then is committed.

        Raises:
            Exception: Whatever a step raises: it is a bug, and stops the process while offsets stay.
        """
        try:
            while not stop.is_set():
                self.step(_IDLE_MS)
        finally:
            self.close(leave=leave)

    def close(self, *, leave: bool = False) -> None:
        """End the membership; everything taken is committed already."""
        for claim in [*self._owned]:
            self._forget(claim)
        self._owner.close(leave=leave)

    def _poll(self, wait_ms: int) -> None:
        now_ms = self._clock()
        waiting = self.backlog()
        wait_ms = self._wait_ms(wait_ms, now_ms)
        poll = self._owner.poll(
            records_max=max(1, self._pace.records_max - waiting), wait_ms=wait_ms
        )
        for claim in poll.lost:
            self._forget(claim)
        for claim in poll.gained:
            self._restorer.begin(claim)
        for claim, restored in self._restorer.done():
            self._take_up(claim, restored)
        for claim, record in poll.records:
            if (owned := self._owned.get(claim)) is not None:
                owned.backlog.append(record)
        for claim, owned in self._owned.items():
            if owned.paused and owned.parked_until_ms <= now_ms:
                owned.paused = False
                self._owner.resume({claim: None})

    def _wait_ms(self, wait_ms: int, now_ms: int) -> int:
        """Return how long a poll may wait: not past a timer, a parked partition or a restore."""
        if self._restorer:
            wait_ms = min(wait_ms, _RESTORE_POLL_MS)
        for owned in self._owned.values():
            if owned.paused:
                wait_ms = min(wait_ms, owned.parked_until_ms - now_ms)
            elif owned.waits:
                wait_ms = min(wait_ms, _FETCH_POLL_MS)
            elif owned.backlog:
                return 0
            if (due := owned.timers.next_ms()) is not None:
                wait_ms = min(wait_ms, due - now_ms)
        return max(0, wait_ms)

    def _take_up(self, claim: Claim, restored: Restored) -> None:
        self._owned[claim] = Owned(
            restored.table,
            restored.timers,
            restored.next_offset,
            since_ms=self._clock(),
        )
        if self._trying is not None or restored.done:
            trials = self._trying or Nobody()
            self._owned[claim].aside = Aside(trials, restored.next_offset, restored.done)
        self._owner.resume({claim: restored.next_offset})

    def _forget(self, claim: Claim) -> None:
        self._restorer.forget(claim)
        if (owned := self._owned.pop(claim, None)) is not None:
            if owned.aside is not None:
                owned.aside.close()
            self._decider.forget(claim.partition)

    def _turns(self) -> dict[Claim, Batch]:
        """Take turns: first of partitions that have caught up, then, for less long, of the others."""
        batches: dict[Claim, Batch] = {}
        self._wall_less_monotonic_ns = confine.wall_ns() - confine.monotonic_ns()
        now_ms, batch_s = self._clock(), self._pace.batch_ms_max / 1000
        share = Share(records=self._bisect.now, drafts=self._pace.records_max)
        here = [claim for claim, owned in self._owned.items() if owned.caught_up]
        behind = [claim for claim, owned in self._owned.items() if not owned.caught_up]
        share.begin(max(batch_s, _COMMITS * self._commit_s))
        for claim in here:
            self._turns_of(claim, batches, share, now_ms)
        if here:
            share.begin(max(batch_s, self._commit_s))
        for claim in behind:
            self._turns_of(claim, batches, share, now_ms)
        return {claim: batch for claim, batch in batches.items() if batch.records}

    def _turns_of(
        self, claim: Claim, batches: dict[Claim, Batch], share: Share, now_ms: int
    ) -> None:
        """Take one partition's turns; if the share ends before its backlog, it is the last next time."""
        owned = self._owned[claim]
        if (
            share.spent()
            or owned.parked_until_ms > now_ms
            or not self._at_hand(claim, owned, now_ms)
        ):
            return
        if owned.aside is not None:
            owned.aside.round(owned.backlog, owned.table)
        while owned.backlog:
            if share.spent():
                self._owned[claim] = self._owned.pop(claim)
                return
            batch = batches.get(claim)
            if batch is None:
                batch = batches[claim] = Batch(claim, owned.table, owned.next_offset)
            record = owned.backlog[0]
            try:
                if owned.aside is not None and owned.aside.passes(record):
                    owned.backlog.popleft()
                    continue
                share.drafts -= self._take(batch, owned, record)
            except TransientError as error:
                self._park(claim, owned, now_ms, error)
                return
            except blobs.AbsentError as error:
                if not self._fetch(claim, owned, now_ms, error):
                    return
                continue
            owned.backlog.popleft()
            owned.fetch = None
            batch.passed(record)
            share.took(last=batch.puts.full)

    def _take(self, batch: Batch, owned: Owned, record: Record) -> int:
        """Take one record's turn into the batch; return how many messages it sends."""
        began_ns = confine.monotonic_ns()
        place = record.partition
        at = new_position(self._log.topic_id(place.topic), place.topic, place.number, record.offset)
        meta, message = None, None
        try:
            meta, message = self._open(record)
            if self._culprit == (place, record.offset):
                raise PoisonError(self._why, "the log refuses what this record leads to")
            turn = self._at_post(batch, owned, record, at, meta, message)
            if turn is None:
                return 0
            sent = batch.take(turn, self._envelope)
            refused = ""
        except PoisonError as error:
            refused = error.code
            meta = meta or Meta(id=at.derive(0).hex(), tenant="")
            turn = Turn(batch.layer, at=at, meta=meta, now_ms=record.time_ms, at_hand=owned.at_hand)
            self._decider.refused(turn, record, message, error)
            turn.relay(self._quarantine(record, error))
            sent = batch.take(turn, self._envelope)
            logger.warning("%s refused %s@%d: %s", self._decider.name, place, record.offset, error)
        if turn.kept:
            batch.puts.begin(self._blobs, turn)
        ended_ns = confine.monotonic_ns()
        if ended_ns - began_ns > self._pace.slow_turn_ms * 1_000_000:
            logger.warning(
                "%s took %d ms over %s@%d (%s): users' code holds the whole batch up",
                self._decider.name,
                (ended_ns - began_ns) // 1_000_000,
                place,
                record.offset,
                record.key,
            )
        batch.taken.append(
            new_taken(
                at=at,
                meta=turn.meta,
                message=message,
                started_ns=self._wall_less_monotonic_ns + began_ns,
                ended_ns=self._wall_less_monotonic_ns + ended_ns,
                sent=sent,
                refused=refused,
            )
        )
        return sent

    def _at_post(
        self, batch: Batch, owned: Owned, record: Record, at: Position, meta: Meta, message: Any
    ) -> Turn | None:
        if self._trying is None:
            return self._react(batch, owned, record, at, meta, message)
        self._trying.check(record)
        self._trying.enter(record)
        try:
            return self._react(batch, owned, record, at, meta, message)
        finally:
            self._trying.leave()

    def _react(
        self, batch: Batch, owned: Owned, record: Record, at: Position, meta: Meta, message: Any
    ) -> Turn | None:
        if not isinstance(message, Wake):
            turn = Turn(batch.layer, at=at, meta=meta, now_ms=record.time_ms, at_hand=owned.at_hand)
            self._decider.react(turn, message)
            return turn
        timer = batch.layer.get(Timer, *message.name) if message.name else None
        if timer is None or timer.due_ms != message.due_ms:
            return None
        if record.time_ms < timer.due_ms:
            owned.timers.rearm(timer.key, at_ms=self._clock() + self._pace.early_ms)
            return None
        turn = Turn(
            batch.layer,
            at=at,
            meta=dataclasses.replace(timer.meta, id=meta.id),
            now_ms=record.time_ms,
            at_hand=owned.at_hand,
        )
        turn.drop(timer)
        self._decider.react(turn, message)
        return turn

    def _fetch(self, claim: Claim, owned: Owned, now_ms: int, error: blobs.AbsentError) -> bool:
        """Fetch what a turn needs, and what those behind it will; say whether it is here already."""
        fetch = owned.fetch = owned.fetch or Fetch()
        try:
            fetch.begin(self._blobs, error.tenant, error.names)
        except TransientError as away:
            self._park(claim, owned, now_ms, away)
            return False
        behind = itertools.islice(owned.backlog, 1, _AHEAD_MAX)
        fetch.ahead(self._blobs, needs(behind, self._open))
        return self._at_hand(claim, owned, now_ms)

    def _at_hand(self, claim: Claim, owned: Owned, now_ms: int) -> bool:
        """Say whether a partition's next turn has the values it needs, as far as is known."""
        if owned.fetch is None:
            return True
        if owned.waits:
            return False
        try:
            owned.fetch.take()
        except TransientError as error:
            self._park(claim, owned, now_ms, error)
            return False
        return True

    def _park(self, claim: Claim, owned: Owned, now_ms: int, error: TransientError) -> None:
        if not owned.retry_ms:
            logger.warning("%s waits on %s: %s", self._decider.name, claim.partition, error)
        owned.retry_ms = min(
            max(self._pace.retry_ms_min, owned.retry_ms * 2), self._pace.retry_ms_max
        )
        owned.parked_until_ms = now_ms + owned.retry_ms
        owned.paused = True
        self._owner.pause([claim])

    def _wakes(self, batches: dict[Claim, Batch]) -> None:
        now_ms = self._clock()
        for claim, owned in self._owned.items():
            for timer in owned.timers.due(now_ms, at_most=self._pace.wakes_max):
                batch = batches.get(claim)
                if batch is None:
                    batch = batches[claim] = Batch(claim, owned.table, owned.next_offset)
                batch.drafts.append(self._wake(claim, timer))

    def _wake(self, claim: Claim, timer: Timer) -> Draft:
        place = claim.partition
        own = digest(self._log.topic_id(place.topic), place.number, *timer.name, timer.due_ms)
        return self._envelope.seal(
            Sent(
                message=Wake(name=timer.name, due_ms=timer.due_ms),
                to=Address(place.topic, str(timer.name[-1]), place.number),
                meta=dataclasses.replace(timer.meta, id=own.hex(), causation_id=timer.meta.id),
            )
        )

    def _commit(self, batches: dict[Claim, Batch]) -> int:
        self._keep(batches)
        if not batches:
            return 0
        began = time.monotonic()
        try:
            held = self._owner.commit(
                [self._work(self._owned[claim], batch) for claim, batch in batches.items()]
            )
        except (WorkRefusedError, PoisonError) as error:  # the log's word, or a row that is no Avro
            self._halve(batches, error)
            return 0
        self._commit_s = time.monotonic() - began
        if not self._has_culprit(batches):
            self._bisect.accepted()
        else:
            self._culprit = None
        done = 0
        for claim, batch in batches.items():
            if claim not in held:
                self._forget(claim)
                continue
            owned = self._owned[claim]
            owned.next_offset = batch.next_offset
            if batch.records:
                owned.caught_up |= batch.records[-1].time_ms >= owned.since_ms
                owned.retry_ms = owned.retry_ms if owned.paused else 0
            if owned.aside is not None:
                owned.aside.committed(batch.records)
            if self._trying is not None:
                self._trying.survived(batch.records)
            owned.table.apply(batch.layer)
            owned.timers.applied(batch.layer.written(Timer))
            done += max(len(batch.records), 1)
            if batch.taken:
                self._observer.committed(self._decider.name, batch.taken, seconds=self._commit_s)
        return done

    def _keep(self, batches: dict[Claim, Batch]) -> None:
        """Have in the store what the batches refer to; one that has not is taken back, and waits."""
        until_s = time.monotonic() + PUT_S_MAX
        for claim, batch in [*batches.items()]:
            if not batch.puts:
                continue
            try:
                batch.puts.wait(until_s)
            except TransientError as error:
                del batches[claim]
                self._take_back(claim, batch)
                self._park(claim, self._owned[claim], self._clock(), error)

    def _take_back(self, claim: Claim, batch: Batch) -> None:
        """Forget the turns of a batch that was not committed; its records wait in front of the others."""
        owned = self._owned[claim]
        requeue(batch, owned.backlog)
        if owned.aside is not None:
            owned.aside.taken_back(batch.records)
        owned.timers.again()
        self._decider.forget(claim.partition)

    def _work(self, owned: Owned, batch: Batch) -> Work:
        """Return a batch as work; its offset stays at what was set aside, and behind what was done."""
        work = batch.work(self._state, self._envelope)
        return work if owned.aside is None else owned.aside.settle(work, batch.records)

    def _halve(self, batches: dict[Claim, Batch], error: WorkRefusedError | PoisonError) -> None:
        """Nothing was written: take fewer records again, down to the one that fails alone."""
        records = [record for batch in batches.values() for record in batch.records]
        if len(records) <= 1 and self._has_culprit(batches):
            if self._why == UNKEEPABLE:
                raise error  # even its quarantine cannot be written
            self._why = UNKEEPABLE
        elif self._bisect.refused(len(records)):
            if not records:
                raise error  # a wake alone cannot be written
            self._why = UNWRITABLE
            self._culprit = (records[0].partition, records[0].offset)
        for claim, batch in batches.items():
            self._take_back(claim, batch)
        logger.warning(
            "%s: the log refused a batch of %d: %s", self._decider.name, len(records), error
        )

    def _has_culprit(self, batches: dict[Claim, Batch]) -> bool:
        return self._culprit is not None and any(
            (record.partition, record.offset) == self._culprit
            for batch in batches.values()
            for record in batch.records
        )
