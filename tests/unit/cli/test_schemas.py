"""`headwater schemas`, as far as it needs no cluster."""

from __future__ import annotations

import json
import pathlib
import sys
from collections.abc import Iterator

import pytest
from tests.unit.cli.door import Asked, Door, Hw

_APP = """
import headwater
from pydantic import BaseModel

class Claim(BaseModel):
    id: str
    amount: {amount}{more}

app = headwater.App("claims")

@app.agent
async def triage(ctx: headwater.Context, claim: Claim) -> bool:
    return True
"""


@pytest.fixture
def write(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An app in the working directory, which a test may change between commands."""
    monkeypatch.setenv("HEADWATER_APP", "claims:app")
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield
    sys.modules.pop("claims", None)


def app(amount: str = "int", more: str = "") -> None:
    """Write the app, and have the next command read it anew."""
    sys.modules.pop("claims", None)
    pathlib.Path("claims.py").write_text(
        _APP.format(amount=amount, more=f"\n    {more}" if more else "")
    )


@pytest.mark.usefixtures("write")
def test_schemas_are_listed_shown_and_exported_once(hw: Hw) -> None:
    """The app's own and headwater's; a file that is there is not written again."""
    app()
    listed = hw("schemas", "list", "--output", "json").json
    assert {"claims.Claim", "headwater.RunEvent"} <= {one["name"] for one in listed}
    assert hw("schemas", "show", "claims.Claim").json["fields"][1] == {
        "name": "amount",
        "type": "long",
    }
    typo = hw("schemas", "show", "claims.Clam")
    assert (typo.status, "did you mean 'claims.Claim'?" in typo.err) == (2, True)
    assert "did you mean 'headwater.RunEvent'?" in hw("schemas", "show", "runevents").err
    assert hw("schemas", "show", "zzz").err == (
        "headwater: no schema 'zzz'; `headwater schemas list` names all\n"
    )
    assert hw("schemas", "export", "out", "--dry-run").status == 0
    assert not pathlib.Path("out").exists()
    assert "wrote out/claim/v1.avsc" in hw("schemas", "export", "out").out
    again = hw("schemas", "export", "out")
    assert (again.out, again.err) == ("", "every schema is there already\n")


@pytest.mark.usefixtures("write")
def test_a_breaking_change_is_refused_by_its_field(hw: Hw) -> None:
    """What old records were written with is the measure; a new field with a default may come."""
    app()
    hw("schemas", "export", "out")
    app(more="note: str = ''")
    assert hw("schemas", "check", "--against", "out").status == 0
    hw("schemas", "export", "out")
    assert pathlib.Path("out/claim/v2.avsc").exists()
    app(amount="str")
    ran = hw("schemas", "check", "--against", "out")
    assert ran.status == 1
    assert "Claim.amount" in ran.err
    assert ran.err.count("\n") == 1
    missing = hw("schemas", "check", "--against", "nowhere")
    assert (missing.status, "nowhere" in missing.err) == (2, True)


@pytest.mark.usefixtures("write")
def test_registering_names_subjects_by_their_strategy(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A command topic has one type, so its subject is the topic; events have many, so the record counts."""
    app()
    none = hw("schemas", "register", "--yes")
    assert (none.status, "HEADWATER_REGISTRY__URL" in none.err) == (2, True)
    monkeypatch.setenv("HEADWATER_REGISTRY__URL", door.url)
    command, event = "hw.cmd.triage.v1-value", "hw.evt.triage.v1-claims.TriageResult"
    for number, subject in enumerate((command, event), start=1):
        door.on("POST", f"/subjects/{subject}/versions", {"id": number})
    assert hw("schemas", "register").status == 2
    dry = hw("schemas", "register", "--dry-run", "--output", "json").json
    assert [one["subject"] for one in dry] == [command, event]
    assert {asked.method for asked in door.asked} == {"GET"}
    done = hw("schemas", "register", "--yes", "--output", "json").json
    assert [one["id"] for one in done] == [1, 2]


@pytest.mark.usefixtures("write")
def test_registering_refuses_what_breaks_the_newest(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the registry itself would allow."""
    app()
    monkeypatch.setenv("HEADWATER_REGISTRY__URL", door.url)
    old = hw("schemas", "show", "claims.Claim").out
    app(amount="str")
    path = "/subjects/hw.cmd.triage.v1-value/versions/latest"
    door.on("GET", path, {"schema": json.dumps(json.loads(old)), "id": 1})
    ran = hw("schemas", "register", "--yes")
    assert ran.status == 1
    assert "Claim.amount" in ran.err
    assert _posts(door.asked) == []


def _posts(asked: list[Asked]) -> list[Asked]:
    return [one for one in asked if one.method == "POST"]
