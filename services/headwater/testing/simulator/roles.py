"""Roles: how each process of the fleet is put together on the simulated world."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Collection, Coroutine, Mapping
from typing import Any

from headwater.assembly import Parts, Platform
from headwater.core.decider import Decider
from headwater.core.effector import Effector
from headwater.log.local import LocalLog
from headwater.log.local_faults import Crash
from headwater.log.local_member import LocalMember
from headwater.runtime.deciding import Deciding
from headwater.runtime.performing import Performing
from headwater.testing.simulator import desk
from headwater.testing.simulator.outside import Interrupted, Outside, Watched
from headwater.testing.simulator.processes import Alive
from headwater.testing.simulator.storm import Storm
from headwater.testing.simulator.virtual import VirtualLoop, inside


class Tap:
    """A process's view of the log; it keeps the membership that the process's loop was given."""

    def __init__(self, log: LocalLog) -> None:
        self._log = log
        self.member: LocalMember | None = None
        self.read, self.append, self.committed = log.read, log.append, log.committed
        self.offset_at, self.topic_id = log.offset_at, log.topic_id
        self.partitions, self.has = log.partitions, log.has
        self.answers = log.answers

    def own(self, topics: Collection[str], *, group: str, instance: str, writer: str = "") -> Any:
        """Join as a decider."""
        self.member = owner = self._log.own(topics, group=group, instance=instance, writer=writer)
        return owner

    def work(
        self, topics: Collection[str], *, group: str, instance: str, intends: bool = False
    ) -> Any:
        """Join as an effector."""
        self.member = worker = self._log.work(
            topics, group=group, instance=instance, intends=intends
        )
        return worker


class Assembled(Platform):
    """The platform, whose effectors act on a simulated world outside."""

    outside: Outside
    storm: Storm

    def _deciding(self, decider: Decider[Any], *args: Any, **options: Any) -> Deciding:
        return super()._deciding(Interrupted(decider, self.storm), *args, **options)

    def _performing(self, effector: Effector, role: str, *, intends: bool = False) -> Performing:
        watched = Watched(effector, self.outside, self.parts.instance)
        return super()._performing(watched, role, intends=intends)


class Stepped:
    """An effector's loop, stepped by hand on an event loop of its own.

    Args:
        process: Whose.
        performing: The loop.
    """

    def __init__(self, process: Alive, performing: Performing) -> None:
        self.performing = performing
        self._process = process
        self._loop = VirtualLoop(process.clock, lambda: not process.dead)
        self._ending: asyncio.Task[None] | None = None

    def leave(self, *, drain_s: float, leave: bool) -> None:
        """Take nothing more, finish what is under way, and end.

        Args:
            drain_s: How long calls that are under way may take.
            leave: Whether the partitions are given up at once.
        """

        async def end() -> None:
            await self.performing.drain(drain_s)
            await self.performing.close(leave=leave)

        with inside(self._loop):
            self._ending = self._loop.create_task(end())

    def step(self, wait_ms: int = 0) -> int:
        """Take what came, and let what is under way go on as far as it can without time."""
        busy = self.performing.busy
        if self._ending is not None:
            return self._end(self._ending)
        came = self._finish(self.performing.step())
        return came + abs(self.performing.busy - busy)

    def backlog(self) -> int:
        """Nothing here is waited for but time, and that `next_ms` tells."""
        return 0

    def next_ms(self) -> int | None:
        """Return when a call may go on."""
        dues = [self._loop.next_ms(), self.performing.next_ms()]
        if not self.performing.busy and self._ending is None:
            dues[0] = None  # what is left are ends of time for calls that are answered
        return min((due for due in dues if due is not None), default=None)

    def close(self) -> None:
        """Forget what is under way, as a death does."""
        self._loop.unwind()
        self._loop.close()

    def _end(self, ending: asyncio.Task[None]) -> int:
        """Go on with what is under way; once that has ended, so has the process."""
        done = self._loop.spin()
        if self._process.dead:
            raise Crash
        self._process.handed |= bool(self.performing.busy and not self.performing.claims)
        if ending.done():
            ending.result()
            self.close()
            self._process.left = True
        return done

    def _finish(self, coroutine: Coroutine[Any, Any, int]) -> int:
        done = self._loop.finish(coroutine)
        if self._process.dead:
            raise Crash
        return done or 0


@functools.cache
def assembled(version: str) -> Assembled:
    """Return the platform, made once a process: it is copied for each start."""
    return Assembled(desk.app_of(version), LocalLog(), Parts(clock=lambda: 0))


ROLES: Mapping[str, Callable[[Platform], Any]] = {
    "intake": Platform.intake,
    "admission": Platform.admission,
    "approvals": Platform.approvals,
    "runs.desk": lambda platform: platform.runs("desk"),
    "runs.clerk": lambda platform: platform.runs("clerk"),
    "models": Platform.models,
    "tools.bank": lambda platform: platform.tools("bank"),
}
"""How the loop of each role is built."""
