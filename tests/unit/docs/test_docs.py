"""The documentation says what is so: links lead somewhere, examples build, decisions have their parts."""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess

import pytest

_ROOT = pathlib.Path(__file__).parents[3]
_PAGES = sorted([*_ROOT.glob("*.md"), *(_ROOT / "docs").rglob("*.md")])
_DECISIONS = sorted((_ROOT / "docs/decisions").glob("[0-9]*.md"))
_LINK = re.compile(r"\]\(([^)#]+)(?:#[^)]*)?\)")
_CODE = re.compile(r"^( *)```python\n(.*?)^\1```", re.MULTILINE | re.DOTALL)


def _name(path: pathlib.Path) -> str:
    return str(path.relative_to(_ROOT))


def dead_links(text: str, home: pathlib.Path) -> list[str]:
    """Return relative links that lead nowhere."""
    return [
        target
        for target in _LINK.findall(text)
        if "://" not in target and not (home / target).exists()
    ]


def python_blocks(text: str) -> list[str]:
    """Return a page's Python examples, without their indentation."""
    return [
        re.sub(f"^{indent}", "", code, flags=re.MULTILINE) for indent, code in _CODE.findall(text)
    ]


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_links_lead_somewhere(page: pathlib.Path) -> None:
    """A page names what is there."""
    assert dead_links(page.read_text(encoding="utf-8"), page.parent) == []


def test_a_dead_link_is_found(tmp_path: pathlib.Path) -> None:
    """The control."""
    assert dead_links("[a](b.md) [c](https://x.example) [d](b.md#e)", tmp_path) == ["b.md", "b.md"]


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_examples_are_python(page: pathlib.Path) -> None:
    """Every Python block parses, awaits at its top included."""
    for block in python_blocks(page.read_text(encoding="utf-8")):
        compile(block, _name(page), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)


def test_the_agent_of_the_readme_is_a_whole_app() -> None:
    """Ten lines, and it builds: one agent, one tool, one model."""
    (block,) = python_blocks((_ROOT / "README.md").read_text(encoding="utf-8"))
    found: dict[str, object] = {"__name__": "readme"}
    exec(compile(block, "README.md", "exec"), found)  # noqa: S102 - the page is ours
    app = found["app"]
    assert [*app.agents] == ["answer_question"]
    assert [*app.tools] == ["balance"]
    assert [*app.models] == ["small"]


def test_the_models_of_the_page_on_models_are_declared() -> None:
    """What it shows first builds: a name of a provider, and a function for an address of one's own."""
    blocks = python_blocks((_ROOT / "docs/how-to/use-models.md").read_text(encoding="utf-8"))
    found: dict[str, object] = {"__name__": "page"}
    for block in blocks[:2]:
        exec(compile(block, "use-models.md", "exec"), found)  # noqa: S102 - the page is ours
    assert found["near"](None).base_url == "http://llm.internal:8000/v1/"  # type: ignore[operator] # a function
    assert [*found["app"].models] == ["local"]  # type: ignore[attr-defined] # an app


@pytest.mark.parametrize("page", _PAGES, ids=_name)
def test_the_checks_that_a_page_names_are_there(page: pathlib.Path) -> None:
    """A decision that says what checks it is checked."""
    named = re.findall(r"`(tests/[\w/.]+)`", page.read_text(encoding="utf-8"))
    assert [path for path in named if not (_ROOT / path).exists()] == []


@pytest.mark.parametrize("page", _DECISIONS, ids=_name)
def test_a_decision_says_why_and_what_checks_it(page: pathlib.Path) -> None:
    """Status, context, decision, what was rejected, consequences, check; numbered once."""
    text = page.read_text(encoding="utf-8")
    parts = re.findall(r"^## (\w+)", text, re.MULTILINE)
    assert parts == ["Context", "Decision", "Rejected", "Consequences", "Check"]
    assert re.search(r"^Status: \w+", text, re.MULTILINE)
    assert text.startswith(f"# {page.name[:4]} ")


def test_decisions_are_numbered_once() -> None:
    """Two pages with one number would be cited as each other."""
    numbers = [page.name[:4] for page in _DECISIONS]
    assert len(numbers) == len(set(numbers))


def test_changes_are_named_by_kind() -> None:
    """A release gathers them by their names."""
    for path in (_ROOT / "changelog.d").iterdir():
        assert re.fullmatch(r"[a-z0-9-]+\.(added|changed|fixed|security)\.md", path.name), path.name


def test_every_target_of_the_makefile_is_explained() -> None:
    """`make help` lists what there is."""
    text = (_ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)
    listed = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=_ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={k: v for k, v in os.environ.items() if not k.startswith("MAKE")},
    ).stdout
    assert [line.split()[0] for line in listed.splitlines()] == phony.split()
