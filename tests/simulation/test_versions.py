"""Two versions of one app on one log in memory: rolled out, rolled back, in seeded orders."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

import headwater
from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Control
from headwater.core.decider import Sent
from headwater.core.messages import Meta, digest
from headwater.core.versions import Versions
from headwater.log.local import LocalLog
from headwater.runtime.deciding import Deciding
from headwater.testing import App

RUNS = 4
SIGNALS = 3
SEEDS = 20


class Known:
    """What is known of versions, which a test may change at any moment."""

    now = Versions()

    def __call__(self) -> Versions:
        return self.now


def bank(version: str) -> headwater.App:
    """Return the app of a version: the later one emits what it is, and has a patch in between."""
    app = headwater.App("bank", version=version)

    @app.agent
    async def clerk(ctx: headwater.Context, task: str) -> str:
        said = [version]
        for _ in range(SIGNALS):
            if version != "1.0":
                ctx.patched("counted")
            said.append(str(await ctx.receive("next")))
        return f"{task} {','.join(said[1:])} {version}"

    return app


class Fleet:
    """Members of the agents' group, each of a version, over one log."""

    def __init__(self, log: LocalLog, clock: Any, known: Known) -> None:
        self.log, self.clock, self.known = log, clock, known
        self.members: dict[str, tuple[str, Deciding]] = {}
        self.taken: list[tuple[str, str]] = []

    def start(self, instance: str, version: str) -> None:
        parts = Parts(clock=self.clock, instance=instance, versions=self.known)
        platform = Platform(bank(version), self.log, parts)
        self.members[instance] = (version, platform.runs("clerk"))

    def stop(self, instance: str) -> None:
        _, loop = self.members.pop(instance)
        loop.close(leave=True)

    def step(self) -> int:
        return sum(loop.step() for _, loop in [*self.members.values()])


async def history(seed: int, *, guarded: bool = True) -> tuple[list[str], set[str]]:
    """Roll a fleet out and back at moments that a seed chooses; return results, and versions' orders broken.

    Without the guard every version may take any run: the control.
    """
    dice = random.Random(seed)
    app = bank("1.0")
    async with App(app) as world:
        known = Known()
        if not guarded:
            known.now = Versions(lately=frozenset())
        for loop in world._deciding[2:]:
            loop.close(leave=True)
        del world._deciding[2:]
        fleet = Fleet(world.log, lambda: world.now_ms, known)
        fleet.start("a", "1.0")
        fleet.start("b", "1.0")
        world._deciding.append(fleet)  # type: ignore[arg-type] # it steps as a loop does
        fleet.next_ms = lambda: None  # type: ignore[attr-defined] # time goes on by hand
        fleet.restoring = 0  # type: ignore[attr-defined] # restored inline
        fleet.close = lambda: [fleet.stop(name) for name in [*fleet.members]]  # type: ignore[attr-defined] # members by name
        runs = [await world.start(app.agents["clerk"], f"t{number}") for number in range(RUNS)]
        left = [(run, number) for run in runs for number in range(SIGNALS)]
        acts: list[Any] = [*["roll", "back"] * 4, *["signal"] * len(left)]
        dice.shuffle(acts)
        order = {id(run): iter(range(SIGNALS)) for run in runs}
        sending = [run for run, _ in left]
        dice.shuffle(sending)
        for act in acts:
            name = dice.choice(["a", "b"])
            if act == "signal":
                run = sending.pop()
                await _signal(world, run, next(order[id(run)]))
            else:
                version = "1.0" if act == "back" else "2.0"
                fleet.stop(name)
                await _pass(world, 0)
                fleet.start(name, version)
            await _pass(world, dice.choice([0, 500, 3_000]))
        for name in ("a", "b"):
            fleet.stop(name)
            fleet.start(name, "2.0" if seed % 2 else "1.0")
        if guarded and not seed % 2:
            known.now = Versions(withdrawn=frozenset({"2.0"}))
        for _ in range(4):
            await _pass(world, 3_000)
        results = [await run.result() for run in runs]
        return results, _broken(world)


def _broken(world: App) -> set[str]:
    """Name the runs that an earlier version took after a later one, as their rows have it."""
    newest: dict[str, str] = {}
    broken = set()
    for record in world.records(world.platform.names.state("runs.clerk")):
        if record.value is None or not record.key.startswith(b"Run\x00"):
            continue
        run = world.platform.codec.decode(record.value)
        if run.version < newest.get(run.run, ""):
            broken.add(run.run)
        newest[run.run] = run.version
    return broken


async def _pass(world: App, ms: int) -> None:
    world.now_ms += ms
    world.log.wake()
    await world.settle()


async def _signal(world: App, run: Any, number: int) -> None:
    control = Control(target=run.task_id, verb="signal", name="next", value=b"%d" % number)
    meta = Meta(id=digest("s", run.task_id, number).hex(), tenant=run.tenant, actor="test")
    to = world.platform.admission_address(run.tenant)
    await world.log.append(
        world.platform.envelope("t").seal(Sent(message=control, to=to, meta=meta))
    )


@pytest.mark.parametrize("seed", range(SEEDS))
def test_rolls_and_rollbacks_lose_nothing_and_hold_nothing(seed: int) -> None:
    """Every run ends, with every signal once and in order, whatever versions took it in between.

    And older code takes nothing that later code took, unless that was taken back, as on even seeds.
    """
    results, broken = asyncio.run(history(seed))
    expected = {f"t{number} 0,1,2" for number in range(RUNS)}
    assert {result.rpartition(" ")[0] for result in results} == expected
    assert not broken or not seed % 2


def test_without_the_guard_older_code_takes_what_later_code_took() -> None:
    """The control: where any version may take any run, a few seeds show it."""
    assert any(asyncio.run(history(seed, guarded=False))[1] for seed in range(1, SEEDS, 2))
