"""Record what the examples, and an agent that waits, do: `python -m tests.replay.record [NAME...]`.

A run that ends drops its journal in the turn that ends it, so here that is left out; everything else
is as it is at work. Record again only where a change of meaning is wanted and no run is open.
"""

from __future__ import annotations

import asyncio
import dataclasses
import pathlib
import sys
import unittest.mock
from collections.abc import Awaitable, Callable
from typing import Any

from examples.answer import app as answer
from examples.desk import app as desk
from examples.desk.types import Message
from tests.replay import waits

from headwater import histories
from headwater.runs.life import Life
from headwater.sdk.app import App as SdkApp
from headwater.testing import App, Run, Scripted

HOME = pathlib.Path(__file__).parent / "histories"
Act = Callable[[App, Run], Awaitable[Any]]


async def _nothing(test: App, run: Run) -> None:
    """Let it go on by itself."""


async def _approve(test: App, run: Run) -> None:
    await test.approve(run, by="eva")


async def _decline(test: App, run: Run) -> None:
    await test.deny(run, by="eva", reason="unknown receiver")


async def _nobody(test: App, run: Run) -> None:
    await test.advance(hours=25)


async def _cancel(test: App, run: Run) -> None:
    await test.cancel(run, "the customer called")


async def _crash(test: App, run: Run) -> None:
    await test.crash()
    await test.approve(run, by="eva")


async def _go(test: App, run: Run) -> None:
    await test.advance(seconds=90)
    await test.signal(run, "go", "now")


MUCH = "Transfer 5000.00 euros to carl"
DESK: dict[str, tuple[str, Act]] = {
    "desk-lost-card": ("My card 4711 was stolen!", _nothing),
    "desk-question": ("How much have I got?", _nothing),
    "desk-transfer": ("Please send 20 euros to ana", _nothing),
    "desk-approved": (MUCH, _approve),
    "desk-declined": (MUCH, _decline),
    "desk-nobody-decided": (MUCH, _nobody),
    "desk-cancelled": (MUCH, _cancel),
    "desk-after-a-crash": (MUCH, _crash),
    "desk-open": (MUCH, _nothing),
}
WAITS: dict[str, Act] = {"waits-for-a-signal": _go, "waits-in-vain": _nobody}
ANSWER: dict[str, Scripted] = {
    "answer": Scripted(["You have 1,250.00."]),
    "answer-failed": Scripted([ValueError("the model is out of order")]),
}


def app_of(name: str) -> SdkApp:
    """Return whose history it is."""
    apps = {"answer": answer.app, "waits": waits.app}
    return apps.get(name.partition("-")[0], desk.app)


async def record(name: str) -> histories.History:
    """Run an example and return its history."""
    if name in ANSWER:
        test = App(answer.app, models={answer.small: ANSWER[name]})
        agent: Any = answer.answer_question
        task: Any = "How much have I got?"
        act: Act = _nothing
    elif name in WAITS:
        test, agent, task, act = App(waits.app), waits.waits, "come", WAITS[name]
    else:
        test, agent = App(desk.app), desk.desk
        text, act = DESK[name]
        task = Message(customer="ana", text=text)
    with unittest.mock.patch.object(Life, "_drop_rows"):
        async with test:
            run = await test.start(agent, task, id=name)
            await act(test, run)
            await test.settle()
            for table in histories.tables(test.platform, agent.name):
                history = histories.of(test.platform, table, run.id)
                if history is not None:
                    value = _result(test, agent.name, run.id)
                    return dataclasses.replace(
                        history, run=dataclasses.replace(history.run, value=value)
                    )
    raise AssertionError(f"{name}: the run is {run.status} and has no rows")


def _result(test: App, agent: str, run: str) -> bytes:
    """Return what the run published as its result; empty if it did not complete."""
    found = [value for kind, value in test.outcomes(agent, run) if kind.endswith(".completed")]
    return found[0] if found else b""


def main(names: list[str]) -> None:
    """Write the files."""
    for name in names or [*DESK, *WAITS, *ANSWER]:
        history = asyncio.run(record(name))
        path = HOME / f"{name}.jsonl"
        path.write_text("".join(f"{line}\n" for line in histories.dump(history)), encoding="utf-8")
        said = f"{path.name}: {len(history.entries)} entries, {history.run.ending or 'open'}"
        sys.stdout.write(f"{said}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
