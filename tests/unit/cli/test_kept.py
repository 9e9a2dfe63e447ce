"""`quarantine` and `dlq`: what is asked of a gateway, asked of a person, and said in the end."""

from __future__ import annotations

import pytest
from tests.unit.cli.door import Door, Hw

from headwater.cli import kept

_STATE = {
    "operation": "op", "action": "replay", "state": "done", "dry_run": False, "tenant": "", "done": 2,
    "actor": "", "skipped": {"writes": 1}, "reasons": [{"id": "hw.dlq.a.v1:0@7", "why": "pay"}],
    "looked": 3, "total": 3, "error": "",
}  # fmt: skip


def ready(door: Door, path: str, **more: object) -> None:
    door.on("POST", f"/api/v1/{path}", {"operation": "op"}, status=202)
    door.on("GET", "/api/v1/operations/op", {**_STATE, **more})


def test_a_replay_of_some_says_what_was_done_and_what_was_not(door: Door, hw: Hw) -> None:
    """The summary is the result; each reason goes to stderr."""
    ready(door, "dlq/replay")
    ran = hw("dlq", "replay", "hw.dlq.a.v1:0@7", "--reason", "fixed", "--rate", "50/s")
    assert (ran.status, ran.out) == (0, "replayed: 2\nskipped: 1 (writes)\n")
    assert "hw.dlq.a.v1:0@7: pay" in ran.err
    body = door.asked[0].body
    assert (body["ids"], body["rate"], body["reason"]) == (["hw.dlq.a.v1:0@7"], 50.0, "fixed")


def test_many_are_counted_first_and_a_person_asked(door: Door, hw: Hw) -> None:
    """Nobody can be asked here, so --yes is needed; the count is of a dry run."""
    ready(door, "quarantine/discard", action="discard")
    ran = hw("quarantine", "discard", "--error", "wrong-magic")
    assert ran.status == 2
    assert "Discard 2 records?" in ran.err
    assert [asked.body["dry_run"] for asked in door.asked if asked.body] == [True]
    assert hw("quarantine", "discard", "--error", "wrong-magic", "--yes").out.startswith(
        "discarded"
    )


@pytest.mark.parametrize("noun", ["dlq", "quarantine"])
def test_everything_has_to_be_said(door: Door, hw: Hw, noun: str) -> None:
    """A command without a filter takes nothing."""
    ran = hw(noun, "replay", "--yes")
    assert (ran.status, "say --all" in ran.err, door.asked) == (2, True, [])


def test_a_failed_operation_fails_the_command(door: Door, hw: Hw) -> None:
    """In the gateway's own words."""
    ready(door, "quarantine/replay", state="failed", error="there is no topic x")
    ran = hw("quarantine", "replay", "--topic", "x", "--yes")
    assert (ran.status, "there is no topic x" in ran.err) == (1, True)


def test_a_resume_carries_its_terms(door: Door, hw: Hw) -> None:
    """Money, steps and whether writes may be repeated."""
    ready(door, "dlq/resume", action="resume")
    assert hw("dlq", "resume", "a.0.x", "--add-usd", "0.5", "--repeat-writes").status == 0
    body = door.asked[0].body
    assert (body["ids"], body["add_usd"], body["repeat_writes"]) == (["a.0.x"], 0.5, True)


def test_an_edit_opens_the_value_and_sends_what_was_written(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Unchanged is refused; what is no JSON is refused with its place."""
    one = "hw.quarantine.cmd.a.v1:0@7"
    door.on("GET", f"/api/v1/quarantine/{one}", {"id": one, "decoded": {"n": 1}, "undecoded": ""})
    ready(door, f"quarantine/{one}/edit")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/1/2/")
    assert hw("quarantine", "replay", one, "--edit").status == 0
    assert [asked.body["value"] for asked in door.asked if asked.method == "POST"] == [{"n": 2}]
    wrong = {"true": "nothing was changed", "false": "EDITOR", "sed -i s/}//": "the value"}
    for editor, words in wrong.items():
        monkeypatch.setenv("EDITOR", editor)
        ran = hw("quarantine", "replay", one, "--edit")
        assert ran.status != 0
        assert words in ran.err
    assert hw("quarantine", "replay", "--edit", "--all").status == 2


def test_lists_and_records_are_shown(door: Door, hw: Hw) -> None:
    """With what was done to them, and whose run it was."""
    record = {
        "id": "hw.dlq.a.v1:0@7", "code": "ValueError", "message": "bad luck", "topic": "hw.cmd.a.v1",
        "partition": 0, "offset": 3, "run": "a.0.x", "attempt": 2, "writes": "1 tool pay",
        "done": "replay", "done_by": "ana", "done_reason": "fixed", "headers": {"h": "v"}, "key": "k",
        "value": "v", "decoded": "text", "at_ms": 1_000_000_000_000, "done_at_ms": 1_000_000_060_000,
    }  # fmt: skip
    door.on("GET", "/api/v1/dlq", {"records": [record]}, {"records": []})
    door.on("GET", "/api/v1/dlq/hw.dlq.a.v1:0@7", record)
    assert "hw.dlq.a.v1:0@7" in hw("dlq", "list", "--since", "1h").out
    assert hw("dlq", "list").err == "there are no dead letters\n"
    shown = hw("dlq", "show", "hw.dlq.a.v1:0@7").out
    for words in (
        "a.0.x, attempt 2",
        "1 tool pay",
        "at       2001-09-09 01:46:40Z",
        'decoded  "text"',
    ):
        assert words in shown
    assert "replay by ana at 2001-09-09 01:47:40Z: fixed" in shown


def test_ids_are_whole_where_the_terminal_is_too_narrow_for_them(door: Door, hw: Hw) -> None:
    """Both can be copied, and the lines are then longer than the terminal."""
    record = {
        "id": "hw.dlq.answer_question.v1:0@41", "code": "headwater.errors.Denied", "message": "no " * 30,
        "run": "answer_question.0.66e2faf65d1b29f4d0e404ae2fba6f2c", "done": "resume",
    }  # fmt: skip
    door.on("GET", "/api/v1/dlq", {"records": [record]})
    line = hw("dlq", "list").out.splitlines()[1]
    assert line.startswith(f"{record['id']} {record['run']} ")


def test_a_rate_that_is_none_is_refused(door: Door, hw: Hw) -> None:
    """Before anything is asked."""
    ran = hw("dlq", "replay", "x", "--rate", "fast")
    assert (ran.status, "write 50/s" in ran.err, door.asked) == (2, True, [])


def test_a_name_that_nothing_has_fails_the_command(door: Door, hw: Hw) -> None:
    """A misspelt id is no success."""
    ready(door, "dlq/resume", action="resume", done=0, skipped={}, reasons=[])
    ran = hw("dlq", "resume", "desk.0.misspelt", "--yes")
    assert (ran.status, "nothing is kept as desk.0.misspelt" in ran.err) == (1, True)


def test_nothing_done_to_what_was_named_fails_the_command(door: Door, hw: Hw) -> None:
    """Unless it was done before: then what was asked for is so."""
    one = "hw.dlq.a.v1:0@7"
    for verb, why, status in (
        ("replay", "it would repeat writes: 2 tool book", 1),
        ("replay", "replay by kim", 0),
        ("discard", "replay by kim", 1),
    ):
        ready(
            door,
            f"dlq/{verb}",
            action=verb,
            done=0,
            skipped={"done before": 1},
            reasons=[{"id": one, "why": why}],
        )
        ran = hw("dlq", verb, one, "--yes")
        assert (ran.status, f"{one}: {why}" in ran.err) == (status, True)
        assert ("nothing was" in ran.err) is bool(status)


def test_nobody_is_asked_about_nothing(door: Door, hw: Hw) -> None:
    """A filter that takes nothing ends without a question."""
    ready(door, "quarantine/discard", action="discard", done=0, skipped={}, reasons=[])
    door.on("GET", "/api/v1/quarantine", {"records": []})
    ran = hw("quarantine", "discard", "--error", "wrong-magic")
    assert (ran.status, ran.out) == (0, "discarded: 0\n")


def test_an_operation_that_stands_still_is_said_to(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka may be away for long, and a command without a word looks broken."""
    monkeypatch.setattr(kept, "STILL_S", -1.0)
    ready(door, "dlq/resume", action="resume")
    running = {**_STATE, "state": "running", "looked": 0}
    door.on("GET", "/api/v1/operations/op", running, running, running, _STATE)
    ran = hw("dlq", "resume", "--all", "--yes")
    assert (ran.status, ran.err.count("is Kafka away?")) == (0, 1)


def test_a_dead_letter_is_edited_where_it_is_replayed(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Under its own door, so that it becomes a new run; one at a time."""
    one = "hw.dlq.a.v1:0@7"
    door.on("GET", f"/api/v1/dlq/{one}", {"id": one, "decoded": {"n": 1}, "undecoded": ""})
    ready(door, f"dlq/{one}/edit")
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/1/2/")
    assert hw("dlq", "replay", one, "--edit").status == 0
    assert door.asked[1].body["value"] == {"n": 2}
    why = "it would repeat writes: 2 tool book"
    ready(door, f"dlq/{one}/edit", done=0, skipped={"writes": 1}, reasons=[{"id": one, "why": why}])
    assert hw("dlq", "replay", one, "--edit").status == 1
    several = hw("dlq", "replay", one, one, "--edit")
    assert (several.status, "--edit takes one ID" in several.err) == (2, True)


def test_a_resume_despite_a_no_says_so(door: Door, hw: Hw) -> None:
    """Nobody means it by accident."""
    ready(door, "dlq/resume", action="resume")
    hw("dlq", "resume", "a.0.x")
    hw("dlq", "resume", "a.0.x", "--despite-no")
    told = [asked.body["despite_no"] for asked in door.asked if asked.method == "POST"]
    assert told == [False, True]


def test_a_letter_is_shown_readably(door: Door, hw: Hw) -> None:
    """A stack trace keeps its lines, and how often a record came is told."""
    one = "hw.dlq.a.v1:0@7"
    trace = "  a.py:3 in f\nValueError: away"
    door.on("GET", f"/api/v1/dlq/{one}", {
        "id": one, "code": "ValueError", "deliveries": 3, "headers": {"error.stacktrace": trace},
    })  # fmt: skip
    shown = hw("dlq", "show", one).out
    assert (
        "header   error.stacktrace: \n           a.py:3 in f\n         ValueError: away\n" in shown
    )
    assert "came     3 times\n" in shown


def test_a_list_leaves_room_for_the_class_and_says_when_a_filter_takes_nothing(
    door: Door, hw: Hw
) -> None:
    """The module before it is the same for all; an empty list is not an empty quarantine."""
    of = {
        "id": "hw.dlq.a.v1:0@7",
        "run": "a.0." + "f" * 32,
        "code": "headwater.errors.BudgetExceeded",
        "message": "tool note would pass the run's limit of 6 steps",
    }
    door.on("GET", "/api/v1/dlq", {"records": [of]}, {"records": []})
    assert "BudgetExc" in hw("dlq", "list").out
    assert hw("dlq", "list", "--error", "Budget").err == "no dead letter fits these options\n"
    assert hw("dlq", "list").err == "there are no dead letters\n"


@pytest.mark.parametrize("noun", ["dlq", "quarantine"])
def test_a_class_that_no_record_has_is_answered_with_those_there_are(
    door: Door, hw: Hw, noun: str
) -> None:
    """In a list, and where something was to be done to them; the other filters hold."""
    kept_as = [{"code": "headwater.errors.BudgetExceeded"}, {"code": "wrong-magic"}]
    door.on("GET", f"/api/v1/{noun}", {"records": []}, {"records": kept_as}, {"records": kept_as})
    ran = hw(noun, "list", "--error", "BudgetExceded", "--tenant", "acme")
    words = "did you mean 'BudgetExceeded'? There are: BudgetExceeded, wrong-magic\n"
    assert (ran.status, ran.out) == (0, "")
    assert ran.err.endswith(f"has class 'BudgetExceded': {words}")
    assert ran.err.count("\n") == 1
    assert door.asked[-1].params == {"tenant": "acme", "limit": "1000"}
    ready(door, f"{noun}/discard", action="discard", done=0, skipped={}, reasons=[])
    ran = hw(noun, "discard", "--error", "BudgetExceded", "--yes")
    assert ran.err == f"no record has class 'BudgetExceded': {words}"


def test_a_class_is_whole_in_a_list(door: Door, hw: Hw) -> None:
    """It is what `--error` takes."""
    code = "a-class-" + "of-many-words-" * 4
    record = {"id": "hw.quarantine.cmd.answer_question.v1:0@41", "code": code, "message": "no"}
    door.on("GET", "/api/v1/quarantine", {"records": [record]})
    assert f" {code} " in hw("quarantine", "list").out


def test_a_list_shows_messages_where_there_is_room(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a wide terminal as much of them as fits; in a narrow one the class is worth more."""
    of = {
        "id": "hw.dlq.a.v1:0@7",
        "run": "a.0." + "f" * 32,
        "code": "ValueError",
        "message": "w" * 90,
    }
    door.on("GET", "/api/v1/dlq", {"records": [of]})
    for width, shown in (("80", False), ("100", True)):
        monkeypatch.setenv("COLUMNS", width)
        listed = hw("dlq", "list").out
        assert ("www" in listed, "ValueError" in listed) == (shown, True)
        assert max(len(line) for line in listed.splitlines()) <= int(width)


@pytest.mark.parametrize("noun", ["dlq", "quarantine"])
def test_a_discard_of_what_was_replayed_has_to_be_meant(door: Door, hw: Hw, noun: str) -> None:
    """The refusal names the option, and the option is passed on."""
    one = f"hw.{noun}.a.v1:0@7"
    before = {"skipped": {"done before": 1}, "reasons": [{"id": one, "why": "replay by ana"}]}
    ready(door, f"{noun}/discard", action="discard", done=0, **before)
    ran = hw(noun, "discard", one, "--yes")
    assert ran.status == 1
    assert ran.err.endswith("see why above, and --again, which does it all the same\n")
    assert hw(noun, "discard", one, "--yes", "--again").status == 1
    assert [asked.body["again"] for asked in door.asked if asked.body] == [False, True]


@pytest.mark.parametrize(("before", "status"), [("edit", 0), ("replay", 1)])
def test_an_edit_of_what_was_replayed_as_it_was_is_none(
    door: Door, hw: Hw, monkeypatch: pytest.MonkeyPatch, before: str, status: int
) -> None:
    """A second time the same is done; what went back unmended is not."""
    one = "hw.quarantine.cmd.a.v1:0@7"
    door.on("GET", f"/api/v1/quarantine/{one}", {"id": one, "decoded": {"n": 1}, "undecoded": ""})
    skipped = {"skipped": {"done before": 1}, "reasons": [{"id": one, "why": f"{before} by ana"}]}
    ready(door, f"quarantine/{one}/edit", done=0, **skipped)
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", "sed -i s/1/2/")
    assert hw("quarantine", "replay", one, "--edit").status == status


def test_a_resume_of_what_was_replayed_names_no_option(door: Door, hw: Hw) -> None:
    """It has none: the task would be done twice."""
    before = {"skipped": {"done before": 1}, "reasons": [{"id": "a.0.x", "why": "replay by ana"}]}
    ready(door, "dlq/resume", action="resume", done=0, **before)
    assert hw("dlq", "resume", "a.0.x").err.splitlines()[-1].endswith("see why above")


@pytest.mark.parametrize(
    ("option", "words"),
    [
        (["--since", "2hh"], "--since: '2hh' is no length of time"),
        (["--all", "--rate", "fast"], "--rate: 'fast' is no rate"),
    ],
)
def test_a_wrong_value_is_told_by_its_option(
    door: Door, hw: Hw, option: list[str], words: str
) -> None:
    """One line, wrong usage, and nothing asked of the gateway."""
    ran = hw("dlq", "replay", *option, "--yes")
    assert (ran.status, words in ran.err, ran.err.count("\n"), door.asked) == (2, True, 1, [])
