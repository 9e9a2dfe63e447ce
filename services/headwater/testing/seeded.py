"""Seeded histories of real loops over the local log: each must read equal to its run without faults.

    python -m headwater.testing.seeded --seeds 500

A control switches one protection off; most seeds must then differ, or the seeds show nothing.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

from headwater.contracts.records import Partition
from headwater.log.local import LocalLog
from headwater.log.port import Claim, Poll, Work
from headwater.runtime.deciding import Deciding
from headwater.runtime.restoring import Restored
from headwater.runtime.table import Table
from headwater.testing.seeded_fleet import Fleet
from headwater.testing.seeded_ledger import Ledger
from headwater.testing.seeded_storm import Broken, Clock, Odds, Storm, Stuck, World

SEEDS = 500
CONTROL_SEEDS = 100
FLEET_EVERY = 4
RETRIES_MAX = 20


class KeepsTables(Deciding):
    """A control: a table outlives its claim, so a successor's rows, or a landed commit's, are missed."""

    def __init__(self, **parts: Any) -> None:
        super().__init__(**parts)
        self._kept: dict[Partition, Table] = {}

    def _forget(self, claim: Claim) -> None:
        if (owned := self._owned.get(claim)) is not None:
            self._kept[claim.partition] = owned.table
        super()._forget(claim)

    def _take_up(self, claim: Claim, restored: Restored) -> None:
        table = self._kept.get(claim.partition, restored.table)
        super()._take_up(claim, dataclasses.replace(restored, table=table))


class Retries:
    """A control: an owner that keeps its claims after an unknown outcome, and commits again.

    Args:
        owner: The owner of a log whose claims outlive unknown outcomes.
    """

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self.pause = owner.pause
        self.resume = owner.resume
        self.close = owner.close

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Poll as ever."""
        poll: Poll = self._owner.poll(records_max=records_max, wait_ms=wait_ms)
        return poll

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Commit until the outcome is known."""
        held: frozenset[Claim] = frozenset()
        for _ in range(RETRIES_MAX):
            held = self._owner.commit(work)
            if held:
                break
        return held


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """The program, or one with a protection off."""

    name: str
    log: dict[str, bool] = dataclasses.field(default_factory=dict)
    loops: type[Deciding] = Deciding
    owners: Callable[[Any], Any] = lambda owner: owner


SOUND = Variant(name="sound")
CONTROLS = (
    Variant(name="no claim check", log={"check_claims": False}),
    Variant(name="tables kept across claims", loops=KeepsTables),
    Variant(
        name="claims kept after an unknown outcome", log={"lose_claims": False}, owners=Retries
    ),
    Variant(name="offsets outside the transaction", log={"offsets_inside": False}),
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What became of one seed.

    Args:
        seed: The seed.
        problem: How it differs from its run without faults; empty if it does not.
        history: What went wrong on the way.
    """

    seed: int
    problem: str
    history: Sequence[str]


def ledger(seed: int, variant: Variant, storm: Storm) -> World:
    """Build the world of two small deciders."""
    log = LocalLog(clock=storm.clock, faults=storm, **variant.log)
    return Ledger(seed, log, loops=variant.loops, owners=variant.owners, away=storm.away)


def fleet(seed: int, variant: Variant, storm: Storm) -> World:
    """Build the world of the whole platform."""
    log = LocalLog(clock=storm.clock, faults=storm, **variant.log)
    return Fleet(seed, log, storm.clock, owners=variant.owners)


def judge(
    seed: int,
    variant: Variant = SOUND,
    *,
    build: Callable[[int, Variant, Storm], World] = ledger,
    odds: Odds | None = None,
) -> Verdict:
    """Compare a seed's run with its run without faults."""
    calm, storm = Storm(seed, Clock(), None), Storm(seed, Clock(), odds or Odds())
    expected = calm.run(build(seed, SOUND, calm))
    try:
        problem = _difference(expected, storm.run(build(seed, variant, storm)))
    except (Stuck, Broken) as error:
        problem = f"{type(error).__name__}: {error}"
    return Verdict(seed=seed, problem=problem, history=storm.history)


def failing(variant: Variant, seeds: int) -> int:
    """Return in how many seeds a variant's ledger differs."""
    return sum(bool(judge(seed, variant).problem) for seed in range(seeds))


def _difference(expected: dict[str, Any], actual: dict[str, Any]) -> str:
    for aspect in sorted({*expected, *actual}):
        if expected.get(aspect) != actual.get(aspect):
            return f"{aspect}: expected {expected.get(aspect)}, got {actual.get(aspect)}"
    return ""


def tell(verdict: Verdict, world: str, say: Callable[[str], None]) -> None:
    """Say how a seed differs, and everything that went wrong on the way there."""
    say(
        f"seed {verdict.seed} of the {world} differs from its run without faults: {verdict.problem}"
    )
    for line in verdict.history:
        say(f"  {line}")


def main(arguments: Sequence[str] | None = None, say: Callable[[str], None] | None = None) -> int:
    """Run seeds, then controls; return 0 if all seeds are equal and every control fails in most."""
    say = say or (lambda line: print(line, flush=True))  # noqa: T201 - a program that prints
    parser = argparse.ArgumentParser(prog="headwater.testing.seeded", description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS, help="how many seeds, from --first on")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument(
        "--fleet-every", type=int, default=FLEET_EVERY, help="which seeds play the fleet too"
    )
    parser.add_argument(
        "--control-seeds", type=int, default=CONTROL_SEEDS, help="how many seeds each control gets"
    )
    options = parser.parse_args(arguments)
    logging.getLogger("headwater").setLevel(logging.CRITICAL + 1)
    began = time.monotonic()
    failed, fleets = 0, 0
    for seed in range(options.first, options.first + options.seeds):
        verdicts = [("ledger", judge(seed))]
        if options.fleet_every and seed % options.fleet_every == 0:
            fleets += 1
            verdicts.append(("fleet", judge(seed, build=fleet)))
        problems = [(world, verdict) for world, verdict in verdicts if verdict.problem]
        failed += bool(problems)
        for world, verdict in problems:
            tell(verdict, world, say)
    took_s = time.monotonic() - began
    say(
        f"{options.seeds - failed} of {options.seeds} seeds equal to their runs without faults "
        f"({options.seeds} ledgers, {fleets} fleets), {took_s:.1f} s"
    )
    weak = 0
    for control in CONTROLS if options.control_seeds else ():
        count = failing(control, options.control_seeds)
        say(f"control, {control.name}: {count} of {options.control_seeds} seeds differ")
        weak += 2 * count <= options.control_seeds
    return 1 if failed or weak else 0


if __name__ == "__main__":
    if os.environ.get("PYTHONHASHSEED") != "0":
        os.environ["PYTHONHASHSEED"] = "0"  # sets of claims then iterate alike in every process
        os.execv(sys.executable, [sys.executable, "-m", "headwater.testing.seeded", *sys.argv[1:]])  # noqa: S606 - itself
    sys.exit(main())
