"""The faults of the matrix: deaths at named points, and what the world does to whole processes."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping

from tests.chaos import child
from tests.chaos.fleet import Seat
from tests.chaos.run import Run

PAIR = ("left", "right")
FROZEN_S = 7.5
"""Longer than the fleet's session."""


class Quiet:
    """No fault: what others begin with, and the yardstick of throughput."""

    words = ""

    def seats(self, run: Run) -> list[Seat]:
        """Two processes that each run everything."""
        return [Seat(instance=name) for name in PAIR]

    def settings(self, run: Run) -> Mapping[str, str]:
        """Nothing."""
        return {}

    def tend(self, run: Run, share: float) -> None:
        """Do nothing."""

    def settled(self) -> bool:
        """At once."""
        return True

    def end(self, run: Run) -> None:
        """Nothing is left."""

    def met(self, run: Run) -> int:
        """Nothing happens, once."""
        return 1


class Deaths(Quiet):
    """Each process is killed at a named point, again and again.

    Args:
        point: Which.
        each: How often each process dies.
    """

    def __init__(self, point: str, each: int = 3) -> None:
        self._point, self._each = point, each

    def settings(self, run: Run) -> Mapping[str, str]:
        """Arm the point; a reply before its note is met right after it."""
        point = "after-reply" if run.sabotage == "result_after_reply" else self._point
        return {child.POINT: point, child.DEATHS_MAX: str(self._each)}

    def met(self, run: Run) -> int:
        """Count deaths."""
        return run.fleet.deaths()


class Timed(Quiet):
    """Something that happens when certain shares of the tasks have ended.

    Args:
        times: How often.
    """

    def __init__(self, times: int) -> None:
        self._times = times
        self._due: list[float] = []
        self._happened = 0

    def tend(self, run: Run, share: float) -> None:
        """Have it happen if it is due."""
        if not self._due and not self._happened:
            self._due = sorted(run.dice.uniform(0.05, 0.8) for _ in range(self._times))
        if self._due and share >= self._due[0] and self.free():
            self._due.pop(0)
            self._happened += 1
            self.happen(run)

    def free(self) -> bool:
        """Whether the last one is over."""
        return True

    def happen(self, run: Run) -> None:
        """Do it."""

    def settled(self) -> bool:
        """Whether none is due any more."""
        return self._happened == self._times and self.free()

    def met(self, run: Run) -> int:
        """Count."""
        return self._happened


class Freezes(Timed):
    """A process stands still for longer than its session, then goes on where it was."""

    _frozen = ""
    _until_s = 0.0

    def tend(self, run: Run, share: float) -> None:
        """Thaw what was frozen for long enough."""
        if self._frozen and time.monotonic() >= self._until_s:
            run.fleet.signal(self._frozen, signal.SIGCONT)
            self._frozen = ""
        super().tend(run, share)

    def free(self) -> bool:
        """Whether all of them move."""
        return not self._frozen

    def happen(self, run: Run) -> None:
        """Freeze one."""
        self._frozen = run.dice.choice(PAIR)
        run.fleet.signal(self._frozen, signal.SIGSTOP)
        self._until_s = time.monotonic() + FROZEN_S
        run.crashes += 1

    def end(self, run: Run) -> None:
        """Thaw."""
        if self._frozen:
            run.fleet.signal(self._frozen, signal.SIGCONT)


class BrokerDeaths(Timed):
    """The broker is killed as by a power failure, and comes back with its data."""

    def happen(self, run: Run) -> None:
        """Kill it, and start it again."""
        assert run.broker is not None, "the matrix has brokers of its own"
        run.broker.kill()
        assert run.broker.start() == run.bootstrap
        run.crashes += 1
