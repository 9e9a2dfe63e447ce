"""Recorded runs of the examples mean today what they meant when they were recorded."""

from __future__ import annotations

import asyncio
import pathlib

import pytest
from tests.replay import record

import headwater
from headwater import histories
from headwater.testing import ReplayError, replay

FILES = sorted(record.HOME.glob("*.jsonl"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_example_does_what_it_did(path: pathlib.Path) -> None:
    """A change of the examples, or of the platform, that runs which are open would notice is seen here."""
    replay(record.app_of(path.stem), path, strict=True)


def test_every_example_is_recorded() -> None:
    """Children, people, timers, signals, cancellation, a crash, failure, and a run that is open."""
    assert {path.stem for path in FILES} == {*record.DESK, *record.WAITS, *record.ANSWER}
    seen = set()
    for path in FILES:
        history = histories.load(path.read_text().splitlines())
        seen.add(history.run.ending or "open")
        seen |= {type(entry.delivery).__name__ for entry in history.entries}
        seen |= {made.kind for entry in history.entries for made in entry.calls}
    wanted = {"Begin", "Answer", "Signal", "Tick", "Cancel", "person"}
    assert seen >= wanted | {"completed", "failed", "cancelled", "open", "tool", "model", "agent"}


@pytest.mark.parametrize("name", ["answer", "answer-failed"])
def test_recording_again_gives_the_same_calls(name: str) -> None:
    """By number, name and the digest of what they were asked."""
    recorded = histories.load((record.HOME / f"{name}.jsonl").read_text().splitlines())
    fresh = asyncio.run(record.record(name))
    assert [entry.calls for entry in fresh.entries] == [entry.calls for entry in recorded.entries]


def changed(patch: str = "") -> headwater.App:
    """Return the README's agent with a step before its first, behind a patch or not."""
    app = headwater.App("bank")
    small = app.model("small", "openai:gpt-5-mini")

    @app.tool(effect="read")
    async def balance(account: str) -> str:
        return account

    @app.tool(effect="read")
    async def limits(account: str) -> str:
        return account

    @app.agent
    async def answer_question(ctx: headwater.Context, question: str) -> str:
        facts = ""
        if not patch or ctx.patched(patch):
            facts = await limits("42")
        return await small(f"{facts}{await balance('42')}\n\nAnswer: {question}")

    return app


def test_changed_example_fails_and_a_patch_makes_it_pass() -> None:
    """The control: without the patch the same change is refused, with the call that differs."""
    path = record.HOME / "answer.jsonl"
    with pytest.raises(ReplayError, match=r"call 1 is .* tool balance, .* tool limits"):
        replay(changed(), path)
    replay(changed("limits-first"), path)
