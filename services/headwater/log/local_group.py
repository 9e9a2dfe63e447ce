"""A consumer group of the local log: who should have which partition, who has it, how far each got."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Collection, Iterator, Mapping

from headwater.contracts.records import Partition
from headwater.log.port import Claim


class Membership:
    """What the group knows of a member, and the member of its claims.

    Args:
        instance: Its stable name; a group has one member of a name.
        topics: What it subscribes to.
        seen_ms: When it last polled, on the log's clock.
    """

    __slots__ = (
        "doubtful",
        "fenced",
        "held",
        "instance",
        "seen_ms",
        "topics",
        "version",
        "waiting",
    )

    def __init__(self, instance: str, topics: frozenset[str], seen_ms: int) -> None:
        self.instance = instance
        self.topics = topics
        self.seen_ms = seen_ms
        self.held: dict[Partition, Claim] = {}
        """Its claims as it knows them: only its own poll changes them."""
        self.waiting = False
        """It is inside a poll that waits, so it is alive."""
        self.fenced = False
        """Another member has taken its name."""
        self.doubtful = False
        """A commit of unknown outcome: every claim is to be lost."""
        self.version = -1
        """The group's version when it last polled."""


@dataclasses.dataclass(frozen=True, slots=True)
class Change:
    """What a reconciliation took from a member and gave it."""

    lost: frozenset[Claim]
    gained: frozenset[Claim]


_NOTHING = Change(frozenset(), frozenset())


def balanced(
    partitions: Collection[Partition],
    members: Mapping[str, frozenset[str]],
    before: Mapping[Partition, str],
) -> dict[Partition, str]:
    """Spread partitions over members, moving as few as evenness allows (cooperative-sticky).

    Args:
        partitions: All partitions that someone subscribes to.
        members: Topics by instance.
        before: The assignment until now.
    """
    target = {
        place: instance
        for place in sorted(partitions)
        if (instance := before.get(place, "")) in members and place.topic in members[instance]
    }
    load = Counter(dict.fromkeys(members, 0))
    load.update(target.values())

    def takers(place: Partition) -> list[str]:
        able = (instance for instance, topics in members.items() if place.topic in topics)
        return sorted(able, key=lambda instance: (load[instance], instance))

    for place in sorted(partitions):
        if place not in target and (able := takers(place)):
            target[place] = able[0]
            load[able[0]] += 1
    moved = True
    while moved:  # each move lowers the sum of squared loads, so it ends
        moved = False
        for place, instance in sorted(target.items(), reverse=True):
            least = takers(place)[0]
            if load[least] + 1 < load[instance]:
                target[place] = least
                load[instance] -= 1
                load[least] += 1
                moved = True
    return target


class Group:
    """A consumer group.

    Args:
        name: Its name.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.offsets: dict[Partition, tuple[int, str]] = {}
        self._members: dict[str, Membership] = {}
        self._names: dict[str, Membership] = {}
        self._target: dict[Partition, str] = {}
        self._owners: dict[Partition, Membership] = {}
        self._version = 0
        self._epoch = 0

    def __iter__(self) -> Iterator[Membership]:
        return iter([*self._members.values()])

    @property
    def topics(self) -> frozenset[str]:
        """What anyone here subscribes to."""
        return frozenset().union(*(member.topics for member in self._members.values()))

    def join(self, member: Membership, partitions: Collection[Partition]) -> None:
        """Take a member in; an older one of the same name is fenced, struck off or not."""
        older = self._names.get(member.instance)
        self._names[member.instance] = member
        if older is not None and older is not member:
            older.fenced = True
            self._free(older)
        self._members[member.instance] = member
        self.balance(partitions)

    def leave(self, member: Membership, partitions: Collection[Partition]) -> None:
        """Strike a member off, whether it knows or not; its claims are stale from now on."""
        if self._members.get(member.instance) is member:
            del self._members[member.instance]
            self._free(member)
            self.balance(partitions)

    def balance(self, partitions: Collection[Partition]) -> None:
        """Work out anew who should have what; members follow in their own polls."""
        topics = {instance: member.topics for instance, member in self._members.items()}
        self._target = balanced(partitions, topics, self._target)
        self._version += 1

    def holds(self, member: Membership, claim: Claim) -> bool:
        """Return whether a claim is this member's, is not stale, and is not in doubt."""
        return (
            not member.doubtful
            and member.held.get(claim.partition) == claim
            and self._owners.get(claim.partition) is member
        )

    def leaving(self, member: Membership) -> frozenset[Claim]:
        """Return the claims that a member still holds, and that its next poll gives to others."""
        return frozenset(
            claim
            for place, claim in member.held.items()
            if self._owners.get(place) is member
            and not member.doubtful
            and self._target.get(place) != member.instance
        )

    def present(self, member: Membership) -> bool:
        """Return whether the group still counts this member in."""
        return self._members.get(member.instance) is member

    def reconcile(self, member: Membership) -> Change:
        """Take from a member what it should no longer have, give it what is free and meant for it."""
        if member.version == self._version and not member.doubtful:
            return _NOTHING
        lost: set[Claim] = set()
        for place, claim in [*member.held.items()]:
            mine = self._owners.get(place) is member
            if mine and not member.doubtful and self._target.get(place) == member.instance:
                continue
            lost.add(claim)
            del member.held[place]
            if mine:
                del self._owners[place]
                self._version += 1
        member.doubtful = False
        gained: set[Claim] = set()
        for place, instance in self._target.items():
            if instance == member.instance and place not in self._owners:
                self._epoch += 1
                claim = Claim(place, self._epoch)
                self._owners[place] = member
                member.held[place] = claim
                gained.add(claim)
        member.version = self._version
        return Change(frozenset(lost), frozenset(gained))

    def _free(self, member: Membership) -> None:
        self._owners = {
            place: owner for place, owner in self._owners.items() if owner is not member
        }
        self._version += 1
