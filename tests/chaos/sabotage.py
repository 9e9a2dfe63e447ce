"""Protections taken out in a child, for the controls of the matrix.

Each fails in its own way: what was decided is lost, is doubled, or is bought again.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from confluent_kafka import KafkaException, TopicPartition
from tests.chaos.points import Points
from tests.e2e import sabotage as e2e

from headwater.contracts.messages import InDoubt, Intent, Result
from headwater.contracts.records import Partition
from headwater.core.effector import Safety
from headwater.log.kafka_owner import KafkaOwner
from headwater.runtime.noting import Noting
from headwater.runtime.performing import Performing
from headwater.runtime.receipts import Known
from headwater.runtime.restoring import Restored, Restorer
from headwater.runtime.storing import RocksStore
from headwater.runtime.table import Restore, Table
from headwater.runtime.timers import Timers
from headwater.sdk.context import Context


def offsets_at_poll(_: Points) -> None:
    """Offsets are committed when records are read, as clients do by default."""
    real = KafkaOwner.poll

    def poll(self: Any, **bounds: int) -> Any:
        found = real(self, **bounds)
        newest = {record.partition: record.offset + 1 for _, record in found.records}
        if newest:
            places = [TopicPartition(p.topic, p.number, at) for p, at in newest.items()]
            self._consumer.commit(offsets=places, asynchronous=False)
        return found

    KafkaOwner.poll = poll  # type: ignore[method-assign] # that is the sabotage


def offsets_first(_: Points) -> None:
    """Offsets are committed by themselves, before what they stand for."""
    real = KafkaOwner._transact

    def transact(self: Any, held: Any) -> None:
        offsets = [
            TopicPartition(w.claim.partition.topic, w.claim.partition.number, w.next_offset)
            for w in held
        ]
        self._consumer.commit(offsets=offsets, asynchronous=False)
        real(self, held)

    KafkaOwner._transact = transact  # type: ignore[method-assign] # that is the sabotage


def tries_again(_: Points) -> None:
    """An owner that does not know how its commit ended makes it again, with a new producer."""
    real = KafkaOwner._transact

    def transact(self: Any, held: Any) -> None:
        try:
            real(self, held)
        except (KafkaException, TimeoutError):
            self._discard()
            self._open()
            real(self, held)

    KafkaOwner._transact = transact  # type: ignore[method-assign] # that is the sabotage


def blind_to_intents(_: Points) -> None:
    """Nobody looks whether a call was begun before it begins it."""
    real = Known.note

    def note(self: Known, receipt: Intent | Result, request: str) -> None:
        if isinstance(receipt, Result):
            real(self, receipt, request)

    Known.note = note  # type: ignore[method-assign] # that is the sabotage


def result_after_reply(points: Points) -> None:
    """An answer is sent before it is noted; a death comes between the two."""
    send = Performing._send

    async def unnoted(self: Noting, item: Any, reply: Any) -> Any:
        return reply

    async def sent(self: Any, item: Any, reply: Any) -> Any:
        told = await send(self, item, reply)
        points.called("after-reply", item.ask.safety)
        careful = item.safety is not Safety.READ and not isinstance(reply.outcome, InDoubt)
        if careful:
            noting = self._noting
            result = Result(offset=item.record.offset, reply=reply)
            await noting._append(noting._seal(item, result, "result"))
        return told

    Noting._note = unnoted  # type: ignore[method-assign] # that is the sabotage
    Performing._send = sent  # type: ignore[method-assign] # as above


def no_receipts(_: Points) -> None:
    """Neither marks nor receipts: what was noted before a process took over is not looked at."""
    e2e.no_receipts()


def no_dedupe(_: Points) -> None:
    """A task that is published twice is two tasks."""
    e2e.no_dedupe()


def stamp_ahead(_: Points) -> None:
    """A local store that cannot be written goes on being used, with a stamp ahead of its rows."""
    real = RocksStore._write

    def write(self: Any, store: Any, changes: Any, stamp: Any) -> None:
        real(self, store, {} if stamp is not None else changes, stamp)

    RocksStore._write = write  # type: ignore[method-assign] # that is the sabotage


def rows_unread(_: Points) -> None:
    """Whoever has had a partition before reads no rows when it comes back."""
    real = Restorer._restored
    had: set[tuple[str, Partition]] = set()

    def restored(self: Any, partition: Partition, restore: Restore) -> Restored:
        found = real(self, partition, restore)
        if (self._group, partition) not in had:
            had.add((self._group, partition))
            return found
        table = Table()
        return dataclasses.replace(found, table=table, timers=Timers(table, found.armed))

    Restorer._restored = restored  # type: ignore[method-assign] # that is the sabotage


def no_hand_over(_: Points) -> None:
    """A process that is told to stop ends at once, and notes nothing of the calls under way."""
    real = Performing.run

    async def run(self: Any, stop: Any, *, drain_s: float, leave: bool = False) -> None:
        await real(self, stop, drain_s=0.0, leave=True)

    Performing.run = run  # type: ignore[method-assign,assignment] # that is the sabotage


def unpatched(_: Points) -> None:
    """A changed agent takes its new way in old runs too."""
    Context.patched = lambda self, _: True  # type: ignore[method-assign,assignment] # that is the sabotage


KINDS = {
    kind.__name__: kind
    for kind in (
        offsets_at_poll,
        offsets_first,
        tries_again,
        blind_to_intents,
        result_after_reply,
        no_receipts,
        no_dedupe,
        stamp_ahead,
        rows_unread,
        no_hand_over,
        unpatched,
    )
}
