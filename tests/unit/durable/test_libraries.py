"""asyncio's and anyio's habits that depend on addresses or threads are gone in turns, and only there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import anyio.to_thread
import pytest
from tests.unit.durable.plays import Play, ask

from headwater.core.execution import Returned
from headwater.durable import libraries
from headwater.durable.running import Session


def inside(act: Callable[[], Any]) -> Any:
    """Return what the coroutine of `act` returns inside a turn."""
    found: list[Any] = []

    async def main(session: Session) -> bytes:
        found.append(await act())
        return b""

    ended = Play(main).first.ended
    assert isinstance(ended, Returned), ended
    return found[0]


def test_as_completed_starts_in_the_order_given() -> None:
    """Numbers of calls follow the program, not the addresses of coroutines."""

    async def main(session: Session) -> bytes:
        found = [await one for one in asyncio.as_completed([ask(f"{n}") for n in range(50)])]
        return b"".join(found)

    play = Play(main)
    assert [call.name for call in play.first.asked] == [f"{n}" for n in range(50)]
    for number in range(50, 1, -1):
        play.answer(number, b"%d," % number)
    ended = play.answer(1, b"1").ended
    assert isinstance(ended, Returned)
    assert ended.value == b"".join(b"%d," % number for number in range(50, 1, -1)) + b"1"


def test_as_completed_is_asyncios_otherwise() -> None:
    """Wrong arguments are refused in asyncio's words, and other loops are not touched."""

    async def wrong() -> str:
        with pytest.raises(TypeError, match="iterable of futures"):
            list(asyncio.as_completed(asyncio.get_running_loop().create_future()))  # type: ignore[arg-type] # a mistake of users
        return "refused"

    async def right() -> list[int]:
        return [await one for one in asyncio.as_completed([asyncio.sleep(0, 3)])]

    assert inside(wrong) == "refused"
    assert asyncio.run(right()) == [3]


def test_other_loops_keep_their_tasks_and_threads() -> None:
    """Importing the library changes nothing for a host's own asyncio."""

    async def host() -> bool:
        assert asyncio.all_tasks() == {asyncio.current_task()}
        with anyio.CancelScope() as scope:  # noqa: ASYNC100 - only its hash matters
            assert hash(scope) == hash(scope)
        gathering = asyncio.gather(asyncio.sleep(0))
        assert len({gathering}) == 1
        await gathering
        return await anyio.to_thread.run_sync(threading.get_ident) != threading.get_ident()

    assert asyncio.run(host())
    libraries.prepare()
    assert asyncio.run(host())


def test_anyio_sees_asyncio_and_runs_blocking_functions_inline() -> None:
    """Libraries on anyio need no adapter."""

    async def act() -> bool:
        return await anyio.to_thread.run_sync(threading.get_ident) == threading.get_ident()

    assert inside(act)


def test_hashes_are_the_same_in_every_execution() -> None:
    """Futures, tasks, gathers and cancel scopes hash by when the run first did so."""

    async def act() -> list[int]:
        loop = asyncio.get_running_loop()
        task = loop.create_task(asyncio.sleep(0))
        future, scope, gathering = loop.create_future(), anyio.CancelScope(), asyncio.gather(task)
        found = [hash(one) for one in (task, future, scope, gathering)]
        assert found == [hash(one) for one in (task, future, scope, gathering)]
        await gathering
        return found

    first = inside(act)
    assert first == inside(act)
    assert len(set(first)) == 4
