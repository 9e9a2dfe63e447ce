"""Every command that an operator may need at night has its place in a runbook."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import typer.main

from headwater.cli import main

_HOME = pathlib.Path(__file__).parents[3] / "docs/runbooks"
_INDEX = (_HOME / "README.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `headwater ([a-z -]+)` \| \[[^\]]+\]\(([^)#]+)#([^)]+)\) \|$", re.MULTILINE)
AUTHORS = frozenset({"init", "dev"})
"""Commands of whoever writes an app, on a laptop: no fleet and no log that outlives them."""


def commands(group: Any, *names: str) -> Iterator[str]:
    """Yield every command of the command line, as it is typed."""
    for name, of in group.commands.items():
        if hasattr(of, "commands"):
            yield from commands(of, *names, name)
        else:
            yield " ".join((*names, name))


def wanted() -> set[str]:
    return {*commands(typer.main.get_command(main.app))} - AUTHORS


def slug(heading: str) -> str:
    """Return a heading's anchor, as forges make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


def sections(text: str) -> dict[str, str]:
    """Return a page's sections: anchor, to what stands under its heading."""
    parts = re.split(r"^#+ (.*)$", text, flags=re.MULTILINE)
    return {slug(head): body for head, body in zip(parts[1::2], parts[2::2], strict=True)}


def missing(index: str, home: pathlib.Path) -> list[str]:
    """Return what is wrong with the table: commands without a row, rows without a section that says how."""
    rows = {command: (page, anchor) for command, page, anchor in _ROW.findall(index)}
    found = [f"{command} has no row" for command in sorted(wanted() - {*rows})]
    found += [f"{command} is no command" for command in sorted({*rows} - wanted())]
    for command, (page, anchor) in rows.items():
        there = sections((home / page).read_text(encoding="utf-8"))
        if f"headwater {command}" not in " ".join(there.get(anchor, "").split()):
            found.append(f"{page}#{anchor} does not say how {command} is typed")
    return found


def test_every_operator_command_has_a_runbook() -> None:
    """The table names it, and the section it leads to shows it."""
    assert len(wanted()) > 30
    assert missing(_INDEX, _HOME) == []


def test_a_command_without_a_runbook_is_found() -> None:
    """The control: a row that is gone, a section that is another, a command that nobody has."""
    gone = re.sub(r"^\| `headwater dlq resume`.*\n", "", _INDEX, flags=re.MULTILINE)
    assert missing(gone, _HOME) == ["dlq resume has no row"]
    moved = _INDEX.replace("[Roll back](upgrades.md#roll-back)", "[Roll](upgrades.md#roll-it)")
    assert missing(moved, _HOME) == [
        "upgrades.md#roll-it does not say how upgrade rollback is typed"
    ]
    more = _INDEX + "| `headwater runs rewind` | [Look](failed-runs.md#look) |\n"
    assert missing(more, _HOME)[0] == "runs rewind is no command"


def test_links_to_sections_of_runbooks_lead_to_one() -> None:
    """A symptom that leads nowhere costs minutes."""
    for page in _HOME.glob("*.md"):
        text = page.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([a-z-]*(?:\.md)?)#([^)]+)\)", text):
            there = sections((_HOME / (target or page.name)).read_text(encoding="utf-8"))
            assert anchor in there, f"{page.name} -> {target}#{anchor}"
