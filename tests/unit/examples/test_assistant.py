"""An agent of pydantic-ai inside a headwater agent, in memory."""

from __future__ import annotations

import asyncio
import pathlib
from typing import Any

import pytest
from examples.assistant.app import Answer, answer, app, small

import headwater
from headwater.models.scripted import Scripted
from headwater.testing import App, Run

ROOT = pathlib.Path(__file__).parents[3]
QUESTION = "How much is in accounts 42 and 43?"


def ask(script: Any = None) -> tuple[Any, Run]:
    """Have the question answered; return the answer and its run."""

    async def main() -> tuple[Any, Run]:
        async with App(app, models={} if script is None else {small: script}) as t:
            run = await t.start(answer, QUESTION)
            return await run.result(), run

    return asyncio.run(main())


def test_each_request_and_each_tool_is_a_call_of_the_run() -> None:
    """Tools that the model calls together are under way together, and their returns reach it."""
    told, run = ask()
    assert told == Answer(cents=125_000, words="Both together: 1,250.00.")
    assert [f"{call.kind} {call.name}" for call in run.calls] == [
        "model small", "tool look_up", "tool look_up", "model small",
    ]  # fmt: skip


def test_what_does_not_fit_is_sent_back_by_pydantic_ai() -> None:
    """Its own retries are calls as well: words where a type is wanted, then a wrong argument."""
    prompts = []
    answers = iter(
        [
            {"answer": "much"},
            {"calls": [{"tool": "balance", "arguments": {"number": 1}}]},
            {"calls": [{"tool": "final_result", "arguments": {"cents": 1, "words": "one"}}]},
        ]
    )

    def script(prompt: str) -> Any:
        prompts.append(prompt)
        return next(answers)

    told, run = ask(script)
    assert told == Answer(cents=1, words="one")
    assert [call.kind for call in run.calls] == ["model"] * 3
    assert "failed the application's validation" in prompts[1]
    assert prompts[2].startswith("balance returned: ")
    assert "Field required" in prompts[2]


def test_a_run_that_crashes_asks_for_nothing_twice() -> None:
    """What was answered is replayed, and the rest goes on elsewhere."""
    asked = 0

    async def main() -> tuple[Any, int]:
        waits = headwater.TransientError("away", retry_after_s=60)

        def script(prompt: str) -> Any:
            nonlocal asked
            asked += 1
            if asked == 1:
                return {"calls": [{"tool": "balance", "arguments": {"account": "42"}}]}
            if asked == 2:
                return waits
            return {"calls": [{"tool": "final_result", "arguments": {"cents": 2, "words": "two"}}]}

        async with App(app, models={small: Scripted(script)}) as t:
            run = await t.start(answer, QUESTION)
            await t.settle()
            await t.crash()
            await t.advance(seconds=120)
            return await run.result(), len(run.calls)

    told, calls = asyncio.run(main())
    assert (told, calls) == (Answer(cents=2, words="two"), 3)
    assert asked == 3


def test_the_page_shows_this_code() -> None:
    """What a newcomer copies is what is tested."""
    page = (ROOT / "docs/how-to/bring-an-agent.md").read_text(encoding="utf-8")
    code = (ROOT / "examples/assistant/app.py").read_text(encoding="utf-8")
    shown = page.split("```python\n", 1)[1].split("```", 1)[0]
    assert shown.strip() in code


@pytest.mark.parametrize("text", [True, False])
def test_the_model_is_told_how_to_end(text: bool) -> None:
    """By a call where the agent wants a type, in words where it wants text."""
    from examples.assistant.through import rules  # noqa: PLC0415 - one test's own
    from pydantic_ai.models import ModelRequestParameters  # noqa: PLC0415 - the same

    said = rules(ModelRequestParameters(allow_text_output=text)).parts[0].content
    assert ("`answer`, without calls" in said) == text
