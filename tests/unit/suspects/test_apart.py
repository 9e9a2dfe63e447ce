"""Apart: suspects in cells that die as they are told, over real lines."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from headwater.core.effector import Attempt, Done
from headwater.durable.failure import ToldError
from headwater.errors import NotDone, PoisonError, TransientError
from headwater.runtime.apart import Apart, DiedError
from headwater.runtime.lines import Beat, Cut, Gone, Line, Raised, Ready, Returned, Text
from headwater.runtime.retrying import AbandonedError

pytestmark = pytest.mark.anyio


class Cells:
    """Cells as tasks of this process; a word that is a killer's ends its cell."""

    def __init__(self, *, unready: int = 0, said: bool = True) -> None:
        self.opened = 0
        self.deaths = 0
        self.waits: list[float] = []
        self.cut: asyncio.Queue[int] = asyncio.Queue()
        self.unready = unready
        self.said = said
        self._tasks: set[asyncio.Task[None]] = set()
        self.go = asyncio.Event()

    async def open(self) -> Line:
        self.opened += 1
        mine, its = socket.socketpair()
        task = asyncio.create_task(self._live(await Line.over(its)))
        self._tasks.add(task)
        return await Line.over(mine)

    async def sleep(self, wait_s: float) -> None:
        self.waits.append(wait_s)

    async def _live(self, line: Line) -> None:
        try:
            if self.opened <= self.unready:
                return
            await line.say(Ready())
            while (said := await line.hear()) is not None:
                if isinstance(said, Cut):
                    self.cut.put_nowait(said.number)
                elif not await self._does(line, *said):
                    self.deaths += 1
                    if self.said:
                        await line.say(Gone(cause="signal 11"))
                    return
        finally:
            line.close()

    async def _does(self, line: Line, number: int, word: str) -> bool:
        if word == "kill":
            return False
        if word == "slow":
            await line.say(Beat(number=number, state="half"))
            await line.say(Text(number=number, text="so far"))
            await line.say(Text(number=0, text="to nobody"))
            await self.go.wait()
        if word in FAILURES:
            await line.say(Raised(number=number, kind=word, name="x.Name", words="its words"))
        else:
            await line.say(Returned(number=number, result=Done(value=word.encode())))
        return True


FAILURES = {
    "not-done": NotDone,
    "transient": TransientError,
    "poison": PoisonError,
    "timeout": TimeoutError,
    "other": ToldError,
}


class Heard:
    """Hears of one attempt."""

    def __init__(self) -> None:
        self.states: list[Any] = []
        self.texts: list[str] = []
        self.told = asyncio.Event()

    def attempt(self) -> Attempt:
        async def progress(text: str) -> None:
            self.texts.append(text)
            self.told.set()

        return Attempt(id="a", number=1, heartbeat=self.states.append, progress=progress)


def saying(word: str) -> Callable[[int], object]:
    return lambda number: (number, word)


def blaming(times: int, causes: list[str]) -> Callable[[str], Awaitable[bool]]:
    async def blame(cause: str) -> bool:
        causes.append(cause)
        return len(causes) < times

    return blame


async def _never(cause: str) -> bool:
    raise AssertionError(cause)


async def test_a_killer_is_found_alone_and_the_others_are_answered() -> None:
    """Innocents in the same cell are tried again without it, and never blamed."""
    cells, causes = Cells(), []
    apart = Apart(cells.open, cells_max=1)
    tasks = [
        asyncio.create_task(
            apart.among(saying("kill"), blaming(3, causes), attempt=Heard().attempt())
        ),
        *(
            asyncio.create_task(apart.among(saying(f"w{n}"), _never, attempt=Heard().attempt()))
            for n in range(9)
        ),
    ]
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(found[0], DiedError)
    assert [one.value for one in found[1:]] == [f"w{n}".encode() for n in range(9)]
    assert causes == ["signal 11"] * 3
    assert cells.deaths <= 3 + 4


async def test_a_death_without_a_word_is_one_too() -> None:
    """The line ends; that is enough."""
    cells, causes = Cells(said=False), []
    apart = Apart(cells.open)
    with pytest.raises(DiedError):
        await apart.alone(saying("kill"), blaming(2, causes))
    assert causes == ["it died"] * 2
    found = await apart.alone(saying("word"), _never)
    assert isinstance(found, Done)


async def test_a_cell_that_is_never_ready_blames_nobody() -> None:
    """It is asked for again, later and later."""
    cells = Cells(unready=2)
    apart = Apart(cells.open, sleep=cells.sleep)
    found = await apart.among(saying("word"), _never, attempt=Heard().attempt())
    assert isinstance(found, Done)
    assert cells.waits == [1.0, 2.0]


@pytest.mark.parametrize(("kind", "error"), FAILURES.items())
async def test_what_a_suspect_raises_is_raised(kind: str, error: type[Exception]) -> None:
    """An error is a survival, and reads as it did in the cell."""
    apart = Apart(Cells().open)
    with pytest.raises(error, match="its words") as raised:
        await apart.among(saying(kind), _never, attempt=Heard().attempt())
    assert type(raised.value) is error


async def test_heartbeats_and_progress_come_over_the_line() -> None:
    """A call does not know that it is tried."""
    cells, heard = Cells(), Heard()
    apart = Apart(cells.open)
    trial = asyncio.create_task(apart.among(saying("slow"), _never, attempt=heard.attempt()))
    await heard.told.wait()
    waits = None  # what is said of a suspect whose cell comes late
    assert [state for state in heard.states if state is not waits] == ["half"]
    assert heard.texts == ["so far"]
    cells.go.set()
    assert isinstance(await trial, Done)


async def test_a_slow_suspect_keeps_no_other_waiting() -> None:
    """There are several cells."""
    cells, heard = Cells(), Heard()
    apart = Apart(cells.open)
    slow = asyncio.create_task(apart.among(saying("slow"), _never, attempt=heard.attempt()))
    await heard.told.wait()
    assert isinstance(await apart.among(saying("w"), _never, attempt=Heard().attempt()), Done)
    cells.go.set()
    await slow


async def test_a_call_that_nobody_waits_for_is_cut() -> None:
    """Its cell hears of it, and its end changes nothing."""
    cells, heard = Cells(), Heard()
    apart = Apart(cells.open)
    trial = asyncio.create_task(apart.among(saying("slow"), _never, attempt=heard.attempt()))
    await heard.told.wait()
    trial.cancel()
    with pytest.raises(asyncio.CancelledError):
        await trial
    cells.go.set()
    assert await cells.cut.get() == 1


async def test_a_process_that_stops_leaves_trials_to_others() -> None:
    """Whoever waits is told at once, and nobody new is tried."""
    cells, heard = Cells(), Heard()
    apart = Apart(cells.open)
    trial = asyncio.create_task(apart.among(saying("slow"), _never, attempt=heard.attempt()))
    await heard.told.wait()
    apart.stop()
    with pytest.raises(AbandonedError):
        await trial
    with pytest.raises(AbandonedError):
        await apart.among(saying("w"), _never, attempt=heard.attempt())


async def test_whoever_waits_hears_of_a_failure_of_ours() -> None:
    """A bug must not look like a trial that takes long."""

    async def broken() -> Line:
        raise OSError("no more processes")

    apart = Apart(broken)
    with pytest.raises(RuntimeError, match="no more processes"):
        await apart.among(saying("w"), _never, attempt=Heard().attempt())
