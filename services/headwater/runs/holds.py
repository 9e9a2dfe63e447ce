"""Holds: messages kept as rows while their run cannot take them, and drained in order."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from headwater.contracts.approvals import Decided
from headwater.contracts.messages import BlobRef, Control, Drain, Reply, Start, Wake
from headwater.core.blobs import needed_by
from headwater.core.messages import Address
from headwater.errors import HeadwaterError
from headwater.runs.rows import Held, Redelivery, Run
from headwater.runs.visit import Visit

DRAIN_BYTES_MAX = 64 * 1024 * 1024
"""How much of values by reference one drain takes in."""


def needs(held: Held) -> list[BlobRef]:
    """Return the values by reference that a held message needs when it is delivered."""
    message = held.message
    return needed_by(message.delivery if isinstance(message, Redelivery) else message)


class Holds:
    """Keeps and drains.

    Args:
        drain_max: Held messages delivered in one turn; the rest follows in the next.
    """

    def __init__(self, drain_max: int) -> None:
        self._drain_max = drain_max

    def must(self, run: Run) -> bool:
        """Say whether a message has to wait: the run is stopped, is to begin, or others wait already."""
        return run.state != "open" or run.held > 0 or not run.seq

    def keep(self, visit: Visit, message: Start | Reply | Control | Wake | Decided) -> None:
        """Keep a message behind those that wait."""
        run = visit.run
        visit.put(Held(run=run.run, seq=run.held_next, message=message))
        visit.change(held=run.held + 1, held_next=run.held_next + 1)

    def put_back(self, visit: Visit, redeliveries: Sequence[Redelivery]) -> None:
        """Keep what a cut took back before everything that waits."""
        run = visit.run
        first = next((held.seq for held in visit.scan(Held)), run.held_next)
        for seq, one in enumerate(redeliveries, first - len(redeliveries)):
            visit.put(Held(run=run.run, seq=seq, message=one))
        visit.change(held=run.held + len(redeliveries))

    def stop(self, visit: Visit, error: HeadwaterError) -> None:
        """Hold a run whose code cannot take the message that waits first."""
        visit.change(state="held", reason=f"{type(error).__name__}: {error}")
        visit.say("held")

    def taken(self, visit: Visit, held: Held) -> None:
        """Drop a message that was delivered."""
        visit.drop(held)
        visit.change(held=visit.run.held - 1)

    def next(self, visit: Visit) -> list[Held]:
        """Return the next held messages, oldest first, at most a drain's worth."""
        found: list[Held] = []
        left = DRAIN_BYTES_MAX
        for held in itertools.islice(visit.scan(Held), self._drain_max):
            left -= sum(ref.size for ref in needs(held))
            if left < 0 and found:
                break
            found.append(held)
        return found

    def drain_later(self, visit: Visit) -> None:
        """Have the owner go on with what is held, in a turn of its own."""
        if visit.run.held or not visit.run.seq:
            at = visit.turn.at
            visit.send(Drain(run=visit.run.run), Address(at.topic, visit.run.run, at.number))
