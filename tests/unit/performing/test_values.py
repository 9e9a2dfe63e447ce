"""Large values of effectors: answers in the store before anybody is told, arguments brought back."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future

from tests.unit.performing.world import Hands, World, finish, play, settle

from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts.messages import Answered, BlobRef, Failed, Result
from headwater.core.blobs import ref_of
from headwater.core.effector import Done
from headwater.errors import TransientError
from headwater.runtime import answering
from headwater.runtime.restoring import Inline
from headwater.runtime.retrying import Retry
from headwater.runtime.room import Room

BIG = b"b" * 2_000


def store(**options):
    where = Store.at("memory:///", namespace="ns")
    where.put("other", b"something else")
    return Keeping(where, inline_bytes_max=1_000, bytes_max=3_000, executor=Inline(), **options)


class Away:
    """A store that is away for so many puts and gets."""

    def __init__(self, times):
        self.times = times
        self.inner = store(cache_bytes_max=0)
        self.inline_bytes_max, self.bytes_max, self.held_bytes_max = 1_000, 3_000, 10_000

    def _ask(self, ask):
        if not self.times:
            return ask()
        self.times -= 1
        future = Future()
        future.set_exception(TransientError("the store is away"))
        return future

    def put(self, tenant, value):
        return self._ask(lambda: self.inner.put(tenant, value))

    def get(self, tenant, name):
        return self._ask(lambda: self.inner.get(tenant, name))


async def answers(value, *, safety="paid", blobs=None, **options):
    """Return the world after one request was answered with this value."""

    async def behave(call, ask, attempt):
        return Done(value=value)

    world = World(Hands(behave), blobs=blobs, **options)
    loop = world.performing()
    await world.ask(safety=safety)
    await finish(loop)
    await loop.close()
    return world


@play
async def test_a_large_answer_is_stored_noted_and_sent_by_reference():
    """Whoever reads the receipt or the reply finds the value under the tenant."""
    blobs = store()
    world = await answers(BIG, blobs=blobs)
    assert world.outcomes() == {0: Answered(value=ref_of(BIG))}
    (receipt,) = world.receipts()
    assert isinstance(receipt, Result)
    assert receipt.reply.outcome == Answered(value=ref_of(BIG))
    assert blobs.store.get("t1", ref_of(BIG).name) == BIG


@play
async def test_a_small_answer_is_sent_as_it_is():
    """A store costs nothing where it is not needed."""
    blobs = store()
    world = await answers(b"small", blobs=blobs)
    assert world.outcomes() == {0: Answered(value=b"small")}
    assert [*blobs.store.scan("t1")] == []


@play
async def test_bounds_with_and_without_a_store():
    """Over the bound an answer is an error that says the bound."""
    world = await answers(b"b" * 3_001, blobs=store())
    assert "at most 3000 travel" in world.outcomes()[0].detail
    world = await answers(b"b" * (answering.VALUE_BYTES_MAX + 1))
    assert f"at most {answering.VALUE_BYTES_MAX} travel" in world.outcomes()[0].detail


@play
async def test_an_answer_waits_for_a_store_that_is_away_and_is_not_bought_again():
    """It was paid for: it is kept until the store takes it, and called once."""
    blobs = Away(3)
    world = await answers(BIG, blobs=blobs, retry=Retry(wait_s_min=1, jitter_s=0))
    assert world.outcomes() == {0: Answered(value=ref_of(BIG))}
    assert world.hands.began == [0]
    assert blobs.inner.store.get("t1", ref_of(BIG).name) == BIG


@play
async def test_control_told_before_it_is_stored_an_answer_is_lost():
    """The order is the protection: a process that dies after the reply leaves a reference to nothing."""
    blobs = store()
    seen = []

    class Late(Keeping):
        def put(self, tenant, value):
            seen.append(value)
            future = Future()
            future.set_result(None)
            return future

    blobs = Late(Store.at("memory:///", namespace="ns"), inline_bytes_max=1_000, executor=Inline())
    world = await answers(BIG, blobs=blobs)
    assert world.outcomes() == {0: Answered(value=ref_of(BIG))}
    assert seen == [BIG]
    assert [*blobs.store.scan("t1")] == []


async def asked(blobs, arguments, **options):
    """Return the world, and what the effector saw, after one request by reference."""
    seen = []

    async def behave(call, ask, attempt):
        seen.append(ask.arguments)
        return Done(value=b"done")

    world = World(Hands(behave), blobs=blobs, **options)
    loop = world.performing()
    await world.ask(arguments=arguments)
    await finish(loop)
    await loop.close()
    return world, seen


@play
async def test_arguments_are_brought_back():
    """The effector sees bytes."""
    blobs = store()
    blobs.put("t1", BIG).result()
    world, seen = await asked(blobs, ref_of(BIG))
    assert seen == [BIG]
    assert world.outcomes() == {0: Answered(value=b"done")}


@play
async def test_arguments_that_are_lost_fail_the_call_unmade():
    """Nothing happened, for good, and the agent may catch it."""
    world, seen = await asked(store(), ref_of(BIG))
    assert seen == []
    assert world.outcomes()[0].error == "BlobLost"


@play
async def test_arguments_in_a_store_that_is_away_are_tried_again_in_place():
    """As any call that the world keeps waiting."""
    blobs = Away(2)
    blobs.inner.put("t1", BIG).result()
    world, seen = await asked(blobs, ref_of(BIG), retry=Retry(wait_s_min=1, jitter_s=0))
    assert seen == [BIG]
    assert world.sleeps == [1, 2]


@play
async def test_an_irreversible_call_without_its_arguments_is_not_in_doubt():
    """It did not begin, and that is known."""
    world = World(blobs=store())
    loop = world.performing()
    await world.ask(arguments=ref_of(BIG), safety="irreversible")
    await finish(loop)
    await loop.close()
    assert isinstance(world.outcomes()[0], Failed)
    assert world.hands.began == []


@play
async def test_a_process_without_a_store_says_which_setting():
    """The call is tried until its time is over, and nothing is made up."""
    world, seen = await asked(
        None, BlobRef(name=ref_of(BIG).name, size=1), retry=Retry(total_s=1, jitter_s=0)
    )
    assert seen == []
    assert "set HEADWATER_BLOBS__URL" in world.outcomes()[0].detail


@play
async def test_calls_with_large_arguments_wait_for_room_and_others_do_not():
    """What is under way holds no more than the bound, in order; small calls pass by."""
    blobs = store(held_bytes_max=2 * len(BIG))
    blobs.put("t1", BIG).result()
    hands = Hands()
    hands.hold(*range(5))
    world = World(hands, blobs=blobs)
    loop = world.performing()
    for number in range(5):
        await world.ask(arguments=ref_of(BIG) if number < 4 else b"small")
    await settle(loop)
    assert sorted(hands.began) == [0, 1, 4]
    hands.gates[1].set()
    await settle(loop)
    assert hands.began[3:] == [2]
    for gate in hands.gates.values():
        gate.set()
    await finish(loop)
    await loop.close()
    assert len(world.outcomes()) == 5


@play
async def test_room_is_given_back_by_who_is_cut_off():
    """Also by one that waited for it, or had just been let in; one larger than all goes alone."""
    room = Room(10)
    order = []

    async def holds(name, size, gate):
        async with room.held(size):
            order.append(name)
            await gate.wait()

    gates = [asyncio.Event() for _ in range(4)]
    tasks = [
        asyncio.create_task(holds(name, size, gate))
        for name, size, gate in zip("abcd", (6, 6, 6, 40), gates, strict=True)
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert order == ["a"]
    tasks[1].cancel()
    await asyncio.sleep(0)
    gates[0].set()
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    tasks[2].cancel()
    await asyncio.gather(*tasks[:3], return_exceptions=True)
    await asyncio.sleep(0)
    gates[3].set()
    await tasks[3]
    assert order[-1] == "d"


@play
async def test_verify_sees_the_arguments_too():
    """Whether a payment happened is found out from what was to be paid."""
    blobs = store()
    blobs.put("t1", BIG).result()
    seen = []

    async def behave(call, ask, attempt):
        raise ValueError("who knows")

    class Verifying(Hands):
        async def verify(self, call, ask, attempt):
            seen.append(ask.arguments)
            return Done(value=b"it did")

    world = World(Verifying(behave), blobs=blobs)
    loop = world.performing()
    await world.ask(arguments=ref_of(BIG), safety="irreversible")
    await settle(loop)
    await finish(loop)
    await loop.close()
    assert seen == [BIG]
    assert world.outcomes() == {0: Answered(value=b"it did")}


@play
async def test_a_process_that_dies_between_store_and_receipt_calls_again_and_leaves_one_blob():
    """The store is not the receipt: an answer nobody noted is asked for again, and is the same blob."""
    blobs = store()
    world = World(Hands(_big), blobs=blobs)
    first = world.performing()
    await world.ask(safety="paid")
    world.faults.away = True
    await settle(first)
    assert [blob.name for blob in blobs.store.scan("t1")] == [ref_of(BIG).name]
    assert world.replies() == []
    await first.drain(0)
    world.faults.away = False
    second = world.performing("b")
    await first.close(leave=True)
    await finish(second)
    await second.close()
    assert world.outcomes() == {0: Answered(value=ref_of(BIG))}
    assert len([*blobs.store.scan("t1")]) == 1
    assert world.hands.began == [0, 0]


async def _big(call, ask, attempt):
    await asyncio.sleep(0)
    return Done(value=BIG)
