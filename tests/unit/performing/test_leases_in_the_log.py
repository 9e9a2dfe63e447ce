"""Leases count as they are in the log: what others cannot read holds nobody back."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from tests.unit.performing.test_receipts import die
from tests.unit.performing.world import Hands, World, finish, play, settle

from headwater.contracts.messages import Answered, Usage
from headwater.core.effector import Done
from headwater.errors import NotDone, TransientError
from headwater.runtime.lanes import Bounds
from headwater.runtime.noting import Lease


class CutOff:
    """One process's way to the log, which is away for what it writes."""

    def __init__(self, log: Any) -> None:
        self._log = log
        self.away = False
        self.slow_s = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)

    async def append(self, draft: Any) -> Any:
        if self.slow_s:
            await asyncio.sleep(self.slow_s)
        if self.away:
            raise TransientError("this process is cut off")
        return await self._log.append(draft)


def failing_once(error: Exception) -> Callable[[Any, Any, Any], Awaitable[Done]]:
    """Return what the first try fails with, and the next ones do not."""
    tries = [error]

    async def behave(call: Any, ask: Any, attempt: Any) -> Done:
        if tries:
            raise tries.pop()
        return Done(value=b"done")

    return behave


class Careful(Hands):
    """Finds that nothing happened."""

    async def verify(self, call: Any, ask: Any, attempt: Any) -> None:
        return None


@pytest.mark.parametrize(
    ("safety", "error"),
    [
        ("irreversible", NotDone("later", retry_after_s=30)),
        ("write", TransientError("later", retry_after_s=30)),
    ],
)
def test_a_lease_that_was_not_renewed_in_the_log_permits_no_further_try(
    safety: str, error: Exception
) -> None:
    """A process cut off from the log loses its partition; its heir makes the call once the lease is over."""

    @play
    async def scene() -> None:
        world = World(Careful(failing_once(error)))
        loop = world.performing()
        loop._log = cut = CutOff(world.log)  # type: ignore[assignment] # it does what a log does
        await world.ask(safety=safety, order_key="k")
        await settle(loop)
        assert world.sleeps == [30]
        cut.away = True
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        for _ in range(40):
            await settle(heir, loop, rounds=1)
            await asyncio.sleep(1)
        cut.away = False
        await finish(heir, loop)
        assert world.hands.began == [0, 0]  # the first try, and the heir's
        assert world.outcomes() == {0: Answered(value=b"done")}
        await loop.close()
        await heir.close()

    scene()


@pytest.mark.parametrize("safety", ["read", "paid", "write"])
def test_a_call_of_a_claim_that_came_back_is_handed_over_before_its_request_is_delivered_again(
    safety: str,
) -> None:
    """A drain begins between: its heir waits for the call, and does not make it."""

    @play
    async def scene() -> None:
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask(safety=safety)
        await settle(loop)
        (item,) = loop._under_way.values()
        world.log.evict(world.workers[0])
        await loop.step()
        assert loop.claims
        assert item.claim not in loop.claims
        draining = asyncio.create_task(loop.drain(600))
        await asyncio.sleep(1)
        heir = world.performing("b")
        for _ in range(30):
            await heir.step()
            await asyncio.sleep(1)
        assert heir.claims
        world.hands.gates[0].set()
        await draining
        await finish(heir)
        assert world.hands.began == [0]
        assert world.outcomes() == {0: Answered(value=b"0")}
        assert world.marked() == 1
        await loop.close()
        await heir.close()

    scene()


@pytest.mark.parametrize("safety", ["paid", "write"])
def test_a_hand_over_that_could_not_be_noted_permits_no_further_try_once_it_is_renewed(
    safety: str,
) -> None:
    """Its heir read of no lease, and has begun the call by then."""

    @play
    async def scene() -> None:
        world = World(Hands(failing_once(TransientError("later", retry_after_s=8))))
        loop = world.performing()
        loop._log = cut = CutOff(world.log)  # type: ignore[assignment] # it does what a log does
        await world.ask(safety=safety)
        await settle(loop)
        assert world.sleeps == [8]
        cut.away = True
        await loop._part(loop.claims)
        cut.away = False
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        for _ in range(20):
            await settle(heir, loop, rounds=1)
            await asyncio.sleep(1)
        await finish(heir, loop)
        assert world.hands.began == [0, 0]  # the first try, and the heir's
        assert world.outcomes() == {0: Answered(value=b"done")}
        await loop.close()
        await heir.close()

    scene()


@pytest.mark.parametrize("still_ms", [3_000, pytest.param(60_000, id="control")])
def test_a_hand_over_that_is_noted_after_its_partition_may_have_gone_permits_no_further_try(
    still_ms: int,
) -> None:
    """Its heir read of no lease, and made the call."""

    @play
    async def scene() -> None:
        world = World(Hands(failing_once(TransientError("later", retry_after_s=8))))
        loop = world.performing(lease=Lease(still_ms=still_ms))
        loop._log = cut = CutOff(world.log)  # type: ignore[assignment] # it does what a log does
        await world.ask(safety="paid")
        await settle(loop)
        cut.slow_s = 5
        parting = asyncio.create_task(loop._part(loop.claims))
        await asyncio.sleep(1)
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        await finish(heir)
        await parting
        cut.slow_s = 0
        for _ in range(20):
            await settle(heir, loop, rounds=1)
            await asyncio.sleep(1)
        await finish(heir, loop)
        both = [0, 0]  # the first try, and the heir's
        assert world.hands.began == (both if still_ms < 10_000 else [*both, 0])
        await loop.close()
        await heir.close()

    scene()


@play
async def test_a_write_tried_before_its_lease_ran_out_is_not_said_not_to_have_begun():
    """Its time is over when the process goes on; what the first try did is not undone."""

    async def away(call: Any, ask: Any, attempt: Any) -> Done:
        raise TransientError("the line broke", retry_after_s=20)

    world = World(Hands(away))
    loop = world.performing()
    await world.ask(safety="write", order_key="k", not_after_ms=world.now_ms() + 22_000)
    await settle(loop)
    assert world.hands.began == [0]
    await asyncio.sleep(25)  # it stands still meanwhile: the log is away
    await finish(loop)
    failed = world.outcomes()[0]
    assert "was not begun" not in failed.detail
    assert failed.error != "DeadlineExceeded"
    await loop.close()


@play
async def test_an_answer_that_cannot_be_written_stops_no_process_where_its_partition_goes_meanwhile():
    """It is handed over while its request is being kept: what was sent instead is noted."""

    async def behave(call: Any, ask: Any, attempt: Any) -> Done:
        return Done(value=b"", usage=Usage(model="m" * 1_000_000))

    world = World(Hands(behave))
    loop = world.performing()
    await settle(loop)
    keep, arrives = loop._keep, asyncio.Event()

    async def slowly(record: Any, error: Any) -> None:
        await arrives.wait()
        await keep(record, error)

    loop._keep = slowly  # type: ignore[method-assign] # the log takes its time
    await world.ask(safety="read")
    await settle(loop)
    await loop._part(loop.claims)
    arrives.set()
    await finish(loop)
    assert world.outcomes()[0].error == "too-large"
    assert world.marked() == 1
    await loop.close()


@pytest.mark.parametrize("safety", ["paid", "write"])
def test_nothing_begins_unnoted_for_a_claim_whose_successor_is_about_to_go(safety: str) -> None:
    """The member took its claim anew, and has it revoked, before a poll could tell of either."""

    @play
    async def scene() -> None:
        world = World(bounds=Bounds(calls_max=1, mark_ms_min=0))
        world.hands.hold(0, 1)
        loop = world.performing()
        await world.ask(safety=safety)
        await world.ask(safety=safety)
        await settle(loop)
        (claim,) = loop.claims
        await loop._part([dataclasses.replace(claim, epoch=claim.epoch + 1)])
        world.hands.gates[0].set()
        for _ in range(50):  # the consumer's thread settles marks meanwhile
            await asyncio.sleep(0)
        world.log.evict(world.workers[0])
        heir = world.performing("b")
        await settle(heir)
        world.hands.gates[1].set()
        await finish(heir, loop)
        assert world.hands.began == [0, 1]
        assert world.outcomes() == {0: Answered(value=b"0"), 1: Answered(value=b"1")}
        for one in (heir, loop):
            await one.close()

    scene()


@play
async def test_a_write_that_nobody_noted_is_not_said_not_to_have_begun_by_a_late_heir():
    """The process that died had begun it; its heir cannot know."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="write", not_after_ms=world.now_ms() + 5_000)
    await settle(loop)
    heir = await die(world, loop)
    await asyncio.sleep(6)
    await finish(heir)
    assert world.hands.began == [0]
    assert "was not begun:" not in world.outcomes()[0].detail
    assert "not undone" in world.outcomes()[0].detail
    await heir.close()
