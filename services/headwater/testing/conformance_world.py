"""The world of one conformance test: a harness around a log, and members that are followed.

Nothing sleeps: every wait is a poll of the log itself, with a bound.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from headwater.contracts.records import Draft, Partition, Record
from headwater.log.port import Claim, Log, Member, Owner, Poll, Reader, Work, Worker

BOUND_S = 180.0
"""How long any one condition may take, on the slowest log."""
WAIT_MS = 100
"""How long one poll inside such a wait may block."""

_numbers = itertools.count(1)


class OpenTransaction(Protocol):
    """A transaction of some other producer, open until told otherwise."""

    def commit(self) -> None:
        """Commit it."""
        ...

    def abort(self) -> None:
        """Abort it."""
        ...


class Harness(Protocol):
    """What the suite needs of a log besides its port; everything here is set-up or sabotage."""

    @property
    def namespace(self) -> str:
        """Begins every topic and group of one test."""
        ...

    def create(
        self,
        topic: str,
        *,
        partitions: int = 1,
        compacted: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        """Create a topic with LogAppendTime; usable when this returns."""
        ...

    def recreate(self, topic: str) -> None:
        """Delete a topic and create it again, with one partition."""
        ...

    def log(self) -> Log:
        """Return a log on the same cluster; several stand for several processes."""
        ...

    def begin_group(self, group: str, topics: Collection[str]) -> None:
        """Write a group's first offsets, as `topics apply` does."""
        ...

    def open_transaction(self, drafts: Sequence[Draft]) -> OpenTransaction:
        """Write records in a transaction and leave it open; they are in the log when this returns."""
        ...

    def expire(self, member: Member) -> None:
        """Have the group strike a member off without its knowledge: a zombie."""
        ...

    def compact(self, topic: str) -> None:
        """Compact a topic now, tombstones included, or skip the test with the reason."""
        ...


def until(condition: Callable[[], bool], what: str) -> None:
    """Try until it holds; the condition itself waits, inside a poll."""
    end = time.monotonic() + BOUND_S
    while not condition():
        assert time.monotonic() < end, f"waited {BOUND_S:.0f} s for {what}"


class Follower:
    """A member with what it was given: current claims, everything lost, everything delivered.

    Args:
        member: The membership.
        resumes: Start gained claims at the group's committed offset, as the loops do.
        log: Where to ask for that offset.
        group: Whose.
    """

    def __init__(self, member: Member, log: Log, group: str, *, resumes: bool = True) -> None:
        self.member = member
        self.claims: dict[Partition, Claim] = {}
        self.lost: list[Claim] = []
        self.gained: list[Claim] = []
        self.records: list[tuple[Claim, Record]] = []
        self._log = log
        self._group = group
        self._resumes = resumes

    def poll(self, *, records_max: int = 500, wait_ms: int = WAIT_MS) -> Poll:
        """Poll once and follow what changed."""
        poll = self.member.poll(records_max=records_max, wait_ms=wait_ms)
        for claim in poll.lost:
            self.lost.append(claim)
            if self.claims.get(claim.partition) == claim:
                del self.claims[claim.partition]
        for claim in poll.gained:
            self.gained.append(claim)
            self.claims[claim.partition] = claim
            if self._resumes:
                offset, _ = self._log.committed(self._group, claim.partition)
                self.member.resume({claim: offset})
        for claim, record in poll.records:
            assert self.claims.get(record.partition) == claim, "a record of a claim not held"
            self.records.append((claim, record))
        return poll

    @property
    def values(self) -> list[bytes | None]:
        """Values delivered so far."""
        return [record.value for _, record in self.records]

    def until_owning(self, count: int, *others: Follower) -> None:
        """Poll, the others too, until this member has so many partitions."""

        def enough() -> bool:
            for follower in (self, *others):
                follower.poll()
            return len(self.claims) == count

        until(enough, f"{count} partitions")

    def until_values(self, *values: bytes) -> None:
        """Poll until these are all that was delivered."""

        def enough() -> bool:
            self.poll()
            return len(self.records) >= len(values)

        if len(self.records) < len(values):
            until(enough, f"{values!r}")
        assert self.values == [*values]


def put(log: Log, *drafts: Draft) -> list[tuple[Partition, int]]:
    """Append records one by one."""

    async def append() -> list[tuple[Partition, int]]:
        return [await log.append(draft) for draft in drafts]

    return asyncio.run(append())


def read_until(reader: Reader, count: int) -> list[Record]:
    """Read until so many records have come."""
    records: list[Record] = []

    def enough() -> bool:
        records.extend(reader.poll(records_max=500, wait_ms=WAIT_MS))
        return len(records) >= count

    until(enough, f"{count} records")
    return records


def read_all(log: Log, *partitions: Partition) -> list[Record]:
    """Return what is committed, from a fresh reader up to its end."""
    reader = log.read(dict.fromkeys(partitions, 0))
    records: list[Record] = []

    def ended() -> bool:
        records.extend(reader.poll(records_max=500, wait_ms=WAIT_MS))
        return reader.at_end

    until(ended, "the end")
    reader.close()
    return records


def values(records: Sequence[Record]) -> list[bytes | None]:
    """Return the values of records."""
    return [record.value for record in records]


class World:
    """One test's topics, groups and members.

    Args:
        harness: The log under test.
    """

    def __init__(self, harness: Harness) -> None:
        self.harness = harness
        self.log = harness.log()
        self._members: list[Follower] = []

    def topic(
        self,
        noun: str = "inbox",
        *,
        partitions: int = 1,
        compacted: bool = False,
        max_bytes: int | None = None,
    ) -> str:
        """Create a topic; return its name."""
        name = f"{self.harness.namespace}.{noun}.{next(_numbers)}"
        self.harness.create(name, partitions=partitions, compacted=compacted, max_bytes=max_bytes)
        return name

    def group(self, *topics: str) -> str:
        """Return a new group that has its first offsets."""
        name = f"{self.harness.namespace}.group.{next(_numbers)}"
        if topics:
            self.harness.begin_group(name, topics)
        return name

    def own(
        self,
        topic: str,
        group: str,
        instance: str = "a",
        *,
        writer: str = "",
        resumes: bool = True,
    ) -> tuple[Owner, Follower]:
        """Join as a decider."""
        log = self.harness.log()
        owner = log.own([topic], group=group, instance=instance, writer=writer)
        follower = Follower(owner, log, group, resumes=resumes)
        self._members.append(follower)
        return owner, follower

    def work(
        self, topic: str, group: str, instance: str = "a", *, resumes: bool = True
    ) -> tuple[Worker, Follower]:
        """Join as an effector."""
        log = self.harness.log()
        worker = log.work([topic], group=group, instance=instance)
        follower = Follower(worker, log, group, resumes=resumes)
        self._members.append(follower)
        return worker, follower

    def committed(self, inbox: str, *drafts: Draft) -> None:
        """Write records in one transaction of a decider of this inbox."""
        owner, follower = self.own(inbox, self.group(inbox))
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        assert owner.commit([Work(claim=claim, next_offset=1, drafts=drafts)]) == {claim}
        self.close(follower)

    def close(self, follower: Follower, *, leave: bool = False) -> None:
        """End a membership before the test ends."""
        self._members.remove(follower)
        follower.member.close(leave=leave)

    def end(self) -> None:
        """End every membership that is left."""
        while self._members:
            self._members.pop().member.close(leave=False)
