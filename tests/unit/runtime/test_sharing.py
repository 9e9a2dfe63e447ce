"""How partitions share a loop: whoever catches up keeps nobody waiting who has, and nobody starves."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

import pytest

from headwater.contracts.messages import Control
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.envelope import Envelope
from headwater.errors import PoisonError
from headwater.log.port import Claim, Poll, Work
from headwater.runtime.deciding import Deciding
from headwater.runtime.pace import Pace
from headwater.runtime.restoring import Inline, Restorer

TURN_S, COMMIT_S = 0.01, 0.1
BEFORE_MS, NOW_MS = 1_000, 2_000
"""When records of earlier were appended, and the hour at which partitions are taken up."""
ALONE, AMONG_OTHERS = 80, 10
"""How many turns fit into eight commits, and into one."""


class Hours:
    """The monotonic clock; turns and commits take their time by it."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Many:
    """An owner of several partitions, and the log below it."""

    def __init__(self, hours: Hours) -> None:
        self.hours = hours
        self.waiting: list[tuple[Claim, Record]] = []
        self.held: list[tuple[Claim, Record]] = []
        self.gained: set[Claim] = set()
        self.commits: list[dict[int, int]] = []
        """How many records each commit had, by partition."""

    def gain(self, number: int, records: int, *, time_ms: int = BEFORE_MS) -> Claim:
        """Gain a partition in which so many records wait."""
        claim = Claim(Partition("in", number), 1)
        self.gained.add(claim)
        self.put(claim, records, time_ms=time_ms)
        return claim

    def put(self, claim: Claim, records: int, *, time_ms: int = NOW_MS) -> None:
        """Append records to a partition."""
        self.waiting += [
            (
                claim,
                Record(
                    partition=claim.partition,
                    offset=n,
                    time_ms=time_ms,
                    key=b"k",
                    value=b"",
                    headers=(),
                ),
            )
            for n in range(records)
        ]

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        if self.gained:
            gained, self.gained = frozenset(self.gained), set()
            return Poll(gained=gained)
        found, self.waiting = self.waiting, []
        return Poll(records=found)

    def resume(self, claims: Collection[Claim]) -> None:
        pass

    def commit(self, works: Sequence[Work]) -> frozenset[Claim]:
        self.hours.now_s += COMMIT_S
        self.commits.append({w.claim.partition.number: len(w.drafts) for w in works})
        return frozenset(work.claim for work in works)

    def topic_id(self, topic: str) -> str:
        return "id"

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        return 0, ""


class Relay:
    """Sends a message for each that comes, and takes its time."""

    name = "relay"

    def __init__(self, hours: Hours) -> None:
        self.hours = hours

    def react(self, turn, message) -> None:
        self.hours.now_s += TURN_S
        turn.relay(Draft(topic="out", key=b"k", value=b""))

    def refused(self, turn, record, message, error: PoisonError) -> None:
        raise error

    def forget(self, partition: Partition) -> None:
        pass


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> Many:
    hours = Hours()
    monkeypatch.setattr(time, "monotonic", hours)
    return Many(hours)


@pytest.fixture
def loop(many: Many) -> Deciding:
    codec = object()
    return Deciding(
        log=many,
        owner=many,
        decider=Relay(many.hours),
        envelope=Envelope(codec, source="tests"),
        opener=lambda record: (None, Control(target="m", verb="signal")),
        restorer=Restorer(many, group="g", state=None, codec=codec, executor=Inline()),
        quarantine=lambda record, error: Draft(topic="q"),
        state=None,
        clock=lambda: NOW_MS,
        pace=Pace(batch_ms_max=20),
    )


def begin(loop: Deciding, many: Many, *, here: bool) -> Claim:
    """Have partition 0 catch up, or take one record of earlier; the loop then knows what a commit takes."""
    claim = many.gain(0, 1, time_ms=NOW_MS if here else BEFORE_MS)
    loop.step()
    loop.step()
    assert many.commits == [{0: 1}]
    return claim


def test_a_partition_that_catches_up_keeps_others_waiting_for_a_commit_at_most(
    loop: Deciding, many: Many
) -> None:
    """What others left in a partition that was gained is taken in short batches while others are served."""
    here = begin(loop, many, here=True)
    many.gain(1, 200)
    loop.step()
    many.put(here, 3)
    loop.step()
    assert many.commits[-1] == {0: 3, 1: AMONG_OTHERS}


def test_control_a_loop_that_serves_nobody_yet_takes_long_batches(
    loop: Deciding, many: Many
) -> None:
    """Control: the same backlog, where no partition has caught up: a commit is a ninth of the time."""
    behind = begin(loop, many, here=False)
    many.gain(1, 200)
    loop.step()
    many.put(behind, 3, time_ms=BEFORE_MS)
    loop.step()
    assert many.commits[-1] == {0: 3, 1: ALONE - 3}


def test_a_partition_has_caught_up_with_its_first_record_of_later(
    loop: Deciding, many: Many
) -> None:
    """From then on it is served as the others are, with whatever else comes."""
    here = begin(loop, many, here=True)
    behind = many.gain(1, 1)
    loop.step()
    many.put(behind, 1)
    loop.step()
    many.put(here, 1)
    many.put(behind, 50)
    loop.step()
    assert many.commits[-1] == {0: 1, 1: 50}


def test_partitions_with_more_than_there_is_time_for_take_turns(loop: Deciding, many: Many) -> None:
    """Whoever had its share comes last the next time: a backlog keeps no other partition from going on."""
    begin(loop, many, here=True)
    for number in (1, 2, 3):
        many.gain(number, 100)
    loop.step()
    for _ in range(4):
        loop.step()
    first, second, third, again = ([*commit] for commit in many.commits[1:])
    assert sorted(first + second + third) == [1, 2, 3]
    assert again == first


def test_whoever_serves_long_leaves_time_for_those_that_catch_up(
    loop: Deciding, many: Many
) -> None:
    """Partitions that have caught up, however much comes for them, starve none that has not."""
    here = begin(loop, many, here=True)
    many.gain(1, 100)
    loop.step()
    many.put(here, 200)
    loop.step()
    assert many.commits[-1] == {0: ALONE, 1: AMONG_OTHERS}
