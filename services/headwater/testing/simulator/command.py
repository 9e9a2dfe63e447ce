"""The command: seeds by the thousand on all cores, and the planted bugs, each of which must be missed.

python -m headwater.testing.simulator --seeds 20000
python -m headwater.testing.simulator --seed 4711
python -m headwater.testing.simulator --planted
python -m headwater.testing.simulator --controls
"""

from __future__ import annotations

import argparse
import concurrent.futures
import dataclasses
import gc
import itertools
import json
import logging
import multiprocessing
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

from headwater.testing.invariants import RULES
from headwater.testing.simulator import judging, planted
from headwater.testing.simulator.judging import Verdict
from headwater.testing.simulator.odds import STORMY, Odds
from headwater.testing.simulator.shrinking import PLAYS_MAX, shrink

SEEDS = 500
PLANTED_SEEDS = 2_000
CONTROL_SEEDS = 200
CHUNK = 20
FAILURES_MAX = 3
"""Failing seeds that are reduced and told in full; of further ones only the number is."""
_MISFITS = ("TypeError", "AttributeError", "NameError")
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """What became of some seeds.

    Args:
        seeds: How many were played.
        failing: Those that violate something.
        faults: How many things went wrong in all of them.
        counts: What was injected, how often.
    """

    seeds: int
    failing: tuple[int, ...]
    faults: int
    counts: Counter[str]


def tally(first: int, seeds: int) -> Tally:
    """Play some seeds, in this process."""
    _hush()
    failing, faults, counts = [], 0, Counter[str]()
    for seed in range(first, first + seeds):
        verdict = judging.play(seed)
        counts.update(verdict.counts)
        faults += len(verdict.plan.choices)
        if verdict.problems:
            failing.append(seed)
    return Tally(seeds=seeds, failing=tuple(failing), faults=faults, counts=counts)


def failing_of(name: str, first: int, seeds: int) -> tuple[int, ...]:
    """Return the stormy seeds that fail with a control's protection taken out; in this process."""
    _hush()
    bug = next(bug for bug in (*planted.CONTROLS, planted.SOUND) if bug.name == name)
    failing = []
    with bug.plant():
        for seed in range(first, first + seeds):
            verdict = judging.play(seed, odds=STORMY, log=bug.log)
            if verdict.problems:
                _refuse_misfit(bug, verdict.problems[0])
                failing.append(seed)
    return tuple(failing)


def found_at(name: str, seeds: int) -> tuple[int, str]:
    """Return the first seed that misses a planted bug's protection, and what it missed; -1 for none."""
    _hush()
    bug = next(bug for bug in planted.BUGS if bug.name == name)
    with bug.plant():
        for seed in range(seeds):
            verdict = judging.play(seed, log=bug.log)
            if verdict.problems:
                problem = verdict.problems[0]
                _refuse_misfit(bug, problem)
                return seed, problem
    return -1, ""


def _refuse_misfit(bug: planted.Bug, problem: str) -> None:
    if any(word in problem for word in _MISFITS):
        raise AssertionError(f"{bug.name} does not fit the program any more: {problem}")


def tell(verdict: Verdict, say: Say, plays_max: int = PLAYS_MAX) -> None:
    """Say what a history violates, and everything that led to it."""
    say(f"seed {verdict.plan.seed} fails:")
    for problem in verdict.problems:
        say(f"  {problem}")
    reduced = shrink(verdict, lambda plan: judging.play(plan.seed, plan=plan), plays_max=plays_max)
    say(f"the shortest history found that still fails ({len(reduced.history)} things go wrong):")
    for line in (*reduced.feed, *reduced.history, *reduced.problems):
        say(f"  {line}")
    say(f"play it again: python -m headwater.testing.simulator --seed {verdict.plan.seed}")


def main(arguments: Sequence[str] | None = None, say: Say | None = None) -> int:
    """Play; return 0 if every seed holds, and with `--planted` if every bug is found."""
    say = say or (lambda line: print(line, flush=True))  # noqa: T201 - a program that prints
    options = _parser().parse_args(arguments)
    _hush()
    if options.seed is not None:
        verdict = judging.play(options.seed)
        if verdict.problems:
            tell(verdict, say, options.plays)
            return 1
        for line in (*verdict.feed, *verdict.history):
            say(line)
        say(f"seed {options.seed} holds")
        return 0
    if options.planted:
        return _plant(options, say)
    if options.controls:
        return _control(options, say)
    return _play(options, say)


def _play(options: argparse.Namespace, say: Say) -> int:
    began = time.monotonic()
    until = began + options.hours * 3600 if options.hours else None
    done, faults, failing, counts = 0, 0, list[int](), Counter[str]()
    with _pool(options.workers) as pool:
        for one in _tallies(pool, options, until):
            done += one.seeds
            faults += one.faults
            counts += one.counts
            failing += one.failing
            for seed in one.failing if options.output == "text" else ():
                say(f"seed {seed} fails; it is told in full at the end")
            _progress(f"{done} seeds, {len(failing)} fail, {time.monotonic() - began:.0f} s")
    took_s = time.monotonic() - began
    _progress("")
    for seed in sorted(failing)[:FAILURES_MAX]:
        tell(judging.play(seed), say, options.plays)
    if len(failing) > FAILURES_MAX:
        say(f"and seeds {', '.join(map(str, sorted(failing)[FAILURES_MAX:]))}")
    summary = {
        "seeds": done,
        "first": options.first,
        "failing": sorted(failing),
        "faults": faults,
        "injected": dict(sorted(counts.items())),
        "workers": options.workers,
        "seconds": round(took_s, 1),
    }
    if options.output == "json":
        say(json.dumps(summary))
    else:
        for what, count in sorted(counts.items()):
            say(f"{count:9} {what}")
        say(
            f"{done - len(failing)} of {done} seeds hold all {len(RULES)} invariants; {faults} things went "
            f"wrong on the way; {took_s:.1f} s in {options.workers} processes"
        )
    return 1 if failing else 0


def _tallies(
    pool: concurrent.futures.Executor, options: argparse.Namespace, until: float | None
) -> Iterator[Tally]:
    """Yield tallies as they come; with an end of time instead of a number, go on until then."""
    last = None if until is not None else options.first + (options.seeds or SEEDS)
    starts = itertools.count(options.first, CHUNK)
    waiting: set[concurrent.futures.Future[Tally]] = set()
    more = True
    while more or waiting:
        while more and len(waiting) < 2 * options.workers:
            first = next(starts)
            size = CHUNK if last is None else min(CHUNK, last - first)
            more = size > 0 and (until is None or time.monotonic() < until)
            if more:
                waiting.add(pool.submit(tally, first, size))
        ended, waiting = concurrent.futures.wait(
            waiting, return_when=concurrent.futures.FIRST_COMPLETED
        )
        for future in ended:
            yield future.result()


def _plant(options: argparse.Namespace, say: Say) -> int:
    """Have every planted bug looked for; say at which seed it was found."""
    missed = 0
    names = [bug.name for bug in planted.BUGS if not options.bug or bug.name in options.bug]
    with _pool(options.workers) as pool:
        looks = {name: pool.submit(found_at, name, options.planted_seeds) for name in names}
        for name, look in looks.items():
            seed, problem = look.result()
            missed += seed < 0
            where = f"found at seed {seed}: {problem}" if seed >= 0 else "NOT FOUND"
            say(f"{name}: {where}")
    say(
        f"{len(names) - missed} of {len(names)} planted bugs found in {options.planted_seeds} seeds"
    )
    return 1 if missed else 0


def _control(options: argparse.Namespace, say: Say) -> int:
    """Take protections out one at a time; say in how many stormy histories that is noticed."""
    seeds, wrong = options.seeds or CONTROL_SEEDS, 0
    say(
        f"stormy histories: at most {STORMY.faults_max} faults each instead of {Odds().faults_max}, and "
        f"{STORMY.ending:.0%} of all ends of transactions unknown instead of {Odds().ending:.0%}"
    )
    with _pool(options.workers) as pool:
        looks = [
            [
                pool.submit(failing_of, bug.name, first, min(CHUNK, seeds + options.first - first))
                for first in range(options.first, options.first + seeds, CHUNK)
            ]
            for bug in (*planted.CONTROLS, planted.SOUND)
        ]
        for bug, parts in zip((*planted.CONTROLS, planted.SOUND), looks, strict=True):
            failing = sum(len(part.result()) for part in parts)
            wrong += failing > 0 if bug is planted.SOUND else 2 * failing <= seeds
            say(f"{bug.name}: noticed in {failing} of {seeds} seeds ({failing / seeds:.0%})")
    return 1 if wrong else 0


def _pool(workers: int) -> concurrent.futures.Executor:
    return concurrent.futures.ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_begin
    )


def _begin() -> None:
    """Never look for garbage in what was imported; frozen any later, what is garbage by then would stay."""
    gc.freeze()


def _progress(line: str) -> None:
    """Show how far it is, where somebody looks."""
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def _hush() -> None:
    """Keep what the platform logs of every fault to itself."""
    logging.getLogger("headwater").setLevel(logging.CRITICAL + 1)
    logging.getLogger("asyncio").setLevel(logging.CRITICAL + 1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="headwater.testing.simulator", description=__doc__)
    parser.add_argument(
        "--seeds",
        type=int,
        help=f"how many seeds, from --first on; {SEEDS}, or {CONTROL_SEEDS} a control",
    )
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="play this one, and tell its history")
    parser.add_argument("--hours", type=float, default=0.0, help="go on for so long instead")
    parser.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="processes; by default the cores"
    )
    parser.add_argument("--planted", action="store_true", help="look for the planted bugs instead")
    parser.add_argument(
        "--controls",
        action="store_true",
        help="take protections out and count the stormy histories that notice, most of which must",
    )
    parser.add_argument(
        "--planted-seeds", type=int, default=PLANTED_SEEDS, help="seeds each bug gets, at most"
    )
    parser.add_argument("--bug", action="append", help="look for this planted bug only")
    parser.add_argument(
        "--plays", type=int, default=PLAYS_MAX, help="histories played to reduce a failing one"
    )
    parser.add_argument("--output", choices=["text", "json"], default="text")
    return parser


__all__ = ["PLAYS_MAX", "main", "tally", "tell"]
