"""Cells: processes of their own for suspects; each does what it is told over its line, until that ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
import pickle
from collections.abc import Awaitable, Callable, Collection, Coroutine
from typing import Any

from headwater.assembly import Platform
from headwater.contracts.messages import Failed, InDoubt, Wake
from headwater.core.blobs import AbsentError
from headwater.core.decider import Timer, Turn
from headwater.core.effector import Attempt, Done, Effector
from headwater.core.messages import Position
from headwater.durable.failure import describe
from headwater.errors import NotDone, PoisonError, TransientError
from headwater.runtime.guarding import AtPost
from headwater.runtime.lines import (
    Beat,
    Cut,
    Line,
    Perform,
    Raised,
    Ready,
    Returned,
    TakeTurn,
    Text,
)
from headwater.runtime.posts import Kind, Posts
from headwater.runtime.table import Table
from headwater.runtime.values import Fetch
from headwater.settings import Settings
from headwater.tools.lifespans import entered

logger = logging.getLogger(__name__)

_BEAT_S = 0.2


class Cell:
    """Does what it is told.

    Args:
        line: To whoever asked for the cell.
        posts: The cell's posts.
        platform: Of the app; its log is asked for topics alone.
        effectors: By name, what makes calls here.
    """

    def __init__(
        self, line: Line, posts: Posts, platform: Platform, effectors: Collection[Effector]
    ) -> None:
        self._line = line
        self._posts = posts
        self._platform = platform
        self._doing = {effector.name: AtPost(effector, posts) for effector in effectors}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Take work until nobody is there any more."""
        await self._line.say(Ready())
        while (said := await self._line.hear()) is not None:
            if isinstance(said, Perform):
                self._begin(said.number, self._told(said.number, self._result(said)))
            elif isinstance(said, TakeTurn):
                self._begin(said.number, self._told(said.number, self._turn(said)))
            elif isinstance(said, Cut) and (task := self._tasks.get(said.number)) is not None:
                task.cancel()
        for task in self._tasks.values():
            task.cancel()
        self._line.close()
        await self._line.closed()

    def _begin(self, number: int, work: Coroutine[Any, Any, None]) -> None:
        task = self._tasks[number] = asyncio.get_running_loop().create_task(work)
        task.add_done_callback(lambda _: self._tasks.pop(number, None))

    async def _told(self, number: int, work: Awaitable[Done | Failed | InDoubt | None]) -> None:
        try:
            result = await work
        except (Exception, SystemExit) as error:
            logger.info("a suspect raises", exc_info=error)
            await self._line.say(_raised(number, error))
        else:
            await self._line.say(Returned(number=number, result=result))

    async def _turn(self, said: TakeTurn) -> None:
        """Take a turn as its decider would, in a thread; what it leads to is forgotten."""
        record = said.record
        with self._posts.at(Kind.TURN, record.partition, record.offset, said.run) as post:
            going_on = functools.partial(self._posts.renew, post)
            await asyncio.to_thread(take_turn, self._platform, said, going_on)

    async def _result(self, said: Perform) -> Done | Failed | InDoubt | None:
        doing = self._doing[said.effector]
        attempt = self._attempt(said)
        if said.verify:
            return await doing.verify(said.record, said.call, said.ask, attempt)
        return await doing.perform(said.record, said.call, said.ask, attempt)

    def _attempt(self, said: Perform) -> Attempt:
        beats: set[asyncio.Task[None]] = set()
        loop = asyncio.get_running_loop()

        def heartbeat(state: object) -> None:
            task = loop.create_task(
                self._line.say(Beat(number=said.number, state=_portable(state)))
            )
            beats.add(task)
            task.add_done_callback(beats.discard)

        async def progress(text: str) -> None:
            await self._line.say(Text(number=said.number, text=text))

        return Attempt(
            id=said.attempt,
            number=said.tried,
            heartbeat=heartbeat,
            progress=progress,
            last_state=said.last_state,
        )


def take_turn(platform: Platform, said: TakeTurn, going_on: Callable[[], None]) -> None:
    """Take one turn of an agent over the rows of its run; nothing of it is kept.

    What it needs by reference is waited for: a turn that stopped for want of a value was not tried.

    Raises:
        TransientError: The store of blobs is away.
    """
    fetch = Fetch()
    while True:
        try:
            _turn(platform, said, fetch, going_on)
        except AbsentError as absent:
            fetch.begin(platform.parts.blobs, absent.tenant, absent.names)
            fetch.take()
        else:
            return


def _turn(platform: Platform, said: TakeTurn, fetch: Fetch, going_on: Callable[[], None]) -> None:
    place, table = said.record.partition, Table(said.rows)
    meta, message = platform.envelope(f"runs.{said.agent}").open(said.record)
    at = Position(platform.log.topic_id(place.topic), place.topic, place.number, said.record.offset)
    timer = table.get(Timer, *message.name) if isinstance(message, Wake) else None
    if timer is not None:
        meta = dataclasses.replace(timer.meta, id=meta.id)
    turn = Turn(table, at=at, meta=meta, now_ms=said.record.time_ms, at_hand=fetch)
    if timer is not None:
        turn.drop(timer)
    platform.runs_decider(said.agent, going_on=going_on).react(turn, message)


async def serve(
    platform: Platform,
    settings: Settings,
    posts: Posts,
    line: Line,
    *,
    roles: Collection[str],
    services: Collection[str],
) -> None:
    """Be a cell: load what the process's roles need, and do what is said on the line.

    Args:
        platform: The app.
        settings: The settings.
        posts: The cell's posts.
        line: To whoever asked for the cell.
        roles: Of the process.
        services: Its tool services.
    """
    loop = asyncio.get_running_loop()
    loop.set_default_executor(
        concurrent.futures.ThreadPoolExecutor(settings.loops.threads_max, "sync-tools")
    )
    beating = loop.create_task(_beat(posts))
    async with contextlib.AsyncExitStack() as stack:
        effectors: list[Effector] = []
        if "models" in roles and platform.app.models:
            effectors.append(platform.model_effector(settings=settings))
        if "tools" in roles:
            lifespan = platform.app.lifespans.get("tools")
            deps = await stack.enter_async_context(entered(lifespan, settings))
            effectors += [platform.tool_effector(service, deps) for service in services]
        await Cell(line, posts, platform, effectors).run()
    beating.cancel()


async def _beat(posts: Posts) -> None:
    """Say that the event loop turns."""
    while True:
        posts.beat()
        await asyncio.sleep(_BEAT_S)


def _raised(number: int, error: BaseException) -> Raised:
    name, words = describe(error)
    if isinstance(error, TransientError):
        kind = "not-done" if isinstance(error, NotDone) else "transient"
        return Raised(
            number=number, kind=kind, name=name, words=words, retry_after_s=error.retry_after_s
        )
    if isinstance(error, PoisonError):
        return Raised(number=number, kind="poison", name=error.code, words=words)
    kind = "timeout" if type(error) is TimeoutError else "other"
    return Raised(number=number, kind=kind, name=name, words=words)


def _portable(state: object) -> object:
    """Return a heartbeat's state if it can travel to another process, else nothing."""
    try:
        pickle.dumps(state)
    except Exception:  # noqa: BLE001 - a user's object may refuse in any way
        logger.warning("a heartbeat's state of %s cannot travel", type(state).__name__)
        return None
    return state
