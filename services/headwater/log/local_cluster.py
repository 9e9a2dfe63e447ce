"""The state behind the local log: topics, transactions, groups and the clock, under one lock."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import threading
from collections.abc import Callable, Collection

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError
from headwater.log.local_faults import Faults
from headwater.log.local_group import Group, Membership
from headwater.log.local_partition import Stored, partition_of


class Unwritable(Exception):  # noqa: N818 - it names a state of the record, not of the log
    """The log will never take this record.

    Args:
        code: Short kebab-case class of the refusal.
        message: What is wrong, with what to do.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


@dataclasses.dataclass(slots=True, kw_only=True)
class Topic:
    """A topic in its present life."""

    name: str
    id: str
    partitions: list[Stored]
    compacted: bool
    max_bytes: int
    keyless: int = 0


@dataclasses.dataclass(slots=True, kw_only=True)
class Transaction:
    """A transaction that has not ended, or whose end readers cannot see yet."""

    number: int
    producer: str
    began_ms: int
    touched: set[Stored] = dataclasses.field(default_factory=set)
    offsets: dict[tuple[str, Partition], tuple[int, str]] = dataclasses.field(default_factory=dict)
    late: int | None = None


def size(draft: Draft) -> int:
    """Return what a record counts towards its topic's limit, in bytes."""
    total = len(draft.key or b"") + len(draft.value or b"")
    for name, value in draft.headers:
        total += len(name) + len(value or b"")
    return total


class Cluster:
    """Everything of the log that outlives a process. Callers hold `changed` around every method.

    Args:
        clock: The log's own time, in milliseconds.
        faults: What goes wrong.
        session_ms: A member that has not polled for this long is struck off; `None` for never.
        transaction_ms: A transaction open for this long is aborted; `None` for never.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int],
        faults: Faults,
        session_ms: int | None,
        transaction_ms: int | None,
    ) -> None:
        self.changed = threading.Condition()
        self.clock = clock
        self.faults = faults
        self.session_ms = session_ms
        self.transaction_ms = transaction_ms
        self.topics: dict[str, Topic] = {}
        self.groups: dict[str, Group] = {}
        self._epochs: dict[str, int] = {}
        self._open: dict[int, Transaction] = {}
        self._transactions = 0
        self._lives = 0

    def create(self, name: str, *, partitions: int, compacted: bool, max_bytes: int) -> None:
        """Create a topic; subscribers get its partitions in their next polls."""
        if name in self.topics:
            raise SettingsError(f"topic {name} exists already")
        self._lives += 1
        life = hashlib.blake2b(f"{self._lives}/{name}".encode(), digest_size=16).digest()
        self.topics[name] = Topic(
            name=name,
            id=base64.urlsafe_b64encode(life).decode().rstrip("="),
            partitions=[Stored(Partition(name, number)) for number in range(partitions)],
            compacted=compacted,
            max_bytes=max_bytes,
        )
        self._rebalance(name)

    def delete(self, name: str) -> None:
        """Delete a topic, its records, and every group's offsets in it."""
        del self.topics[name]
        for group in self.groups.values():
            for place in [place for place in group.offsets if place.topic == name]:
                del group.offsets[place]
        self._rebalance(name)

    def topic(self, name: str) -> Topic:
        """Return a topic.

        Raises:
            SettingsError: There is none of this name.
        """
        try:
            return self.topics[name]
        except KeyError:
            raise SettingsError(
                f"there is no topic {name}: `headwater topics apply` creates it"
            ) from None

    def stored(self, place: Partition) -> Stored:
        """Return a partition.

        Raises:
            SettingsError: There is no such partition.
        """
        partitions = self.topic(place.topic).partitions
        if not 0 <= place.number < len(partitions):
            raise SettingsError(f"topic {place.topic} has no partition {place.number}")
        return partitions[place.number]

    def places(self, topics: Collection[str]) -> list[Partition]:
        """Return the partitions of these topics, of those that exist."""
        return [
            stored.place
            for name in sorted(topics)
            if name in self.topics
            for stored in self.topics[name].partitions
        ]

    def write(self, draft: Draft, transaction: Transaction | None = None) -> tuple[Partition, int]:
        """Store a record.

        Raises:
            Unwritable: The log will never take it.
        """
        topic = self.topics.get(draft.topic)
        if topic is None:
            raise Unwritable("unknown-topic", f"there is no topic {draft.topic}")
        if (length := size(draft)) > topic.max_bytes:
            raise Unwritable(
                "too-large",
                f"a record of {length} bytes is over the {topic.max_bytes} of {draft.topic}",
            )
        if topic.compacted and draft.key is None:
            raise Unwritable("no-key", f"{draft.topic} is compacted: its records need a key")
        number = draft.partition
        if number is None:
            if draft.key is None:
                topic.keyless += 1
                number = topic.keyless % len(topic.partitions)
            else:
                number = partition_of(draft.key, len(topic.partitions))
        if not 0 <= number < len(topic.partitions):
            raise Unwritable("unknown-partition", f"{draft.topic} has no partition {number}")
        stored = topic.partitions[number]
        offset = stored.append(
            draft,
            time_ms=self.clock(),
            transaction=None if transaction is None else transaction.number,
        )
        if transaction is not None:
            transaction.touched.add(stored)
        return stored.place, offset

    def fence(self, producer: str) -> int:
        """Give a producer's name to a new holder: the old one's transaction ends, its epoch is past."""
        self.settle(producer)
        for transaction in self._of(producer):
            self.end(transaction, committed=False)
        self._epochs[producer] = self._epochs.get(producer, 0) + 1
        return self._epochs[producer]

    def current(self, producer: str, epoch: int) -> bool:
        """Return whether nobody has taken the producer's name since."""
        return self._epochs.get(producer) == epoch

    def begin(self, producer: str) -> Transaction:
        """Open a transaction; an earlier one of this producer is ended first."""
        self.settle(producer)
        self._transactions += 1
        transaction = Transaction(
            number=self._transactions, producer=producer, began_ms=self.clock()
        )
        self._open[transaction.number] = transaction
        return transaction

    def is_open(self, transaction: Transaction) -> bool:
        """Return whether a transaction can still be committed."""
        return transaction.number in self._open and transaction.late is None

    def end(self, transaction: Transaction, *, committed: bool) -> None:
        """End a transaction: markers in what it touched, offsets and records in or out together."""
        del self._open[transaction.number]
        for stored in transaction.touched:
            stored.finish(transaction.number, committed=committed)
        if committed:
            for (group, place), marked in transaction.offsets.items():
                self.group(group).offsets[place] = marked
        self.changed.notify_all()

    def end_late(self, transaction: Transaction, calls: int) -> None:
        """Decide a transaction as committed, which readers see only some calls later."""
        transaction.late = calls

    def settle(self, producer: str) -> None:
        """Make what this producer committed visible, as its next transaction must wait for it."""
        for transaction in self._of(producer):
            if transaction.late is not None:
                self.end(transaction, committed=True)

    @property
    def settling(self) -> bool:
        """Whether calls alone will make something visible, so that there is nothing to wait for."""
        return any(transaction.late is not None for transaction in self._open.values())

    def pending(self, group: str, place: Partition) -> bool:
        """Return whether a transaction that has not ended carries an offset of this partition."""
        return any((group, place) in transaction.offsets for transaction in self._open.values())

    def group(self, name: str) -> Group:
        """Return a group, new if need be."""
        group = self.groups.get(name)
        if group is None:
            group = self.groups[name] = Group(name)
        return group

    def join(self, group: Group, member: Membership) -> None:
        """Take a member into its group."""
        group.join(member, self.places(group.topics | member.topics))
        self.changed.notify_all()

    def strike(self, group: Group, member: Membership) -> None:
        """Strike a member off; its open transaction ends, as the timeouts are set so that it has."""
        if not group.present(member):
            return
        for transaction in self._of(f"{group.name}/{member.instance}"):
            self.end(transaction, committed=transaction.late is not None)
        group.leave(member, self.places(group.topics))
        self.changed.notify_all()

    def tick(self) -> None:
        """Let time act: late transactions come nearer, silent members and old transactions end."""
        for transaction in [*self._open.values()] if self._open else ():
            if transaction.late is not None:
                transaction.late -= 1
                if transaction.late <= 0:
                    self.end(transaction, committed=True)
            elif self._expired(transaction.began_ms, self.transaction_ms):
                self.end(transaction, committed=False)
                self._epochs[transaction.producer] = self._epochs.get(transaction.producer, 0) + 1
        if self.session_ms is None:
            return
        for group in self.groups.values():
            for member in group:
                if not member.waiting and self._expired(member.seen_ms, self.session_ms):
                    self.strike(group, member)

    def _expired(self, since_ms: int, limit_ms: int | None) -> bool:
        return limit_ms is not None and self.clock() - since_ms > limit_ms

    def _of(self, producer: str) -> list[Transaction]:
        return [
            transaction for transaction in self._open.values() if transaction.producer == producer
        ]

    def _rebalance(self, topic: str) -> None:
        for group in self.groups.values():
            if topic in group.topics:
                group.balance(self.places(group.topics))
        self.changed.notify_all()
