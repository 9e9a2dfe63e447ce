"""Lanes: order per key, bounds, turns of tenants."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.runtime.lanes import Bounds, Lanes, Queued


def call(item, tenant="t", name="n", key=""):
    return Queued(item=item, tenant=tenant, name=name, order_key=key)


def started(lanes):
    found = []
    while (one := lanes.next()) is not None:
        found.append(one)
    return found


def test_one_order_key_goes_one_after_the_other():
    """Calls of one tenant and tool with one order key start in order, each after the one before."""
    lanes = Lanes(Bounds())
    for number in range(3):
        lanes.put(call(number, key="card-1"))
    lanes.put(call(9, key="card-2"))
    first = started(lanes)
    assert [one.item for one in first] == [0, 9]
    lanes.done(first[1])
    assert started(lanes) == []
    lanes.done(first[0])
    assert [one.item for one in started(lanes)] == [1]


def test_without_its_key_a_call_overtakes():
    """The control: with no order key, all start at once."""
    lanes = Lanes(Bounds())
    for number in range(3):
        lanes.put(call(number))
    assert len(started(lanes)) == 3


def test_other_tenants_and_tools_do_not_share_a_lane():
    """A lane is (tenant, tool, order key)."""
    lanes = Lanes(Bounds())
    for tenant, name in (("a", "x"), ("b", "x"), ("a", "y")):
        lanes.put(call(0, tenant, name, key="same"))
    assert len(started(lanes)) == 3


@pytest.mark.parametrize("flooding", ["flood", "quiet"])
def test_a_flood_of_one_tenant_delays_no_other(flooding):
    """Tenants are served in turn; the control: as one tenant, the late call waits for the flood."""
    lanes = Lanes(Bounds(calls_max=1))
    for number in range(100):
        lanes.put(call(number, flooding))
    lanes.put(call("late", "quiet"))
    order = []
    while (one := lanes.next()) is not None:
        order.append(one.item)
        lanes.done(one)
    assert (order.index("late") <= 1) == (flooding == "flood")


def test_a_heavier_tenant_starts_as_many_more_in_its_turn():
    """Of calls that wait all the time, tenants get shares as their weights; one counts unless told."""
    lanes = Lanes(Bounds(calls_max=1, weights={"gold": 3}))
    for number in range(40):
        for tenant in ("gold", "iron", "tin"):
            lanes.put(call(number, tenant))
    shares: Counter[str] = Counter()
    gaps = []
    for _ in range(50):
        one = lanes.next()
        shares[one.tenant] += 1
        gaps.append(one.tenant)
        lanes.done(one)
    assert shares == {"gold": 30, "iron": 10, "tin": 10}
    assert gaps[:5] == ["gold", "gold", "gold", "iron", "tin"]


def test_a_tool_at_its_bound_leaves_room_for_others():
    """A tenant whose oldest call may not start is served its oldest that may."""
    lanes = Lanes(Bounds(name_max=1))
    for number in range(3):
        lanes.put(call(number, name="slow"))
    lanes.put(call("other", name="fast"))
    assert [one.item for one in started(lanes)] == [0, "other"]


def test_a_discarded_call_hands_its_lane_on():
    """A lost claim's waiting calls go; the lane goes to the next that is still wanted."""
    lanes = Lanes(Bounds(calls_max=1))
    first, gone, kept, last = (call(n, key=k) for n, k in ((0, ""), (1, "k"), (2, "k"), (3, "k")))
    for one in (first, gone, kept, last):
        lanes.put(one)
    assert lanes.next() is first
    lanes.discard(lambda item: item in {1, 3})
    assert len(lanes) == 1
    lanes.done(first)
    assert lanes.next() is kept
    lanes.put(call(4, key="k"))
    lanes.discard(lambda _: True)
    assert len(lanes) == 0
    lanes.done(kept)
    assert lanes.next() is None


NAMES = st.sampled_from(["x", "y", "z"])
MOVES = st.lists(
    st.one_of(
        st.tuples(
            st.just("put"), st.sampled_from(["a", "b", "c"]), NAMES, st.sampled_from(["", "1", "2"])
        ),
        st.tuples(st.just("done"), st.integers(0, 20)),
        st.tuples(st.just("discard"), st.integers(0, 3)),
    ),
    max_size=60,
)


@given(
    st.builds(
        Bounds,
        calls_max=st.integers(1, 6),
        tenant_max=st.integers(1, 4),
        name_max=st.integers(1, 4),
    ),
    MOVES,
)
def test_whatever_may_start_does_and_nothing_else(bounds, moves):
    """Bounds hold, lanes keep order, and nothing that may start is left waiting."""
    lanes = Lanes(bounds)
    waiting, running = [], []
    for number, move in enumerate(moves):
        if move[0] == "put":
            one = call(number, *move[1:])
            lanes.put(one)
            waiting.append(one)
        elif move[0] == "done" and running:
            lanes.done(running.pop(move[1] % len(running)))
        elif move[0] == "discard":
            gone = {one.item for one in waiting if one.item % 4 == move[1]}
            lanes.discard(gone.__contains__)
            waiting = [one for one in waiting if one.item not in gone]
        for one in started(lanes):
            ahead = [w for w in waiting if w.lane is not None and w.lane == one.lane]
            assert not ahead or ahead[0] is one
            assert one.lane is None or one.lane not in {r.lane for r in running}
            waiting.remove(one)
            running.append(one)
        tenants = Counter(one.tenant for one in running)
        names = Counter(one.name for one in running)
        assert lanes.running == len(running) <= bounds.calls_max
        assert all(count <= bounds.tenant_max for count in tenants.values())
        assert all(count <= bounds.name_max for count in names.values())
        assert len(lanes) == len(waiting)
        if len(running) == bounds.calls_max:
            continue
        lanes_busy = {one.lane for one in running if one.lane is not None}
        for one in waiting:
            assert (
                tenants[one.tenant] >= bounds.tenant_max
                or names[one.name] >= bounds.name_max
                or one.lane in lanes_busy
            ), f"{one} could start"


@given(st.integers(2, 6), st.integers(1, 5))
def test_tenants_that_always_wait_are_served_alike(tenants, calls_max):
    """While every tenant has calls waiting, none gets ahead of another by more than one."""
    lanes = Lanes(Bounds(calls_max=calls_max))
    left = Counter()
    for number in range(tenants * 20):
        tenant = f"t{number * number % tenants if number % 3 else number % tenants}"
        lanes.put(call(number, tenant))
        left[tenant] += 1
    served = Counter(dict.fromkeys(left, 0))
    running = started(lanes)
    while running:
        one = running.pop(0)
        served[one.tenant] += 1
        left[one.tenant] -= 1
        if all(left.values()):
            assert max(served.values()) - min(served.values()) <= 1
        lanes.done(one)
        running += started(lanes)


def test_bounds_are_values():
    """Bounds are frozen."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Bounds().calls_max = 1


def test_a_lane_that_loses_some_keeps_the_others():
    """Waiting calls that are still wanted stay in their order."""
    lanes = Lanes(Bounds())
    for number in range(4):
        lanes.put(call(number, key="k"))
    first = lanes.next()
    lanes.discard(lambda item: item == 2)
    assert len(lanes) == 2
    order = []
    while first is not None:
        order.append(first.item)
        lanes.done(first)
        first = lanes.next()
    assert order == [0, 1, 3]


def test_room_at_a_tool_goes_to_the_tenant_that_waited_longest():
    """Tenants that wait for one tool get it in turn; who has left, or is at its own bound, is passed over."""
    lanes = Lanes(Bounds(name_max=1, tenant_max=1))
    for tenant in ("a", "gone", "full", "b"):
        lanes.put(call(tenant, tenant, "slow"))
    (slow,) = started(lanes)
    lanes.put(call("other", "full", "fast"))
    (fast,) = started(lanes)
    assert (slow.item, fast.item) == ("a", "other")
    lanes.discard(lambda item: item == "gone")
    lanes.done(slow)
    (slow,) = started(lanes)
    assert slow.item == "b"
    lanes.done(slow)
    assert started(lanes) == []
    lanes.done(fast)
    assert [one.item for one in started(lanes)] == ["full"]


def test_a_tenant_that_has_nothing_left_is_forgotten():
    """Thousands of tenants that came once leave nothing behind."""
    lanes = Lanes(Bounds())
    for number in range(100):
        lanes.put(call(number, f"t{number}"))
    lanes.discard(lambda item: item < 50)
    for one in started(lanes):
        lanes.done(one)
    assert not lanes._of
    assert not lanes._turn
