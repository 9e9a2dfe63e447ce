"""What the port promises of an effector's intentions, and of places found by time."""

# ruff: noqa: PLR2004 - figures in tests are examples

from __future__ import annotations

from collections.abc import Collection

import pytest

from headwater.contracts.records import Draft, Partition
from headwater.errors import WorkRefusedError
from headwater.log.port import Claim, Work
from headwater.testing.conformance_world import World, put, read_all, until, values


class IntentionClaims:
    """Intentions are fenced as a decider's work is; a time leads to an offset."""

    def test_an_intention_its_offset_and_metadata_are_one(self, world: World) -> None:
        """What an effector is about to do is written with how far it got."""
        topic, receipts = world.topic(), world.topic("receipt", compacted=True)
        group = world.group(topic)
        worker, follower = world.work(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        draft = Draft(topic=receipts, key=b"r/1", value=b"intent", partition=0)
        work = Work(claim=claim, next_offset=2, drafts=[draft], metadata="done: 4")
        assert worker.intend([work]) == {claim}
        assert values(read_all(world.log, Partition(receipts, 0))) == [b"intent"]
        assert world.log.committed(group, claim.partition) == (2, "done: 4")

    def test_a_zombie_intends_nothing_and_then_learns_that_it_lost(self, world: World) -> None:
        """A worker that was struck off writes no intention, so it may begin nothing."""
        topic, receipts = world.topic(), world.topic("receipt")
        group = world.group(topic)
        worker, follower = world.work(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        world.harness.expire(worker)
        draft = Draft(topic=receipts, value=b"never", partition=0)
        assert worker.intend([Work(claim=claim, next_offset=1, drafts=[draft])]) == frozenset()
        assert read_all(world.log, Partition(receipts, 0)) == []
        assert world.log.committed(group, claim.partition) == (0, "")
        follower.until_owning(1)
        assert claim in follower.lost

    def test_only_live_claims_intend(self, world: World) -> None:
        """A claim that moved is left out; the others' intentions are written."""
        topic, receipts = world.topic(partitions=2), world.topic("receipt", partitions=2)
        group = world.group(topic)
        worker, first = world.work(topic, group, "a")
        first.until_owning(2)
        _, second = world.work(topic, group, "b")
        second.until_owning(1, first)
        (stale,) = first.lost
        (live,) = first.claims.values()
        work = [
            Work(
                claim=claim,
                next_offset=1,
                drafts=[Draft(topic=receipts, value=b"i", partition=claim.partition.number)],
            )
            for claim in (stale, live)
        ]
        assert worker.intend(work) == {live}
        assert read_all(world.log, Partition(receipts, stale.partition.number)) == []
        assert len(read_all(world.log, Partition(receipts, live.partition.number))) == 1

    def test_a_refused_intention_leaves_the_claim(self, world: World) -> None:
        """What the log will not take is no reason to lose the partition."""
        topic, receipts = world.topic(), world.topic("receipt", max_bytes=2_000)
        group = world.group(topic)
        worker, follower = world.work(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        large = Draft(topic=receipts, value=b"x" * 4_000, partition=0)
        with pytest.raises(WorkRefusedError):
            worker.intend([Work(claim=claim, next_offset=1, drafts=[large])])
        small = Draft(topic=receipts, value=b"x", partition=0)
        assert worker.intend([Work(claim=claim, next_offset=1, drafts=[small])]) == {claim}

    def test_marks_and_intentions_take_turns(self, world: World) -> None:
        """An offset marked in the background and one in a transaction are the same offset."""
        topic, receipts = world.topic(), world.topic("receipt")
        group = world.group(topic)
        worker, follower = world.work(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        draft = Draft(topic=receipts, value=b"i", partition=0)
        assert worker.intend([Work(claim=claim, next_offset=1, drafts=[draft])]) == {claim}
        worker.mark(claim, 2, "later")
        world.close(follower)
        assert world.log.committed(group, claim.partition) == (2, "later")

    def test_who_gives_a_claim_up_is_told_while_it_holds(self, world: World) -> None:
        """Before an heir has a partition, its owner can still say what goes on there, and mark."""
        topic, notes = world.topic(partitions=2), world.topic("notes")
        group = world.group(topic)
        worker, first = world.work(topic, group, "a")
        first.until_owning(2)
        told: list[frozenset[Claim]] = []

        def parting(claims: Collection[Claim]) -> None:
            told.append(frozenset(claims))
            assert {*claims} <= {*first.claims.values()}
            put(world.log, Draft(topic=notes, value=b"told"))
            for claim in claims:
                worker.mark(claim, 0, "told")

        worker.parting(parting)
        _, second = world.work(topic, group, "b")

        def moved() -> bool:
            first.poll()
            if second.poll().gained:
                assert values(read_all(world.log, Partition(notes, 0))) == [b"told"]
            return len(second.claims) == 1

        until(moved, "a partition of its own")
        assert told == [frozenset(first.lost)]
        (lost,) = first.lost
        assert world.log.committed(group, lost.partition) == (0, "told")
        world.close(first, leave=True)
        assert {claim for claims in told for claim in claims} >= {*first.gained}

    def test_a_time_leads_to_the_first_offset_from_then_on(self, world: World) -> None:
        """Receipts are read from when the first open request was appended."""
        topic = world.topic()
        place = Partition(topic, 0)
        assert world.log.offset_at(place, 0) == 0
        put(world.log, *(Draft(topic=topic, value=b"%d" % n) for n in range(3)))
        records = read_all(world.log, place)
        for record in records:
            found = world.log.offset_at(place, record.time_ms)
            assert records[found].time_ms == record.time_ms
            assert found == 0 or records[found - 1].time_ms < record.time_ms
        assert world.log.offset_at(place, records[-1].time_ms + 1) == 3
