"""`headwater runs`."""

from __future__ import annotations

import os
import time
from typing import Any

import pytest
from tests.unit.cli.door import Answer, Door, Hw

from headwater.cli import gateway, journey, runs, shell

_ID = "triage.3.0af7651916cd43dd8448eb211c80319c"
_CHILD = "fraud.1.b7ad6b7169203331b7ad6b7169203331"


def run_of(**changes: Any) -> dict[str, Any]:
    return {
        "run": _ID,
        "task_id": "0af7651916cd43dd8448eb211c80319c",
        "agent": "triage",
        "tenant": "t1",
        "status": "completed",
        "reason": "",
        "error": "",
        "detail": "",
        "steps": 3,
        "tokens": 140,
        "usd_nano": 1_250_000,
        "started_ms": 1_000,
        "at_ms": 3_500,
        "outcome": {"amount": 7},
        "calls": [],
        **changes,
    }


CALLS = [
    {
        "number": 2,
        "kind": "model",
        "name": "small",
        "state": "answered",
        "asked_ms": 1_500,
        "answered_ms": 2_300,
        "usage": {"input_tokens": 100, "output_tokens": 40, "usd_nano": 1_250_000},
    },
    {
        "number": 1,
        "kind": "tool",
        "name": "balance",
        "state": "failed",
        "detail": "ledger away",
        "asked_ms": 1_010,
        "answered_ms": 1_030,
    },
    {"number": 3, "kind": "agent", "name": "fraud", "state": "answered", "child": _CHILD},
]


def test_list_shows_runs_in_eighty_columns_with_whole_ids(door: Door, hw: Hw) -> None:
    """A table fits 80 columns in a pipe, and an id can be copied from it."""
    door.on("GET", "/api/v1/runs", {"runs": [run_of(), run_of(status="held", reason="over quota")]})
    ran = hw("runs", "list")
    assert ran.status == 0
    assert _ID in ran.out
    assert "completed" in ran.out
    assert "held" in ran.out
    assert max(len(line) for line in ran.out.splitlines()) <= 80


def test_a_status_is_not_cut_for_wide_gaps(door: Door, hw: Hw) -> None:
    """Columns move together before they lose letters."""
    run = "answer_letters.0.66e2faf65d1b29f4d0e404ae2fba6f2c"
    door.on("GET", "/api/v1/runs", {"runs": [run_of(run=run, usd_nano=0)]})
    listed = hw("runs", "list").out
    assert run in listed
    assert "completed" in listed


def test_list_says_what_runs_wait_for(door: Door, hw: Hw) -> None:
    """A person's word, a signal, a timer or a call; where that needs the room, sums are left out."""
    calls = [
        {"number": 1, "kind": "tool", "name": "look", "state": "asked"},
        {"number": 2, "kind": "model", "name": "small", "state": "asked"},
    ]
    waits = {"status": "waiting", "tokens": 1_234_567}
    gone = {"number": 3, "kind": "tool", "name": "gone", "state": "asked", "detail": "left"}
    runs = [
        run_of(**waits, reason="signal go"),
        run_of(**waits, reason="sleep until 2001-09-09T01:46:40Z"),
        run_of(**waits, calls=[*calls[:1], gone]),
        run_of(**waits, calls=calls),
    ]
    door.on("GET", "/api/v1/runs", {"runs": runs}, {"runs": [run_of()]})
    out = hw("runs", "list").out
    for words in ("(signal go)", "(sleep)", "(tool look)", "(tool look and 1 call…"):
        assert f"waiting {words}" in out
    assert "1234567" not in out
    assert max(len(line) for line in out.splitlines()) <= 80
    assert "140" in hw("runs", "list").out, "there is room for them again"


def test_list_shows_the_whole_id_of_an_approval_that_a_run_waits_for(door: Door, hw: Hw) -> None:
    """It is what `approvals` takes; lines are then longer than the terminal, and no age is cut for them."""
    reason = "approval " + "f9" * 16
    old = run_of(status="waiting", reason=reason, started_ms=time.time_ns() // 1_000_000 - 754_000)
    door.on("GET", "/api/v1/runs", {"runs": [old, run_of()]})
    out = hw("runs", "list").out
    assert f"{_ID} waiting ({reason})" in out
    assert "12 min" in out


def test_a_sleep_says_how_long_it_goes_on() -> None:
    """Its event says until when; one that has slept again since says only that it sleeps."""
    reason = "sleep until 2001-09-09T01:46:40Z"
    until_ms = 1_000_000_000_000
    assert runs._left(reason, until_ms - 125_000) == "sleep, 2 min 5 s left"
    assert runs._left(reason, until_ms) == "sleep"
    assert runs._left("signal go", 0) == "signal go"


def test_a_signal_is_said_by_its_name(door: Door, hw: Hw) -> None:
    """Not by the path that it is sent to, whatever the name has in it."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting"), run_of())
    assert (
        hw("runs", "signal", _ID, "go/to", "--dry-run").out == f"would send signal go/to to {_ID}\n"
    )
    assert "so signal go/to would do nothing" in hw("runs", "signal", _ID, "go/to").err


def test_list_passes_filters_on(door: Door, hw: Hw) -> None:
    """What is asked for is what the gateway is asked for; what is not, is not sent."""
    door.on("GET", "/api/v1/runs", {"runs": []})
    ran = hw("runs", "list", "--agent", "triage", "--status", "held", "--older-than", "15m")
    assert ran.status == 0
    (asked,) = door.asked
    assert asked.params == {
        "agent": "triage",
        "status": "held",
        "older_than_s": "900",
        "limit": "50",
    }


def test_list_prints_one_json_document(door: Door, hw: Hw) -> None:
    """Programs read what people read."""
    door.on("GET", "/api/v1/runs", {"runs": [run_of()]})
    assert hw("runs", "list", "--output", "json").json == [run_of()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--status", "complted"], "did you mean 'completed'?"),
        (["--status", "started"], "no status 'started'"),
        (["--waiting-for", "signals"], "did you mean 'signal'? There are: approval, signal, sleep"),
        (["--older-than", "soon"], "--older-than: 'soon' is no length of time"),
        (["--stauts", "held"], "No such option: --stauts"),
        (["--limit", "0"], "greater than or equal to 1"),
    ],
)
def test_wrong_usage_is_one_line_that_says_what_to_do(
    door: Door, hw: Hw, arguments: list[str], words: str
) -> None:
    """Exit 2, one line on stderr, nothing asked of the gateway."""
    ran = hw("runs", "list", *arguments)
    assert ran.status == 2
    assert words in ran.err
    assert ran.err.count("\n") == 1
    assert (ran.out, door.asked) == ("", [])


def test_a_gateway_that_is_away_is_named(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit 1, and the line says how to start one."""
    monkeypatch.setenv("HEADWATER_URL", "http://127.0.0.1:9")
    ran = hw("runs", "list")
    assert ran.status == 1
    assert "cannot reach http://127.0.0.1:9" in ran.err
    assert "headwater dev" in ran.err
    assert ran.err.count("\n") == 1


def test_an_address_that_is_none_is_wrong_usage(hw: Hw, monkeypatch: pytest.MonkeyPatch) -> None:
    """The line names the variable."""
    monkeypatch.setenv("HEADWATER_URL", "localhost")
    ran = hw("runs", "list")
    assert ran.status == 2
    assert "HEADWATER_URL" in ran.err


def test_a_problem_is_told_in_the_gateways_words(door: Door, hw: Hw) -> None:
    """`application/problem+json` becomes one line, and the traceback comes only with --debug."""
    door.problem("GET", f"/api/v1/runs/{_ID}", 403, "forbidden", "the token speaks for tenant t2")
    ran = hw("runs", "show", _ID)
    assert (ran.status, ran.err) == (1, "headwater: forbidden: the token speaks for tenant t2\n")
    assert "Traceback" in hw("--debug", "runs", "show", _ID).err
    assert "Traceback" in hw("runs", "show", _ID, "--debug").err


def test_something_else_on_the_port_is_said(door: Door, hw: Hw) -> None:
    """An HTML page is no gateway."""
    door.on("GET", "/api/v1/runs", Answer("<html>", 200, "text/html"))
    assert "is that a headwater gateway?" in hw("runs", "list").err
    door.on("GET", "/api/v1/runs", Answer("<html>", 502, "text/html"))
    assert "answered 502" in hw("runs", "list").err


def test_show_draws_the_journey_with_its_children(door: Door, hw: Hw) -> None:
    """Calls in order with times, tokens and money; a child's own calls below its call."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(calls=CALLS))
    child = run_of(run=_CHILD, agent="fraud", status="failed", error="ToolError", detail="away")
    door.on("GET", f"/api/v1/runs/{_CHILD}", child)
    ran = hw("runs", "show", _ID)
    assert ran.status == 0
    lines = [line.rstrip() for line in ran.out.splitlines()]
    assert lines == [
        "triage completed  2.5 s · 3 steps · 140 tokens · $0.00125",
        _ID,
        "├── 1 tool balance failed  at +10 ms · took 20 ms",
        "│   ledger away",
        "├── 2 model small answered  at +500 ms · took 800 ms · 140 tokens · $0.00125",
        "├── 3 agent fraud answered",
        "│   └── fraud failed  2.5 s · 3 steps · 140 tokens · $0.00125",
        f"│       {_CHILD}",
        "│       └── failed ToolError: away",
        '└── returned {"amount": 7}',
    ]


def test_show_as_json_holds_the_children(door: Door, hw: Hw) -> None:
    """One document: a child's run stands in its call."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(calls=CALLS))
    door.on("GET", f"/api/v1/runs/{_CHILD}", {"run": _CHILD, "status": "unknown"})
    calls = hw("runs", "show", _ID, "--output", "json").json["calls"]
    assert [call["number"] for call in calls] == [1, 2, 3]
    assert "run" not in calls[2]
    door.on("GET", f"/api/v1/runs/{_CHILD}", run_of(run=_CHILD))
    calls = hw("runs", "show", _ID, "--output", "json").json["calls"]
    assert calls[2]["run"]["run"] == _CHILD


def test_a_run_that_nobody_has_heard_of_fails_the_command(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A typo in an id must not look like an answer, nor like a word that was sent."""
    monkeypatch.setattr(runs, "SEEN_S", 0.0)
    door.on("GET", f"/api/v1/runs/{_ID}", {"run": _ID, "status": "unknown"})
    for line in (
        ["show"],
        ["show", "-o", "json"],
        ["tail"],
        ["cancel", "--yes"],
        ["pause"],
        ["resume"],
        ["discard", "--yes"],
    ):
        ran = hw("runs", line[0], _ID, *line[1:])
        assert (ran.status, ran.out) == (1, "")
        assert f"knows no run {_ID}" in ran.err
    ran = hw("runs", "signal", _ID, "go")
    assert ran.status == 1
    assert {asked.method for asked in door.asked} == {"GET"}


def test_a_run_that_was_published_just_now_is_waited_for(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The gateway hears of it a moment later."""
    monkeypatch.setattr(runs, "SEEN_S", 600.0)
    door.on("GET", f"/api/v1/runs/{_ID}", {"run": _ID, "status": "unknown"}, run_of())
    ran = hw("runs", "show", _ID)
    assert (ran.status, "completed" in ran.out) == (0, True)


@pytest.mark.parametrize(
    ("status", "verb"),
    [(status, verb) for status in ("completed", "failed") for verb in ("cancel", "pause", "signal")]
    + [("waiting", "discard")],
)
def test_a_word_that_would_do_nothing_is_not_sent(
    door: Door, hw: Hw, status: str, verb: str
) -> None:
    """It would be dropped without a word, and the command would have said that it was sent."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status=status))
    more = {"signal": ["go"], "pause": []}.get(verb, ["--yes"])
    ran = hw("runs", verb, _ID, *more)
    assert (ran.status, ran.out) == (1, "")
    assert status in ran.err
    assert [asked.method for asked in door.asked] == ["GET"]


def test_a_resume_after_a_persons_no_asks_first(door: Door, hw: Hw) -> None:
    """The same no is delivered again, so the run would most likely fail again."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="failed", error="headwater.errors.Denied"))
    door.on("POST", f"/api/v1/runs/{_ID}/resume", {"run": _ID}, status=202)
    ran = hw("runs", "resume", _ID)
    assert (ran.status, "a person's no" in ran.err, "add --yes" in ran.err) == (2, True, True)
    assert hw("runs", "resume", _ID, "--yes").status == 0


def test_show_names_the_attempt_of_a_run_that_was_resumed(door: Door, hw: Hw) -> None:
    """Which attempt it is tells whether a resume was taken."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(attempt=2))
    assert "attempt 2" in hw("runs", "show", _ID).out


def test_who_acts_is_said_where_no_token_says_it(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who did it and why is kept; with a token the gateway knows."""
    monkeypatch.setenv("LOGNAME", "kim")
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting"))
    door.on("POST", f"/api/v1/runs/{_ID}/pause", {"run": _ID}, status=202)
    hw("runs", "pause", _ID)
    assert door.asked[-1].body["by"] == "kim"
    monkeypatch.setenv("HEADWATER_TOKEN", "abc")
    hw("runs", "pause", _ID)
    assert "by" not in door.asked[-1].body


def test_a_user_without_a_name_has_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Containers run as users that their image does not name."""

    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 1000")

    monkeypatch.setattr("getpass.getuser", nobody)
    assert shell.user() == f"uid-{os.getuid()}"


def test_no_runs_are_said_to_be_none(door: Door, hw: Hw) -> None:
    """A head without a table reads as if something had been cut."""
    door.on("GET", "/api/v1/runs", {"runs": []})
    ran = hw("runs", "list", "--agent", "triag")
    assert (ran.status, ran.out, ran.err) == (0, "", "there are no such runs\n")


def test_a_full_list_says_that_there_may_be_more(door: Door, hw: Hw) -> None:
    """Else what is left out looks as if it did not exist."""
    door.on("GET", "/api/v1/runs", {"runs": [run_of(), run_of()]})
    assert "--limit" in hw("runs", "list", "--limit", "2").err
    assert hw("runs", "list", "--limit", "3").err == ""


def test_nothing_at_all_is_said_otherwise_than_nothing_that_was_asked_for(
    door: Door, hw: Hw
) -> None:
    """Who asked for all wants to know that there are none, and not to look for a typo."""
    door.on("GET", "/api/v1/runs", {"runs": []})
    assert hw("runs", "list").err == "there are no runs\n"


def test_what_goes_on_is_timed_until_now(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that has waited for an hour since its last event has not taken no time."""
    monkeypatch.setattr(shell, "now_ms", lambda: 3_601_000)
    waits = {**CALLS[1], "state": "asked", "detail": "", "asked_ms": 2_000}
    waits.pop("answered_ms")
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting", at_ms=1_010, calls=[waits]))
    shown = hw("runs", "show", _ID).out
    assert "1 h 0 min" in shown
    assert "no answer for 59 min 59 s" in shown
    left = {**waits, "detail": "the run no longer waits for it"}
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting", at_ms=1_010, calls=[left]))
    shown = hw("runs", "show", _ID).out
    assert "the run no longer waits for it" in shown
    assert "no answer for" not in shown
    for ended in (run_of(calls=CALLS), run_of(status="failed", calls=[waits])):
        door.on("GET", f"/api/v1/runs/{_ID}", ended)
        assert "waits for" not in hw("runs", "show", _ID).out


def test_tail_follows_tokens_and_ends_with_the_run(door: Door, hw: Hw) -> None:
    """Tokens run on as text, a new attempt starts over, the end ends it."""
    stream = (
        ": hello\n\n"
        'id: 1\nevent: run\ndata: {"status": "started"}\n\n'
        'event: token\ndata: {"text": "Your "}\n\n'
        'event: reset\ndata: {"attempt": "b"}\n\n'
        'event: token\ndata: {"text": "Your balance"}\n\n'
        'id: 2\nevent: run\ndata: {"status": "completed"}\n\n'
        'id: 3\nevent: run\ndata: {"status": "never shown"}\n\n'
    )
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="started"))
    door.on("GET", f"/api/v1/runs/{_ID}/events", Answer(stream, 200, "text/event-stream"))
    ran = hw("runs", "tail", _ID)
    assert ran.status == 0
    assert ran.out == "started\nYour \n(the answer starts over)\nYour balance\ncompleted\n"


def test_tail_takes_a_broken_stream_up_after_the_last_event(door: Door, hw: Hw) -> None:
    """`Last-Event-ID` names what was seen; nothing is shown twice."""
    head = 'id: 7\nevent: run\ndata: {"status": "started"}\n\n'
    rest = 'id: 8\nevent: run\ndata: {"status": "failed", "error": "ToolError"}\n\n'
    path = f"/api/v1/runs/{_ID}/events"
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="started"))
    door.on(
        "GET", path, Answer(head, 200, "text/event-stream"), Answer(rest, 200, "text/event-stream")
    )
    ran = hw("runs", "tail", _ID)
    assert (ran.status, ran.out) == (0, "started\nfailed  ToolError\n")
    assert [asked.headers.get("last-event-id") for asked in door.asked[1:]] == [None, "7"]


def test_cancel_asks_before_it_destroys(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a terminal, --yes is needed; with it, the reason is sent along."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting"))
    ran = hw("runs", "cancel", _ID)
    assert ran.status == 2
    assert "add --yes" in ran.err
    assert [asked.method for asked in door.asked] == ["GET"]
    door.on("POST", f"/api/v1/runs/{_ID}/cancel", {"run": _ID}, status=202)
    assert hw("runs", "cancel", _ID, "--yes", "--reason", "a duplicate").status == 0
    assert door.asked[-1].body["reason"] == "a duplicate"


@pytest.mark.parametrize("verb", ["cancel", "pause", "discard"])
def test_a_dry_run_sends_nothing(door: Door, hw: Hw, verb: str) -> None:
    """It says what would be sent."""
    door.on(
        "GET", f"/api/v1/runs/{_ID}", run_of(status="failed" if verb == "discard" else "waiting")
    )
    ran = hw("runs", verb, _ID, "--dry-run")
    assert (ran.status, ran.out) == (0, f"would send {verb} to {_ID}\n")
    assert [asked.method for asked in door.asked] == ["GET"]


_FAILED = {"run": _ID, "status": "failed", "attempt": 2, "writes": ["3 tool transfer"]}


def test_a_resume_names_the_writes_it_would_repeat_and_asks(door: Door, hw: Hw) -> None:
    """Nobody can be asked here, so it is said what has to be said; with --yes they are repeated."""
    door.on("GET", f"/api/v1/runs/{_ID}", _FAILED)
    door.on("POST", f"/api/v1/runs/{_ID}/resume", {"run": _ID}, status=202)
    ran = hw("runs", "resume", _ID)
    assert ran.status == 2
    assert "had changed the world: 3 tool transfer" in ran.err
    assert "add --yes" in ran.err
    assert [asked.method for asked in door.asked] == ["GET"]
    assert hw("runs", "resume", _ID, "--yes", "--add-usd", "0.5").status == 0
    body = door.asked[-1].body
    assert (body["repeat_writes"], body["attempt"], body["add_usd"]) == (True, 2, 0.5)
    ran = hw("runs", "resume", _ID, "--dry-run", "-o", "json")
    assert ran.json["repeats"] == ["3 tool transfer"]
    assert [asked.method for asked in door.asked].count("POST") == 1


def test_a_resume_without_writes_asks_nothing(door: Door, hw: Hw) -> None:
    """Reads and models are not made again, so there is nothing to ask."""
    door.on("GET", f"/api/v1/runs/{_ID}", {"run": _ID, "status": "paused"})
    door.on("POST", f"/api/v1/runs/{_ID}/resume", {"run": _ID}, status=202)
    assert hw("runs", "resume", _ID, "--reason", "fixed").status == 0
    assert door.asked[-1].body["repeat_writes"] is False


def test_a_signal_carries_json(door: Door, hw: Hw) -> None:
    """The value is JSON and goes to the signal's own path."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status="waiting"))
    door.on("POST", f"/api/v1/runs/{_ID}/signals/decision", {"run": _ID}, status=202)
    ran = hw("runs", "signal", _ID, "decision", "--json", '{"pay": true}', "--reason", "checked")
    assert ran.status == 0
    assert door.asked[-1].body == {"value": {"pay": True}, "reason": "checked", **gateway.by()}


@pytest.mark.parametrize("verb", ["show", "tail", "cancel", "pause", "resume", "discard", "signal"])
def test_a_run_of_another_tenant_is_named_by_its_own_id(door: Door, hw: Hw, verb: str) -> None:
    """The name that a task was published under means something only with the tenant whose it is."""
    door.on("GET", "/api/v1/runs/order-7", run_of(status="waiting"))
    more = {"signal": ["go", "--dry-run"], "show": [], "tail": []}.get(verb, ["--dry-run"])
    hw("runs", verb, "order-7", "--tenant", "t1", *more)
    assert door.asked[0].params == {"tenant": "t1"}


def test_a_resume_raises_what_ran_out(door: Door, hw: Hw) -> None:
    """Money, steps and tokens."""
    door.on("GET", f"/api/v1/runs/{_ID}", {"run": _ID, "status": "failed", "attempt": 1})
    door.on("POST", f"/api/v1/runs/{_ID}/resume", {"run": _ID}, status=202)
    hw("runs", "resume", _ID, "--add-usd", "1", "--add-steps", "2", "--add-tokens", "300")
    body = door.asked[-1].body
    assert (body["add_usd"], body["add_steps"], body["add_tokens"]) == (1, 2, 300)


def test_a_value_that_is_no_json_is_explained(door: Door, hw: Hw) -> None:
    """A bare word is the usual mistake, so the line shows how it is written."""
    ran = hw("runs", "signal", _ID, "decision", "--json", "yes")
    assert ran.status == 2
    assert "'\"yes\"'" in ran.err
    assert door.asked == []


def test_a_token_is_sent_from_the_environment_or_a_file(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    """The token names tenant and actor; its file wins, and one that is missing is named."""
    door.on("GET", "/api/v1/runs", {"runs": []})
    monkeypatch.setenv("HEADWATER_TOKEN", "abc")
    hw("runs", "list")
    file = tmp_path / "token"
    file.write_text("from-a-file\n")
    monkeypatch.setenv("HEADWATER_TOKEN_FILE", str(file))
    hw("runs", "list")
    assert [asked.headers["authorization"] for asked in door.asked] == [
        "Bearer abc",
        "Bearer from-a-file",
    ]
    monkeypatch.setenv("HEADWATER_TOKEN_FILE", str(tmp_path / "none"))
    ran = hw("runs", "list")
    said = f"headwater: HEADWATER_TOKEN_FILE {tmp_path / 'none'}: No such file or directory\n"
    assert (ran.status, ran.err) == (2, said)


def test_a_gateway_that_wants_a_token_says_where_it_is_set(door: Door, hw: Hw) -> None:
    """A person at a command line sends no headers."""
    door.problem("GET", "/api/v1/runs", 401, "Who are you?", "send `Authorization: Bearer <token>`")
    ran = hw("runs", "list", "--agent", "triage")
    said = f"{door.url} wants a token that it knows: set HEADWATER_TOKEN, or HEADWATER_TOKEN_FILE"
    assert (ran.status, ran.err) == (1, f"headwater: {said}\n")


def test_show_tells_who_decided_about_a_call(door: Door, hw: Hw) -> None:
    """Who approved what, and when; or that nobody has yet."""
    asked = {"number": 1, "kind": "tool", "name": "pay", "asked_ms": 1_500, "approval": "p1"}
    decided = {"decided_ms": 4_000, "by": "ana", "verdict": "approved: checked"}
    calls = [
        {**asked, "state": "answered", "answered_ms": 5_000, **decided},
        {**asked, "number": 2, "state": "denied", "decided_ms": 4_000, "verdict": "expired"},
        {**asked, "number": 3, "state": "waiting"},
    ]
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(calls=calls))
    out = hw("runs", "show", _ID).out
    assert "approved by ana at +3.0 s (p1): checked" in out
    assert "expired at +3.0 s (p1)" in out
    assert "waits for approval p1" in out


@pytest.mark.parametrize("status", sorted(journey.ENDED))
def test_every_end_of_a_run_can_be_shown(door: Door, hw: Hw, status: str) -> None:
    """A run that was discarded, too."""
    door.on("GET", f"/api/v1/runs/{_ID}", run_of(status=status))
    ran = hw("runs", "show", _ID)
    assert (ran.status, status in ran.out) == (0, True)


def test_a_misspelt_setting_is_refused_before_a_gateway_is_asked(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token of another name would be none at all."""
    monkeypatch.setenv("HEADWATER_TOKNE", "abc")
    ran = hw("runs", "list")
    assert ran.status == 1
    assert "did you mean HEADWATER_TOKEN?" in ran.err
    assert door.asked == []
