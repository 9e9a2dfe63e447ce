"""Members of the local log's groups: deciders that commit, effectors that mark."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence

from headwater.contracts.records import Partition, Record
from headwater.errors import SettingsError, WorkRefusedError
from headwater.log.local_cluster import Cluster, Transaction, Unwritable
from headwater.log.local_faults import Ending, Point
from headwater.log.local_group import Change, Group, Membership
from headwater.log.port import Claim, Parting, Poll, Work


class LocalMember:
    """Membership of a group; one thread makes every call.

    Args:
        cluster: The log's state.
        group: The group's name.
        instance: This member's stable name.
        topics: What to subscribe to.
    """

    def __init__(
        self, cluster: Cluster, *, group: str, instance: str, topics: Collection[str]
    ) -> None:
        self.who = f"{group}/{instance}"
        self._cluster = cluster
        with cluster.changed:
            for topic in topics:
                cluster.topic(topic)
            self._group: Group = cluster.group(group)
            self._me = Membership(instance, frozenset(topics), cluster.clock())
            cluster.join(self._group, self._me)
        self._next: dict[Claim, int] = {}
        self._paused: set[Claim] = set()
        self._first = 0
        self._closed = False

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait at most `wait_ms` for news; rebalances happen in here and nowhere else.

        Raises:
            SettingsError: Another process has joined under this name.
        """
        assert not self._closed, "a closed member does not poll"
        cluster, me = self._cluster, self._me
        cluster.faults.at(Point.POLL, self.who)
        until = time.monotonic() + wait_ms / 1000
        with cluster.changed:
            while True:
                cluster.tick()
                self._refuse_if_fenced()
                change = self._follow()
                records = self._fetch(records_max)
                left = until - time.monotonic() if wait_ms else 0
                if change.lost or change.gained or records or left <= 0:
                    break
                me.waiting = True
                cluster.changed.wait(left if cluster.session_ms is None else min(left, 0.1))
                me.waiting = False
            me.seen_ms = cluster.clock()
        cluster.faults.at(Point.POLLED, self.who)
        return Poll(lost=change.lost, gained=change.gained, records=records)

    def pause(self, claims: Collection[Claim]) -> None:
        """Stop delivering these; nothing is lost. Stale claims are ignored."""
        self._cluster.faults.at(Point.PAUSE, self.who)
        self._paused.update(claim for claim in claims if claim in self._next)

    def resume(self, claims: Mapping[Claim, int | None]) -> None:
        """Deliver these again, from the offset given, or from where they were paused if `None`.

        Raises:
            SettingsError: A claim just gained is resumed from its group's offset, and there is none.
        """
        self._cluster.faults.at(Point.RESUME, self.who)
        with self._cluster.changed:
            for claim, offset in claims.items():
                if claim not in self._next:
                    continue
                if offset is not None:
                    self._next[claim] = offset
                elif self._next[claim] < 0:
                    self._next[claim] = first_offset(self._group, claim)
                self._paused.discard(claim)
            self._cluster.changed.notify_all()

    def close(self, *, leave: bool = False) -> None:
        """End the membership; with `leave` a static member gives its partitions up at once."""
        self._closed = True
        if leave:
            self.strike_off()

    def strike_off(self) -> None:
        """Have the group forget this member, which keeps its claims and does not know."""
        with self._cluster.changed:
            self._cluster.strike(self._group, self._me)

    def _refuse_if_fenced(self) -> None:
        if self._me.fenced:
            raise SettingsError(
                f"another process has joined {self._group.name} as {self._me.instance}: "
                "give each process its own HEADWATER_INSTANCE"
            )

    def _follow(self) -> Change:
        """Take in what the group decided; a member that was struck off joins anew."""
        group, me = self._group, self._me
        if not group.present(me):
            self._cluster.join(group, me)
        change = group.reconcile(me)
        for claim in change.lost:
            self._next.pop(claim, None)
            self._paused.discard(claim)
        for claim in change.gained:
            self._next[claim] = -1
            self._paused.add(claim)
        if change.lost or change.gained:
            self._cluster.changed.notify_all()
        return change

    def _fetch(self, records_max: int) -> Sequence[tuple[Claim, Record]]:
        """Return the next records, beginning with another claim each time."""
        claims = [claim for claim in self._next if claim not in self._paused]
        if not claims:
            return ()
        self._first = (self._first + 1) % len(claims)
        found: list[tuple[Claim, Record]] = []
        for claim in claims[self._first :] + claims[: self._first]:
            if records_max <= len(found):
                break
            stored = self._cluster.stored(claim.partition)
            records, self._next[claim] = stored.read(self._next[claim], records_max - len(found))
            found += [(claim, record) for record in records]
        return found


def first_offset(group: Group, claim: Claim) -> int:
    """Return where a group goes on in a partition.

    Raises:
        SettingsError: It has no offset there.
    """
    marked = group.offsets.get(claim.partition)
    if marked is None:
        raise missing(group.name, str(claim.partition))
    return marked[0]


def missing(group: str, place: str) -> SettingsError:
    """Return the error that stops a start without offsets."""
    return SettingsError(
        f"group {group} has no offset in {place} (new or expired), and guessing one would lose or "
        "repeat records: `headwater topics apply` writes a new group's first offsets"
    )


class LocalTransactor(LocalMember):
    """A member that writes in transactions: records and offsets together, or none of it happened.

    Args:
        cluster: The log's state.
        group: The group's name.
        instance: This member's stable name; with the group it is the transactional id.
        topics: What to subscribe to.
        writer: Instead of that id, one which others write under too.
        check_claims: Off only in controls: then a member writes for claims it has lost.
        lose_claims: Off only in controls: then claims outlive a commit of unknown outcome.
        offsets_inside: Off only in controls: then offsets follow their transaction instead.
    """

    def __init__(
        self,
        cluster: Cluster,
        *,
        group: str,
        instance: str,
        topics: Collection[str],
        writer: str = "",
        check_claims: bool = True,
        lose_claims: bool = True,
        offsets_inside: bool = True,
    ) -> None:
        super().__init__(cluster, group=group, instance=instance, topics=topics)
        self._check_claims = check_claims
        self._lose_claims = lose_claims
        self._offsets_inside = offsets_inside
        self._writer = writer or self.who
        self._stale = False
        with cluster.changed:
            self._epoch = cluster.fence(self._writer)

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; a producer that was fenced is made anew first.

        Raises:
            SettingsError: Another process has joined under this name.
        """
        if self._stale:
            with self._cluster.changed:
                self._refuse_if_fenced()
                self._epoch = self._cluster.fence(self._writer)
                self._stale = False
        return super().poll(records_max=records_max, wait_ms=wait_ms)

    def _commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return those claims.

        Raises:
            WorkRefusedError: The log will not take a record of it. Nothing was written, the claims
                still hold; halve the work and try again.
        """
        cluster = self._cluster
        cluster.faults.at(Point.COMMIT, self.who)
        # Drafts may be made by reading the log, which the lock below is of.
        work = [dataclasses.replace(item, drafts=[*item.drafts]) for item in work]
        with cluster.changed:
            cluster.tick()
            held = [item for item in work if self._holds(item.claim)]
            if not held or self._me.fenced or not self._alive():
                return frozenset()
            transaction = cluster.begin(self._writer)
            try:
                for item in held:
                    for draft in item.drafts:
                        cluster.write(draft, transaction)
            except Unwritable as error:
                cluster.end(transaction, committed=False)
                raise WorkRefusedError(f"the log refused a record: {error}") from error
        cluster.faults.at(Point.WRITTEN, self.who)
        with cluster.changed:
            cluster.tick()
            if not cluster.is_open(transaction):
                return self._unknown()
            if not all(self._holds(item.claim) for item in held):
                cluster.end(transaction, committed=False)
                return self._unknown()
            if self._offsets_inside:
                transaction.offsets.update(self._reached(held))
        cluster.faults.at(Point.SENT, self.who)
        return self._end(transaction, held)

    def _end(self, transaction: Transaction, held: Sequence[Work]) -> frozenset[Claim]:
        cluster = self._cluster
        with cluster.changed:
            cluster.tick()
            if not cluster.is_open(transaction):
                return self._unknown()
            ending = cluster.faults.ending(self.who)
            late = cluster.faults.late(self.who)
            if ending is Ending.ABORTED_UNKNOWN:
                cluster.end(transaction, committed=False)
            elif late > 0:
                cluster.end_late(transaction, late)
            else:
                cluster.end(transaction, committed=True)
            if ending is not Ending.KNOWN:
                return self._unknown()
        cluster.faults.at(Point.COMMITTED, self.who)
        if not self._offsets_inside:
            with cluster.changed:
                for (_, place), marked in self._reached(held).items():
                    self._group.offsets[place] = marked
        return frozenset(item.claim for item in held)

    def _reached(self, held: Sequence[Work]) -> dict[tuple[str, Partition], tuple[int, str]]:
        return {
            (self._group.name, item.claim.partition): (item.next_offset, item.metadata)
            for item in held
        }

    def _holds(self, claim: Claim) -> bool:
        return not self._check_claims or self._group.holds(self._me, claim)

    def _alive(self) -> bool:
        """Return whether the producer may write; one that was timed out starts anew, its claims lost."""
        if self._cluster.current(self._writer, self._epoch):
            return True
        self._unknown()
        return False

    def _unknown(self) -> frozenset[Claim]:
        """Lose every claim, and let go of a producer: nobody knows what became of its work."""
        self._stale = True
        self._me.doubtful = self._lose_claims
        return frozenset()


class LocalWorker(LocalTransactor):
    """An effector's membership: it marks what is answered, and notes what it is about to do."""

    _parting: Parting | None = None

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; who wants to be told of claims that are about to go is told first.

        Raises:
            SettingsError: Another process has joined under this name.
        """
        self._part(everything=False)
        return super().poll(records_max=records_max, wait_ms=wait_ms)

    def close(self, *, leave: bool = False) -> None:
        """End the membership; with `leave` a static member gives its partitions up at once."""
        if leave and not self._closed:
            self._part(everything=True)
        super().close(leave=leave)

    def parting(self, told: Parting) -> None:
        """Have this told before claims go to others in good order."""
        self._parting = told

    def _part(self, *, everything: bool) -> None:
        if self._parting is None:
            return
        with self._cluster.changed:
            held = frozenset(self._me.held.values())
            leaving = held if everything else self._group.leaving(self._me)
        if leaving:
            self._parting(leaving)

    def mark(self, claim: Claim, next_offset: int, metadata: str = "") -> None:
        """Commit an offset; a stale claim marks nothing."""
        self._cluster.faults.at(Point.MARK, self.who)
        with self._cluster.changed:
            self._cluster.tick()
            if self._group.holds(self._me, claim):
                self._group.offsets[claim.partition] = (next_offset, metadata)
                self._cluster.changed.notify_all()
        self._cluster.faults.at(Point.MARKED, self.who)

    def intend(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write intentions and the offsets of the claims that hold, all or none; return those claims.

        Raises:
            WorkRefusedError: The log will not take a record of it; nothing was written.
        """
        return self._commit(work)


class LocalOwner(LocalTransactor):
    """A decider's membership: what it writes and the offsets it reaches are one transaction."""

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return those claims.

        Raises:
            WorkRefusedError: The log will not take a record of it. Nothing was written, the claims
                still hold; halve the work and try again.
        """
        return self._commit(work)
