"""A process that stood still longer than its session, and goes on: what it had not begun is another's."""

from __future__ import annotations

import asyncio

import pytest
from tests.unit.performing.world import Hands, World, finish, play, settle

from headwater.contracts.messages import Answered
from headwater.core.effector import Done
from headwater.errors import TransientError
from headwater.runtime.lanes import Bounds
from headwater.runtime.noting import Lease

ONE = Bounds(mark_ms_min=0, calls_max=1)
WARY = Lease(still_ms=3_000, settle_ms=500)


@pytest.mark.parametrize(("lease", "begun"), [(WARY, [0, 1]), (Lease(), [0, 1, 1])])
def test_nothing_that_waited_is_bought_again_after_standing_still(lease, begun) -> None:
    """It polls before it begins what is paid for; the control does not, and buys the heir's answer again."""

    @play
    async def scene() -> None:
        world = World(hands := Hands(), bounds=ONE, lease=lease)
        hands.hold(0)
        frozen = world.performing("a")
        await world.ask(safety="paid")
        await world.ask(safety="paid")
        await settle(frozen)
        world.log.evict(world.workers[-1])
        await asyncio.sleep(6)
        heir = world.performing("b", bounds=Bounds(mark_ms_min=0))
        await settle(heir)
        hands.gates[0].set()  # the frozen process's own call ends, and makes room for the next
        for _ in range(50):
            await asyncio.sleep(0)
        await finish(heir, frozen)
        assert sorted(number for number in hands.began if number) == [n for n in begun if n]
        assert world.outcomes() == {0: Answered(value=b"0"), 1: Answered(value=b"1")}

    scene()


@pytest.mark.parametrize("safety", ["paid", "read"])
def test_a_process_that_kept_its_partitions_goes_on_once_it_has_settled(safety: str) -> None:
    """Reads at once: they may be made again in any case."""

    @play
    async def scene() -> None:
        world = World(hands := Hands(), bounds=ONE, lease=WARY)
        hands.hold(0)
        loop = world.performing()
        await world.ask(safety=safety)
        await world.ask(safety=safety)
        await settle(loop)
        await asyncio.sleep(6)
        before_ms = world.now_ms()
        hands.gates[0].set()
        while len(hands.began) < 2:
            await loop.step()
            await asyncio.sleep(0.05)
        assert (world.now_ms() - before_ms >= WARY.settle_ms) is (safety == "paid")
        await finish(loop)
        assert world.outcomes() == {0: Answered(value=b"0"), 1: Answered(value=b"1")}

    scene()


@pytest.mark.parametrize("safety", ["paid", "write"])
def test_nothing_is_tried_again_after_standing_still_that_an_heir_has_answered(safety: str) -> None:
    """The next try waits as the first would: an answer that was noted meanwhile is not bought again."""

    @play
    async def scene() -> None:
        tries = [TransientError("busy", retry_after_s=6)]

        async def busy_once(call, ask, attempt) -> Done:
            if tries:
                raise tries.pop()
            return Done(value=b"x")

        world = World(hands := Hands(busy_once), lease=WARY)
        frozen = world.performing("a")
        await world.ask(safety=safety)
        await settle(frozen)
        world.log.evict(world.workers[-1])
        heir = world.performing("b")
        await settle(heir)
        assert hands.began == [0, 0]
        assert world.outcomes() == {0: Answered(value=b"x")}
        await asyncio.sleep(6)
        for _ in range(50):
            await asyncio.sleep(0)
        await finish(heir, frozen)
        assert hands.began == [0, 0]
        assert len(world.replies()) == 1

    scene()
