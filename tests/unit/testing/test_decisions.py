"""The checker of people's decisions: silent over what is sound, and it speaks up over what is not."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

import headwater
from headwater.contracts.approvals import ApprovalEvent
from headwater.contracts.messages import Ask
from headwater.contracts.records import Partition
from headwater.testing import App
from headwater.testing.invariants import Act, Book, violations


class World:
    """Payments: one is approved, one is in doubt and made again by a person's word, one is denied."""

    def __init__(self) -> None:
        self.acts: list[Act] = []
        app = self.app = headwater.App("bank")

        @app.tool(effect="irreversible", approve_if=lambda cents: cents > 100)
        async def pay(call: headwater.Call[Any], cents: int) -> int:
            again = any(act.key == call.idempotency_key for act in self.acts)
            key, at_ms = call.idempotency_key, self.test.now_ms
            self.acts.append(
                Act(key=key, name="pay", safety="irreversible", holder="local", at_ms=at_ms)
            )
            if cents == 300 and not again:
                raise ConnectionError("the line broke")
            return cents

        @app.agent
        async def desk(ctx: headwater.Context, cents: int) -> int:
            try:
                return await pay(cents)
            except headwater.Denied:
                return 0

        self.desk = desk

    async def book(self) -> Book:
        """Run and return what was written."""
        async with App(self.app) as test:
            self.test = test
            first, second, third = [
                await test.start(self.desk, cents, actor="kim") for cents in (200, 300, 400)
            ]
            await test.approve(first, by="ana")
            await test.approve(second, by="ana")
            await test.decide(second, "not-happened", by="ana")
            await test.deny(third, by="ana")
            assert [await one.result() for one in (first, second, third)] == [200, 300, 0]
            log, platform = test.log, test.platform
            offsets = {
                (group, place): log.offset(group, place) or 0
                for group, topics in platform.layout.groups().items()
                for topic in topics
                for place in (Partition(topic, n) for n in range(log.partitions(topic)))
            }
            return Book(
                records=[record for topic in log.topics() for record in test.records(topic)],
                codec=platform.codec,
                namespace=platform.names.namespace,
                acts=self.acts,
                offsets=offsets,
            )


@pytest.fixture(scope="module")
def book() -> Book:
    return asyncio.run(World().book())


def changed(book: Book, change: Callable[[Any], Any]) -> Book:
    """Put other messages in the place of those that `change` changes; `None` drops one."""
    records = []
    for record in book.records:
        message = None if record.value is None else book._message(record)
        other = message if message is None else change(message)
        if message is not None and other is None:
            continue
        if other is not message:
            record = dataclasses.replace(record, value=book.codec.encode(other))  # noqa: PLW2901 - it stands for it
        records.append(record)
    return dataclasses.replace(book, records=records)


def events(status: str, **changes: Any) -> Callable[[Any], Any]:
    """Change events of a status; without changes drop them."""

    def change(message: Any) -> Any:
        if not isinstance(message, ApprovalEvent) or message.status != status:
            return message
        return dataclasses.replace(message, **changes) if changes else None

    return change


def other_arguments(message: Any) -> Any:
    return dataclasses.replace(message, arguments=b"x") if isinstance(message, Ask) else message


CONTROLS: list[tuple[int, str, Callable[[Any], Any]]] = [
    (8, "was sent, and nobody approved it", events("approved")),
    (8, "was sent to begin after its approval expired", events("asked", expires_ms=1)),
    (8, "was approved by who asked for it", events("approved", by="kim")),
    (8, "was sent with other arguments than were approved", other_arguments),
    (8, "was made 2 times", events("not-happened")),
    (4, "was sent 2 times", events("not-happened")),
]


def test_a_sound_world_violates_nothing(book: Book) -> None:
    """Sent once for each yes, and once more for the word that it had not happened."""
    assert violations(book) == []
    assert len(book.acts) == 3
    assert sorted(len(asks) for asks in book.asks.values()) == [1, 2]


@pytest.mark.parametrize(("number", "words", "change"), CONTROLS, ids=[of[1] for of in CONTROLS])
def test_what_people_did_not_say_is_noticed(
    book: Book, number: int, words: str, change: Callable[[Any], Any]
) -> None:
    """A checker that a broken world passes shows nothing."""
    found = violations(changed(book, change), {number})
    assert any(words in violation.what for violation in found), found


def test_what_is_made_after_its_approval_expired_is_noticed(book: Book) -> None:
    """The world outside tells when."""
    late = [dataclasses.replace(act, at_ms=act.at_ms * 2) for act in book.acts]
    found = violations(dataclasses.replace(book, acts=late), {8})
    assert any("was made after its approval expired" in violation.what for violation in found)
