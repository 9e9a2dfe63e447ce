"""During a turn time and chance are the run's, and outside they are what they always were."""

from __future__ import annotations

import asyncio
import datetime
import json
import os
import random
import secrets
import time
import uuid
from typing import Any

import pytest
from pydantic_ai._uuid import uuid7
from tests.unit.durable.plays import run

from headwater.core.execution import Begin, Step, Tick
from headwater.durable.running import Running, Session, current

NOW_MS = 1_700_000_000_123


def draws() -> list[Any]:
    """Everything a function can draw."""
    dice = random.Random()
    state = random.getstate()
    first = random.random()
    random.setstate(state)
    assert random.random() == first
    random.seed(7)
    seeded = random.random()
    random.seed()
    return [
        first, seeded, random.random(), random.gauss(0, 1), random.gauss(0, 1), random.randbytes(3).hex(),
        random.choice(range(99)), random.sample(range(99), 3), random.SystemRandom().random(), dice.random(),
        str(uuid.uuid4()), str(uuid.uuid1()), str(uuid.uuid1()), uuid.getnode(), os.urandom(130).hex(),
        os.getrandom(4).hex(), secrets.token_urlsafe(), secrets.randbelow(10**9), current().random.random(),
        str(current().uuid()), current().random is current().random,
    ]  # fmt: skip


def test_draws_are_functions_of_seed() -> None:
    """The same run draws the same, another run draws otherwise, whatever the process drew before."""
    random.seed(1)
    first = run(draws)
    random.seed(2)
    again = run(draws)
    assert first == again
    other = run(draws, seed="other")
    assert all(
        mine != theirs or index in (1, len(first) - 1)  # random.seed(7) and a comparison
        for index, (mine, theirs) in enumerate(zip(first, other, strict=True))
    )


def test_draws_go_on_across_turns() -> None:
    """Streams survive between turns, and other runs' turns do not disturb them."""

    async def main(session: Session) -> bytes:
        found = [random.random(), random.gauss(0, 1)]
        await asyncio.sleep(1)
        return json.dumps([*found, random.gauss(0, 1), random.random()]).encode()

    def play(disturb: bool) -> Step:
        running = Running(main, seed="r")
        running.deliver(Begin(), now_ms=0)
        if disturb:
            random.gauss(0, 1)
            run(draws)
        return running.deliver(Tick(), now_ms=1000)

    assert play(disturb=False) == play(disturb=True)


def test_process_draws_as_before_outside_turns() -> None:
    """The module's own generator neither moves nor is reseeded by turns."""
    random.seed(5)
    expected = [random.random(), random.gauss(0, 1), random.gauss(0, 1), random.getrandbits(9)]
    random.seed(5)
    found = []
    for draw in (random.random, lambda: random.gauss(0, 1), lambda: random.gauss(0, 1)):
        found.append(draw())
        run(draws)
    found.append(random.getrandbits(9))
    assert found == expected
    state = random.getstate()
    one = random.random()
    random.setstate(state)
    assert random.random() == one
    assert os.urandom(8) != os.urandom(8)
    assert uuid.getnode() == uuid.getnode()
    assert random.Random().random() != random.Random().random()


def times() -> list[Any]:
    """Everything a function can read the time from."""
    utc = datetime.UTC
    return [
        time.time(), time.time_ns() / 1e9, time.monotonic(), time.monotonic_ns() / 1e9, time.perf_counter(),
        time.process_time(), time.thread_time_ns() / 1e9, datetime.datetime.now(utc).timestamp(),
        time.clock_gettime(time.CLOCK_REALTIME), asyncio.get_running_loop().time(), current().now_ms / 1000,
    ]  # fmt: skip


def test_clocks_stand_at_run_time() -> None:
    """Every clock answers run time, to the millisecond, and real time again afterwards."""
    assert run(times, now_ms=NOW_MS) == pytest.approx([NOW_MS / 1000] * 11, abs=1e-5)
    assert (
        run(lambda: str(datetime.datetime.now(datetime.UTC).date()), now_ms=NOW_MS) == "2023-11-14"
    )
    assert run(lambda: str(datetime.date.today()), now_ms=NOW_MS)[:7] == "2023-11"  # noqa: DTZ011 - what agents call
    assert time.time() > NOW_MS / 1000 + 1
    before = time.monotonic(), time.monotonic_ns()
    assert time.monotonic() >= before[0]
    assert time.monotonic_ns() >= before[1]
    assert time.monotonic() != pytest.approx(NOW_MS / 1000)


def test_places_draw_apart() -> None:
    """What a library draws once a process, when first used, shifts nobody else's draws."""

    def library() -> list[object]:
        return [uuid.uuid4(), random.Random()]

    def act(*, first: bool) -> list[str]:
        if first:
            library()
        return [str(uuid.uuid4()), str(uuid.uuid4()), secrets.token_hex(4)]

    found = run(lambda: act(first=True))
    assert found == run(lambda: act(first=False))
    assert len(set(found)) == 3


def test_time_ordered_ids_do_not_remember_other_runs() -> None:
    """A library that counts ids of a millisecond counts anew in each turn."""
    run(lambda: str(uuid7()), now_ms=NOW_MS + 10_000)
    first = run(lambda: [str(uuid7()), str(uuid7())], now_ms=NOW_MS)
    uuid7()
    assert run(lambda: [str(uuid7()), str(uuid7())], now_ms=NOW_MS) == first
    assert sorted(first) == first
    assert uuid7().int >> 80 > NOW_MS + 10_000
