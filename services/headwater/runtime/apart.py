"""Apart: suspects are tried in processes of their own, while everything else goes on."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from headwater.contracts.messages import Failed, InDoubt
from headwater.core.effector import Attempt, Done
from headwater.durable.failure import ToldError
from headwater.errors import NotDone, PoisonError, TransientError
from headwater.runtime.halving import Halving
from headwater.runtime.lines import Beat, Cut, Gone, Line, Raised, Ready, Returned, Text
from headwater.runtime.retrying import AbandonedError

logger = logging.getLogger(__name__)

PAUSE_S = 0.5
PAUSE_S_MAX = 30.0
"""Longest wait before another cell is asked for, where cells die before they are ready."""
DIED = "it died"
_HEARD_S = 1.0
Outcome = Done | Failed | InDoubt | None
Blame = Callable[[str], Awaitable[bool]]
Work = Callable[[int], object]
"""Says, given the number on the line, what is to be done."""


class DiedError(Exception):
    """A cell died of one alone.

    Args:
        cause: How it died.
    """

    def __init__(self, cause: str) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclasses.dataclass(slots=True, eq=False)
class Trial:
    """One suspect that waits for its end.

    Args:
        work: What is to be done.
        ended: How it ended: an outcome, an error, or `DiedError`.
        blame: Counts a death alone, given its cause; says whether it is tried again.
        attempt: Who hears of its heartbeats and progress; `None` for nobody.
        cell: Where it is tried, and its number there.
    """

    work: Work
    ended: asyncio.Future[Outcome]
    blame: Blame
    attempt: Attempt | None = None
    cell: tuple[Line, int] | None = None


class Apart:
    """Tries suspects in cells, a group in each, halved after each death.

    Args:
        open_cell: Has a cell forked; returns the line to it.
        cells_max: Most cells at once, so that a slow call keeps no other suspect waiting.
        group_max: Most suspects in one cell.
        sleep: Waits between two cells that die before they are ready.
    """

    def __init__(
        self,
        open_cell: Callable[[], Awaitable[Line]],
        *,
        cells_max: int = 4,
        group_max: int = 1_000,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._open_cell = open_cell
        self._cells_max = cells_max
        self._room = asyncio.Semaphore(cells_max)
        self._news = asyncio.Event()
        self._sleep = sleep
        self._halving: Halving[Trial] = Halving(group_max)
        self._numbers = itertools.count(1)
        self._runner: asyncio.Task[None] | None = None
        self._trials: set[Trial] = set()
        self._failed = 0
        self._stopping = False

    async def among(
        self, work: Work, blame: Blame, *, attempt: Attempt, alone: bool = False
    ) -> Outcome:
        """Try a suspect beside others until it ends, or enough processes died of it alone.

        Args:
            work: What is to be done.
            blame: Counts a death alone; says whether it is tried again.
            attempt: Hears of its heartbeats and progress.
            alone: Whether it is tried alone from the beginning.

        Raises:
            DiedError: Processes died of it alone.
            AbandonedError: This process stops.
            Exception: What it raised.
        """
        if self._stopping:
            raise AbandonedError
        loop = asyncio.get_running_loop()
        trial = Trial(work, loop.create_future(), blame, attempt)
        self._trials.add(trial)
        self._halving.add(trial, lone=alone)
        self._news.set()
        if self._runner is None:
            self._runner = loop.create_task(self._run())
        try:
            while not trial.ended.done():
                await asyncio.wait([trial.ended], timeout=_HEARD_S)
                if trial.cell is None:  # it waits for its turn, and is no less alive
                    attempt.heartbeat(attempt.last_state)
            return trial.ended.result()
        finally:
            self._trials.discard(trial)
            if not trial.ended.done():
                trial.ended.cancel()
                self._halving.discard(trial)
                if trial.cell is not None:
                    line, number = trial.cell
                    await line.say(Cut(number=number))

    async def alone(self, work: Work, blame: Blame) -> Outcome:
        """Try one in cells of its own.

        Raises:
            DiedError: They died of it.
            Exception: What it raised.
        """
        trial = Trial(work, asyncio.get_running_loop().create_future(), blame)
        while not trial.ended.done():
            death = await self._in_cell([trial])
            if death is not None and death.at_work and not await blame(death.cause):
                raise DiedError(death.cause)
        return trial.ended.result()

    def stop(self) -> None:
        """Give up whatever is under way: it is for the next owner of its partition."""
        self._stopping = True
        for trial in self._trials:
            if not trial.ended.done():
                trial.ended.set_exception(AbandonedError())
        if self._runner is not None:
            self._runner.cancel()

    async def _run(self) -> None:
        """Try group after group, several at once, until nobody is suspected."""
        under_way: set[asyncio.Task[None]] = set()
        try:
            async with asyncio.TaskGroup() as tasks:
                while under_way or len(self._halving):
                    while len(under_way) < self._cells_max and (group := self._halving.next()):
                        task = tasks.create_task(self._group(group))
                        under_way.add(task)
                        task.add_done_callback(under_way.discard)
                    self._news.clear()
                    await self._news.wait()
        except Exception as error:
            for trial in self._trials:  # whoever waits must hear of it
                if not trial.ended.done():
                    trial.ended.set_exception(RuntimeError(f"trials ended: {error!r}"))
            raise
        finally:
            self._runner = None

    async def _group(self, group: Sequence[Trial]) -> None:
        try:
            death = await self._in_cell(group)
            if death is None:
                self._halving.again(one for one in group if not one.ended.done())
            elif death.at_work:
                await self._died(death)
        finally:
            asyncio.get_running_loop().call_soon(self._news.set)

    async def _died(self, death: _Death) -> None:
        alone = self._halving.died(death.at_work)
        if alone is None:
            return
        again = await alone.blame(death.cause)
        if alone.ended.done():
            return
        if again:
            self._halving.add(alone, lone=True)
        else:
            alone.ended.set_exception(DiedError(death.cause))

    async def _in_cell(self, group: Sequence[Trial]) -> _Death | None:
        """Try a group in one cell; return who was still at work at its end, `None` if it never began."""
        async with self._room:
            return await self._tried(group)

    async def _tried(self, group: Sequence[Trial]) -> _Death | None:
        line = await self._open_cell()
        under_way: dict[int, Trial] = {}
        try:
            said = await line.hear()
            if not isinstance(said, Ready):
                await self._unready(said)
                return None
            self._failed = 0
            for one in group:
                if not one.ended.done():
                    number = next(self._numbers)
                    under_way[number], one.cell = one, (line, number)
                    await line.say(one.work(number))
            cause = DIED
            while under_way and (said := await line.hear()) is not None:
                if isinstance(said, Gone):
                    cause = said.cause
                    break
                await _heard(under_way, said)
                under_way = {n: one for n, one in under_way.items() if not one.ended.done()}
            at_work = [one for one in under_way.values() if not one.ended.done()]
            return _Death(at_work=at_work, cause=cause)
        finally:
            for one in group:
                one.cell = None
            line.close()

    async def _unready(self, said: Any) -> None:
        """A cell died before it was ready: nobody is to blame, and the next one comes later."""
        self._failed += 1
        wait_s = min(PAUSE_S_MAX, PAUSE_S * 2 ** min(self._failed, 16))
        why = said.cause if isinstance(said, Gone) else "it ended"
        logger.warning("a cell was never ready: %s; the next comes in %.1f s", why, wait_s)
        await self._sleep(wait_s)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """The end of a cell, with whoever was at work then; nobody if it had done everything."""

    at_work: Sequence[Trial]
    cause: str


async def _heard(under_way: dict[int, Trial], said: Any) -> None:
    trial = under_way.get(said.number)
    if trial is None or trial.ended.done():
        return
    if isinstance(said, Returned):
        trial.ended.set_result(said.result)
    elif isinstance(said, Raised):
        trial.ended.set_exception(_error(said))
    elif isinstance(said, Beat) and trial.attempt is not None:
        trial.attempt.heartbeat(said.state)
    elif isinstance(said, Text) and trial.attempt is not None:
        await trial.attempt.progress(said.text)


def _error(said: Raised) -> Exception:
    match said.kind:
        case "not-done":
            return NotDone(said.words, retry_after_s=said.retry_after_s)
        case "transient":
            return TransientError(said.words, retry_after_s=said.retry_after_s)
        case "poison":
            return PoisonError(said.name, said.words)
        case "timeout":
            return TimeoutError(said.words)
    return ToldError(said.name, said.words)
