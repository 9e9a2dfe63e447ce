"""Committing: a batch of turns over one owned partition, as the work of one transaction."""

from __future__ import annotations

from collections import deque
from typing import Any

from headwater.contracts.frozen import Frozen
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent, Turn
from headwater.core.envelope import Envelope
from headwater.core.messages import Meta, Position
from headwater.core.state import Layer
from headwater.log.port import Claim, Work
from headwater.runtime import table as tables
from headwater.runtime.values import Puts


class Taken(Frozen, kw_only=True):
    """A turn that was taken, for those who watch: after its commit, once.

    Args:
        at: Where its record is.
        meta: The record's meta.
        message: What it was.
        started_ns: When it began (wall clock).
        ended_ns: When it ended.
        sent: How many records it sent.
        refused: Code of the refusal, if it was one.
    """

    at: Position
    meta: Meta
    message: Any
    started_ns: int
    ended_ns: int
    sent: int
    refused: str = ""


class Batch:
    """The turns taken over one claim since its last commit."""

    __slots__ = ("claim", "drafts", "layer", "next_offset", "puts", "records", "table", "taken")

    def __init__(self, claim: Claim, table: tables.Table, next_offset: int) -> None:
        self.claim = claim
        self.table = table
        self.layer = Layer(table)
        self.next_offset = next_offset
        self.drafts: list[Draft] = []
        self.records: list[Record] = []
        self.taken: list[Taken] = []
        self.puts = Puts()

    def take(self, turn: Turn, envelope: Envelope) -> int:
        """Take a turn over; return how many records it sends.

        Raises:
            PoisonError: One of its messages is too large; nothing of the turn was taken.
        """
        seal = envelope.seal
        sealed = [seal(item) if isinstance(item, Sent) else item for item in turn.sent]
        self.layer.take(turn.layer)
        self.drafts += sealed
        return len(sealed)

    def passed(self, record: Record) -> None:
        """Count a record as done with."""
        self.records.append(record)
        self.next_offset = max(self.next_offset, record.offset + 1)

    def work(self, state: str | None, envelope: Envelope) -> Work:
        """Return the batch as work: messages first, then rows, newest per key."""
        drafts = self.drafts
        if state is not None:
            place = Partition(state, self.claim.partition.number)
            drafts = [*drafts, *tables.drafts(self.layer, self.table, place, envelope.codec)]
        return Work(claim=self.claim, next_offset=self.next_offset, drafts=drafts)


def requeue(batch: Batch, backlog: deque[Record]) -> None:
    """Put a batch's records back at the front of what waits, in order."""
    backlog.extendleft(reversed(batch.records))
