"""`headwater init`: a new project that runs, offline and without keys."""

from __future__ import annotations

import pathlib
import re
import sys
from typing import Annotated

import typer

from headwater.cli import shell

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,39}")

_PYPROJECT = """\
[project]
name = "{name}"
version = "0.1.0"
requires-python = ">=3.11"
dependencies = ["headwater"]

[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[tool.hatch.build.targets.wheel]
only-include = ["{module}.py"]

[tool.headwater]
app = "{module}:app"
tenant = "local"

[tool.pytest.ini_options]
pythonpath = ["."]
"""

_MODULE = '''\
"""{name}: an agent that asks a tool and a model."""

from typing import Any

import headwater
from pydantic_ai.models.test import TestModel


def offline(settings: Any) -> TestModel:
    """Answer without a provider; a name such as "openai:gpt-5-mini" in its place asks a real one."""
    return TestModel(custom_output_text="Your balance is 1,250.00.")


app = headwater.App("{name}")
small = app.model("small", offline, price=headwater.usd_per_million(input_usd=0, output_usd=0))


@app.tool(effect="read")
async def balance(account: str) -> str:
    """Say what is in an account."""
    return "1,250.00"


@app.agent
async def answer_question(ctx: headwater.Context, question: str) -> str:
    """Answer a customer's question."""
    facts = await balance("42")
    return await small(f"The balance is {{facts}}.\\n\\nAnswer: {{question}}")
'''

_README = """\
# {name}

    headwater dev          # every role in one process; it forgets everything at exit

In another shell, with the same environment and in this directory:

    headwater tasks publish answer_question --json '"How much have I got?"' --wait
    headwater runs list

`{module}.py` is the whole app. Its model answers without a provider; put the name of a real one in
its place, for example `app.model("small", "openai:gpt-5-mini")`, whose price is known, and the
provider's key into the environment.
"""

_IGNORED = ".venv/\n__pycache__/\n.headwater/\n"


def files(name: str) -> dict[str, str]:
    """Return a new project's files: path in it, to text."""
    module = name.replace("-", "_")
    texts = {
        "pyproject.toml": _PYPROJECT,
        f"{module}.py": _MODULE,
        "README.md": _README,
        ".gitignore": _IGNORED,
    }
    return {path: text.format(name=name, module=module) for path, text in texts.items()}


def init(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="The project's name, and its directory's.")
    ],
    dry_run: shell.DryRun = False,
    output: shell.Output = shell.Format.TABLE,
) -> None:
    """Make a new project that runs."""
    module = name.replace("-", "_")
    if not _NAME.fullmatch(name):
        raise shell.RefusedError(
            f"{name!r} is no project name: a-z, then up to 39 of a-z 0-9 _ -",
            status=shell.WRONG_USAGE,
        )
    if module in sys.stdlib_module_names or module in ("headwater", "pydantic", "pydantic_ai"):
        raise shell.RefusedError(
            f"a module {module!r} would hide another of that name: choose another name",
            status=shell.WRONG_USAGE,
        )
    home = pathlib.Path(name)
    if home.exists() and (not home.is_dir() or any(home.iterdir())):
        raise shell.RefusedError(f"{home} is there already: choose another name, or empty it")
    made = files(name)
    if not dry_run:
        home.mkdir(exist_ok=True)
        for path, text in made.items():
            (home / path).write_text(text, encoding="utf-8")
    if output is shell.Format.JSON:
        shell.document({"directory": str(home), "files": sorted(made), "written": not dry_run})
        return
    for path in sorted(made):
        print(f"{'would write' if dry_run else 'wrote'} {home / path}")
    if not dry_run:
        shell.note(f"next: cd {name} && headwater dev")
