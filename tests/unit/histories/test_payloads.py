"""What open runs hold of users' types, and types that can read it no more."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pydantic
import pytest

import headwater
from headwater import histories
from headwater.contracts.catalog import Schemas
from headwater.payloads import Payloads
from headwater.testing import App


class Card(pydantic.BaseModel):
    number: str


class Grown(pydantic.BaseModel):
    number: str
    limit: int = 0


class Broken(pydantic.BaseModel):
    number: str
    limit: int


def bank(card: type) -> headwater.App:
    """Return an app whose tool and child answer with these types."""
    app = headwater.App("bank")

    async def look(account: str) -> Any:
        return Card(number=account)

    async def child(ctx: headwater.Context, text: str) -> Any:
        return Card(number=text)

    renamed = type("Card", (card,), {"__module__": __name__})
    look.__annotations__["return"] = renamed
    child.__annotations__["return"] = renamed
    tool = app.tool(effect="read")(look)
    agent = app.agent(child)

    @app.agent
    async def desk(ctx: headwater.Context, task: str) -> str:
        await tool(task)
        await agent(task)
        await ctx.receive("go")
        return task

    return app


async def journals(app: headwater.App, count: int) -> list[histories.History]:
    """Return the journals of some runs that wait for a signal."""
    found = []
    async with App(app) as test:
        for _n in range(count):
            await test.start(app.agents["desk"], "4711")
        for table in histories.tables(test.platform, "desk"):
            for run in [*table.scan(histories.Run)]:
                history = histories.of(test.platform, table, run.run)
                assert history is not None
                found.append(history)
    return found


@pytest.fixture(scope="module")
def written() -> tuple[list[histories.History], Schemas]:
    app = bank(Card)
    return asyncio.run(journals(app, 2)), app.schemas


def test_types_that_grew_by_a_default_read_what_is_there(
    written: tuple[list[histories.History], Schemas],
) -> None:
    """A field with a default may come while runs are open."""
    found, schemas = written
    reader = Payloads(bank(Grown), schemas)
    for history in found:
        reader.take(history)
    assert reader.unread() == []


def test_types_that_cannot_are_named_with_how_many_runs_need_them(
    written: tuple[list[histories.History], Schemas],
) -> None:
    """Agent, whose result, field, and the number of runs that a deploy would stop."""
    found, schemas = written
    reader = Payloads(bank(Broken), schemas)
    for history in found:
        reader.take(history)
    child, unread = reader.unread()
    assert child.what == "the result of agent child"
    assert (unread.agent, unread.what, unread.runs) == ("desk", "the result of tool look", 2)
    assert "agent desk, 2 open runs: the result of tool look" in str(unread)
    assert "limit" in str(unread)


def test_schema_that_nobody_knows_is_said(
    written: tuple[list[histories.History], Schemas],
) -> None:
    """Without the writer's schema nothing can be read, whatever today's types are."""
    found, _known = written
    reader = Payloads(bank(Grown), Schemas())
    reader.take(found[0])
    assert "nobody knows the schema" in str(reader.unread()[0])
    assert "1 open run: " in str(reader.unread()[0])


def test_agents_that_are_gone_have_no_types(
    written: tuple[list[histories.History], Schemas],
) -> None:
    """Their runs are for `runs verify` to tell of."""
    found, schemas = written
    app = bank(Broken)
    del app.agents["desk"]
    reader = Payloads(app, schemas)
    reader.take(dataclasses.replace(found[0]))
    assert reader.unread() == []
