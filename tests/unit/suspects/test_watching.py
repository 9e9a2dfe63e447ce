"""Watching: who is overdue, in time that the watcher was awake itself."""

from __future__ import annotations

import os

import pytest

from headwater.contracts.records import Partition
from headwater.runtime.posts import Kind, Posts
from headwater.watching import Limits, Verdict, Watch, resident

PLACE = Partition("hw.inbox.triage.v1", 0)
LIMITS = Limits(turn_s=1.0, stall_s=2.0, stuck_s=3.0, memory_bytes=100)


class Eye:
    """A watch with a clock of its own."""

    def __init__(self) -> None:
        self.posts = Posts(4)
        self.memory = 50
        self.now_s = 0.0
        self.watch = Watch(1, self.posts, LIMITS, memory=lambda _: self.memory)

    def for_s(self, seconds: float) -> Verdict | None:
        """Look every quarter of a second."""
        for _ in range(round(seconds * 4)):
            self.now_s += 0.25
            verdict = self.watch.look(self.now_s, tick_s=0.25)
            if verdict is not None:
                return verdict
        return None


@pytest.fixture
def eye() -> Eye:
    return Eye()


def test_a_long_turn_is_overdue_and_short_ones_are_not(eye: Eye) -> None:
    """It is the one turn that counts, not that there always is one."""
    for offset in range(10):
        post = eye.posts.take(Kind.TURN, PLACE, offset, "run")
        assert eye.for_s(0.75) is None
        eye.posts.leave(post)
    eye.posts.take(Kind.TURN, PLACE, 11, "run")
    verdict = eye.for_s(5)
    assert verdict == Verdict(words="a turn of run lasted more than 1 s")


def test_a_turn_of_many_deliveries_has_time_for_each(eye: Eye) -> None:
    """A long journal is replayed in one turn."""
    post = eye.posts.take(Kind.TURN, PLACE, 1, "run")
    for _ in range(10):
        assert eye.for_s(0.75) is None
        eye.posts.renew(post)
    assert eye.for_s(2) is not None


def test_a_call_may_take_its_time_while_the_event_loop_turns(eye: Eye) -> None:
    """A slow call is not an endless loop."""
    eye.posts.take(Kind.CALL, PLACE, 1, "run/1")
    for _ in range(40):
        eye.posts.beat()
        assert eye.for_s(1) is None
    verdict = eye.for_s(5)
    assert verdict == Verdict(words="its event loop stood still for 2 s")


def test_a_loop_that_never_began_is_not_missed(eye: Eye) -> None:
    """A start may take long."""
    assert eye.for_s(60) is None


def test_a_thread_that_goes_on_is_told_in_good_order(eye: Eye) -> None:
    """Its call has its answer, so nobody is to be killed for it."""
    post = eye.posts.take(Kind.CALL, PLACE, 1, "run/1")
    eye.posts.hold(post, eye.posts.serial(post))
    assert eye.for_s(10) is None
    eye.posts.leave(post)
    verdict = eye.for_s(10)
    assert verdict is not None
    assert verdict.orderly
    assert "run/1" in verdict.words


def test_memory_has_a_bound(eye: Eye) -> None:
    """The process is ended before the machine's memory is."""
    assert eye.for_s(1) is None
    eye.memory = 101
    assert eye.for_s(1) == Verdict(words="it took more than 100 bytes of memory")


def test_time_in_which_the_watcher_slept_counts_for_nobody(eye: Eye) -> None:
    """A machine that stood still and goes on has no endless loops because of it."""
    eye.posts.beat()
    eye.posts.take(Kind.TURN, PLACE, 1, "run")
    assert eye.for_s(0.75) is None
    eye.now_s += 3_600
    assert eye.for_s(0.75) is None
    assert eye.for_s(1) is not None


def test_memory_is_read_from_the_system() -> None:
    """A process that has ended has none."""
    assert resident(os.getpid()) > 1_000_000
    assert resident(2**22 + 1) == 0
