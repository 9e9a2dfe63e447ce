"""A tree of runs: what its members spend stays within the limit of its root."""

from __future__ import annotations

import asyncio

import pytest

import headwater
from headwater.contracts.messages import Reply
from headwater.runs import life
from headwater.testing import App, Scripted

app = headwater.App("tree")
small = app.model("small", "test:small", price=headwater.usd_per_million(input_usd=1, output_usd=1))
LIMIT_USD = 0.001
CHILDREN = 50


@app.agent(budget=headwater.Budget(usd=LIMIT_USD / 4))
async def hasty(ctx: headwater.Context, number: int) -> int:
    """Asks a model, and ends before it has an answer."""
    asking = asyncio.create_task(small(f"what of {number}?", settings={"max_tokens": 1}))
    await asyncio.sleep(0)
    asking.cancel()
    return number


@app.agent(budget=headwater.Budget(usd=LIMIT_USD, steps=CHILDREN * 10))
async def root(ctx: headwater.Context, question: str) -> int:
    return sum([await hasty(number) for number in range(CHILDREN)])


@app.agent
async def thorough(ctx: headwater.Context, number: int) -> str:
    return await small(f"what of {number}?", settings={"max_tokens": 1})


@app.agent
async def hurried(ctx: headwater.Context, question: str) -> str:
    both = await asyncio.gather(thorough(1), thorough(2), thorough(3), return_exceptions=True)
    return str([one for one in both if isinstance(one, BaseException)])


async def bills() -> list[int]:
    """Return what the provider asked for each call of a tree, in billionths of a dollar."""
    async with App(app, models={small: Scripted(["yes"] * CHILDREN)}) as test:
        run = await test.start(root, "what of all?")
        await test.settle()
        assert run.status == "completed"
        records = test.records(test.platform.names.inbox("hasty"))
        messages = [test.platform.codec.decode(record.value) for record in records]
    return [one.usage.usd_nano for one in messages if isinstance(one, Reply) and one.usage]


@pytest.mark.parametrize("control", [False, True], ids=["", "control"])
def test_children_that_leave_calls_behind_pass_no_limit_of_their_root(control, monkeypatch):
    """The bills that come to nobody were counted before; the control tells of what was settled alone."""
    if control:
        monkeypatch.setattr(life, "bill", lambda visit: visit.run.spent)
    paid = asyncio.run(bills())
    assert len(paid) > 1
    assert (sum(paid) > LIMIT_USD * 1e9) is control, sum(paid)


def test_a_child_for_which_nothing_is_left_says_whose_limit_it_is() -> None:
    """Its own budget is a dollar, so that "0 USD" alone would puzzle its author."""

    async def said() -> str:
        async with App(app, models={small: Scripted(["yes"] * 3)}) as test:
            run = await test.start(hurried, "what of all?")
            return str(await run.result())

    assert "limit of 0 USD, as given by its parent" in asyncio.run(said())
