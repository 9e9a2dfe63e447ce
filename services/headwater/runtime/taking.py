"""Taking: one record becomes a turn of its batch, or its refusal."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from headwater.contracts.messages import Wake
from headwater.contracts.records import Draft, Record
from headwater.core import blobs
from headwater.core.decider import Decider, Sent, Timer, Turn
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta, Position, digest
from headwater.durable import confine
from headwater.errors import PoisonError
from headwater.log.port import Claim, Log
from headwater.runtime.bisecting import Bisect
from headwater.runtime.committing import Batch, Taken
from headwater.runtime.owned import Owned
from headwater.runtime.pace import Pace
from headwater.runtime.trying import Trying

logger = logging.getLogger(__name__)

Opener = Callable[[Record], tuple[Meta, Any]]
Quarantine = Callable[[Record, PoisonError], Draft]


class Taking:
    """Opens records, has the decider react, and takes what it did into batches; nothing is written.

    Args:
        log: Only asked for topic ids.
        decider: What reacts.
        envelope: Seals what turns send.
        opener: Reads a record as (meta, message).
        quarantine: Builds the record that keeps a refused one.
        clock: Wall clock in milliseconds; a wake that came too early is set again by it.
        pace: Bounds.
        bisect: Knows which record the log refuses.
        store: Where values by reference are; `None` if there is no such store.
        trying: Where turns are taken at posts, and those of suspects tried; `None` takes any here.
    """

    def __init__(
        self,
        *,
        log: Log,
        decider: Decider[Any],
        envelope: Envelope,
        opener: Opener,
        quarantine: Quarantine,
        clock: Callable[[], int],
        pace: Pace,
        bisect: Bisect,
        store: blobs.Blobs | None,
        trying: Trying | None,
    ) -> None:
        self.open = opener
        """Reads a record as (meta, message)."""
        self._log = log
        self._decider = decider
        self._envelope = envelope
        self._quarantine = quarantine
        self._clock = clock
        self._pace = pace
        self._bisect = bisect
        self._blobs = store
        self._trying = trying
        self._wall_less_monotonic_ns = 0

    def begin(self) -> None:
        """Read the wall clock for a round of turns."""
        self._wall_less_monotonic_ns = confine.wall_ns() - confine.monotonic_ns()

    def take(self, batch: Batch, owned: Owned, record: Record) -> int:
        """Take one record's turn into the batch; return how many messages it sends.

        Raises:
            TransientError: Something is away that the turn needs; nothing was taken.
            blobs.AbsentError: A value by reference has to be fetched before; nothing was taken.
        """
        began_ns = confine.monotonic_ns()
        place = record.partition
        at = Position(self._log.topic_id(place.topic), place.topic, place.number, record.offset)
        meta, message = None, None
        try:
            meta, message = self.open(record)
            if condemned := self._bisect.condemned(record):
                raise PoisonError(condemned, "the log refuses what this record leads to")
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
            Taken(
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

    def wake(self, claim: Claim, timer: Timer) -> Draft:
        """Return a partition's word to itself that a timer is due."""
        place = claim.partition
        own = digest(self._log.topic_id(place.topic), place.number, *timer.name, timer.due_ms)
        return self._envelope.seal(
            Sent(
                message=Wake(name=timer.name, due_ms=timer.due_ms),
                to=Address(place.topic, str(timer.name[-1]), place.number),
                meta=dataclasses.replace(timer.meta, id=own.hex(), causation_id=timer.meta.id),
            )
        )

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
        """Return the turn; `None` for a wake whose timer was dropped, moved, or is not yet due."""
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
