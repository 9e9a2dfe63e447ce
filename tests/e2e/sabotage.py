"""Runs a role with one protection taken out, for the controls: `python -m tests.e2e.sabotage KIND …`."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import signal
import sys
import time
from typing import Any

from confluent_kafka import TopicPartition

from headwater.admission.decider import Admission
from headwater.cli import main
from headwater.core.messages import digest
from headwater.log.kafka_member import KafkaMember
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.kafka_worker import KafkaWorker
from headwater.runtime.answering import Answering
from headwater.runtime.bisecting import Bisect
from headwater.runtime.deciding import Deciding
from headwater.runtime.receipts import Known
from headwater.runtime.suspects import Suspects
from headwater.runtime.values import Puts

SLOW_RECORDS = 8
SLOW_COMMIT_S = 0.2


def no_dedupe() -> None:
    """A task that is published twice is two tasks."""
    real = Admission._admit

    def admit(self: Admission, turn: Any, message: Any) -> None:
        other = digest(message.task_id, turn.at.number, turn.at.offset).hex()
        real(self, turn, dataclasses.replace(message, task_id=other))

    Admission._admit = admit  # type: ignore[method-assign,assignment] # that is the sabotage


def offsets_outside() -> None:
    """Offsets are committed by themselves, before what they stand for; each process dies there once."""
    real = KafkaOwner._transact

    def transact(self: Any, held: Any) -> None:
        offsets = [
            TopicPartition(w.claim.partition.topic, w.claim.partition.number, w.next_offset)
            for w in held
        ]
        self._consumer.commit(offsets=offsets, asynchronous=False)
        if any(work.drafts for work in held):
            _die_once()
        real(self, held)

    KafkaOwner._transact = transact  # type: ignore[method-assign] # that is the sabotage


def _die_once() -> None:
    """Die at once, unless an earlier process of this name did."""
    mark = pathlib.Path(os.environ["E2E_MARKS"], f"{os.environ['HEADWATER_INSTANCE']}.died")
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def _slow() -> None:
    """Have small, slow commits, so that partitions move while much that was polled waits."""
    real = KafkaOwner.commit

    def commit(self: Any, work: Any) -> Any:
        time.sleep(SLOW_COMMIT_S)
        return real(self, work)

    KafkaOwner.commit = commit  # type: ignore[method-assign] # it only takes longer
    Bisect.now = property(lambda self: SLOW_RECORDS, lambda self, value: None)  # type: ignore[assignment] # as above


def no_claim_check() -> None:
    """A live member goes on with partitions that went to another, and the broker lets it commit them."""
    _slow()
    KafkaMember._drop = lambda self, place: None  # type: ignore[method-assign] # that is the sabotage


def no_marks() -> None:
    """Effectors never mark how far they got, so that receipts alone keep calls from being made again."""
    KafkaWorker.mark = lambda self, *_: None  # type: ignore[method-assign] # that is the sabotage


def no_receipts() -> None:
    """Neither marks nor receipts: what was noted before a process took over is not looked at."""
    no_marks()
    Known.note = lambda self, *_: None  # type: ignore[method-assign] # that is the sabotage


def dies_after_put() -> None:
    """No protection is out: each process dies once, when a value is stored and nobody knows of it yet."""
    keep, kept = Deciding._keep, Answering._kept

    def keep_and_die(self: Deciding, batches: Any) -> None:
        keep(self, batches)
        if any(batch.puts for batch in batches.values()):
            _die_once()

    async def kept_and_die(self: Answering, item: Any, done: Any) -> Any:
        outcome = await kept(self, item, done)
        _die_once()
        return outcome

    Deciding._keep = keep_and_die  # type: ignore[method-assign] # that is the fault
    Answering._kept = kept_and_die  # type: ignore[method-assign] # that is the fault


def no_puts() -> None:
    """Deciders commit references to values that nobody has stored."""
    Puts.begin = lambda self, blobs, turn: None  # type: ignore[method-assign] # that is the sabotage


def no_suspects() -> None:
    """Whoever was at work when a process died is taken like anybody else."""
    Suspects.find = lambda self, record: None  # type: ignore[method-assign] # that is the sabotage


KINDS = {
    kind.__name__: kind
    for kind in (
        no_dedupe,
        offsets_outside,
        no_claim_check,
        no_marks,
        no_receipts,
        dies_after_put,
        no_puts,
        no_suspects,
    )
}

if __name__ == "__main__":
    KINDS[sys.argv[1]]()
    sys.exit(main.main(sys.argv[2:]))
