"""What the port promises of commits and of those who read what was committed."""

# ruff: noqa: PLR2004 - figures in tests are examples

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest

from headwater.contracts.records import Draft, Partition
from headwater.errors import WorkRefusedError
from headwater.log.port import Work
from headwater.testing.conformance_world import World, put, read_all, read_until, until, values

POLLS = 3
"""How often a reader is asked before it counts as held back."""


class TransactionClaims:
    """Atomicity, markers, read-committed, offsets inside, refusals."""

    def test_outputs_of_all_partitions_and_the_offset_are_one(self, world: World) -> None:
        """A commit writes to several topics and moves the offsets of several partitions."""
        topic, left, right = world.topic(partitions=2), world.topic("left"), world.topic("right")
        group = world.group(topic)
        owner, follower = world.own(topic, group)
        follower.until_owning(2)
        claims = frozenset(follower.claims.values())
        held = owner.commit(
            [
                Work(
                    claim=claim,
                    next_offset=claim.partition.number + 1,
                    drafts=[
                        Draft(topic=name, value=b"%d" % claim.partition.number, partition=0)
                        for name in (left, right)
                    ],
                )
                for claim in sorted(claims, key=lambda claim: claim.partition)
            ]
        )
        assert held == claims
        for name in (left, right):
            assert values(read_all(world.log, Partition(name, 0))) == [b"0", b"1"]
        for number in (0, 1):
            assert world.log.committed(group, Partition(topic, number)) == (number + 1, "")

    def test_what_is_committed_goes_on_after_a_restart(self, world: World) -> None:
        """A successor of the same name starts at the committed offset."""
        topic, out = world.topic(), world.topic("out")
        group = world.group(topic)
        put(world.log, *(Draft(topic=topic, value=b"%d" % n) for n in range(4)))
        owner, follower = world.own(topic, group)
        follower.until_values(b"0", b"1", b"2", b"3")
        (claim,) = follower.claims.values()
        work = Work(claim=claim, next_offset=2, drafts=[Draft(topic=out, value=b"x")])
        assert owner.commit([work]) == {claim}
        world.close(follower)
        _, restarted = world.own(topic, group)
        restarted.until_values(b"2", b"3")

    def test_work_without_drafts_moves_the_offset(self, world: World) -> None:
        """A record that leads to nothing is still done with."""
        topic = world.topic()
        group = world.group(topic)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        assert owner.commit([Work(claim=claim, next_offset=3)]) == {claim}
        assert world.log.committed(group, claim.partition)[0] == 3

    def test_markers_and_gaps_stall_neither_readers_nor_members(self, world: World) -> None:
        """Markers take offsets that are never delivered, at the end too."""
        topic, out = world.topic(), world.topic("out")
        group, later = world.group(topic), world.group(out)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        for n in range(5):
            draft = Draft(topic=out, key=b"k", value=b"%d" % n)
            assert owner.commit([Work(claim=claim, next_offset=n + 1, drafts=[draft])]) == {claim}
            world.harness.open_transaction([Draft(topic=out, value=b"never")]).abort()
        records = read_all(world.log, Partition(out, 0))
        assert values(records) == [b"0", b"1", b"2", b"3", b"4"]
        offsets = [record.offset for record in records]
        assert all(after - before > 1 for before, after in itertools.pairwise(offsets))
        _, reader = world.own(out, later)
        reader.until_values(b"0", b"1", b"2", b"3", b"4")
        put(world.log, Draft(topic=out, value=b"next"))
        reader.until_values(b"0", b"1", b"2", b"3", b"4", b"next")

    def test_aborted_records_are_never_delivered(self, world: World) -> None:
        """Neither readers nor members see what was taken back."""
        topic = world.topic()
        group = world.group(topic)
        put(world.log, Draft(topic=topic, value=b"before"))
        world.harness.open_transaction([Draft(topic=topic, value=b"aborted")] * 3).abort()
        put(world.log, Draft(topic=topic, value=b"after"))
        assert values(read_all(world.log, Partition(topic, 0))) == [b"before", b"after"]
        _, follower = world.own(topic, group)
        follower.until_values(b"before", b"after")

    def test_an_open_transaction_holds_readers_back(self, world: World) -> None:
        """Nothing from its first record on is delivered, and no reader is at its end, until it ends."""
        topic = world.topic()
        place = Partition(topic, 0)
        put(world.log, Draft(topic=topic, value=b"before"))
        transaction = world.harness.open_transaction([Draft(topic=topic, value=b"inside")])
        put(world.log, Draft(topic=topic, value=b"after"))
        reader = world.log.read({place: 0})
        assert values(read_until(reader, 1)) == [b"before"]
        for _ in range(POLLS):
            assert not reader.poll(records_max=10, wait_ms=50)
        assert not reader.at_end
        transaction.commit()
        assert values(read_until(reader, 2)) == [b"inside", b"after"]

        def ended() -> bool:
            return not reader.poll(records_max=10, wait_ms=50) and reader.at_end

        until(ended, "the end")

    def test_an_open_transaction_holds_members_back(self, world: World) -> None:
        """A member reads committed records only, in order."""
        topic = world.topic()
        group = world.group(topic)
        transaction = world.harness.open_transaction([Draft(topic=topic, value=b"inside")])
        put(world.log, Draft(topic=topic, value=b"after"))
        _, follower = world.own(topic, group)
        follower.until_owning(1)
        for _ in range(POLLS):
            assert not follower.poll(wait_ms=50).records
        transaction.commit()
        follower.until_values(b"inside", b"after")

    def test_refused_work_leaves_the_claims_and_half_of_it_can_be_written(
        self, world: World
    ) -> None:
        """The loop finds the record that cannot be written by halving; nothing else is lost."""
        topic, out = world.topic(), world.topic("out", max_bytes=2_000)
        group = world.group(topic)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        good = Draft(topic=out, value=b"good")
        huge = Draft(topic=out, value=b"x" * 3_000)
        with pytest.raises(WorkRefusedError):
            owner.commit([Work(claim=claim, next_offset=2, drafts=[good, huge])])
        assert read_all(world.log, Partition(out, 0)) == []
        assert world.log.committed(group, claim.partition)[0] == 0
        assert owner.commit([Work(claim=claim, next_offset=1, drafts=[good])]) == {claim}
        with pytest.raises(WorkRefusedError):
            owner.commit([Work(claim=claim, next_offset=2, drafts=[huge])])
        assert owner.commit([Work(claim=claim, next_offset=2)]) == {claim}
        assert not follower.poll().lost
        assert values(read_all(world.log, Partition(out, 0))) == [b"good"]
        assert world.log.committed(group, claim.partition)[0] == 2

    def test_drafts_may_be_made_of_what_is_read_while_they_are_written(self, world: World) -> None:
        """They are gone through as they are written, so that nobody has to hold them all."""
        topic, out = world.topic(), world.topic("out")
        put(world.log, *(Draft(topic=topic, value=b"%d" % n) for n in range(3)))
        owner, follower = world.own(topic, world.group(topic))
        follower.until_owning(1)
        (claim,) = follower.claims.values()

        def drafts() -> Iterator[Draft]:
            for record in read_all(world.log, Partition(topic, 0)):
                yield Draft(topic=out, value=record.value)

        assert owner.commit([Work(claim=claim, next_offset=3, drafts=drafts())]) == {claim}
        assert values(read_all(world.log, Partition(out, 0))) == [b"0", b"1", b"2"]

    def test_what_breaks_while_drafts_are_made_leaves_nothing(self, world: World) -> None:
        """It is told as it is, no transaction stays open, and the claim goes on."""
        topic, out = world.topic(), world.topic("out")
        group = world.group(topic)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()

        def drafts() -> Iterator[Draft]:
            yield Draft(topic=out, value=b"half")
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            owner.commit([Work(claim=claim, next_offset=3, drafts=drafts())])
        put(world.log, Draft(topic=out, value=b"after"))
        assert values(read_until(world.log.read({Partition(out, 0): 0}), 1)) == [b"after"]
        assert world.log.committed(group, claim.partition)[0] == 0
        whole = [Draft(topic=out, value=b"whole")]
        assert owner.commit([Work(claim=claim, next_offset=3, drafts=whole)]) == {claim}
        assert not follower.poll().lost
        assert values(read_all(world.log, Partition(out, 0))) == [b"after", b"whole"]

    def test_what_an_owner_writes_to_its_own_inbox_comes_back_to_it(self, world: World) -> None:
        """A wake is a record like any other, after the transaction that wrote it."""
        topic = world.topic()
        group = world.group(topic)
        put(world.log, Draft(topic=topic, value=b"first"))
        owner, follower = world.own(topic, group)
        follower.until_values(b"first")
        (claim,) = follower.claims.values()
        wake = Draft(topic=topic, value=b"wake", partition=0)
        assert owner.commit([Work(claim=claim, next_offset=1, drafts=[wake])]) == {claim}
        follower.until_values(b"first", b"wake")

    def test_many_commits_in_a_row_keep_their_order(self, world: World) -> None:
        """Transactions of one owner follow each other without a pause of ours."""
        topic, out = world.topic(), world.topic("out")
        group = world.group(topic)
        owner, follower = world.own(topic, group)
        follower.until_owning(1)
        (claim,) = follower.claims.values()
        for n in range(20):
            draft = Draft(topic=out, key=b"k", value=b"%d" % n)
            assert owner.commit([Work(claim=claim, next_offset=n + 1, drafts=[draft])]) == {claim}
        assert values(read_all(world.log, Partition(out, 0))) == [b"%d" % n for n in range(20)]
        assert world.log.committed(group, claim.partition) == (20, "")

    def test_who_begins_to_write_under_a_name_ends_what_others_are_at(self, world: World) -> None:
        """Members of different groups take turns at what each looks at before it writes there.

        Whoever gains claims sees everything that was written under the name, and nobody else adds to it
        until its claims are lost.
        """
        topic, out = world.topic(), world.topic("out")
        writer = f"{world.group()}.writer"
        one, first = world.own(topic, world.group(topic), writer=writer)
        first.until_owning(1)
        (before,) = first.claims.values()
        write = [Draft(topic=out, value=b"one")]
        assert one.commit([Work(claim=before, next_offset=1, drafts=write)]) == {before}
        other, second = world.own(topic, world.group(topic), writer=writer)
        second.until_owning(1)
        (theirs,) = second.claims.values()
        assert one.commit([Work(claim=before, next_offset=2, drafts=write)]) == frozenset()
        write = [Draft(topic=out, value=b"other")]
        assert other.commit([Work(claim=theirs, next_offset=1, drafts=write)]) == {theirs}
        until(lambda: before in first.poll().lost, "that the claim is lost")
        first.until_owning(1)
        (after,) = first.claims.values()
        assert values(read_all(world.log, Partition(out, 0))) == [b"one", b"other"]
        assert other.commit([Work(claim=theirs, next_offset=2, drafts=write)]) == frozenset()
        write = [Draft(topic=out, value=b"one again")]
        assert one.commit([Work(claim=after, next_offset=2, drafts=write)]) == {after}
        assert values(read_all(world.log, Partition(out, 0))) == [b"one", b"other", b"one again"]
