"""A day at the desk: customers write, a person decides, and everything that happens is told as it happens."""

from __future__ import annotations

import asyncio
import dataclasses
import time
import uuid
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import rich.console
import rich.markup
from examples.desk.app import desk
from examples.desk.types import Answer, Message

import headwater
from headwater.client import RefusedError, Task
from headwater.core.messages import task_id

TENANT = "default"
SOURCE = "letterbox"
"""What the producer calls itself."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What a person of the bank says, and why."""

    approve: bool
    by: str
    reason: str


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """What a customer writes, and how it must end.

    Args:
        message: The task.
        answer: What the customer must be told.
        decision: What the person of the bank says, where one must be asked.
        http: Whether it comes over HTTP; else a producer puts it into the topic as Avro.
    """

    message: Message
    answer: str
    decision: Decision | None = None
    http: bool = False


LETTERS = (
    Letter(
        message=Message(customer="ana", text="My card 4711 was stolen!"),
        answer="Card 4711 is blocked.",
    ),
    Letter(
        message=Message(customer="dora", text="How much have I got?"),
        answer="You have 310.20 euros.",
        http=True,
    ),
    Letter(
        message=Message(customer="ben", text="Please send 20 euros to ana"),
        answer="20.00 euros are on their way to ana.",
    ),
    Letter(
        message=Message(customer="ana", text="Transfer 5000.00 euros to carl"),
        answer="5000.00 euros are on their way to carl.",
        decision=Decision(approve=True, by="eva", reason="carl is known"),
    ),
    Letter(
        message=Message(customer="ana", text="Pay 75.50 to mule"),
        answer="Your transfer was declined.",
        decision=Decision(approve=False, by="eva", reason="known for fraud"),
        http=True,
    ),
)
REFUSED = "wrong-magic"
"""The class under which the malformed bytes must be kept."""
READY_S_MAX = 180.0
STORY_S_MAX = 240.0
LOOK_S = 0.1
THINK_S = 0.5
"""How long the person looks at a transfer."""

Produce = Callable[[bytes, Mapping[str, str]], Awaitable[None]]
"""Appends a value with headers to the desk's command topic, as any producer would."""


class OtherEndError(Exception):
    """Something did not end as it must."""


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


async def play(url: str, produce: Produce) -> list[str]:
    """Tell the story.

    Args:
        url: The gateway.
        produce: Puts records into the desk's topic.

    Returns:
        Task ids, in the order of the letters.

    Raises:
        ExceptionGroup: Of what did not end as it must.
        OtherEndError: It did not come to its end.
    """
    try:
        async with headwater.Client(url) as hw, asyncio.timeout(STORY_S_MAX + READY_S_MAX):
            await ready(hw)
            line = Timeline()
            line.head("Letters to the desk")
            async with asyncio.TaskGroup() as group:
                followed = [
                    group.create_task(_follow(hw, line, letter, number, produce))
                    for number, letter in enumerate(LETTERS, start=1)
                ]
                group.create_task(_malformed(hw, line, produce))
            return [task.result() for task in followed]
    except TimeoutError as error:
        raise OtherEndError(
            f"the story did not come to its end in {STORY_S_MAX + READY_S_MAX:.0f} s"
        ) from error


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


async def _follow(
    hw: headwater.Client, line: Timeline, letter: Letter, number: int, produce: Produce
) -> str:
    """Publish one letter and tell what becomes of it.

    Raises:
        OtherEndError: It is not what must.
    """
    who, message = f"#{number}", letter.message
    door = "over HTTP" if letter.http else "as Avro, from a producer"
    line.say(who, f"{message.customer} writes: {message.text} ({door})", "cyan")
    task = await _publish(hw, letter, produce)
    words, asked = "", False
    async for event in task.events():
        data = event["data"]
        if event["event"] == "token":
            words += data["text"]
            continue
        for note in data.get("calls") or ():
            line.say(who, _call(note))
        if not asked and "approval " in (data.get("reason") or ""):
            asked = True
            await _decide(hw, data["run"], line, letter, who)
    answer = await task.result()
    if words:
        line.say(who, f"streamed: {words}")
    for done in answer.done:
        line.say(who, done)
    line.say(who, f"answer: {answer.text}", "green")
    if answer.text != letter.answer:
        raise OtherEndError(f"{who} was answered {answer.text!r}, not {letter.answer!r}")
    if asked != (letter.decision is not None):
        raise OtherEndError(f"{who}: a person was {'' if asked else 'not '}asked")
    return task.id


async def _publish(hw: headwater.Client, letter: Letter, produce: Produce) -> Task:
    """Publish a letter at its door."""
    if letter.http:
        return await hw.submit(desk.name, letter.message, output=Answer)
    event_id = str(uuid.uuid4())
    headers = {
        "ce_specversion": "1.0",
        "ce_id": event_id,
        "ce_source": SOURCE,
        "ce_tenantid": TENANT,
        "content-type": "application/avro",
    }
    await produce(desk.input.encode(letter.message), headers)
    return Task(hw, task_id(TENANT, desk.name, SOURCE, event_id), Answer)


def _call(note: dict[str, Any]) -> str:
    what = f"{note['kind']} {note['name']}"
    if note["state"] == "waiting":
        by = f" by {note['by']}" if note.get("by") else ""
        return (
            f"  {what}: {note['verdict'].partition(': ')[0]}{by}"
            if note.get("verdict")
            else f"  asks {what}"
        )
    if note["state"] == "asked":
        return f"  asks {what}"
    return f"  {what} {note['state']}{': ' + note['detail'] if note.get('detail') else ''}"


async def _decide(hw: headwater.Client, run: str, line: Timeline, letter: Letter, who: str) -> None:
    """Be the person of the bank, who sees what is asked and decides about that.

    Raises:
        OtherEndError: Nobody should have been asked.
    """
    line.say(who, "waits for a person's decision", "yellow")
    if letter.decision is None:
        raise OtherEndError(f"{who} waits for a person, where none must be asked")
    waiting = await hw.approvals(run=run)
    while not waiting:
        await asyncio.sleep(LOOK_S)
        waiting = await hw.approvals(run=run)
    line.say(who, f"asked of {waiting[0]['to']}: {waiting[0]['words']}", "yellow")
    await asyncio.sleep(THINK_S)
    said = letter.decision
    verdict, verb = ("approve", "approves") if said.approve else ("deny", "declines")
    line.say(who, f"{said.by} {verb}: {said.reason}", "yellow")
    await hw.decide(waiting[0], verdict, by=said.by, reason=said.reason)


async def _malformed(hw: headwater.Client, line: Timeline, produce: Produce) -> None:
    """Send what nobody can take, over HTTP and straight into the topic.

    Raises:
        OtherEndError: It was taken, or refused as something else.
    """
    try:
        await hw.submit(desk.name, {"customer": "cid", "text": 7})
    except RefusedError as error:
        line.say("http", f"refused with {error.status}: {error}", "red")
    else:
        raise OtherEndError("HTTP took a task that is not of the desk's type")
    before = {record["id"] for record in await _kept(hw)}
    await produce(b"these bytes are no letter", {"ce_tenantid": TENANT})
    found: list[dict[str, Any]] = []
    while not found:
        await asyncio.sleep(LOOK_S)
        found = [record for record in await _kept(hw) if record["id"] not in before]
    code, message = found[0]["code"], found[0]["message"]
    line.say("raw", f"quarantined as {code}: {message}", "red")
    if code != REFUSED:
        raise OtherEndError(f"the malformed bytes were refused as {code}, not {REFUSED}")


async def _kept(hw: headwater.Client) -> list[dict[str, Any]]:
    """Return the newest records in quarantine."""
    records: list[dict[str, Any]] = (await hw.get("/api/v1/quarantine"))["records"]
    return records
