"""What the local log adds to the port: a clock, sessions, faults, compaction, controls."""

from __future__ import annotations

import asyncio
import threading

import pytest

from headwater.contracts.records import Draft, Partition
from headwater.errors import PoisonError, SettingsError, TransientError, WorkRefusedError
from headwater.log.local import LocalLog
from headwater.log.local_faults import Crash, Ending, Faults, Point
from headwater.log.local_group import balanced
from headwater.log.local_partition import murmur2
from headwater.log.port import Claim, Work

INBOX, OUT = "inbox", "out"
PLACE = Partition(INBOX, 0)


class Clock:
    def __init__(self) -> None:
        self.now_ms = 1_000

    def __call__(self) -> int:
        return self.now_ms


class Script(Faults):
    """Does once, at each point named, what was told; otherwise nothing."""

    def __init__(self) -> None:
        self.acts = {}
        self.endings = []
        self.lateness = []
        self.repeats = 1
        self.blocked = 0

    def at(self, point, who):
        self.blocked += point is Point.BLOCKED
        if (act := self.acts.pop(point, None)) is not None:
            act()

    def ending(self, who):
        return self.endings.pop() if self.endings else Ending.KNOWN

    def late(self, who):
        return self.lateness.pop() if self.lateness else 0

    def copies(self, draft):
        return self.repeats


def die():
    raise Crash


class World:
    def __init__(self, *, partitions=1, **options) -> None:
        self.clock, self.faults = Clock(), Script()
        self.log = LocalLog(clock=self.clock, faults=self.faults, **options)
        self.log.create(INBOX, partitions=partitions)
        self.log.create(OUT)
        self.log.begin_group("g", [INBOX])

    def own(self, instance="a", topics=(INBOX,)):
        return self.log.own(topics, group="g", instance=instance)

    def put(self, *values, topic=INBOX, **more):
        for value in values:
            asyncio.run(self.log.append(Draft(topic=topic, value=value, partition=0, **more)))

    def read(self, topic=OUT):
        return [
            record.value
            for record in self.log.read({Partition(topic, 0): 0}).poll(records_max=99, wait_ms=0)
        ]


def poll(member, **more):
    return member.poll(records_max=more.pop("records_max", 99), wait_ms=more.pop("wait_ms", 0))


def claim_of(member) -> Claim:
    (claim,) = poll(member).gained
    member.resume({claim: None})
    return claim


def work(claim, *values, next_offset=1):
    return Work(
        claim=claim,
        next_offset=next_offset,
        drafts=[Draft(topic=OUT, value=value, partition=0) for value in values],
    )


def test_records_are_stamped_by_the_injected_clock():
    """LogAppendTime is the log's own, so a simulation owns it."""
    world = World()
    world.put(b"1")
    world.clock.now_ms = 5_000
    world.put(b"2")
    records = world.log.read({PLACE: 0}).poll(records_max=9, wait_ms=0)
    assert [record.time_ms for record in records] == [1_000, 5_000]


def test_a_member_that_does_not_poll_within_its_session_is_struck_off():
    """Its partitions move, it does not know, and its claims are stale until its next poll says so."""
    world = World(session_ms=100)
    silent, other = world.own("a"), world.own("b")
    claim = claim_of(silent)
    assert not poll(other).gained
    world.clock.now_ms += 60
    poll(other)
    world.clock.now_ms += 60
    assert {gained.partition for gained in poll(other).gained} == {PLACE}
    assert silent.commit([work(claim, b"zombie")]) == frozenset()
    assert poll(silent).lost == {claim}
    assert world.read() == []


def test_a_session_lasts_as_long_as_its_member_polls():
    """Polling is being alive."""
    world = World(session_ms=100)
    owner = world.own()
    claim = claim_of(owner)
    for _ in range(5):
        world.clock.now_ms += 90
        assert not poll(owner).lost
    assert owner.commit([work(claim, b"x")]) == {claim}


def test_a_transaction_left_open_by_the_dead_ends_with_its_timeout():
    """It holds readers back until then, and its owner's next commit comes to nothing."""
    world = World(transaction_ms=100)
    owner = world.own()
    claim = claim_of(owner)
    world.faults.acts[Point.WRITTEN] = die
    with pytest.raises(Crash):
        owner.commit([work(claim, b"torn")])
    world.put(b"after", topic=OUT)
    assert world.read() == []
    world.clock.now_ms += 101
    world.log.wake()
    assert world.read() == [b"after"]
    assert owner.commit([work(claim, b"again")]) == frozenset()
    lost = poll(owner)
    assert lost.lost == {claim}
    assert lost.gained


def test_a_transaction_that_times_out_under_its_owner_is_of_unknown_outcome():
    """The owner may be slow, not dead: everything it holds is lost, then gained."""
    world = World(transaction_ms=100)
    owner = world.own()
    claim = claim_of(owner)
    for point in (Point.WRITTEN, Point.SENT):
        world.faults.acts[point] = lambda: setattr(world.clock, "now_ms", world.clock.now_ms + 101)
        assert owner.commit([work(claim, b"slow")]) == frozenset()
        answer = poll(owner)
        assert answer.lost == {claim}
        (claim,) = answer.gained
    assert world.read() == []
    assert owner.commit([work(claim, b"fast")]) == {claim}
    assert world.read() == [b"fast"]


def test_a_successor_of_the_same_name_ends_the_open_transaction():
    """A restart need not wait for the timeout."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    world.faults.acts[Point.SENT] = die
    with pytest.raises(Crash):
        owner.commit([work(claim, b"torn")])
    claim_of(world.own())
    world.put(b"after", topic=OUT)
    assert world.read() == [b"after"]
    assert world.log.committed("g", PLACE) == (0, "")


@pytest.mark.parametrize(
    ("ending", "values", "offset"),
    [(Ending.LANDED_UNKNOWN, [b"x"], 1), (Ending.ABORTED_UNKNOWN, [], 0)],
)
def test_an_unknown_outcome_loses_every_claim_whether_it_landed_or_not(ending, values, offset):
    """Nobody guesses: the next poll takes the claims away and gives them back."""
    world = World(partitions=2)
    owner = world.own()
    claims = poll(owner).gained
    world.faults.endings = [ending]
    (claim,) = (claim for claim in claims if claim.partition == PLACE)
    assert owner.commit([work(claim, b"x")]) == frozenset()
    assert owner.commit([work(claim, b"y")]) == frozenset()
    answer = poll(owner)
    assert answer.lost == claims
    assert len(answer.gained) == 2
    assert not answer.gained & claims
    assert world.read() == values
    assert world.log.committed("g", PLACE)[0] == offset


def test_a_member_struck_off_between_its_records_and_its_offsets_takes_them_back():
    """Kafka checks the generation when offsets are sent: nothing of the work may stay."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    world.faults.acts[Point.WRITTEN] = lambda: setattr(owner._group, "_owners", {})
    assert owner.commit([work(claim, b"x")]) == frozenset()
    assert world.read() == []


def test_a_late_transaction_is_seen_by_all_or_none_and_its_offset_with_it():
    """Markers are written after the commit is decided; who asks for a stable offset waits for them."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    world.faults.lateness = [3]
    assert owner.commit([work(claim, b"x")]) == {claim}
    assert world.read() == []
    assert world.log.offset("g", PLACE) == 0
    assert world.log.committed("g", PLACE)[0] == 1
    assert world.read() == [b"x"]
    assert not world.faults.blocked


def test_an_owners_next_transaction_waits_for_its_late_one():
    """Transactions of one owner never overtake each other."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    world.faults.lateness = [99]
    owner.commit([work(claim, b"1")])
    assert owner.commit([work(claim, b"2", next_offset=2)]) == {claim}
    assert world.read() == [b"1", b"2"]


def test_an_append_may_land_twice():
    """A retry whose first try had landed, from a producer that died in between."""
    world = World()
    world.faults.repeats = 2
    world.put(b"x", topic=OUT)
    assert world.read() == [b"x", b"x"]


def test_an_append_may_fail_before_and_after_it_landed():
    """Who is told that the log is away cannot know which it was."""
    world = World()

    def away():
        raise TransientError("away")

    for point in (Point.APPEND, Point.APPENDED):
        world.faults.acts[point] = away
        with pytest.raises(TransientError):
            world.put(point.encode(), topic=OUT)
    assert world.read() == [b"appended"]


def test_a_ghost_that_was_struck_off_and_replaced_is_told_so():
    """It must not take its name back from its successor."""
    world = World()
    ghost = world.own()
    claim_of(ghost)
    world.log.evict(ghost)
    successor = world.own()
    claim = claim_of(successor)
    with pytest.raises(SettingsError, match="HEADWATER_INSTANCE"):
        poll(ghost)
    assert successor.commit([work(claim, b"x")]) == {claim}


def test_a_struck_off_member_that_is_struck_again_disturbs_nobody():
    """Leaving twice, or after a successor has joined, is no event."""
    world = World()
    ghost = world.own()
    claim_of(ghost)
    world.log.evict(ghost)
    successor = world.own()
    claim = claim_of(successor)
    ghost.close(leave=True)
    assert successor.commit([work(claim, b"x")]) == {claim}


def test_without_the_claim_check_a_zombie_writes():
    """The control: the protection, and nothing else, keeps it out."""
    world = World(check_claims=False)
    owner = world.own("a")
    claim = claim_of(owner)
    world.log.evict(owner)
    assert owner.commit([work(claim, b"zombie")]) == {claim}
    assert world.read() == [b"zombie"]


def test_without_losing_claims_an_unknown_outcome_can_be_repeated():
    """The control: the same work lands twice."""
    world = World(lose_claims=False)
    owner = world.own()
    claim = claim_of(owner)
    world.faults.endings = [Ending.LANDED_UNKNOWN]
    assert owner.commit([work(claim, b"x")]) == frozenset()
    assert owner.commit([work(claim, b"x")]) == {claim}
    assert world.read() == [b"x", b"x"]


def test_with_offsets_outside_a_crash_tears_them_from_their_outputs():
    """The control: outputs stay, the offset does not."""
    world = World(offsets_inside=False)
    owner = world.own()
    claim = claim_of(owner)
    assert owner.commit([work(claim, b"1")]) == {claim}
    assert world.log.committed("g", PLACE)[0] == 1
    world.faults.acts[Point.COMMITTED] = die
    with pytest.raises(Crash):
        owner.commit([work(claim, b"2", next_offset=2)])
    assert world.read() == [b"1", b"2"]
    assert world.log.committed("g", PLACE)[0] == 1


def test_compaction_keeps_young_tombstones_and_open_transactions():
    """A reader that is restoring must still see that a row went."""
    world = World()
    world.log.create("state", compacted=True)
    world.put(b"1", topic="state", key=b"a")
    world.put(None, topic="state", key=b"a")
    world.clock.now_ms += 100
    held = world.log.hold([Draft(topic="state", key=b"a", value=b"open")])
    world.log.compact("state", tombstone_ms=200)
    held.abort()
    assert world.read("state") == [None]
    world.log.compact("state", tombstone_ms=50)
    assert world.read("state") == []
    assert world.log.end(Partition("state", 0)) == 4
    held.abort()


def test_only_compacted_topics_are_compacted_and_they_need_keys():
    """As on Kafka, a record without a key cannot be kept by key."""
    world = World()
    with pytest.raises(SettingsError, match="not compacted"):
        world.log.compact(OUT)
    world.log.create("state", compacted=True)
    with pytest.raises(PoisonError) as refused:
        world.put(b"v", topic="state")
    assert refused.value.code == "no-key"


def test_what_cannot_be_written_is_refused_by_name():
    """A topic or partition that is not there is a set-up to repair, not a record to lose."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    for draft in (Draft(topic="nowhere"), Draft(topic=OUT, partition=3)):
        with pytest.raises(WorkRefusedError, match=draft.topic):
            owner.commit([Work(claim=claim, next_offset=1, drafts=[draft])])
    with pytest.raises(SettingsError, match="topics apply"):
        world.put(b"x", topic="nowhere")
    with pytest.raises(SettingsError, match="no partition 7"):
        world.log.read({Partition(OUT, 7): 0})
    with pytest.raises(SettingsError, match="exists already"):
        world.log.create(OUT)
    assert world.log.topics() == {INBOX, OUT}


def test_records_without_a_key_are_dealt_in_turn():
    """Nobody names a partition, so all get some."""
    world = World()
    world.log.create("wide", partitions=3)
    places = [asyncio.run(world.log.append(Draft(topic="wide")))[0].number for _ in range(6)]
    assert sorted(places) == [0, 0, 1, 1, 2, 2]


def test_deleting_a_topic_takes_its_claims_and_offsets():
    """A recreated topic is another: a group must be given its first offsets again."""
    world = World()
    world.log.create("second")
    world.log.begin_group("g", ["second"])
    owner = world.own(topics=[INBOX, "second"])
    assert len(poll(owner).gained) == 2
    world.log.delete("second")
    assert [claim.partition.topic for claim in poll(owner).lost] == ["second"]
    world.log.create("second")
    (gained,) = poll(owner).gained
    with pytest.raises(SettingsError, match="topics apply"):
        owner.resume({gained: None})
    with pytest.raises(SettingsError, match="topics apply"):
        world.log.committed("g", gained.partition)
    assert world.log.offset("g", gained.partition) is None


def test_a_waiting_poll_wakes_for_records_and_for_rebalances():
    """Nobody who waits looks at a clock."""
    world = World()
    owner = world.own("a")
    claim = claim_of(owner)
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(poll(owner, wait_ms=60_000)))
    waiting.start()
    world.put(b"x")
    waiting.join(30)
    assert [record.value for _, record in answers[0].records] == [b"x"]
    waiting = threading.Thread(target=lambda: answers.append(poll(owner, wait_ms=60_000)))
    waiting.start()
    world.log.own([INBOX], group="g", instance="A")
    world.log.delete(INBOX)
    waiting.join(30)
    assert answers[1].lost == {claim}


def test_a_waiting_reader_and_a_waiting_offset_wake_when_a_transaction_ends():
    """Restores wait for what was begun before them."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    held = world.log.hold([Draft(topic=OUT, value=b"x")])
    reader = world.log.read({Partition(OUT, 0): 0})
    found = []
    waiting = threading.Thread(
        target=lambda: found.extend(reader.poll(records_max=9, wait_ms=60_000))
    )
    waiting.start()
    held.commit()
    waiting.join(30)
    assert [record.value for record in found] == [b"x"]
    ended = threading.Event()
    world.faults.acts[Point.BLOCKED] = ended.set
    marks = []
    asking = threading.Thread(target=lambda: marks.append(world.log.committed("g", PLACE)))

    def ask():
        asking.start()
        assert ended.wait(30)

    world.faults.acts[Point.SENT] = ask
    assert owner.commit([work(claim, b"y", next_offset=4)]) == {claim}
    asking.join(30)
    assert marks == [(4, "")]


def test_an_offset_that_stays_in_a_transaction_is_given_up(monkeypatch):
    """A wait without an end would hide a broken cluster."""
    world = World()
    owner = world.own()
    claim = claim_of(owner)
    world.faults.acts[Point.SENT] = die
    with pytest.raises(Crash):
        owner.commit([work(claim, b"x")])
    monkeypatch.setattr("headwater.log.local.COMMITTED_WAIT_S", -1.0)
    with pytest.raises(TimeoutError, match=r"inbox\[0\]"):
        world.log.committed("g", PLACE)


def test_partitions_are_spread_with_as_few_moves_as_evenness_allows():
    """Cooperative and sticky: who has no more than its share keeps it all."""
    places = [Partition("t", n) for n in range(7)]
    members = {name: frozenset({"t"}) for name in "abc"}
    before = dict.fromkeys(places, "a")
    after = balanced(places, members, before)
    assert sorted(list(after.values()).count(name) for name in "abc") == [2, 2, 3]
    assert sum(before[place] == after[place] for place in places) == 3
    assert balanced(places, members, after) == after
    assert balanced(places, {"b": frozenset({"other"})}, after) == {}


def test_murmur2_is_javas():
    """The values of Kafka's own UtilsTest."""
    expected = {
        b"21": -973932308,
        b"foobar": -790332482,
        b"a-little-bit-long-string": -985981536,
        b"a-little-bit-longer-string": -1486304829,
        b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
        b"abc": 479470107,
    }
    assert {key: murmur2(key) for key in expected} == {
        key: value % 2**32 for key, value in expected.items()
    }
