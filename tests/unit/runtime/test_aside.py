"""Suspects in the deciding loop: they are tried before they are taken, and their keys alone wait."""

from __future__ import annotations

import concurrent.futures
from collections import deque

import pytest
from hypothesis import given, settings, strategies
from tests.unit.runtime.test_deciding import INBOX, Adder, Script, build

from headwater.contracts.records import Record
from headwater.errors import (
    ProcessKillerError,
    SettingsError,
    TransientError,
    WorkRefusedError,
)
from headwater.log.port import Claim, Work
from headwater.runtime import aside, doneset
from headwater.runtime.aside import Aside, Nobody
from headwater.runtime.table import Table


class Trying:
    """Suspects offsets, tries them when it is told to, and knows killers."""

    def __init__(self, *suspects):
        self.suspects = {*suspects}
        self.killers = set()
        self.trials = {}
        self.posts = []

    def enter(self, record):
        self.posts.append(record.offset)

    def leave(self):
        assert self.posts

    def suspected(self, record):
        return record.offset in self.suspects - self.killers

    def check(self, record):
        if record.offset in self.killers:
            raise ProcessKillerError("three died of it")

    def begin(self, record, state):
        ended = self.trials[record.offset] = concurrent.futures.Future()
        return ended

    def survived(self, records):
        self.suspects -= {record.offset for record in records}


@pytest.fixture
def script():
    return Script()


def steps(loop, number=3):
    for _ in range(number):
        loop.step()


def three_keys(script):
    """Offsets 0 and 3 are of the key `a`, 1 of `b`, 2 of `c`."""
    for key in (b"a", b"b", b"c", b"a"):
        script.put(key=key)


def test_a_suspect_and_its_key_wait_and_all_others_go_on(script):
    """A killer stops only its own key, and the group's offset stays at it."""
    trying = Trying(0)
    loop = build(script, Adder(), trying=trying)
    three_keys(script)
    steps(loop)
    assert script.outputs() == ["m1", "m2"]
    assert script.offset == 0
    assert doneset.decode(0, script.metadata) == {1, 2}
    assert [*trying.trials] == [0]


def test_a_survivor_is_taken_in_order_and_suspected_no_more(script):
    """One survival clears it; then the offset goes on."""
    trying = Trying(0)
    loop = build(script, Adder(), trying=trying)
    three_keys(script)
    steps(loop)
    trying.trials[0].set_result(None)
    steps(loop)
    assert script.outputs() == ["m1", "m2", "m0", "m3"]
    assert (script.offset, script.metadata) == (4, "")
    assert trying.suspects == set()
    assert trying.posts == [1, 2, 0, 3]


def test_a_killer_is_quarantined_unrun(script):
    """It has had its deaths elsewhere; here it is refused, and its key goes on."""
    trying, decider = Trying(0), Adder()
    loop = build(script, decider, trying=trying)
    three_keys(script)
    steps(loop)
    trying.killers = {0}
    trying.trials[0].set_result(None)
    steps(loop)
    assert decider.refusals == ["process-killer"]
    assert 0 not in trying.posts
    assert script.outputs() == ["m1", "m2", "m3"]
    assert script.offset == 4


def test_control_without_trials_a_suspect_is_taken_here(script):
    """Control: whoever suspects nobody runs the killer in the process of all."""
    trying = Trying()
    loop = build(script, Adder(), trying=trying)
    three_keys(script)
    steps(loop)
    assert trying.posts == [0, 1, 2, 3]


def test_what_was_done_beyond_the_offset_is_not_done_again(script):
    """The next owner takes what waited, and passes over the rest, suspecting anybody or nobody."""
    loop = build(script, Adder(), trying=Trying(0))
    three_keys(script)
    steps(loop)
    loop.close()
    for trying in (None, Trying()):
        script.lose()
        again = build(script, Adder(), trying=trying)
        steps(again)
        assert script.outputs() == ["m1", "m2", "m0", "m3"]
        assert (script.offset, script.metadata) == (4, "")


def test_what_was_done_already_stays_done_once_nothing_waits(script):
    """The last that waited is taken before what is done behind it: the offset goes behind both."""
    loop = build(script, Adder(), trying=Trying(0))
    for key in (b"a", b"b"):
        script.put(key=key)
    steps(loop)
    loop.close()
    for _ in range(2):
        script.lose()
        again = build(script, Adder(), trying=Trying())
        steps(again)
        assert script.outputs() == ["m1", "m0"]
        assert (script.offset, script.metadata) == (2, "")
        again.close()


def test_what_the_log_refused_is_not_said_to_be_done(script, monkeypatch):
    """A batch is taken back: whatever is committed until it is taken again says nothing of it."""
    loop = build(script, Adder(), trying=Trying(1, 3))
    for key in (b"a", b"s", b"b", b"s"):
        script.put(key=key)
    commit, refusals = script.commit, [WorkRefusedError("no")]

    def refuse_once(work):
        if refusals:
            raise refusals.pop()
        return commit(work)

    monkeypatch.setattr(script, "commit", refuse_once)
    for _ in range(5):
        loop.step()
        said = {*range(script.offset)} | doneset.decode(script.offset, script.metadata)
        assert {f"m{offset}" for offset in said} == {*script.outputs()}
    assert script.outputs() == ["m0", "m2"]


def test_a_lost_claim_gives_its_trials_up(script):
    """They are the next owner's."""
    trying = Trying(0)
    loop = build(script, Adder(), trying=trying)
    three_keys(script)
    steps(loop)
    script.lose()
    loop.step()
    assert trying.trials[0].cancelled()


def test_a_commit_that_came_to_nothing_takes_the_survivor_again(script):
    """What was given back waits for its commit like anything else."""
    trying = Trying(0)
    loop = build(script, Adder(), trying=trying)
    three_keys(script)
    steps(loop)
    trying.trials[0].set_result(None)
    script.verdict = "unknown"
    steps(loop, 4)
    assert trying.suspects == {0}
    trying.trials[0].set_result(None)
    steps(loop)
    assert script.outputs() == ["m1", "m2", "m0", "m3"]


def test_a_set_that_cannot_be_read_stops_the_start(script):
    """A turn taken twice is worse than a process that waits for its own version."""
    script.metadata = "9 of a later version"
    loop = build(script, Adder())
    with pytest.raises(SettingsError, match="run the version that wrote it"):
        steps(loop)


def record(offset, key=b"a"):
    return Record(partition=INBOX, offset=offset, time_ms=0, key=key, value=b"", headers=())


def test_an_earlier_record_of_a_waiting_key_is_taken_first():
    """After a batch was refused, what came before the suspect comes before its trial, too."""
    trying = Trying(5)
    waits = Aside(trying, 4)
    assert waits.passes(record(5))
    assert not waits.passes(record(4))
    backlog = deque([record(4)])
    waits.round(backlog, Table())
    assert trying.trials == {}
    waits.round(deque(), Table())
    assert [*trying.trials] == [5]
    waits.round(deque(), Table())
    assert [*trying.trials] == [5]


def test_so_much_may_wait_and_no_more(monkeypatch):
    """Beyond the bound, the partition waits."""
    monkeypatch.setattr(aside, "WAITING_MAX", 2)
    waits = Aside(Trying(0), 0)
    assert waits.passes(record(0))
    assert waits.passes(record(1))
    with pytest.raises(TransientError, match="wait for trials"):
        waits.passes(record(2))
    assert not waits.passes(record(3, b"b"))
    waits.taken_back([record(3, b"b"), record(4, b"s")])
    waits.committed([record(0)])
    assert waits.passes(record(1)), "it is among them already"


def test_the_offset_never_passes_what_is_not_done():
    """Of a batch that was taken back, the first record is committed alone."""
    waits = Aside(Nobody(), 5)
    waits.taken_back([record(5), record(8)])
    work = waits.settle(Work(claim=Claim(INBOX, 1), next_offset=6), [record(5)])
    assert (work.next_offset, work.metadata) == (6, "")


@pytest.mark.parametrize("key", [b"a", b"b"])
def test_nobody_goes_on_beyond_what_can_be_written_down(key):
    """A turn whose being done does not fit beside the offset would be taken twice after a crash."""
    waits = Aside(Trying(0), 0)
    assert waits.passes(record(0))
    last = doneset.WINDOW - 2
    assert not waits.passes(record(last, b"b"))
    work = waits.settle(Work(claim=Claim(INBOX, 1), next_offset=last + 1), [])
    assert last in doneset.decode(0, work.metadata)
    with pytest.raises(TransientError, match="wait for trials"):
        waits.passes(record(last + 1, key))


def test_nobody_is_tried_where_nobody_is_suspected():
    """The trials of a process without a supervisor."""
    assert not Nobody().suspected(record(0))
    with pytest.raises(AssertionError):
        Nobody().begin(record(0), Table())


@settings(deadline=None)
@given(
    suspects=strategies.sets(strategies.integers(0, 11)),
    done=strategies.sets(strategies.integers(0, 11)),
    keys=strategies.lists(strategies.sampled_from([b"a", b"b", b"c"]), min_size=12, max_size=12),
)
def test_offset_and_set_always_say_what_is_done(suspects, done, keys):
    """Whatever waits, an heir that reads offset and set takes exactly what was not done."""
    claim = Claim(INBOX, 1)
    waits = Aside(Trying(*suspects), 0, done)
    taken = set()
    for offset, key in enumerate(keys):
        one = record(offset, key)
        if waits.passes(one):
            continue
        taken.add(offset)
        work = waits.settle(Work(claim=claim, next_offset=offset + 1), [one])
        waits.committed([one])
        known = {*range(work.next_offset)} | doneset.decode(work.next_offset, work.metadata)
        assert known & {*range(12)} == taken | done
