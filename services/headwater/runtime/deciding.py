"""Deciding: the loop of one decider over the partitions it owns.

It has no error branch: whatever goes wrong with a commit, its claim comes back as lost, then
perhaps gained, and is restored.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from headwater.contracts.records import Record
from headwater.core import blobs
from headwater.core.decider import Decider, Timer
from headwater.core.envelope import Envelope
from headwater.errors import (
    PoisonError,
    TransientError,
    WorkRefusedError,
)
from headwater.log.port import Claim, Log, Owner, Work
from headwater.runtime.aside import Aside, Nobody
from headwater.runtime.bisecting import Bisect
from headwater.runtime.committing import Batch, requeue
from headwater.runtime.observing import Observer, Unobserved
from headwater.runtime.owned import Owned
from headwater.runtime.pace import Pace, Share
from headwater.runtime.patience import Patience, Patient
from headwater.runtime.restoring import Restored, Restorer
from headwater.runtime.taking import Opener, Quarantine, Taking
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
        patient: Which messages may wait a little for others; `None` lets none wait.
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
        patient: Patient | None = None,
    ) -> None:
        self._owner = owner
        self._decider = decider
        self._envelope = envelope
        self._restorer = restorer
        self._state = state
        self._clock = clock
        self._pace = pace or Pace()
        self._observer: Observer = observer or Unobserved()
        self._blobs = store
        self._trying = trying
        self._owned: dict[Claim, Owned] = {}
        self._bisect = Bisect(records_max=self._pace.records_max)
        self._taking = Taking(
            log=log,
            decider=decider,
            envelope=envelope,
            opener=envelope.open if opener is None else opener,
            quarantine=quarantine,
            clock=clock,
            pace=self._pace,
            bisect=self._bisect,
            store=store,
            trying=trying,
        )
        self._patience = Patience(patient, envelope, wait_ms=self._pace.patience_ms)
        self._commit_s = 0.0
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
        waits = self._patience.waits(self._owned.values(), self._clock())
        batches = {} if waits else self._turns()
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
                wait_ms = min(wait_ms, self._patience.left_ms(now_ms))
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
        self._taking.begin()
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
                share.drafts -= self._taking.take(batch, owned, record)
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

    def _fetch(self, claim: Claim, owned: Owned, now_ms: int, error: blobs.AbsentError) -> bool:
        """Fetch what a turn needs, and what those behind it will; say whether it is here already."""
        fetch = owned.fetch = owned.fetch or Fetch()
        try:
            fetch.begin(self._blobs, error.tenant, error.names)
        except TransientError as away:
            self._park(claim, owned, now_ms, away)
            return False
        behind = itertools.islice(owned.backlog, 1, _AHEAD_MAX)
        fetch.ahead(self._blobs, needs(behind, self._taking.open))
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
                batch.drafts.append(self._taking.wake(claim, timer))

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
        self._bisect.accepted(_records(batches))
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
        records = [*_records(batches)]
        self._bisect.refused(records, error)
        for claim, batch in batches.items():
            self._take_back(claim, batch)
        logger.warning(
            "%s: the log refused a batch of %d: %s", self._decider.name, len(records), error
        )


def _records(batches: dict[Claim, Batch]) -> Iterator[Record]:
    return itertools.chain.from_iterable(batch.records for batch in batches.values())
