"""The performing loop: order, marks, lost claims, refusals, pressure, ends."""

from __future__ import annotations

import asyncio
import dataclasses
import threading

import pytest
from tests.unit.performing.world import (
    CODEC,
    INBOX,
    QUARANTINE,
    REQUESTS,
    Hands,
    World,
    finish,
    play,
    settle,
)

from headwater.contracts.messages import Answered, Failed, Reply, ReplyTo
from headwater.contracts.records import Draft, Partition
from headwater.core.effector import Done
from headwater.errors import PoisonError, SettingsError, TransientError
from headwater.log.port import Claim, Poll
from headwater.runtime import claiming
from headwater.runtime import performing as subject
from headwater.runtime.lanes import Bounds, Queued
from headwater.runtime.performing import Performing
from headwater.runtime.receipts import Known
from headwater.runtime.watermark import Watermark


@play
async def test_a_reply_goes_to_who_asked_and_says_why():
    """A reply is the next record of the run's inbox partition: caused by the request, for its tenant."""
    world = World()
    loop = world.performing()
    ask = await world.ask()
    await finish(loop)
    (record,) = world.records(INBOX)
    meta, reply = world.envelope.open(record)
    assert reply.outcome == Answered(value=b"0")
    assert (reply.run, reply.number) == (ask.run, ask.number)
    assert record.key == ask.run.encode()
    assert (meta.tenant, meta.correlation_id, meta.actor) == ("t1", "c-1", "ana")
    assert meta.causation_id == "ask-0"
    assert meta.id != "ask-0"
    assert world.marked() == 1
    await loop.close()


@play
async def test_calls_of_one_key_start_in_order_and_others_go_on():
    """Order is per order key; a slow call makes only its own key wait."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    for key in ("card-1", "card-1", "card-2", "card-1"):
        await world.ask(order_key=key)
    await settle(loop)
    assert world.hands.began == [0, 2]
    world.hands.gates[0].set()
    await finish(loop)
    assert world.hands.began == [0, 2, 1, 3]
    await loop.close()


@play
async def test_without_lanes_a_key_is_overtaken(monkeypatch):
    """The control of order: with no lane, later calls of the key start beside the first."""
    monkeypatch.setattr(Queued, "lane", None)
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    for _ in range(3):
        await world.ask(order_key="card-1")
    await settle(loop)
    assert world.hands.began == [0, 1, 2]
    world.hands.gates[0].set()
    await finish(loop)
    await loop.close()


@play
async def test_the_mark_stays_below_what_is_not_answered():
    """The mark is the first request that is not answered; a successor begins there."""
    world = World()
    world.hands.hold(1)
    loop = world.performing()
    for _ in range(4):
        await world.ask()
    await settle(loop)
    assert world.marked() == 1
    assert sorted(world.outcomes()) == [0, 2, 3]
    await loop.drain(0)  # the process ends without answering it
    await loop.close(leave=True)
    world.hands.gates.clear()
    heir = world.performing("b")
    await finish(heir)
    assert sorted(world.outcomes()) == [0, 1, 2, 3]
    assert world.marked() == 4
    await heir.close()


def test_a_mark_ahead_of_an_answer_loses_a_request(monkeypatch):
    """The control of the mark: at the newest delivered offset, the successor never sees the request."""
    monkeypatch.setattr(Watermark, "value", property(lambda mark: mark._next))

    @play
    async def scene():
        world = World()
        world.hands.hold(1)
        loop = world.performing()
        for _ in range(4):
            await world.ask()
        await settle(loop)
        await loop.drain(0)
        await loop.close(leave=True)
        world.hands.gates.clear()
        heir = world.performing("b")
        await finish(heir)
        assert sorted(world.outcomes()) == [0, 2, 3]
        await heir.close()

    scene()


@play
async def test_offsets_that_were_never_delivered_count_as_done():
    """Markers leave gaps; a later record's answer covers them."""
    world = World()
    world.log.hold([]).commit()
    loop = world.performing()
    await world.ask()
    world.log.hold([(await _draft(world))]).abort()
    await world.ask()
    await finish(loop)
    end = world.log.end(Partition(REQUESTS, 0))
    assert end > 2
    assert world.marked() == world.records(REQUESTS)[-1].offset + 1
    await loop.close()


async def _draft(world):
    await world.ask(partition=0)
    return dataclasses.replace(
        _as_draft(world.records(REQUESTS)[-1]), headers=(("ce_tenantid", b"t1"),)
    )


def _as_draft(record):
    return Draft(topic=REQUESTS, key=record.key, value=record.value, partition=0)


@play
async def test_marks_are_rare_while_requests_come_and_prompt_when_they_stop():
    """A mark is never more frequent than its interval, but what is all done is marked at once."""
    world = World(bounds=Bounds(mark_ms_min=1_000))
    loop = world.performing()
    marks = []
    mark = world.workers[0].mark
    world.workers[0].mark = lambda claim, offset, done: (
        marks.append(offset),
        mark(claim, offset, done),
    )
    world.hands.hold(100)
    await world.ask(number=100)
    await settle(loop)
    for number in range(5):
        await world.ask(number=number)
        await loop.step()
        await asyncio.sleep(0)
    assert marks == []
    world.hands.gates[100].set()
    await settle(loop)
    assert marks == [6]
    await loop.close()


@play
async def test_requests_of_a_lost_claim_that_wait_are_dropped():
    """Only live claims' requests are started: the new owner has the others."""
    world = World(partitions=2, bounds=Bounds(calls_max=1, mark_ms_min=0))
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(number=0, partition=0)
    await settle(loop)
    for number in range(1, 5):
        await world.ask(number=number, partition=number % 2)
    await settle(loop)
    assert world.hands.began == [0]
    other = world.performing("b")
    await settle(loop, other)
    assert len(loop.claims) == len(other.claims) == 1
    world.hands.gates[0].set()
    await finish(loop, other)
    assert sorted(world.outcomes()) == [0, 1, 2, 3, 4]
    assert sorted(set(world.hands.began)) == [0, 1, 2, 3, 4]
    assert [world.hands.began.count(n) for n in (1, 2, 3, 4)] == [1, 1, 1, 1]
    await loop.close()
    await other.close()


async def _flap(world):
    """Have a call begin, its claim go, and the claim come back while the call is under way."""
    world.hands.hold(0)
    loop = world.performing()
    await world.ask()
    await settle(loop)
    before = loop.claims
    world.log.evict(world.workers[0])
    await settle(loop)
    assert loop.claims
    assert not loop.claims & before
    world.hands.gates[0].set()
    await finish(loop)
    assert world.marked() == 1
    await loop.close()


@play
async def test_a_call_under_way_is_not_begun_again_when_its_claim_comes_back():
    """The try under way counts for the new claim: it is performed once, and marked."""
    world = World()
    await _flap(world)
    assert world.hands.began == [0]
    assert len(world.replies()) == 1


@play
async def test_a_call_that_is_let_go_of_as_its_claim_comes_back_is_begun_for_that():
    """Its request was delivered for the new claim already, and would be answered by nobody; in order."""
    world = World(bounds=Bounds(calls_max=1, mark_ms_min=0))
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(safety="paid")
    for _ in range(2):
        await world.ask(safety="irreversible", order_key="k")
    await settle(loop)
    world.hands.gates[0].set()
    for _ in range(10):
        await asyncio.sleep(0)
    world.log.evict(world.workers[0])
    for _ in range(3):  # lost and gained; delivered; and only then is it let go of
        await loop.step()
    await finish(loop)
    assert world.hands.began == [0, 1, 2]
    assert world.outcomes() == {n: Answered(value=b"%d" % n) for n in range(3)}
    assert world.marked() == 3
    await loop.close()


def test_without_adoption_the_call_is_made_twice():
    """The control of adoption: the redelivered request is performed beside the first."""

    class Nothing(dict):
        def get(self, key, default=None):
            return None

    @play
    async def scene():
        world = World()
        build = world.performing

        def forgetful(*args, **kwargs):
            loop = build(*args, **kwargs)
            loop._under_way = Nothing()
            return loop

        world.performing = forgetful
        await _flap(world)
        assert world.hands.began == [0, 0]
        assert len(world.replies()) == 2

    scene()


async def _abandoned(world):
    """Have a call fail for now, its claim go to another member, and its wait end after that."""
    down = True

    async def behave(call, ask, attempt):
        if down:
            raise TransientError("away")
        return Done(value=b"up")

    world.hands = Hands(behave)
    loop = world.performing()
    await world.ask()
    await settle(loop)
    assert world.hands.began == [0]
    held, other = world.workers[0], world.performing("b")
    world.log.evict(held)
    held.poll = lambda **_: Poll(lost=loop.claims)  # it is told, and is given nothing else
    down = False
    await settle(loop, other)
    await finish(loop, other)
    await loop.close()
    await other.close()


@play
async def test_a_lost_claims_call_is_not_tried_again():
    """A retry in place is for live claims only: the new owner makes the next try."""
    world = World()
    await _abandoned(world)
    assert world.hands.began == [0, 0]
    assert len(world.replies()) == 1


def test_without_the_check_both_owners_try(monkeypatch):
    """The control: the old owner tries once more beside the new one."""
    real = subject.Answering.reply

    async def wanted_always(self, item, **more):
        return await real(self, item, **{**more, "again": lambda: True})

    monkeypatch.setattr(subject.Answering, "reply", wanted_always)

    @play
    async def scene():
        world = World()
        await _abandoned(world)
        assert len(world.hands.began) == 3
        assert len(world.replies()) == 2

    scene()


@pytest.mark.parametrize("value", [b"", b"nonsense", b"\xc3\x01" + b"\0" * 8 + b"x", None])
def test_what_cannot_be_read_is_kept_byte_for_byte(value):
    """An undecodable request goes to quarantine with its headers, and the next goes on."""

    @play
    async def scene():
        world = World()
        loop = world.performing()
        await world.publish(value, headers=(("ce_id", b"\xff"), ("x", None)))
        await world.ask()
        await finish(loop)
        (kept,) = world.records(QUARANTINE)
        assert kept.value == value
        assert kept.key == b"k"
        assert kept.headers[:2] == (("ce_id", b"\xff"), ("x", None))
        assert kept.header("__dlq.errors.offset") == b"0"
        assert [*world.outcomes()] == [0]
        assert world.marked() == 2
        await loop.close()

    scene()


@play
async def test_a_message_of_another_kind_is_refused():
    """Only requests are performed."""
    world = World()
    loop = world.performing()
    reply = Reply(run="r", number=1, attempt="a", outcome=Answered(value=b""))
    await world.publish(CODEC.encode(reply), headers=(("ce_id", b"1"),))
    await finish(loop)
    (kept,) = world.records(QUARANTINE)
    assert kept.header("error.type") == b"unexpected"
    await loop.close()


@play
async def test_a_request_with_bad_headers_is_refused_and_answered():
    """Where the request can still be read, the run is told, so that it does not wait for ever."""
    world = World()
    loop = world.performing()
    await world.ask()
    value = world.records(REQUESTS)[0].value
    await world.publish(value, headers=(("ce_id", b"\xff"), ("ce_tenantid", b"t9")))
    await finish(loop)
    assert len(world.records(QUARANTINE)) == 1
    answers = [world.envelope.open(record) for record in world.records(INBOX)]
    (told,) = [reply for meta, reply in answers if meta.tenant == "t9"]
    assert told.outcome.error == "invalid-header"
    await loop.close()


@play
async def test_arguments_that_do_not_fit_are_kept_and_answered():
    """A request the effector cannot understand is quarantined and answered `Failed`."""

    async def behave(call, ask, attempt):
        raise PoisonError("invalid-arguments", "card: missing")

    world = World(Hands(behave))
    loop = world.performing()
    await world.ask()
    await finish(loop)
    assert len(world.records(QUARANTINE)) == 1
    assert world.outcomes() == {0: Failed(error="invalid-arguments", detail="card: missing")}
    await loop.close()


async def _quarantine_away(world):
    loop = world.performing()
    await settle(loop)
    await world.publish(b"nonsense")
    world.faults.away = True
    await settle(loop)
    return loop


@play
async def test_offsets_stay_while_quarantine_cannot_be_written():
    """A record is processed or quarantined, never neither; the log is waited for, and that said once."""
    world = World()
    loop = await _quarantine_away(world)
    assert world.faults.refused > 0
    assert world.marked() == 0
    world.faults.away = False
    while world.marked() == 0:
        await asyncio.sleep(1)
        await settle(loop)
    assert len(world.records(QUARANTINE)) == 1
    await loop.close()


def test_without_waiting_for_quarantine_a_record_is_lost(monkeypatch):
    """The control: marked first, a crash before the write leaves the record nowhere."""

    async def forget(self, record, error):
        asyncio.get_running_loop().create_task(self._append(self._quarantine(record, error)))

    monkeypatch.setattr(Performing, "_keep", forget)

    @play
    async def scene():
        world = World()
        await _quarantine_away(world)
        assert world.marked() == 1
        assert world.records(QUARANTINE) == []
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()

    scene()


@play
async def test_a_reply_waits_for_the_log():
    """An answer is kept until the log takes it, and only then the request counts as done."""
    world = World()
    loop = world.performing()
    await world.ask()
    world.faults.away = True
    await settle(loop)
    assert world.hands.began == [0]
    assert world.marked() == 0
    world.faults.away = False
    await finish(loop)
    assert len(world.replies()) == 1
    assert world.hands.began == [0]
    assert world.marked() == 1
    await loop.close()


@play
async def test_a_reply_that_can_never_be_written_puts_its_request_aside():
    """One request that nobody can answer does not stop the others."""
    world = World()
    world.log.create("ns.inbox.small.v1", max_bytes=10)
    loop = world.performing()
    to = ReplyTo(topic="ns.inbox.small.v1", partition=0, run="small.0.r", number=0)
    await world.ask(reply_to=to)
    await world.ask()
    await finish(loop)
    assert len(world.records(QUARANTINE)) == 1
    assert [*world.outcomes()] == [1]
    assert world.marked() == 2
    await loop.close()


@pytest.mark.parametrize(
    ("bounds", "in_hand"),
    [
        (Bounds(queued_max=4, poll_max=2, calls_max=1), 4),
        (Bounds(queued_bytes_max=1, poll_max=1, calls_max=1), 1),
        (Bounds(window_max=6, poll_max=2, calls_max=1), 6),
        (Bounds(poll_max=2, calls_max=1), 20),
    ],
)
def test_a_partition_with_too_much_in_hand_is_paused(bounds, in_hand):
    """Records, bytes and the window are bounded per partition; the last case is the control."""

    @play
    async def scene():
        world = World(partitions=2, bounds=dataclasses.replace(bounds, mark_ms_min=0))
        world.hands.hold(0)
        loop = world.performing()
        for number in range(20):
            await world.ask(number=number, partition=0)
        await settle(loop)
        assert loop.busy == in_hand
        await world.ask(number=99, partition=1)
        await settle(loop)
        assert loop.busy == in_hand + 1, "the other partition goes on"
        world.hands.gates[0].set()
        await finish(loop)
        assert len(world.outcomes()) == 21
        await loop.close()

    scene()


@play
async def test_a_slow_first_request_holds_the_window():
    """What a crash would repeat is bounded: far beyond an unanswered request nothing is taken."""
    world = World(bounds=Bounds(window_max=8, poll_max=1, mark_ms_min=0))
    world.hands.hold(0)
    loop = world.performing()
    for _ in range(30):
        await world.ask()
    await settle(loop, rounds=40)
    assert len(world.hands.began) == 8
    world.hands.gates[0].set()
    await finish(loop)
    assert len(world.outcomes()) == 30
    await loop.close()


@play
async def test_calls_under_way_are_bounded():
    """No more than `calls_max` at once, in this process."""
    world = World(bounds=Bounds(calls_max=3, mark_ms_min=0))
    world.hands.hold(*range(10))
    loop = world.performing()
    for _ in range(10):
        await world.ask()
    await settle(loop)
    assert world.hands.under_way == 3
    for gate in world.hands.gates.values():
        gate.set()
    await finish(loop)
    assert world.hands.most == 3
    await loop.close()


@play
async def test_a_request_that_cannot_be_answered_anywhere_is_kept():
    """A stranger may name any address; the next request goes on."""
    world = World()
    loop = world.performing()
    to = ReplyTo(topic="ns.inbox.nowhere.v1", partition=0, run="nowhere.0.r", number=0)
    await world.ask(reply_to=to)
    await finish(loop)
    assert world.marked() == 1
    await loop.close()


@play
async def test_a_task_of_ours_that_dies_stops_the_loop():
    """Our own mistakes are loud; the offsets stay."""
    world = World()
    loop = world.performing()
    loop._addressed = lambda draft: True  # the topic is there, and may not be written
    to = ReplyTo(topic="ns.inbox.nowhere.v1", partition=0, run="nowhere.0.r", number=0)
    await world.ask(reply_to=to)
    with pytest.raises(SettingsError, match="nowhere"):
        await finish(loop)
    assert world.marked() == 0
    await loop.close()


def test_run_raises_what_a_task_died_of():
    """`run` ends with the error, cuts what is under way and closes the membership."""

    async def scene():
        world = World()
        world.hands.hold(1)
        loop = world.performing(threaded=True)
        loop._addressed = lambda draft: True  # the topic is there, and may not be written
        await world.ask()
        to = ReplyTo(topic="ns.inbox.nowhere.v1", partition=0, run="nowhere.0.r", number=0)
        await world.ask(number=1)
        await world.ask(reply_to=to)
        with pytest.raises(SettingsError):
            await loop.run(asyncio.Event())
        assert world.hands.under_way == 0
        assert world.workers[0]._closed

    asyncio.run(scene())


@play
async def test_a_reply_cut_off_by_nobody_stops_the_loop():
    """A request never just hangs: a task that ends in a cancellation not ours is an error."""
    world = World()
    loop = world.performing()

    async def cancelled(draft):
        raise asyncio.CancelledError

    await world.ask()
    world.log.append = cancelled
    with pytest.raises(RuntimeError, match="cancelled"):
        await finish(loop)
    await loop.close()


@play
async def test_a_drain_finishes_what_is_under_way_and_begins_nothing():
    """Stopping: no new calls, running ones answered and marked, the rest for the next owner."""
    world = World(bounds=Bounds(calls_max=1, mark_ms_min=0))

    async def behave(call, ask, attempt):
        await asyncio.sleep(3)
        return Done(value=b"late")

    world.hands = Hands(behave)
    loop = world.performing()
    await world.ask()
    await world.ask()
    await settle(loop)
    await loop.drain(10)
    assert world.hands.began == [0]
    assert [*world.outcomes()] == [0]
    assert world.marked() == 1
    assert loop.busy == 0
    await loop.close()


@play
async def test_a_drain_is_bounded():
    """What is late is cut off, unanswered and unmarked, so its next owner begins it again."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    await world.ask()
    await settle(loop)
    await loop.drain(5)
    assert world.now_ms() - 5_000 >= 1_700_000_000_000
    assert world.replies() == []
    assert world.marked() == 0
    await loop.close()


@play
async def test_a_member_that_drains_still_follows_its_group():
    """Others' partitions need not wait for our calls: a claim lost meanwhile is given up."""
    world = World(partitions=2)
    world.hands.hold(0)
    loop = world.performing()
    await world.ask(number=0, partition=0)
    await settle(loop)
    draining = asyncio.create_task(loop.drain(60))
    other = world.performing("b")
    while not other.claims:
        await asyncio.sleep(0.2)
        await other.step()
    assert not draining.done()
    world.hands.gates[0].set()
    await draining
    await loop.close()
    await other.close()


@play
async def test_who_does_not_let_itself_be_cut_does_not_hold_the_process():
    """A call that ignores its cancellation is left behind, and said."""
    world = World()
    let_go = asyncio.Event()

    async def behave(call, ask, attempt):
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue
        return Done(value=b"")

    world.hands = Hands(behave)
    loop = world.performing()
    await world.ask()
    await settle(loop)
    await loop.drain(0)
    assert world.hands.under_way == 1
    let_go.set()
    await asyncio.sleep(1)
    await loop.close()


@play
async def test_an_answer_told_is_told_once_and_only_when_sampled():
    """The observer hears of sampled calls, after their answer is in the log."""
    told = []

    class Observer:
        def call(self, meta, **facts):
            told.append((facts["call_id"], facts["kind"], facts["name"], facts["error"]))
            assert world.replies()

    async def behave(call, ask, attempt):
        raise ValueError("no such card")

    world = World(Hands(behave), observer=Observer())
    loop = world.performing()
    await world.ask()
    trace = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
    record = world.records(REQUESTS)[0]
    headers = (*record.headers, ("traceparent", trace))
    await world.publish(record.value, headers=headers)
    await finish(loop)
    assert told == [("desk.0.r/0", "tool", "block", "ValueError")]
    await loop.close()


def test_every_call_of_the_member_is_on_one_thread_and_a_slow_call_stops_no_poll():
    """In production the consumer has a thread of its own; it polls while calls and lookups are slow."""
    seen: set[str] = set()

    async def scene():
        gate, polls = asyncio.Event(), asyncio.Event()

        async def behave(call, ask, attempt):
            await gate.wait()
            return Done(value=b"done")

        world = World(Hands(behave))
        loop = world.performing(threaded=True)
        worker, away = world.workers[0], [True]
        committed = world.log.committed
        count = 0

        def polled(**options):
            nonlocal count
            seen.add(threading.current_thread().name)
            count += bool(world.hands.began)
            if count > 3:
                asyncio_loop.call_soon_threadsafe(polls.set)
            return poll(**{**options, "wait_ms": 1})

        def looked_up(*args):
            assert threading.current_thread().name not in seen
            if away:
                away.clear()
                raise TransientError("the coordinator is away")
            return committed(*args)

        asyncio_loop = asyncio.get_running_loop()
        poll, worker.poll = worker.poll, polled
        mark = worker.mark
        worker.mark = lambda *args: (seen.add(threading.current_thread().name), mark(*args))
        world.log.committed = looked_up
        loop._retrying._sleep = _no_time
        stop = asyncio.Event()
        running = asyncio.create_task(loop.run(stop))
        await world.ask()
        await polls.wait()
        gate.set()
        while loop.busy:
            await loop.wait(1)
        stop.set()
        await running
        assert world.marked() == 1

    asyncio.run(scene())
    (thread,) = seen
    assert thread.startswith("tool.cards")


async def _no_time(seconds):
    await asyncio.sleep(0)


@play
async def test_a_claim_that_goes_before_it_began_is_left_alone():
    """An offset that comes too late for its claim begins nothing."""
    world = World()
    loop = world.performing()
    claim = Claim(Partition(REQUESTS, 0), 99)
    loop._claiming._begun.append((claim, Known(0, frozenset(), 0, Partition("", 0))))
    await world.ask()
    await finish(loop)
    assert claim not in loop.claims
    assert len(world.replies()) == 1
    await loop.close()


@play
async def test_records_of_a_claim_it_does_not_have_are_ignored():
    """A membership may hand over what it fetched before a claim went."""
    world = World()
    loop = world.performing()
    await world.ask()
    await finish(loop)
    (record,) = world.records(REQUESTS)
    stale = Claim(record.partition, 99)
    world.workers[0].poll = lambda **_: Poll(records=[(stale, record)])
    await loop.step()
    assert loop.busy == 0
    await loop.close()


@play
async def test_what_a_task_died_of_comes_out_of_a_drain_too():
    """A death during the drain is as loud as before it."""
    world = World()
    world.hands.hold(0)
    loop = world.performing()
    loop._addressed = lambda draft: True  # the topic is there, and may not be written
    to = ReplyTo(topic="ns.inbox.nowhere.v1", partition=0, run="nowhere.0.r", number=0)
    await world.ask(reply_to=to)
    await settle(loop)
    world.hands.gates[0].set()
    with pytest.raises(SettingsError, match="nowhere"):
        await loop.drain(5)
    await loop.wait(1)
    await loop.close()


@pytest.mark.parametrize("adopted", [True, False])
def test_only_the_same_record_is_taken_for_the_same_request(adopted):
    """A recreated topic may have another request at the same offset."""

    @play
    async def scene():
        world = World()
        world.hands.hold(0)
        loop = world.performing()
        await world.ask()
        await settle(loop)
        (item,) = loop._under_way.values()
        if not adopted:
            item.record = dataclasses.replace(item.record, value=b"of another life")
        world.log.evict(world.workers[0])
        await settle(loop)
        assert len(world.hands.began) == (1 if adopted else 2)
        world.hands.gates[0].set()
        await finish(loop)
        await loop.close()

    scene()


def test_an_event_loop_that_stands_still_is_warned_of(caplog, monkeypatch):
    """An async function that blocks stops every call; the warning says what to do."""
    monkeypatch.setattr(claiming, "LATE_S", -1.0)

    async def scene():
        world = World()
        loop = world.performing(threaded=True)
        await loop.step()
        await loop.close()

    asyncio.run(scene())
    assert any("stood still" in line for line in caplog.messages)
