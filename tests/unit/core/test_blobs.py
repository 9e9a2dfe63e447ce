"""References to values: by what they are, found in any bytes, at hand or asked for."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.contracts.messages import Answered, Ask, BlobRef, Failed, Reply, ReplyTo, Start, Task
from headwater.core import blobs
from headwater.core.decider import Turn
from headwater.core.messages import Meta, Position
from headwater.core.state import Rows
from headwater.errors import BlobLostError


class Given:
    def __init__(self, **values):
        self.values = values

    def get(self, tenant, name):
        return self.values.get(f"{tenant}_{name[-4:]}")


def turn(at_hand=blobs.NOTHING):
    return Turn(
        Rows(), at=Position("id", "in", 0, 0), meta=Meta(id="m", tenant="t"), now_ms=0, at_hand=at_hand
    )  # fmt: skip


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_the_same_bytes_have_the_same_name_and_others_another(one, other):
    """A name is a value's digest: whoever keeps it again keeps the same blob."""
    assert (blobs.ref_of(one).name == blobs.ref_of(other).name) is (one == other)
    assert blobs.ref_of(one).size == len(one)
    assert blobs.is_name(blobs.ref_of(one).name)


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_names_are_found_in_any_bytes(before, after):
    """Whatever refers to a blob need not be understood to see that it does."""
    name = blobs.ref_of(b"value").name
    assert name in blobs.names_in(before + name.encode() + after)


def test_a_value_that_names_others_says_so_in_its_name():
    """So a collector follows chains and reads nothing else."""
    leaf = blobs.ref_of(b"alone")
    node = blobs.ref_of(b"after " + leaf.name.encode())
    assert blobs.is_node(node.name)
    assert not blobs.is_node(leaf.name)
    assert not blobs.is_name(leaf.name + "0")


def test_sizes_and_values():
    """A value has its size wherever it is; one that was not brought back is our mistake."""
    ref = BlobRef(name="n", size=7)
    assert (blobs.size_of(b"abc"), blobs.size_of(ref)) == (3, 7)
    assert blobs.inline(b"abc") == b"abc"
    with pytest.raises(AssertionError, match="not brought back"):
        blobs.inline(ref)


def test_messages_say_what_they_need():
    """What a turn will need is seen before it is taken."""
    ref = BlobRef(name="n", size=7)
    to = ReplyTo(topic="in", partition=0, run="r", number=1)
    ask = Ask(
        run="r", number=1, name="n", arguments=ref, safety="read", not_after_ms=0, reply_to=to
    )

    def reply(outcome):
        return Reply(run="r", number=1, attempt="a", outcome=outcome)

    def start(value):
        return Start(run="r", task_id="t", slot="s", task=Task(value=value))

    assert blobs.needed_by(reply(Answered(value=ref))) == [ref]
    assert blobs.needed_by(start(ref)) == [ref]
    assert blobs.needed_by(ask) == [ref]
    small = (reply(Answered(value=b"")), reply(Failed(error="e", detail="d")), start(b""), None)
    assert [blobs.needed_by(message) for message in small] == [[], [], [], []]


def test_a_turn_keeps_and_loads():
    """What is at hand is loaded, what is not is asked for with whatever else is needed."""
    one, gone = blobs.ref_of(b"one"), blobs.ref_of(b"gone")
    lost = BlobLostError(gone.name, "t", "is not there")
    here = turn(Given(**{f"t_{one.name[-4:]}": b"one", f"t_{gone.name[-4:]}": lost}))
    assert here.keep(b"one") == one
    assert here.kept == {one.name: b"one"}
    assert here.load(b"inline") == b"inline"
    here.need([one.name, gone.name])
    assert here.load(one) == b"one"
    with pytest.raises(BlobLostError, match="tenant t is not there: put it back"):
        here.load(gone)
    with pytest.raises(blobs.AbsentError) as absent:
        turn().load(one)
    assert (absent.value.tenant, absent.value.names) == ("t", (one.name,))
    with pytest.raises(blobs.AbsentError) as absent:
        here.need([one.name, "other"])
    assert absent.value.names == (one.name, "other")
