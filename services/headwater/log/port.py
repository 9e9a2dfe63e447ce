"""The ports of the log: what a decider, an effector, a projection and a door may do to it.

Impossible by construction: offsets without outputs (an owner has no begin and no end), an effector
that transacts its reply, a zombie's write (work carries its claim).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from headwater.contracts.frozen import Frozen
from headwater.contracts.records import Draft, Partition, Record


class Claim(Frozen):
    """Proof that a partition was given to us; stale from the moment it is taken away.

    Args:
        partition: The partition.
        epoch: Counts up with every claim that one membership gets, so two claims never compare equal.
    """

    partition: Partition
    epoch: int


class Poll(Frozen, kw_only=True):
    """What changed since the last poll.

    Args:
        lost: Claims that are stale now. To be handled before `gained`.
        gained: New claims, delivered paused: nothing of them comes until `resume`, whose
            `offsets` name where to start.
        records: Records of claims that still hold, in offset order per claim.
    """

    lost: frozenset[Claim] = frozenset()
    gained: frozenset[Claim] = frozenset()
    records: Sequence[tuple[Claim, Record]] = ()


class Work(Frozen, kw_only=True):
    """What one owned partition's turns wrote, and the next offset to read.

    Args:
        claim: Of which claim.
        next_offset: Where its group goes on.
        drafts: What is written; gone through once for each try, so they may be made as they are written.
            What breaks while they are made is raised, nothing is written, and the claims still hold.
        metadata: What is kept beside the offset; effectors keep there what is done beyond it.
    """

    claim: Claim
    next_offset: int
    drafts: Iterable[Draft] = ()
    metadata: str = ""


class Member(Protocol):
    """Membership of a consumer group; one thread makes every call."""

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait at most `wait_ms` for news; rebalances happen in here and nowhere else."""
        ...

    def pause(self, claims: Collection[Claim]) -> None:
        """Stop delivering these; nothing is lost. Stale claims are ignored."""
        ...

    def resume(self, claims: Mapping[Claim, int | None]) -> None:
        """Deliver these again, from the offset given, or from where they were paused if `None`."""
        ...

    def close(self, *, leave: bool = False) -> None:
        """End the membership; with `leave` a static member gives its partitions up at once."""
        ...


class Owner(Member, Protocol):
    """A decider's membership: what it writes and the offsets it reaches are one transaction."""

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return those claims.

        Every other claim of this membership comes back as lost from the next poll, then perhaps
        gained. An unknown outcome returns the empty set and loses every claim.

        Raises:
            WorkRefusedError: The log refused this work twice though its claims held. Nothing of it
                was written, the claims still hold; halve the work and try again.
        """
        ...


Parting = Callable[[Collection[Claim]], None]
"""Told of claims that are about to be given up, while they still hold; it has to be quick."""


class Worker(Member, Protocol):
    """An effector's membership: it marks what is answered, and notes what it is about to do.

    No reply goes through it: what it writes in a transaction are intentions, so that whoever has
    lost a partition cannot begin what its heir may begin.
    """

    def mark(self, claim: Claim, next_offset: int, metadata: str = "") -> None:
        """Commit an offset in the background; a mark that is lost only repeats requests."""
        ...

    def parting(self, told: Parting) -> None:
        """Have this told, inside a poll or a close, before claims go to others in good order.

        Claims that are lost otherwise, because nobody heard of us, go without it.
        """
        ...

    def intend(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write intentions and the offsets of the claims that hold, all or none; return those claims.

        As with an owner's commit, every other claim of this membership comes back as lost, and an
        unknown outcome returns the empty set.

        Raises:
            WorkRefusedError: The log refused this work twice though its claims held; nothing of it
                was written, the claims still hold.
        """
        ...


Pairs = tuple[Sequence[bytes], Sequence[bytes | None]]
"""The keys and the values of records; where there is no key, an empty one."""


class Reader(Protocol):
    """Committed records of some partitions, without a group: restores, projections, tails."""

    def poll(self, *, records_max: int, wait_ms: int) -> Sequence[Record]:
        """Return the next records, in offset order per partition; empty when none came in time."""
        ...

    def pairs(self, *, records_max: int, wait_ms: int) -> Pairs:
        """Return the keys and values of the next records, as `poll` would, and make no records."""
        ...

    def next_offset(self, partition: Partition) -> int:
        """Return where reading a partition goes on: whatever was committed before was delivered."""
        ...

    @property
    def at_end(self) -> bool:
        """Whether every partition was read up to the end it had when the reader was opened.

        The end is the uncommitted one, so everything begun before the reader was opened has been
        delivered or aborted once this holds.
        """
        ...

    def until_now(self) -> None:
        """Have `at_end` speak of the ends there are now, not of those when the reader was opened."""
        ...

    def close(self) -> None:
        """Stop reading."""
        ...


class Log(Protocol):
    """An ordered, partitioned, transactional log."""

    def own(self, topics: Collection[str], *, group: str, instance: str, writer: str = "") -> Owner:
        """Join a group as a decider; an older member with the same group and instance is fenced.

        Args:
            topics: What to subscribe to.
            group: The group.
            instance: This member's stable name.
            writer: Under which name it writes; empty for one of its own. Whoever gains claims under a
                writer's name ends what others had begun to write under it, and what they write then
                comes to nothing and loses them their claims. So between gaining claims and losing
                them nobody else has written under that name; but for `WorkRefusedError`, before which
                somebody may have, and for what was tried a second time.
        """
        ...

    def work(
        self, topics: Collection[str], *, group: str, instance: str, intends: bool = False
    ) -> Worker:
        """Join a group as an effector.

        Args:
            topics: What to subscribe to.
            group: The group.
            instance: This member's stable name.
            intends: Whether it may ever intend, for which it needs the right to write transactions.
                Then a transaction that a predecessor of its name left open has ended before anything
                is gained; else that is waited for, and its first intention looks after it.
        """
        ...

    def read(self, starts: Mapping[Partition, int]) -> Reader:
        """Read committed records from these offsets on; an offset before the first means the first."""
        ...

    async def append(self, draft: Draft) -> tuple[Partition, int]:
        """Write one record outside any transaction; where it is, once it is durable.

        Raises:
            TransientError: The log is away.
            PoisonError: The record can never be written, for example too large (`too-large`).
        """
        ...

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return a group's stable next offset and its metadata; blocks, so never on a member's thread.

        Raises:
            SettingsError: The group has no offset there (missing or expired): `topics apply` writes it.
        """
        ...

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        """Return the first offset appended at this time or later; the end if there is none. Blocks."""
        ...

    def answers(self, wait_s: float) -> bool:
        """Return whether the log answers within so many seconds; blocks meanwhile."""
        ...

    def topic_id(self, topic: str) -> str:
        """Return the id of this topic's present life; a recreated topic has another."""
        ...

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has.

        Raises:
            SettingsError: There is no such topic.
        """
        ...

    def has(self, partition: Partition) -> bool:
        """Return whether there is such a partition now, though its topic had fewer when it was counted."""
        ...
