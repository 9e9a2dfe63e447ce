"""Trying: turns at posts, and turns of suspects in a process of their own before they are taken here.

A turn is deterministic and touches nothing, so it can be taken somewhere else first, over the same
rows, and what it led to be forgotten.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Iterable, Sequence

from headwater.contracts.records import Record
from headwater.core.state import Row, State
from headwater.errors import TransientError
from headwater.runtime.apart import DiedError
from headwater.runtime.aside import Ended
from headwater.runtime.guard import Guard
from headwater.runtime.lines import TakeTurn
from headwater.runtime.posts import Kind

logger = logging.getLogger(__name__)

AWAY_S = 1.0
"""How long a trial waits for what it needs and is away."""

Remembered = Callable[[State, str], Sequence[Row]]


class Trying:
    """The guard of one agent's turns.

    Args:
        guard: Of this process.
        agent: Whose turns.
        remembered: Returns all rows of a run.
    """

    def __init__(self, guard: Guard, agent: str, remembered: Remembered) -> None:
        self._guard = guard
        self._agent = agent
        self._remembered = remembered
        self._post = -1

    def enter(self, record: Record) -> None:
        """Begin a turn here, at a post; `leave` must follow."""
        self._post = self._guard.posts.take(
            Kind.TURN, record.partition, record.offset, _run(record)
        )

    def going_on(self) -> None:
        """Say that the turn under way makes another delivery."""
        self._guard.posts.renew(self._post)

    def leave(self) -> None:
        """End the turn."""
        self._guard.posts.leave(self._post)
        self._post = -1

    def suspected(self, record: Record) -> bool:
        """Say whether a record is to be tried before it is taken."""
        suspects = self._guard.suspects
        suspect = suspects.find(record)
        return suspect is not None and suspect.alone < suspects.deaths_max

    def check(self, record: Record) -> None:
        """Let a record be taken.

        Raises:
            ProcessKillerError: It has had its deaths.
        """
        self._guard.suspects.check(record)

    def begin(self, record: Record, state: State) -> Ended:
        """Try a record's turn over the rows of its run; from the decider's thread."""
        run = _run(record)
        rows = self._remembered(state, run)

        def work(number: int) -> TakeTurn:
            return TakeTurn(number=number, agent=self._agent, run=run, record=record, rows=rows)

        async def blame(cause: str) -> bool:
            return await self._guard.suspects.died(record, cause)

        async def trial() -> None:
            while True:
                try:
                    await self._guard.apart.alone(work, blame)
                except TransientError as error:
                    place = record.partition
                    logger.warning("%s@%d was not tried: %s", place, record.offset, error)
                    await asyncio.sleep(AWAY_S)
                    continue
                except DiedError:
                    logger.warning("processes die of %s@%d", record.partition, record.offset)
                except Exception as error:  # noqa: BLE001 - whatever it raises, it was survived
                    logger.info("%s@%d raises %r", record.partition, record.offset, error)
                return

        return asyncio.run_coroutine_threadsafe(trial(), self._guard.loop)

    def survived(self, records: Iterable[Record]) -> None:
        """These were taken: they are suspected no more."""
        suspects = self._guard.suspects
        if not len(suspects):
            return
        for record in records:
            if self.suspected(record):
                cleared = asyncio.run_coroutine_threadsafe(suspects.clear(record), self._guard.loop)
                cleared.add_done_callback(_said)


def _run(record: Record) -> str:
    return (record.key or b"").decode("utf-8", "replace")


def _said(cleared: concurrent.futures.Future[None]) -> None:
    if not cleared.cancelled() and (error := cleared.exception()) is not None:
        logger.warning("a suspect was not cleared: %r", error)
