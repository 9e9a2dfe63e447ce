"""The local log: in process, in memory, with the semantics of Kafka.

It is the embedded default, the log of unit tests, and the world of the simulator.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from headwater.contracts.records import Draft, Partition, Record
from headwater.errors import PoisonError, SettingsError
from headwater.log import local_member
from headwater.log.local_cluster import Cluster, Transaction, Unwritable
from headwater.log.local_faults import Faults, Point
from headwater.log.local_member import LocalMember, LocalOwner, LocalWorker
from headwater.log.port import Pairs

RECORD_BYTES_MAX = 1_048_588
"""What a topic takes unless it says otherwise: Kafka's `max.message.bytes`."""
COMMITTED_WAIT_S = 60.0
"""How long a stable offset is waited for before the wait itself is called a failure."""
TOMBSTONE_MS = 86_400_000
"""How long compaction keeps tombstones: Kafka's `delete.retention.ms`."""


def real_ms() -> int:
    """Return the wall clock in milliseconds."""
    return time.time_ns() // 1_000_000


class LocalReader:
    """Committed records of some partitions, without a group.

    Args:
        cluster: The log's state.
        starts: Next offset per partition.
    """

    def __init__(self, cluster: Cluster, starts: Mapping[Partition, int]) -> None:
        self._cluster = cluster
        self._first = 0
        self._next = {place: max(0, start) for place, start in starts.items()}
        self.until_now()

    def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records, in offset order per partition; empty when none came in time."""
        cluster = self._cluster
        cluster.faults.at(Point.READ, "")
        until = time.monotonic() + wait_ms / 1000
        while True:
            with cluster.changed:
                cluster.tick()
                before = [*self._next.values()]
                records = self._fetch(records_max)
                moved = before != [*self._next.values()]
                left = until - time.monotonic() if wait_ms else 0
            if records or moved or left <= 0:
                cluster.faults.at(Point.FETCHED, "")
                return records
            if cluster.settling:
                continue
            cluster.faults.at(Point.BLOCKED, "")
            with cluster.changed:
                if not self._readable():
                    cluster.changed.wait(left)

    def pairs(self, *, records_max: int, wait_ms: int) -> Pairs:
        """Return the keys and values of the next records, as `poll` would."""
        records = self.poll(records_max=records_max, wait_ms=wait_ms)
        return [record.key or b"" for record in records], [record.value for record in records]

    def next_offset(self, partition: Partition) -> int:
        """Return where reading a partition goes on."""
        return self._next[partition]

    @property
    def at_end(self) -> bool:
        """Whether every partition was read up to the end it had when the reader was opened."""
        return all(self._next[place] >= end for place, end in self._ends.items())

    def until_now(self) -> None:
        """Have `at_end` speak of the ends there are now, not of those when the reader was opened."""
        with self._cluster.changed:
            self._ends = {place: self._cluster.stored(place).end for place in self._next}

    def close(self) -> None:
        """Stop reading."""

    def _readable(self) -> bool:
        return any(
            self._cluster.stored(place).stable_end > offset for place, offset in self._next.items()
        )

    def _fetch(self, records_max: int) -> list[Record]:
        places = [*self._next]
        self._first = (self._first + 1) % max(1, len(places))
        found: list[Record] = []
        for place in places[self._first :] + places[: self._first]:
            if records_max <= len(found):
                break
            stored = self._cluster.stored(place)
            records, self._next[place] = stored.read(self._next[place], records_max - len(found))
            found += records
        return found


class OpenTransaction:
    """A transaction that someone keeps open: readers wait at its first record until it ends.

    Args:
        cluster: The log's state.
        transaction: The open transaction.
    """

    def __init__(self, cluster: Cluster, transaction: Transaction) -> None:
        self._cluster = cluster
        self._transaction = transaction

    def commit(self) -> None:
        """Make its records visible."""
        self._end(committed=True)

    def abort(self) -> None:
        """Take its records back."""
        self._end(committed=False)

    def _end(self, *, committed: bool) -> None:
        with self._cluster.changed:
            if self._cluster.is_open(self._transaction):
                self._cluster.end(self._transaction, committed=committed)


class LocalLog:
    """An ordered, partitioned, transactional log in memory; thread-safe, and it forgets at exit.

    Args:
        clock: The log's own time in milliseconds, which records are stamped with.
        session_ms: A member that has not polled for this long loses its claims; `None` for never.
        transaction_ms: A transaction open for this long is aborted; `None` for never.
        faults: What goes wrong; by default nothing.
        check_claims: Off only in controls: then members write for claims they have lost.
        lose_claims: Off only in controls: then claims outlive a commit of unknown outcome.
        offsets_inside: Off only in controls: then offsets follow their transaction instead.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], int] = real_ms,
        session_ms: int | None = None,
        transaction_ms: int | None = None,
        faults: Faults | None = None,
        check_claims: bool = True,
        lose_claims: bool = True,
        offsets_inside: bool = True,
    ) -> None:
        self._cluster = Cluster(
            clock=clock,
            faults=faults or Faults(),
            session_ms=session_ms,
            transaction_ms=transaction_ms,
        )
        self._check_claims = check_claims
        self._lose_claims = lose_claims
        self._offsets_inside = offsets_inside

    def own(
        self, topics: Collection[str], *, group: str, instance: str, writer: str = ""
    ) -> LocalOwner:
        """Join a group as a decider; an older member with the same group and instance is fenced."""
        return LocalOwner(
            self._cluster,
            group=group,
            instance=instance,
            topics=topics,
            check_claims=self._check_claims,
            lose_claims=self._lose_claims,
            offsets_inside=self._offsets_inside,
            writer=writer,
        )

    def work(
        self, topics: Collection[str], *, group: str, instance: str, intends: bool = False
    ) -> LocalWorker:
        """Join a group as an effector; whether or not it intends, what its predecessor left open ends."""
        return LocalWorker(
            self._cluster,
            group=group,
            instance=instance,
            topics=topics,
            check_claims=self._check_claims,
            lose_claims=self._lose_claims,
            offsets_inside=self._offsets_inside,
        )

    def read(self, starts: Mapping[Partition, int]) -> LocalReader:
        """Read committed records from these offsets on; an offset before the first means the first."""
        return LocalReader(self._cluster, starts)

    async def append(self, draft: Draft) -> tuple[Partition, int]:
        """Write one record outside any transaction; where it is, once it is durable.

        Raises:
            PoisonError: The record can never be written, for example too large (`too-large`).
            SettingsError: There is no such topic.
        """
        cluster = self._cluster
        cluster.faults.at(Point.APPEND, "")
        with cluster.changed:
            cluster.tick()
            cluster.topic(draft.topic)
            try:
                place, offset = cluster.write(draft)
                for _ in range(1, cluster.faults.copies(draft)):
                    cluster.write(draft)
            except Unwritable as error:
                raise PoisonError(error.code, str(error)) from error
            cluster.changed.notify_all()
        cluster.faults.at(Point.APPENDED, "")
        return place, offset

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return a group's stable next offset and its metadata; waits while a transaction carries one.

        Raises:
            SettingsError: The group has no offset there: `topics apply` writes it.
            TimeoutError: The transaction did not end in a minute.
        """
        cluster = self._cluster
        cluster.faults.at(Point.OFFSET, "")
        until = time.monotonic() + COMMITTED_WAIT_S
        while True:
            with cluster.changed:
                cluster.tick()
                pending = cluster.pending(group, partition)
                marked = cluster.group(group).offsets.get(partition)
            if not pending:
                if marked is None:
                    raise local_member.missing(group, str(partition))
                cluster.faults.at(Point.FOUND, "")
                return marked
            if time.monotonic() > until:
                raise TimeoutError(f"an offset of {group} in {partition} stayed in a transaction")
            if cluster.settling:
                continue
            cluster.faults.at(Point.BLOCKED, "")
            with cluster.changed:
                if cluster.pending(group, partition):
                    cluster.changed.wait(0.1)

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        """Return the first offset appended at this time or later; the end if there is none."""
        with self._cluster.changed:
            return self._cluster.stored(partition).offset_at(time_ms)

    def answers(self, wait_s: float) -> bool:
        """Return whether the log answers: it is in this process."""
        return True

    def topic_id(self, topic: str) -> str:
        """Return the id of this topic's present life; a recreated topic has another."""
        return self._cluster.topic(topic).id

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises:
            SettingsError: There is no such topic.
        """
        return len(self._cluster.topic(topic).partitions)

    def has(self, partition: Partition) -> bool:
        """Return whether there is such a partition."""
        try:
            return partition.number < self.partitions(partition.topic)
        except SettingsError:
            return False

    def create(
        self,
        topic: str,
        *,
        partitions: int = 1,
        compacted: bool = False,
        max_bytes: int = RECORD_BYTES_MAX,
    ) -> None:
        """Create a topic.

        Args:
            topic: Full name.
            partitions: How many.
            compacted: Records need keys, and `compact` may drop all but the newest of each.
            max_bytes: Largest record: key, value and headers.

        Raises:
            SettingsError: It exists.
        """
        with self._cluster.changed:
            self._cluster.create(
                topic, partitions=partitions, compacted=compacted, max_bytes=max_bytes
            )

    def delete(self, topic: str) -> None:
        """Delete a topic, with every group's offsets in it."""
        with self._cluster.changed:
            self._cluster.topic(topic)
            self._cluster.delete(topic)

    def topics(self) -> frozenset[str]:
        """Return the names of the topics there are."""
        with self._cluster.changed:
            return frozenset(self._cluster.topics)

    def begin_group(self, group: str, topics: Collection[str]) -> None:
        """Write a group's first offsets where it has none."""
        with self._cluster.changed:
            for topic in topics:
                for stored in self._cluster.topic(topic).partitions:
                    self._cluster.group(group).offsets.setdefault(stored.place, (0, ""))

    def compact(self, topic: str, *, tombstone_ms: int = TOMBSTONE_MS) -> None:
        """Keep the newest record of each key; tombstones go once they are older than `tombstone_ms`."""
        with self._cluster.changed:
            if not self._cluster.topic(topic).compacted:
                raise SettingsError(f"topic {topic} is not compacted")
            before_ms = self._cluster.clock() - tombstone_ms
            for stored in self._cluster.topic(topic).partitions:
                stored.compact(before_ms=before_ms)

    def evict(self, member: LocalMember) -> None:
        """Have the group forget a member that keeps its claims and does not know: a zombie."""
        member.strike_off()

    def hold(self, drafts: Sequence[Draft]) -> OpenTransaction:
        """Write records in a transaction that stays open until it is told to end."""
        with self._cluster.changed:
            transaction = self._cluster.begin("held open")
            for draft in drafts:
                self._cluster.write(draft, transaction)
        return OpenTransaction(self._cluster, transaction)

    def end(self, partition: Partition) -> int:
        """Return a partition's uncommitted end."""
        with self._cluster.changed:
            return self._cluster.stored(partition).end

    def stable_end(self, partition: Partition) -> int:
        """Return how far readers may see: the end, or the first record of an open transaction."""
        with self._cluster.changed:
            return self._cluster.stored(partition).stable_end

    def offset(self, group: str, partition: Partition) -> int | None:
        """Return a group's offset as it is, stable or not; `None` if there is none."""
        with self._cluster.changed:
            marked = self._cluster.group(group).offsets.get(partition)
            return None if marked is None else marked[0]

    def wake(self) -> None:
        """Have everyone who waits look again: the injected clock has moved."""
        with self._cluster.changed:
            self._cluster.tick()
            self._cluster.changed.notify_all()
