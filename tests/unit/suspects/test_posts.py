"""Posts: what was under way is there for whoever looks, and costs next to nothing."""

from __future__ import annotations

import pathlib
import timeit

import pytest

from headwater.contracts.records import Partition
from headwater.runtime import posts as posting
from headwater.runtime.posts import Kind, LeftError, Posts

PLACE = Partition("hw.req.tool.cards.v1", 3)
RUN = "triage.3.0af7651916cd43dd8448eb211c80319c"


def test_a_post_is_seen_while_it_is_used() -> None:
    """Taken, it says what and where; left, nothing."""
    posts = Posts(4)
    with posts.at(Kind.TURN, PLACE, 41, RUN):
        [post] = posts.used()
        assert (post.kind, post.partition, post.offset, post.what) == (Kind.TURN, PLACE, 41, RUN)
        assert post.place == "hw.req.tool.cards.v1[3]@41"
    assert posts.used() == []


def test_one_more_than_there_are_goes_unseen() -> None:
    """Posts are a bound on what is seen, never on what runs."""
    posts = Posts(1)
    first = posts.take(Kind.CALL, PLACE, 1, "a/1")
    second = posts.take(Kind.CALL, PLACE, 2, "a/2")
    assert not posts.hold(second, posts.serial(second))
    posts.renew(second)
    posts.leave(second)
    assert [post.offset for post in posts.used()] == [1]
    posts.leave(first)
    assert posts.take(Kind.CALL, PLACE, 3, "a/3") == first


@pytest.mark.parametrize("thread_first", [True, False])
def test_a_thread_keeps_its_post_until_both_have_left(thread_first: bool) -> None:
    """A call that was answered while its thread goes on is seen as left behind."""
    posts = Posts(1)
    post = posts.take(Kind.CALL, PLACE, 1, "a/1")
    serial = posts.serial(post)
    assert posts.hold(post, serial)
    assert not posts.hold(post, serial)
    if thread_first:
        posts.release(post)
        assert not posts.used()[0].left_behind
        posts.leave(post)
    else:
        posts.leave(post)
        assert posts.used()[0].left_behind
        with pytest.raises(LeftError):
            posts.hold(post, serial)
        posts.release(post)
    assert posts.used() == []
    assert posts.take(Kind.CALL, PLACE, 2, "a/2") == post


@pytest.mark.parametrize("taken", [False, True])
def test_a_thread_that_comes_when_its_call_has_left_holds_nothing(taken: bool) -> None:
    """Not even where another call has the post by now."""
    posts = Posts(1)
    post = posts.take(Kind.CALL, PLACE, 1, "a/1")
    serial = posts.serial(post)
    posts.leave(post)
    if taken:
        assert posts.take(Kind.CALL, PLACE, 2, "a/2") == post
    with pytest.raises(LeftError):
        posts.hold(post, serial)
    assert len(posts.used()) == taken


def test_long_names_are_cut() -> None:
    """A post has a fixed size."""
    posts = Posts(1)
    posts.take(Kind.CALL, Partition("t" * 249, 0), 1, "w" * 1_000)
    [post] = posts.used()
    assert post.partition.topic == "t" * 249
    assert 200 < len(post.what) < 300
    assert {*post.what} == {"w"}


def test_a_file_outlives_its_process(tmp_path: pathlib.Path) -> None:
    """What was in use is found there; a foreign file says nothing."""
    posts = Posts(2, tmp_path / "deep" / "a.posts")
    posts.take(Kind.CALL, PLACE, 1, "a/1")
    assert [post.what for post in posting.found(tmp_path / "deep" / "a.posts")] == ["a/1"]
    posts.close()
    assert not (tmp_path / "deep" / "a.posts").exists()
    (tmp_path / "b.posts").write_bytes(b"something else")
    assert posting.found(tmp_path / "b.posts") == []


def test_what_was_half_written_is_nobody() -> None:
    """A process may die in the middle of taking a post."""
    posts = Posts(1)
    posts._memory[64] = 1
    assert posts.used() == []


def test_a_process_says_how_far_it_came() -> None:
    """It beats, joins, ends."""
    posts = Posts(1)
    assert (posts.beats, posts.joined, posts.ended) == (0, False, None)
    posts.beat()
    posts.join()
    posts.end(300)
    assert (posts.beats, posts.joined, posts.ended) == (1, True, 254)
    posts.close()


def test_a_post_costs_microseconds() -> None:
    """No cost per message: two writes of a few bytes; a turn takes a hundred times as long."""
    posts = Posts(64)

    def once() -> None:
        posts.leave(posts.take(Kind.TURN, PLACE, 12_345, RUN))

    best_s = min(timeit.repeat(once, number=2_000, repeat=10)) / 2_000
    assert best_s < 20e-6
