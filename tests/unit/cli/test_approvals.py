"""`headwater approvals`."""

from __future__ import annotations

from typing import Any

import pytest
from tests.unit.cli.door import Door, Hw

from headwater.cli import shell

_NOW_MS = 1_700_000_000_000
_ID = "0af7651916cd43dd"
_PATH = f"/api/v1/approvals/{_ID}"


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time stands still: what is left is counted in seconds."""
    monkeypatch.setattr(shell, "now_ms", lambda: _NOW_MS)


def approval(**changes: Any) -> dict[str, Any]:
    return {
        "id": _ID,
        "tenant": "t1",
        "run": "desk.3.0af7651916cd43dd8448eb211c80319c",
        "number": 3,
        "about": "tool",
        "name": "pay",
        "words": "call pay",
        "arguments": {"cents": 1_200_000},
        "digest": "01" * 16,
        "to": "group:payments",
        "requester": "kim",
        "asked_ms": 1_000,
        "expires_ms": _NOW_MS + 3_600_500,
        "status": "open",
        "refused": [],
        **changes,
    }


TAKEN = approval(status="approved", by="ana", reason="checked", decided_ms=2_000, decision="d1")


def test_list_shows_what_waits_in_eighty_columns_with_whole_ids(door: Door, hw: Hw) -> None:
    """Open ones unless something else is asked for, with the time left."""
    door.on("GET", "/api/v1/approvals", {"approvals": [approval(), approval(to="", expires_ms=5)]})
    ran = hw("approvals", "list")
    assert ran.status == 0
    assert _ID in ran.out
    assert "1 h 0 min left" in ran.out
    assert "expiring" in ran.out
    assert "anybody" in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 80
    assert door.asked[-1].params == {"status": "open", "limit": "50"}


def test_list_passes_filters_on_and_says_when_there_is_nothing(door: Door, hw: Hw) -> None:
    """A wrong status is said before anything is asked."""
    door.on("GET", "/api/v1/approvals", {"approvals": []})
    line = ["--status", "all", "--tenant", "t1", "--run", "r", "--to", "group:x", "--limit", "5"]
    ran = hw("approvals", "list", *line)
    assert door.asked[-1].params == {"tenant": "t1", "run": "r", "to": "group:x", "limit": "5"}
    assert (ran.out, ran.err) == ("", "there are none\n")
    assert hw("approvals", "list").err == "nothing waits for anybody\n"
    assert hw("approvals", "list", "-o", "json").json == []
    wrong = hw("approvals", "list", "--status", "opne")
    assert (wrong.status, "did you mean 'open'?" in wrong.err) == (2, True)


def test_show_says_what_is_asked_and_who_may_decide(door: Door, hw: Hw) -> None:
    """And how it ended, and who was refused."""
    refused = [{"by": "kim", "why": "kim asked for the run", "at_ms": 1_500, "decision": "d0"}]
    door.on("GET", _PATH, approval(), {**TAKEN, "refused": refused, "requester": "", "to": ""})
    ran = hw("approvals", "show", _ID)
    assert "asks       call pay" in ran.out
    assert "about      sending pay, call 3 of desk.3." in ran.out
    assert 'arguments  {"cents": 1200000}' in ran.out
    assert "decides    the group payments, but not kim, who asked for the run" in ran.out
    over = hw("approvals", "show", _ID).out
    assert "decides    anybody\n" in over
    assert "decided    approved by ana at 1970-01-01 00:00:02Z: checked" in over
    assert "refused    kim at 1970-01-01 00:00:01Z: kim asked for the run" in over
    assert hw("approvals", "show", _ID, "-o", "json").json["id"] == _ID


@pytest.mark.parametrize("verb", ["approve", "deny"])
def test_a_decision_is_about_what_was_shown(door: Door, hw: Hw, verb: str) -> None:
    """It is looked at, shown, and decided by its digest."""
    door.on("GET", _PATH, approval())
    door.on("POST", f"{_PATH}/{verb}", TAKEN)
    ran = hw("approvals", verb, _ID, "--reason", "checked", "--as", "ana", "--yes")
    assert (ran.status, ran.out) == (0, f"{_ID}: approved by ana\n")
    assert 'arguments  {"cents": 1200000}' in ran.err
    sent = door.asked[-1]
    assert sent.body == {"reason": "checked", "by": "ana", "digest": "01" * 16}
    assert sent.params == {"wait_s": "10"}


def test_who_decides_is_the_token_or_whoever_sits_there(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token names its actor; without one the user's name is said."""
    monkeypatch.setenv("LOGNAME", "ulf")
    door.on("GET", _PATH, approval())
    door.on("POST", f"{_PATH}/approve", TAKEN)
    hw("approvals", "approve", _ID, "--yes")
    assert door.asked[-1].body["by"] == "ulf"
    monkeypatch.setenv("HEADWATER_TOKEN", "s3")
    hw("approvals", "approve", _ID, "--yes")
    assert "by" not in door.asked[-1].body
    assert door.asked[-1].headers["authorization"] == "Bearer s3"


def test_nothing_is_decided_unasked(door: Door, hw: Hw) -> None:
    """Nor with --dry-run, nor about other arguments than were looked at before."""
    door.on("GET", _PATH, approval())
    for verdict in ("approve", "deny"):
        door.on("POST", f"{_PATH}/{verdict}/check", {"again": False, "sent": False})
    asked = hw("approvals", "approve", _ID)
    assert (asked.status, "add --yes" in asked.err) == (2, True)
    dry = hw("approvals", "approve", _ID, "--dry-run")
    assert dry.out.endswith("would approve it\n")
    told = hw("approvals", "deny", _ID, "--dry-run", "-o", "json").json
    assert (told["verdict"], told["sent"]) == ("deny", False)
    other = hw("approvals", "approve", _ID, "--yes", "--digest", "02" * 16)
    assert (other.status, "about other arguments than those" in other.err) == (1, True)
    sent = {one.path for one in door.asked if one.method == "POST"}
    assert sent == {f"{_PATH}/approve/check", f"{_PATH}/deny/check"}


def test_a_dry_run_is_refused_as_the_decision_would_be(door: Door, hw: Hw) -> None:
    """The gateway looks at what would be sent, by the rules of the real one."""
    door.on("GET", _PATH, approval(about="doubt", name="pay"))
    words = "value: PayResult: it should be a valid integer"
    door.problem("POST", f"{_PATH}/happened/check", 422, "Not what it returns", words)
    ran = hw("approvals", "resolve", _ID, "--happened", '"x"', "--dry-run")
    assert (ran.status, ran.out) == (1, "")
    assert words in ran.err
    (asked,) = [one for one in door.asked if one.method == "POST"]
    assert (asked.body["value"], len(asked.body["digest"])) == ("x", 32)


def test_a_refusal_is_one_line(door: Door, hw: Hw) -> None:
    """In the gateway's words."""
    door.on("GET", _PATH, approval())
    door.problem("POST", f"{_PATH}/approve", 409, "Refused", "it was denied by bob already")
    ran = hw("approvals", "approve", _ID, "--yes", "-o", "json")
    assert (ran.status, ran.err) == (1, "headwater: Refused: it was denied by bob already\n")


def test_a_decision_that_nobody_took_yet_is_said(door: Door, hw: Hw) -> None:
    """The coordinator may be away."""
    door.on("GET", _PATH, approval())
    door.on("POST", f"{_PATH}/approve", {"approval": _ID, "sent": "approve", "decision": "d"})
    ran = hw("approvals", "approve", _ID, "--yes")
    assert (ran.out, ran.err.splitlines()[-1]) == (
        "",
        f"sent, and not taken yet: see `headwater approvals show {_ID}`",
    )
    assert hw("approvals", "approve", _ID, "--yes", "-o", "json").json["sent"] == "approve"


@pytest.mark.parametrize(
    ("option", "verb", "more"),
    [
        (("--happened", '{"receipt": 7}'), "happened", {"value": {"receipt": 7}}),
        (("--not-happened",), "not-happened", {}),
        (("--give-up",), "give-up", {}),
    ],
)
def test_a_doubt_is_resolved(
    door: Door, hw: Hw, option: tuple[str, ...], verb: str, more: dict[str, Any]
) -> None:
    """It happened, it did not, or nobody can find out."""
    door.on("GET", _PATH, approval(about="doubt"))
    door.on("POST", f"{_PATH}/{verb}", {**TAKEN, "status": verb})
    ran = hw("approvals", "resolve", _ID, *option, "--as", "ana", "--yes")
    assert ran.out == f"{_ID}: {verb} by ana\n"
    assert door.asked[-1].body == {"reason": "", "by": "ana", "digest": "01" * 16, **more}


def test_the_wrong_command_names_the_right_one(door: Door, hw: Hw) -> None:
    """A doubt cannot be approved, nor a question resolved."""
    door.on("GET", _PATH, approval(about="doubt"), approval())
    doubt = hw("approvals", "approve", _ID, "--yes")
    assert (doubt.status, f"headwater approvals resolve {_ID} --happened JSON" in doubt.err) == (
        2,
        True,
    )
    plain = hw("approvals", "resolve", _ID, "--give-up")
    assert (plain.status, f"headwater approvals approve {_ID}" in plain.err) == (2, True)
    none = hw("approvals", "resolve", _ID)
    assert (none.status, "say one of --happened JSON" in none.err) == (2, True)
    both = hw("approvals", "resolve", _ID, "--give-up", "--not-happened")
    assert both.status == 2
    wrong = hw("approvals", "resolve", _ID, "--happened", "{")
    assert (wrong.status, "--happened" in wrong.err) == (2, True)


def test_a_dry_run_says_what_the_gateway_says_of_it(door: Door, hw: Hw) -> None:
    """What would be refused is refused in the same words; the same once more would change nothing."""
    door.on("GET", _PATH, TAKEN)
    door.problem("POST", f"{_PATH}/deny/check", 409, "Refused", "it was approved by ana already")
    ran = hw("approvals", "deny", _ID, "--dry-run")
    assert (ran.status, ran.out) == (1, "")
    assert ran.err == "headwater: Refused: it was approved by ana already\n"
    door.on("POST", f"{_PATH}/approve/check", {"again": True, "sent": False})
    ran = hw("approvals", "approve", _ID, "--dry-run", "--as", "ana")
    assert (ran.status, ran.out.splitlines()[-1]) == (
        0,
        "would change nothing: the same was decided before",
    )
    assert hw("approvals", "approve", _ID, "--dry-run", "-o", "json").json["again"] is True
