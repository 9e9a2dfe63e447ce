"""Topics as files are the topics that an app gets."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

import headwater
from headwater.assembly import Parts, Platform
from headwater.cli.schemas import file_name
from headwater.contracts import messages
from headwater.layout import Need
from headwater.log.local import LocalLog

_HOME = pathlib.Path(__file__).parents[2] / "topics"
_FIELDS = {
    "topic", "purpose", "owner", "key", "partitions", "growth", "cleanup", "retention_ms",
    "record_bytes_max", "values", "producers", "consumers", "tenants",
}  # fmt: skip
_PARTITIONS = {"one": 1, "agents": 7, "coordinators": 5, "as its inbox": 7}


def declared() -> dict[str, dict[str, Any]]:
    """Return the files: name to content."""
    return {path.stem: yaml.safe_load(path.read_text()) for path in sorted(_HOME.glob("*.yaml"))}


def needs() -> Iterator[Need]:
    """Return what an app with one of everything needs."""
    app = headwater.App("small")
    app.model("m", "openai:gpt-5-mini")

    @app.tool(effect="read", service="cards")
    async def look(card: str) -> str:
        return card

    @app.agent
    async def triage(ctx: headwater.Context, claim: str) -> str:
        return claim

    platform = Platform(app, LocalLog(), Parts(clock=lambda: 0))
    return platform.layout.needs(partitions=7, coordinators=5)


def pattern(topic: str) -> re.Pattern[str]:
    """Return what a declaration's topic matches."""
    # Some names have files of their own, so no agent's file speaks for them.
    parts = {
        "<ns>": "hw",
        "<agent>": "(?!runs|tokens|admission|approvals)[a-z_]+",
        "<service>": "[a-z_]+",
        "<kind>": "(?:inbox|cmd|req)",
        "<name>": "[a-z_.]+",
    }
    return re.compile(
        "".join(parts.get(part, re.escape(part)) for part in re.split("(<[a-z]+>)", topic))
    )


def of(need: Need) -> tuple[str, dict[str, Any]]:
    """Return the one file that speaks for a topic."""
    found = [
        (name, it) for name, it in declared().items() if pattern(it["topic"]).fullmatch(need.name)
    ]
    assert len(found) == 1, f"{need.name}: {[name for name, _ in found]}"
    return found[0]


@pytest.mark.parametrize("need", [*needs()], ids=lambda need: need.name)
def test_a_topic_is_made_as_its_file_says(need: Need) -> None:
    """Partitions, clean-up, retention, size and growth."""
    _, it = of(need)
    assert need.partitions == _PARTITIONS[it["partitions"]]
    assert need.compacted == it["cleanup"].startswith("compact")
    assert (need.compacted and need.retention_ms is not None) == (it["cleanup"] == "compact,delete")
    assert need.retention_ms == it["retention_ms"]
    assert need.max_bytes == it["record_bytes_max"]
    assert need.fixed == (it["growth"] == "refused")


def test_every_file_speaks_for_a_topic() -> None:
    """A file of a topic that nobody makes would be read as a promise."""
    assert {of(need)[0] for need in needs()} == set(declared())


@pytest.mark.parametrize(("name", "it"), [*declared().items()], ids=[*declared()])
def test_a_file_says_everything(name: str, it: dict[str, Any]) -> None:
    """Nothing is left out, and the file is named after its topic."""
    assert set(it) == _FIELDS
    assert name.split(".", maxsplit=1)[0] == it["topic"].split(".")[1]


def test_every_message_travels_on_some_topic() -> None:
    """A message that no file names would have no reader."""
    named = {value for it in declared().values() for value in it["values"]}
    shipped = {file_name(kind.__name__) for kind in messages.SHIPPED}
    assert shipped <= named
