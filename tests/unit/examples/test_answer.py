"""The README's agent."""

from __future__ import annotations

import asyncio
import pathlib

from examples.answer import app as answer

from headwater.testing import App

ROOT = pathlib.Path(__file__).parents[3]


def test_ten_lines_answer() -> None:
    """The facts reach the model, the model's words the customer."""

    async def main() -> str:
        script = {"42: 1,250.00": "You have 1,250.00."}
        async with App(answer.app, models={answer.small: script}) as t:
            run = await t.start(answer.answer_question, "How much have I got?")
            return str(await run.result())

    assert asyncio.run(main()) == "You have 1,250.00."


def test_readme_shows_this_code() -> None:
    """What a newcomer copies is what is tested."""
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("```python\n", 1)[1].split("```", 1)[0]
    code = pathlib.Path(answer.__file__).read_text().split('"""\n', 1)[1]
    code = code[code.index("import headwater") :]
    assert [*filter(None, shown.splitlines())] == [*filter(None, code.splitlines())]
