"""An effector's membership on Kafka: offsets in the background, intentions in transactions, no outputs."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Sequence

from confluent_kafka import KafkaError, KafkaException, TopicPartition

from headwater.contracts.records import Partition
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_member import First
from headwater.log.kafka_transactor import KafkaTransactor
from headwater.log.kafka_unowned import Unowned
from headwater.log.kafka_watch import WATCHDOG
from headwater.log.port import Claim, Parting, Poll, Work

logger = logging.getLogger(__name__)

_AGAIN_S = 0.5
"""How long a mark that was refused waits for the group to settle."""
_SETTLE_TRIES = 50
_SETTLE_POLL_S = 0.1
_UNSETTLED = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})


class KafkaWorker(KafkaTransactor):
    """Marks what is answered; see `log.port.Worker`.

    Args:
        config: The cluster.
        topics: What is read.
        group: The group.
        instance: This member's stable name.
        first: Looks a group's committed offset up, for a claim resumed without one.
        unowned: Looks for partitions that a predecessor gave up and nobody got.
        intends: Whether it may ever intend: then its producer is opened before anything is gained.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Collection[str],
        *,
        group: str,
        instance: str,
        first: First,
        unowned: Unowned,
        intends: bool = False,
    ) -> None:
        self._intends = intends
        self._newest: dict[Claim, TopicPartition] = {}
        self._again: set[Partition] = set()
        """Where a mark was refused, and none was made since."""
        self._again_s = 0.0
        self._parting: Parting = _nothing
        super().__init__(
            config, topics, group=group, instance=instance, first=first, unowned=unowned
        )

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; marks that were refused meanwhile are made again, a little later.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        poll_ = self._poll_opened if self._intends else super().poll
        poll = poll_(records_max=records_max, wait_ms=wait_ms)
        if self._again and time.monotonic() > self._again_s:
            self._mark_again()
        return poll

    def mark(self, claim: Claim, next_offset: int, metadata: str = "") -> None:
        """Commit an offset in the background; a stale claim's is ignored."""
        if not self.holds(claim):
            return
        place = claim.partition
        self._newest[claim] = TopicPartition(place.topic, place.number, next_offset, metadata)
        self._again.discard(place)
        self._commit_mark(self._newest[claim])

    def _mark_again(self) -> None:
        """Make marks again that were refused: nothing may be done for long, and lag would stay."""
        again, self._again = self._again, set()
        for claim, mark in self._newest.items():
            if claim.partition in again:
                self._commit_mark(mark)

    def _on_commit(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        refused = {
            Partition(place.topic, place.partition)
            for place in places
            if error is not None or place.error is not None
        }
        if refused and not self._again:
            self._again_s = time.monotonic() + _AGAIN_S
        self._again |= refused

    def _commit_mark(self, mark: TopicPartition) -> None:
        try:
            self._consumer.commit(offsets=[mark], asynchronous=True)
        except KafkaException as error:
            logger.warning("%s: a mark waits for the next: %s", self.group, error)

    def parting(self, told: Parting) -> None:
        """Have this told before claims go to others in good order."""
        self._parting = told

    def intend(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write intentions with the offsets of their claims; without `intends` the first opens the producer.

        Raises:
            WorkRefusedError: The log refused it twice; nothing was written, the claims still hold.
        """
        if self._producer is None and not self._closed:
            self._open()
        return self._commit(work)

    def close(self, *, leave: bool = False) -> None:
        """End the membership, after the last marks.

        While others come or go, the broker takes marks of the generation to come only, which polling
        reaches; what is polled for is the next owner's.
        """
        for _ in range(_SETTLE_TRIES if not self._closed else 0):
            if self._settle([*self._claims.values()]):
                break
            with WATCHDOG.over(f"last polls of {self.group}", self.config.call_s * 2):
                self._consumer.poll(_SETTLE_POLL_S)
        super().close(leave=leave)

    def _before_revoke(self, claims: Collection[Claim]) -> None:
        """Have the last marks in the log before someone else goes on from there.

        A mark still under way could otherwise arrive after the heir's and take it back.
        """
        self._parting(claims)
        self._settle(claims)

    def _drop(self, place: Partition) -> None:
        claim = self._claims.get(place)
        if claim is not None:
            self._newest.pop(claim, None)
        super()._drop(place)

    def _settle(self, claims: Collection[Claim]) -> bool:
        """Commit and wait; false if the same may work once the group has settled."""
        marks = [mark for claim in claims if (mark := self._newest.get(claim)) is not None]
        if not marks:
            return True
        try:
            with WATCHDOG.over(f"commit of {self.group}", self.config.call_s * 4):
                self._consumer.commit(offsets=marks, asynchronous=False)
        except KafkaException as error:
            logger.warning(
                "%s: its last marks are lost, requests may repeat: %s", self.group, error
            )
            return error.args[0].code() not in _UNSETTLED
        return True


def _nothing(_claims: Collection[Claim]) -> None:
    """Have nothing to say."""
