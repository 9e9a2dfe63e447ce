"""The crowd: a world's processes, how each begins, and every way in which one ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence

from headwater.log.local_faults import Crash
from headwater.testing.invariants import Death
from headwater.testing.simulator.processes import Alive, Clock, Spec, World

SKEW_MS = 20
"""How far a process's clock is off, at most."""


class Crowd:
    """Processes of a world.

    Args:
        seed: Chooses how far clocks are off.
        clock: The log's time.
        counts: What went wrong, how often; added to.
    """

    def __init__(self, seed: int, clock: Clock, counts: Counter[str]) -> None:
        self.alive: dict[str, Alive] = {}
        """By name."""
        self.ghosts: list[Alive] = []
        """Those whose name another has taken."""
        self.running: list[Alive] = []
        """Who moves, the innermost last: the others stand still inside their calls."""
        self.deaths: list[Death] = []
        """When whose work was cut short."""
        self._seed = seed
        self._clock = clock
        self._counts = counts
        self._starts = 0
        self._world: World

    def live_in(self, world: World) -> None:
        """Start every process of a world."""
        self._world = world
        for spec in world.specs:
            self.start(spec)

    @property
    def processes(self) -> Sequence[Alive]:
        """Everything that runs."""
        return (*self.alive.values(), *self.ghosts)

    def close(self) -> None:
        """Let go of every process."""
        for process in self.processes:
            process.dead = True
            self.running.append(process)
            process.loop.close()
            self.running.pop()

    def start(self, spec: Spec) -> None:
        """Start a process, with a clock of its own."""
        self._starts += 1
        skew = random.Random(f"{self._seed}/skew/{self._starts}").randint(-SKEW_MS, SKEW_MS)  # noqa: S311 - a seeded world
        self._counts["a clock that is off"] += skew != 0
        clock = self._clock
        process = Alive(spec, lambda: clock.now_ms + skew, stepped_ms=clock.now_ms)
        process.loop, process.member = spec.start(process)
        self.alive[spec.who] = process
        self.cut(process.spec.who)  # whoever joins takes partitions from others

    def dead(self) -> list[Spec]:
        """Return what runs no more, or not yet."""
        return [spec for spec in self._world.specs if spec.who not in self.alive]

    def kill(self, caller: Alive) -> None:
        """Have the process that moves die right here.

        Raises:
            Crash: Always.
        """
        caller.dead = True
        self.cut(caller.spec.who)
        raise Crash

    def die(self, process: Alive, *, gone: bool) -> None:
        """Take a process that is dead away.

        Args:
            process: The process.
            gone: Whether it stays away for a session.
        """
        process.dead = True
        self.running.append(process)  # its last words are its own, and nobody hears them
        try:
            process.loop.close()
        finally:
            self.running.pop()
        if process in self.ghosts:
            self.ghosts.remove(process)
            return
        del self.alive[process.spec.who]
        if gone:
            self._world.log.evict(process.member)

    def leave(self, process: Alive, dice: int) -> None:
        """Have a process end in good order; one that has calls under way goes on until they have ended."""
        if process.leaving:
            return
        process.leaving = True
        self.running.append(process)
        try:
            process.spec.leave(process, dice)
        finally:
            self.running.pop()
        if process.left:
            self.left(process)

    def left(self, process: Alive) -> None:
        """Take a process away that has ended in good order."""
        process.dead = True
        self._counts["a process that left in good order"] += 1
        self._counts["calls under way handed over"] += process.handed
        if process.hasty:
            self.cut(process.spec.who)
        if self.alive.get(process.spec.who) is process:
            del self.alive[process.spec.who]
        elif process in self.ghosts:
            self.ghosts.remove(process)

    def strike_off(self, process: Alive) -> None:
        """Have its group forget a process, which does not know."""
        self._world.log.evict(process.member)
        process.struck = True
        self.cut(process.spec.who)

    def cut(self, who: str) -> None:
        """Note that the work of a process may have been cut short here."""
        self.deaths.append(Death(who=who, at_ms=self._clock.now_ms))
