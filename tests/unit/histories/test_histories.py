"""Histories: journals as files, and what today's code makes of them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

import headwater
from headwater import histories
from headwater.runs.rows import Entry, Run
from headwater.sdk.types import Budget
from headwater.testing import App, ReplayError, replay


def bank(change: str = "", *, effect: Any = "write") -> headwater.App:
    """Return an app, perhaps with something in it changed."""
    app = headwater.App("bank", version="2.0" if change else "1.0")
    small = app.model("small", "openai:gpt-5-mini")

    @app.tool(effect=effect)
    async def block(card: str) -> bool:
        return True

    @app.tool(effect="read")
    async def look(card: str) -> str:
        return card

    @app.agent
    async def child(ctx: headwater.Context, text: str) -> str:
        return await small(f"What is {text}?")

    name = "other" if change == "renamed" else "desk"

    async def desk(ctx: headwater.Context, task: str) -> str:
        if change == "patched" and ctx.patched("look-first"):
            await look("1")
        if change == "new call":
            await look("1")
        seen = await look("7" if change == "other arguments" else "1")
        if change == "fixed":
            return seen
        said = await child(seen)
        await block("9" if change == "other write" else "1")
        if change == "no write":
            return said
        if task == "fail":
            raise ValueError("no" if change != "other error" else "nope")
        signal = await ctx.receive("go")
        if change == "more":
            await look("2")
        return f"{said} {signal}"

    if change == "retyped":
        desk.__annotations__["task"] = dict[str, int]
    app.agent(budget=Budget(steps=50), name=name)(desk)
    return app


async def run(app: headwater.App, task: str, *signals: str, keep: Any = None) -> histories.History:
    small, desk = app.models["small"], app.agents["desk"]
    async with App(app, models={small: headwater.testing.Scripted(["fine"] * 3)}) as test:
        found = await test.start(desk, task)
        for signal in signals:
            await test.signal(found, "go", signal)
        for table in histories.tables(test.platform, "desk"):
            history = histories.of(test.platform, table, found.id)
            if history is not None:
                return history
    raise AssertionError(f"{found.id} has no rows: it is {found.status}")


@pytest.fixture(scope="module")
def waiting() -> list[str]:
    """The file of a run that waits for a signal."""
    return [*histories.dump(asyncio.run(run(bank(), "go on")))]


@pytest.fixture(scope="module")
def failed() -> list[str]:
    """The file of a run that failed."""
    return [*histories.dump(asyncio.run(run(bank(), "fail")))]


def test_file_is_self_contained_and_says_what_a_person_wants_to_know(waiting: list[str]) -> None:
    """It holds every schema that its bytes were written with; a line an entry."""
    head, *entries = map(json.loads, waiting)
    assert (head["app"], head["agent"], head["version"], head["state"]) == (
        "bank",
        "desk",
        "1.0",
        "open",
    )
    names = {schema["name"].rpartition(".")[2] for schema in head["schemas"].values()}
    assert {"Opened", "Run", "Entry", "DeskTask", "LookResult", "ChildResult"} <= names
    assert [(line["delivery"], line["calls"]) for line in entries] == [
        ("begin", ["1 tool look"]),
        ("answer 1", ["2 agent child"]),
        ("answer 2", ["3 tool block"]),
        ("answer 3", []),
    ]
    history = histories.load(waiting)
    assert [*histories.dump(history)] == waiting
    assert [type(entry) for entry in history.entries] == [Entry] * 4


@pytest.mark.parametrize(
    ("change", "state", "number", "says"),
    [
        ("", "equal", 0, ""),
        ("patched", "equal", 0, ""),
        ("more", "equal", 0, ""),
        ("other arguments", "equal", 0, ""),
        (
            "new call",
            "different",
            2,
            "recorded as agent child, but the code now asks for tool look",
        ),
        ("other write", "different", 3, "tool block with other arguments"),
        ("fixed", "different", 2, "the code now asks for nothing"),
        ("renamed", "unreadable", 0, "no agent named 'desk'"),
        ("retyped", "unreadable", 0, "its task: "),
    ],
)
def test_journal_is_replayed_against_todays_code(
    waiting: list[str], change: str, state: str, number: int, says: str
) -> None:
    """What differs is named: number, recorded, actual. A patch lets new code go on with old runs."""
    verdict = histories.verify(bank(change), histories.load(waiting))
    assert (verdict.state, verdict.number) == (state, number), verdict
    assert says in verdict.says


def test_arguments_of_reads_count_where_that_is_asked(waiting: list[str]) -> None:
    """At work they are let pass with a warning; a test may want to know."""
    verdict = histories.verify(bank("other arguments"), histories.load(waiting), strict=True)
    assert (verdict.state, verdict.number) == ("different", 1)


@pytest.mark.parametrize(
    ("change", "whole", "says"),
    [
        ("", True, ""),
        ("no write", False, ""),
        ("no write", True, "it failed of ValueError, and the code now returns another result"),
    ],
)
def test_failed_run_is_replayed_up_to_where_it_can_be_resumed(
    failed: list[str], change: str, whole: bool, says: str
) -> None:
    """A fix of what failed is no difference; as a recorded history its end counts too."""
    verdict = histories.verify(bank(change), histories.load(failed), whole=whole)
    assert verdict.says == says
    assert verdict.entries == (4 if whole else 3)


@pytest.mark.parametrize(
    ("ending", "error", "says"),
    [
        ("completed", "", "it completed, and the code now waits"),
        ("failed", "Boom", "it failed of Boom, and the code now waits"),
        ("", "", ""),
    ],
)
def test_end_counts(waiting: list[str], ending: Any, error: str, says: str) -> None:
    """A run that had ended and now waits is another run."""
    history = histories.load(waiting)
    row = Run(**{**_fields(history.run), "ending": ending, "error": error})
    changed = histories.History(**{**_fields(history), "run": row})
    assert histories.verify(bank(), changed, whole=True).says == says


def test_users_test_fails_with_what_to_do(waiting: list[str], tmp_path: Any) -> None:
    """It is an assertion's failure, so that a test's report shows it as one."""
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(waiting))
    replay(bank(), path)
    replay(bank("patched"), str(path))
    with pytest.raises(
        ReplayError, match=r"call 2 .* keep their way with\s+ctx.patched"
    ) as failure:
        replay(bank("new call"), path)
    assert isinstance(failure.value, AssertionError)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda lines: ["no json"], "no recorded history"),
        (lambda lines: [], "no recorded history"),
        (lambda lines: ["{}"], "no recorded history"),
        (lambda lines: lines[:-1], "it has 3 of 4 entries"),
        (lambda lines: [json.dumps({"headwater": 9}), *lines[1:]], "format 9"),
        (lambda lines: [lines[0], *lines[1:-1], '{"entry": "AAAA"}'], "no recorded history"),
    ],
)
def test_file_that_is_no_history_is_refused(
    waiting: list[str], change: Any, says: str, tmp_path: Any
) -> None:
    """With its name and how to get one."""
    path = tmp_path / "history.jsonl"
    path.write_text("\n".join(change(waiting)))
    with pytest.raises(histories.HistoryError, match=says) as failure:
        replay(bank(), path)
    assert str(path) in str(failure.value)


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__dataclass_fields__}
