"""A member of a consumer group on Kafka: claims, pausing, positions; one thread makes every call."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from headwater.contracts.records import Partition, Record
from headwater.errors import SettingsError
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_unowned import Unowned
from headwater.log.kafka_watch import WATCHDOG
from headwater.log.port import Claim, Poll

logger = logging.getLogger(__name__)

_SEEK_S = 10.0
_SEEK_AGAIN_S = 0.005
_LEAVE_POLLS_MAX = 100
_LEAVE_POLL_S = 0.1

First = Callable[[str, Partition], tuple[int, str]]


class KafkaMember:
    """A membership; rebalances happen inside `poll` and nowhere else.

    The client is assigned a partition only when `resume` knows the offset. Assigned at the end or
    the beginning it would look that up, and a seek made meanwhile is undone: the answer, outdated
    by then, has the client ask again and go there, past every record in between (librdkafka 2.16,
    `rd_kafka_toppar_handle_Offset`).

    Args:
        config: The cluster.
        topics: What is read.
        group: The group.
        instance: This member's stable name.
        first: Looks a group's committed offset up, for a claim resumed without one.
        unowned: Looks for partitions that a predecessor gave up and nobody got.
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
    ) -> None:
        self.config = config
        self.group = group
        self.instance = instance
        self._topics = [*topics]
        self._first = first
        self._unowned = unowned
        self._claims: dict[Partition, Claim] = {}
        self._positions: dict[Claim, int] = {}
        self._paused: set[Claim] = set()
        self._assigned: set[Partition] = set()
        self._epoch = 0
        self._lost: set[Claim] = set()
        self._gained: set[Claim] = set()
        self._said_away = False
        self._closed = False
        self._errors: list[KafkaError] = []
        self._early: list[Message] = []
        """Read between polls, for the next."""
        self._consumer = Consumer(
            {
                **config.member(group, instance),
                "error_cb": self._errors.append,
                "on_commit": self._on_commit,
            }
        )
        self._subscribe()

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait at most `wait_ms` for news; one message is waited for, what else is there is taken.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        assert not self._closed, "a closed member does not poll"
        # All of it, whatever was asked for: what stayed could pass for what follows a later seek.
        early, self._early = self._early, []
        records = self._records(early or self._consume(records_max, wait_ms))
        while self._errors:
            self._trouble(self._errors.pop())
        if not self._unowned.settled:
            self._look_for_unowned()
        lost, gained = frozenset(self._lost), frozenset(self._gained)
        self._lost, self._gained = set(), set()
        return Poll(lost=lost, gained=gained, records=records)

    def pause(self, claims: Collection[Claim]) -> None:
        """Stop delivering; the client drops what it prefetched, so our own positions are kept."""
        live = [claim for claim in claims if self.holds(claim) and claim not in self._paused]
        self._paused.update(live)
        if live:
            self._consumer.pause([_place(claim.partition) for claim in live])

    def resume(self, claims: Mapping[Claim, int | None]) -> None:
        """Deliver from the offset given, or from where the claim was paused.

        Raises:
            SettingsError: A claim just gained is resumed from its group's offset, and there is none.
        """
        for claim, offset in claims.items():
            if not self.holds(claim):
                continue
            position = self._positions.get(claim) if offset is None else offset
            if position is None:
                position, _ = self._first(self.group, claim.partition)
            if not self._go_to(claim.partition, position):
                self._drop(claim.partition)
                self._claim(claim.partition)
                continue
            self._positions[claim] = position
            self._paused.discard(claim)
            self._consumer.resume([_place(claim.partition)])

    def close(self, *, leave: bool = False) -> None:
        """End the membership.

        A static member keeps its partitions until it is back or its session ends; with `leave` it
        gives them up first.
        """
        if self._closed:
            return
        with WATCHDOG.over(f"close of {self.group}", self.config.call_s * 2):
            if leave:
                self._consumer.unsubscribe()
                for _ in range(_LEAVE_POLLS_MAX):
                    self._consumer.poll(_LEAVE_POLL_S)
                    if not self._claims:
                        break
            # An assignment that waits to be told makes the client's close hang (librdkafka 2.16).
            self._consumer.poll(0)
            self._closed = True
            self._consumer.close()

    def holds(self, claim: Claim) -> bool:
        """Say whether a claim is live."""
        return self._claims.get(claim.partition) == claim

    def _subscribe(self) -> None:
        self._consumer.subscribe(
            self._topics,
            on_assign=self._on_assign,
            on_revoke=self._on_revoke,
            on_lost=self._on_lost,
        )

    def _look_for_unowned(self) -> None:
        """Join anew if there are such: the group then settles who owns what."""
        if unowned := self._unowned.look():
            places = ", ".join(map(str, sorted(unowned, key=str)))
            logger.warning("%s: nobody has %s; joining anew", self.group, places)
            self._consumer.unsubscribe()
            self._subscribe()

    def _consume(self, records_max: int, wait_ms: int) -> list[Message]:
        with WATCHDOG.over(f"poll of {self.group}", wait_ms / 1000 + self.config.call_s * 2):
            first = self._consumer.poll(wait_ms / 1000)
            if first is None:
                return []
            if records_max <= 1:
                return [first]
            # `consume(n, t)` would wait for all n.
            return [first, *self._consumer.consume(records_max - 1, 0)]

    def _read_ahead(self, wait_s: float) -> None:
        """Have the client take note of what the group says; a message that comes waits for a poll."""
        with WATCHDOG.over(f"poll of {self.group}", wait_s + self.config.call_s * 2):
            message = self._consumer.poll(wait_s)
        if message is not None:
            self._early.append(message)

    def _before_revoke(self, claims: Collection[Claim]) -> None:
        """Finish what is under way for claims that are about to go; nothing here."""

    def _on_commit(self, error: KafkaError | None, places: Sequence[TopicPartition]) -> None:
        """Take note of what became of a commit in the background; nothing here."""

    def _lose_all(self) -> None:
        """Make every claim stale; the partitions that are still ours are claimed anew."""
        places = [*self._claims]
        for place in places:
            self._drop(place)
        if here := [_place(place) for place in places if place in self._assigned]:
            self._consumer.pause(here)
        for place in places:
            self._claim(place)

    def _claim(self, place: Partition) -> None:
        self._epoch += 1
        claim = Claim(place, self._epoch)
        self._claims[place] = claim
        self._gained.add(claim)
        self._paused.add(claim)

    def _drop(self, place: Partition) -> None:
        claim = self._claims.pop(place, None)
        if claim is None:
            return
        self._positions.pop(claim, None)
        self._paused.discard(claim)
        if claim in self._gained:
            self._gained.discard(claim)  # nobody was told of it
        else:
            self._lost.add(claim)

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        consumer.incremental_assign([])  # or the client would assign them all by itself
        for place in partitions:
            self._claim(Partition(place.topic, place.partition))

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places = [Partition(p.topic, p.partition) for p in partitions]
        self._before_revoke([self._claims[place] for place in places if place in self._claims])
        self._on_lost(consumer, partitions)

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        places = {Partition(p.topic, p.partition) for p in partitions}
        for place in places:
            self._drop(place)
        consumer.incremental_unassign([_place(place) for place in places & self._assigned])
        self._assigned -= places

    def _records(self, messages: Iterable[Message]) -> list[tuple[Claim, Record]]:
        found: list[tuple[Claim, Record]] = []
        for message in messages:
            error = message.error()
            if error is not None:
                self._trouble(error)
                continue
            self._said_away = False
            place = Partition(message.topic(), message.partition())
            claim = self._claims.get(place)
            if claim is None or claim in self._paused:
                continue
            offset = message.offset()
            if offset < self._positions.get(claim, 0):
                continue  # fetched before a seek
            self._positions[claim] = offset + 1
            found.append((claim, record_of(message, place)))
        return found

    def _trouble(self, error: KafkaError) -> None:
        code = error.code()
        if code in kafka_errors.FENCED or error.fatal():
            raise kafka_errors.taken_over(self.group, self.instance, error)
        if code in kafka_errors.EXPIRED:
            raise SettingsError(
                f"{self.group} has no offset where it is to go on ({error.str()}): what was there has "
                "expired; see `headwater topics skip-expired --dry-run`"
            )
        if code in kafka_errors.FORBIDDEN:
            raise kafka_errors.forbidden(f"read for {self.group}", error)
        if not kafka_errors.is_away(error):
            logger.warning("%s: %s", self.group, error.str())
        elif not self._said_away:
            logger.warning("%s waits for the cluster: %s", self.group, error.str())
            self._said_away = True

    def _go_to(self, place: Partition, offset: int) -> bool:
        """Have the client go on at an offset; return whether it does."""
        if place in self._assigned:
            return self._seek(place, offset)
        self._consumer.incremental_assign([TopicPartition(place.topic, place.number, offset)])
        self._assigned.add(place)
        return True

    def _seek(self, place: Partition, offset: int) -> bool:
        """Seek; a partition that was assigned a moment ago takes a little to be seekable.

        Returns:
            `False` if it does not become so: it is probably on its way to someone else.
        """
        until = time.monotonic() + _SEEK_S
        while True:
            try:
                with WATCHDOG.over(f"seek of {self.group}", self.config.call_s):
                    self._consumer.seek(TopicPartition(place.topic, place.number, offset))
            except KafkaException as failure:
                if failure.args[0].code() not in kafka_errors.UNSETTLED:
                    raise
                if time.monotonic() > until:
                    logger.warning("%s: %s cannot be taken up: %s", self.group, place, failure)
                    return False
                time.sleep(_SEEK_AGAIN_S)
            else:
                return True


def record_of(message: Message, place: Partition) -> Record:
    """Return a client's message as a record."""
    _, time_ms = message.timestamp()
    return Record(
        partition=place,
        offset=message.offset(),
        time_ms=time_ms,
        key=message.key(),
        value=message.value(),
        headers=tuple(message.headers() or ()),
    )


def _place(partition: Partition) -> TopicPartition:
    return TopicPartition(partition.topic, partition.number)
