"""Conversations as chains: each message stored once, calls small, the same in a replay."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.core.blobs import is_node, ref_of
from headwater.errors import BlobLostError, PoisonError, TransientError
from headwater.models import history as chains
from headwater.runtime.restoring import Inline
from headwater.sdk import wire
from headwater.sdk.history import CUT_BYTES, PART_BYTES_MAX, Cut, History


def said(number: int, size: int = 1_000) -> dict[str, object]:
    return wire.prompt(f"{number}:" + "x" * size)


def store_of(*cuts: Cut) -> Keeping:
    keeping = Keeping(Store.at("memory:///", namespace="ns"), executor=Inline())
    keeping.put("t", b"something else").result()
    for cut in cuts:
        for node in cut.nodes:
            keeping.put("t", node).result()
    return keeping


def whole(keeping: Keeping, cut: Cut) -> list[dict[str, object]]:
    before = asyncio.run(chains.messages(keeping, "t", cut.history))
    return [*before, *(dict(message) for message in cut.messages)]


@settings(max_examples=50)
@given(st.lists(st.integers(0, 30_000), min_size=1, max_size=25))
def test_a_conversation_that_grows_is_the_same_in_whole(sizes: list[int]) -> None:
    """What a model is given does not depend on how it travelled; each message is stored once."""
    history, messages, cuts = History(), [], []
    for number, size in enumerate(sizes):
        messages.append(said(number, size))
        cuts.append(history.cut(messages))
    keeping = store_of(*cuts)
    for number, cut in enumerate(cuts):
        assert whole(keeping, cut) == messages[: number + 1]
        assert len(json.dumps([*cut.messages[:-1]])) <= CUT_BYTES * 1.1
    stored = sum(len(node) for cut in cuts for node in cut.nodes)
    assert stored <= len(json.dumps(messages)) * 1.1


def test_small_conversations_are_sent_as_they_are() -> None:
    """Nobody waits for a store over a few lines."""
    cut = History().cut([said(1), said(2)])
    assert (cut.history, len(cut.messages), cut.nodes) == ("", 2, ())


def test_parts_name_the_part_before_them() -> None:
    """A chain is followed from its last part to its first."""
    history, messages = History(), [said(1, CUT_BYTES), said(2)]
    first = history.cut(messages)
    messages += [said(3, CUT_BYTES), said(4)]
    second = history.cut(messages)
    assert ref_of(first.nodes[0]).name == first.history
    assert json.loads(second.nodes[0])["before"] == first.history
    assert is_node(second.history)


def test_a_replay_cuts_the_same() -> None:
    """The same conversation has the same parts in another process."""
    messages = [said(number) for number in range(40)]
    assert History().cut(messages) == History().cut(messages)


def test_two_conversations_share_their_beginning() -> None:
    """A branch refers to the part that both have."""
    history = History()
    common = [said(number) for number in range(20)]
    first = history.cut([*common, said(100)])
    other = history.cut([*common, said(200)])
    assert other.history == first.history
    assert other.nodes == ()


def test_a_message_too_large_for_a_part_is_sent_with_the_call() -> None:
    """Then the whole request goes by reference, as any large value."""
    cut = History().cut([said(1), said(2, PART_BYTES_MAX), said(3)])
    assert (cut.history, len(cut.messages), cut.nodes) == ("", 3, ())


def test_many_new_messages_become_several_parts() -> None:
    """No part is larger than a store takes."""
    messages = [said(number, PART_BYTES_MAX // 3) for number in range(7)]
    cut = History().cut(messages)
    assert len(cut.nodes) == 3
    assert max(map(len, cut.nodes)) <= PART_BYTES_MAX
    assert whole(store_of(cut), cut) == messages


def test_text_of_any_language_is_not_blown_up() -> None:
    """A part holds text as UTF-8."""
    cut = History().cut([wire.prompt("ü" * CUT_BYTES), said(2)])
    assert len(cut.nodes[0]) < CUT_BYTES * 2.1
    assert whole(store_of(cut), cut)[0] == wire.prompt("ü" * CUT_BYTES)


@pytest.mark.parametrize("part", [b"no json", b"[]", b"{}", b'{"before":"rm -rf","messages":[]}'])
def test_what_is_no_part_is_refused(part: bytes) -> None:
    """A request that names something else is poison, not an endless search."""
    keeping = store_of()
    keeping.put("t", part).result()
    with pytest.raises(PoisonError, match="no part of a conversation"):
        asyncio.run(chains.messages(keeping, "t", ref_of(part).name))


def test_a_lost_part_and_a_missing_store_are_said() -> None:
    """One is for good, the other is not."""
    name = ref_of(b"gone").name
    with pytest.raises(BlobLostError):
        asyncio.run(chains.messages(store_of(), "t", name))
    with pytest.raises(TransientError, match="HEADWATER_BLOBS__URL"):
        asyncio.run(chains.messages(None, "t", name))
    assert asyncio.run(chains.messages(None, "t", "")) == []
