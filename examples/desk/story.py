"""A day at the desk: customers write, a person decides, and everything that happens is told as it happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import rich.console
import rich.markup
from examples.desk.types import Answer, Decision, Message

import headwater
from headwater.client import RefusedError, Task

LETTERS = (
    Message(customer="ana", text="My card 4711 was stolen!"),
    Message(customer="ben", text="How much have I got?"),
    Message(customer="ben", text="Please send 20 euros to ana"),
    Message(customer="ana", text="Transfer 5000.00 euros to carl"),
    Message(customer="ana", text="Pay 75.50 to mule"),
)
READY_S_MAX = 90.0
STORY_S_MAX = 120.0
LOOK_S = 0.1
THINK_S = 0.5
"""How long the person looks at a transfer."""

Raw = Callable[[bytes], Awaitable[None]]
"""Publishes any bytes to the desk's command topic, as a producer with a bug would."""


class Timeline:
    """Prints what happens, with the seconds since the first letter."""

    def __init__(self) -> None:
        self._console = rich.console.Console(highlight=False)
        self._began_s = time.monotonic()

    def say(self, who: str, what: str, style: str = "") -> None:
        """Print one line."""
        at = f"{time.monotonic() - self._began_s:7.3f}"
        line = f"[dim]{at}[/] [bold]{who:<4}[/] {rich.markup.escape(what)}"
        self._console.print(f"[{style}]{line}[/]" if style else line, soft_wrap=True)

    def head(self, title: str) -> None:
        """Print a heading."""
        self._console.print(f"\n[bold]{rich.markup.escape(title)}[/]")


async def play(url: str, raw: Raw) -> list[str]:
    """Tell the story.

    Args:
        url: The gateway.
        raw: Publishes bytes as they are.

    Returns:
        Task ids, in the order of the letters.

    Raises:
        TimeoutError: It did not come to its end.
    """
    async with headwater.Client(url) as hw, asyncio.timeout(STORY_S_MAX + READY_S_MAX):
        await ready(hw)
        line = Timeline()
        line.head("Letters to the desk")
        async with asyncio.TaskGroup() as group:
            followed = [
                group.create_task(_follow(hw, line, letter, number))
                for number, letter in enumerate(LETTERS, start=1)
            ]
            group.create_task(_malformed(hw, line, raw))
        return [task.result() for task in followed]


async def ready(hw: headwater.Client) -> None:
    """Wait until the gateway answers.

    Raises:
        TransientError: It does not.
    """
    until_s = time.monotonic() + READY_S_MAX
    while True:
        try:
            await hw.get("/readyz")
        except headwater.TransientError:
            if time.monotonic() > until_s:
                raise
        else:
            return


async def _follow(hw: headwater.Client, line: Timeline, letter: Message, number: int) -> str:
    """Publish one letter and tell what becomes of it."""
    who = f"#{number}"
    line.say(who, f"{letter.customer} writes: {letter.text}", "cyan")
    task = await hw.submit("desk", letter, output=Answer)
    words = ""
    async for event in task.events():
        data = event["data"]
        if event["event"] == "token":
            words += data["text"]
            continue
        for note in data.get("calls") or ():
            line.say(who, _call(note))
        if "signal Decision" in (data.get("reason") or "") and data["status"] == "waiting":
            await _decide(task, line, letter, who)
    answer = await task.result()
    if words:
        line.say(who, f"streamed: {words}")
    for done in answer.done:
        line.say(who, done)
    line.say(who, f"answer: {answer.text}", "green")
    return task.id


def _call(note: dict[str, Any]) -> str:
    what = f"{note['kind']} {note['name']}"
    if note["state"] == "asked":
        return f"  asks {what}"
    return f"  {what} {note['state']}{': ' + note['detail'] if note.get('detail') else ''}"


async def _decide(task: Task, line: Timeline, letter: Message, who: str) -> None:
    """Be the person of the bank."""
    line.say(who, "waits for a person's decision", "yellow")
    await asyncio.sleep(THINK_S)
    approve = "mule" not in letter.text
    decision = Decision(approve=approve, by="eva", reason="" if approve else "known receiver")
    line.say(who, f"eva {'approves' if approve else 'declines'}", "yellow")
    await task.signal("Decision", decision)


async def _malformed(hw: headwater.Client, line: Timeline, raw: Raw) -> None:
    """Send what nobody can take, over HTTP and straight into the topic."""
    try:
        await hw.submit("desk", {"customer": "cid", "text": 7})
    except RefusedError as error:
        line.say("http", f"refused with {error.status}: {error}", "red")
    await raw(b"these bytes are no letter")
    found = await _kept(hw)
    line.say("raw", f"quarantined as {found['code']}: {found['message']}", "red")


async def _kept(hw: headwater.Client) -> dict[str, Any]:
    """Return the newest record in quarantine, once there is one."""
    while True:
        records: list[dict[str, Any]] = (await hw.get("/api/v1/quarantine"))["records"]
        if records:
            return records[0]
        await asyncio.sleep(LOOK_S)
