"""What the port promises of groups, claims and their marks."""

# ruff: noqa: PLR2004 - figures in tests are examples

from __future__ import annotations

import pytest

from headwater.contracts.records import Draft, Partition
from headwater.errors import SettingsError
from headwater.log.port import Work
from headwater.testing.conformance_world import Follower, World, put, read_all, until, values


def fill(world: World, topic: str, partitions: int, each: int) -> set[bytes]:
    """Append records to every partition; return their values."""
    drafts = [
        Draft(topic=topic, key=b"k", value=b"%d/%d" % (number, n), partition=number)
        for number in range(partitions)
        for n in range(each)
    ]
    put(world.log, *drafts)
    return {draft.value or b"" for draft in drafts}


class GroupClaims:
    """Splitting, rebalancing, pausing, fencing, marking."""

    def test_a_group_splits_its_partitions_and_every_record_comes_once(self, world: World) -> None:
        """Members share the partitions evenly; each record goes to one of them."""
        topic = world.topic(partitions=4)
        group = world.group(topic)
        _, first = world.own(topic, group, "a")
        _, second = world.own(topic, group, "b")

        def split() -> bool:
            first.poll()
            second.poll()
            return len(first.claims) == len(second.claims) == 2

        until(split, "two partitions each")
        assert not set(first.claims) & set(second.claims)
        expected = fill(world, topic, 4, 5)

        def arrived() -> bool:
            first.poll()
            second.poll()
            return len(first.records) + len(second.records) >= len(expected)

        until(arrived, "every record")
        assert len(first.values + second.values) == len(expected)
        assert {*first.values, *second.values} == expected

    def test_a_cooperative_rebalance_leaves_the_rest_where_it_is(self, world: World) -> None:
        """When a member joins, the others lose what moves and keep their other claims."""
        topic = world.topic(partitions=4)
        group = world.group(topic)
        _, first = world.own(topic, group, "a")
        first.until_owning(4)
        before = dict(first.claims)
        _, second = world.own(topic, group, "b")
        second.until_owning(2, first)
        until(lambda: bool(first.poll()) and len(first.claims) == 2, "the first to give up two")
        assert {claim.partition for claim in first.lost} == set(second.claims)
        assert first.claims == {p: before[p] for p in before if p not in second.claims}
        assert len(first.gained) == 4

    def test_a_gained_claim_brings_nothing_until_it_is_resumed(self, world: World) -> None:
        """Rows are restored before the first record is delivered."""
        topic = world.topic()
        group = world.group(topic)
        fill(world, topic, 1, 3)
        owner, follower = world.own(topic, group, resumes=False)
        follower.until_owning(1)
        for _ in range(3):
            assert not follower.poll(wait_ms=50).records
        owner.resume({follower.claims[Partition(topic, 0)]: 1})
        follower.until_values(b"0/1", b"0/2")

    def test_a_claim_regained_is_another_claim(self, world: World) -> None:
        """A claim never holds again once it was lost."""
        topic = world.topic(partitions=2)
        group = world.group(topic)
        _, first = world.own(topic, group, "a")
        first.until_owning(2)
        _, second = world.own(topic, group, "b")
        second.until_owning(1, first)
        world.close(second, leave=True)
        first.until_owning(2)
        assert len(first.gained) == 3
        assert len(set(first.gained)) == 3

    def test_a_leaving_member_gives_its_partitions_up_at_once(self, world: World) -> None:
        """A scale-down waits for no session to end."""
        topic = world.topic(partitions=2)
        group = world.group(topic)
        _, first = world.own(topic, group, "a")
        first.until_owning(2)
        world.close(first, leave=True)
        _, second = world.own(topic, group, "b")
        second.until_owning(2)

    def test_pause_and_resume_lose_nothing(self, world: World) -> None:
        """What was fetched and not delivered before a pause comes after it, once, in order."""
        topic = world.topic()
        group = world.group(topic)
        fill(world, topic, 1, 6)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)

        def two() -> bool:
            follower.poll(records_max=2 - len(follower.records))
            return len(follower.records) == 2

        until(two, "two records")
        claim = follower.claims[Partition(topic, 0)]
        owner.pause([claim])
        for _ in range(3):
            assert not follower.poll(wait_ms=50).records
        owner.resume({claim: None})
        follower.until_values(*(b"0/%d" % n for n in range(6)))

    def test_resume_at_an_offset_goes_there(self, world: World) -> None:
        """A partition can be taken up again from any offset."""
        topic = world.topic()
        group = world.group(topic)
        fill(world, topic, 1, 3)
        owner, follower = world.own(topic, group)
        follower.until_values(b"0/0", b"0/1", b"0/2")
        claim = follower.claims[Partition(topic, 0)]
        owner.pause([claim])
        owner.resume({claim: 1})
        follower.until_values(b"0/0", b"0/1", b"0/2", b"0/1", b"0/2")

    def test_a_stale_claim_is_ignored_by_pause_and_resume(self, world: World) -> None:
        """A loop that is late with its word harms nothing."""
        topic = world.topic(partitions=2)
        group = world.group(topic)
        owner, first = world.own(topic, group, "a")
        first.until_owning(2)
        _, second = world.own(topic, group, "b")
        second.until_owning(1, first)
        (stale,) = first.lost
        owner.pause([stale])
        owner.resume({stale: 0})
        expected = fill(world, topic, 2, 2)

        def arrived() -> bool:
            first.poll()
            second.poll()
            return len(first.records) + len(second.records) >= 4

        until(arrived, "every record")
        assert len(first.values + second.values) == len(expected)
        assert {*first.values, *second.values} == expected

    def test_a_stale_claim_is_refused_while_a_live_one_is_written(self, world: World) -> None:
        """Being in the group is not owning the partition: work carries its claim."""
        topic, out = world.topic(partitions=2), world.topic("out")
        group = world.group(topic)
        owner, first = world.own(topic, group, "a")
        first.until_owning(2)
        _, second = world.own(topic, group, "b")
        second.until_owning(1, first)
        (stale,) = first.lost
        (live,) = first.claims.values()
        held = owner.commit(
            [
                Work(claim=stale, next_offset=7, drafts=[Draft(topic=out, value=b"stale")]),
                Work(claim=live, next_offset=7, drafts=[Draft(topic=out, value=b"live")]),
            ]
        )
        assert held == {live}
        assert values(read_all(world.log, Partition(out, 0))) == [b"live"]
        assert world.log.committed(group, live.partition)[0] == 7
        assert world.log.committed(group, stale.partition)[0] == 0

    def test_a_zombie_writes_nothing_and_then_learns_that_it_lost(self, world: World) -> None:
        """A member that the group struck off is refused by its generation, then starts afresh."""
        topic, out = world.topic(partitions=2), world.topic("out")
        group = world.group(topic)
        owner, zombie = world.own(topic, group, "a")
        zombie.until_owning(2)
        stale = set(zombie.claims.values())
        _, heir = world.own(topic, group, "b")
        world.harness.expire(owner)
        heir.until_owning(2)
        work = [
            Work(claim=claim, next_offset=9, drafts=[Draft(topic=out, value=b"zombie")])
            for claim in stale
        ]
        assert owner.commit(work) == frozenset()
        assert read_all(world.log, Partition(out, 0)) == []
        assert world.log.committed(group, Partition(topic, 0))[0] == 0
        zombie.until_owning(1, heir)
        assert stale <= set(zombie.lost)

    def test_a_second_process_of_one_name_fences_the_first(self, world: World) -> None:
        """A restart need not wait for its predecessor, which ends naming the variable to set."""
        topic, out = world.topic(partitions=2), world.topic("out")
        group = world.group(topic)
        owner, first = world.own(topic, group, "a")
        first.until_owning(2)
        _, second = world.own(topic, group, "a")
        second.until_owning(2)
        work = [
            Work(claim=claim, next_offset=9, drafts=[Draft(topic=out, value=b"zombie")])
            for claim in first.claims.values()
        ]
        assert owner.commit(work) == frozenset()
        assert read_all(world.log, Partition(out, 0)) == []

        def polled() -> bool:
            first.poll()
            return False

        with pytest.raises(SettingsError, match="HEADWATER_INSTANCE"):
            until(polled, "the first to be told")
        assert len(second.claims) == 2

    def test_a_group_without_offsets_does_not_start(self, world: World) -> None:
        """Missing or expired offsets are an error that says what to do, never `earliest`."""
        topic = world.topic()
        with pytest.raises(SettingsError, match="topics apply"):
            world.log.committed(world.group(), Partition(topic, 0))

    def test_marks_and_their_metadata_survive_a_restart(self, world: World) -> None:
        """An effector goes on where it marked, with what it noted there."""
        topic = world.topic()
        group = world.group(topic)
        fill(world, topic, 1, 3)
        worker, follower = world.work(topic, group)
        follower.until_values(b"0/0", b"0/1", b"0/2")
        place = Partition(topic, 0)
        worker.mark(follower.claims[place], 1, "done: 2")
        until_committed(world, group, place, (1, "done: 2"), follower)
        world.close(follower)
        _, restarted = world.work(topic, group)
        restarted.until_values(b"0/1", b"0/2")

    def test_a_worker_marks_only_live_claims(self, world: World) -> None:
        """A mark from a member that lost the partition must not move its heir's offset."""
        topic = world.topic(partitions=2)
        group = world.group(topic)
        worker, first = world.work(topic, group, "a")
        first.until_owning(2)
        heir, second = world.work(topic, group, "b")
        second.until_owning(1, first)
        (stale,) = first.lost
        (live,) = first.claims.values()
        worker.mark(stale, 99, "stale")
        worker.mark(live, 3, "live")
        until_committed(world, group, live.partition, (3, "live"), first)
        assert world.log.committed(group, stale.partition) == (0, "")
        heir.mark(second.claims[stale.partition], 2, "heir")
        until_committed(world, group, stale.partition, (2, "heir"), second)


def until_committed(
    world: World, group: str, place: Partition, expected: tuple[int, str], follower: Follower
) -> None:
    """Poll until a mark made in the background is in the log."""

    def marked() -> bool:
        follower.poll(wait_ms=20)
        return world.log.committed(group, place) == expected

    until(marked, f"{expected} in {place}")
