"""What a call of a durable function costs: ask, suspend, answer, resume, against a bare asyncio future.

`call median ratio R`: microseconds of one round trip over those of a task that awaits a future which
another callback of a running loop resolves. Run with `--profile` to see where the time goes, with
`--memory` for bytes per suspended execution.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import pstats
import statistics
import sys
import time
import tracemalloc
from collections.abc import Sequence

from headwater.contracts.messages import Answered
from headwater.core.execution import Answer, Begin
from headwater.durable.running import Running, Session, current

_clock = time.perf_counter
_ROUND_TRIPS = 5_000
_REPETITIONS = 9


async def asks(session: Session) -> bytes:
    while True:
        await current().ask("tool", "balance", b"42")


def durable(round_trips: int) -> float:
    running = Running(asks, seed="benchmark")
    running.deliver(Begin(), now_ms=1)
    outcome = Answered(value=b"7")
    began = _clock()
    for number in range(1, round_trips + 1):
        running.deliver(Answer(number=number, outcome=outcome), now_ms=number)
    took = _clock() - began
    running.close()
    return took / round_trips * 1e6


def bare(round_trips: int) -> float:
    async def main() -> float:
        loop = asyncio.get_running_loop()
        began = _clock()
        for _ in range(round_trips):
            future = loop.create_future()
            loop.call_soon(future.set_result, None)
            await future
        return _clock() - began

    return asyncio.run(main()) / round_trips * 1e6


async def waits(session: Session) -> bytes:
    await session.ask("tool", "balance", b"42")
    return b""


def memory(count: int) -> float:
    warm = Running(waits, seed="warm")
    warm.deliver(Begin(), now_ms=1)
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    suspended = [Running(waits, seed=f"run {number}") for number in range(count)]
    for running in suspended:
        running.deliver(Begin(), now_ms=1)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    for running in [*suspended, warm]:
        running.close()
    return (after - before) / count


def main(arguments: Sequence[str] = ()) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--round-trips", type=int, default=_ROUND_TRIPS)
    parser.add_argument("--repetitions", type=int, default=_REPETITIONS)
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--memory", action="store_true")
    asked = parser.parse_args(arguments)
    if asked.profile:
        profile = cProfile.Profile()
        profile.runcall(durable, asked.round_trips)
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return
    if asked.memory:
        print(f"suspended {memory(5_000):.0f} bytes")
        return
    pairs = [
        (durable(asked.round_trips), bare(asked.round_trips)) for _ in range(asked.repetitions)
    ]
    ours = statistics.median(one for one, _ in pairs)
    theirs = statistics.median(other for _, other in pairs)
    ratio = statistics.median(one / other for one, other in pairs)
    print(f"call median ratio {ratio:.2f}")
    print(f"call durable {ours:.1f} us, bare future {theirs:.1f} us")


if __name__ == "__main__":
    main(sys.argv[1:])
