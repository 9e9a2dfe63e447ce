"""The interface as OpenAPI: what a list can be narrowed by, and who may ask."""

from __future__ import annotations

import jsonschema
import pytest
from tests.unit.doors.described import JSON, PROBLEM, Described

from headwater.contracts.messages import CallNote, RunEvent, Usage
from headwater.core.messages import Meta, Position
from headwater.doors import answers, openapi
from headwater.views.runs import RunIndex


def test_lists_say_what_they_can_be_narrowed_by() -> None:
    """A client that is made from the document can ask for what the gateway can answer."""
    paths = openapi.describe({})["paths"]
    of = {
        path: {one["name"]: one["schema"]["type"] for one in paths[path]["get"]["parameters"]}
        for path in ("/api/v1/runs", "/api/v1/approvals", "/api/v1/dlq", "/api/v1/quarantine")
    }
    assert of["/api/v1/runs"]["waiting_for"] == "string"
    assert of["/api/v1/runs"]["older_than_s"] == "number"
    assert {"status", "to", "limit"} <= of["/api/v1/approvals"].keys()
    decide = paths["/api/v1/approvals/{approval}/deny"]["post"]["parameters"]
    assert [one["name"] for one in decide] == ["approval", "wait_s"]
    assert "topic" in of["/api/v1/quarantine"]
    assert "topic" not in of["/api/v1/dlq"]


def test_a_token_may_be_wanted() -> None:
    """Where tokens are configured one has to come along; without, nothing does."""
    document = openapi.describe({})
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert document["security"] == [{"token": []}, {}]


def test_every_operation_says_what_it_answers() -> None:
    """With a schema that is there; a client can be made from the document alone."""
    for path, methods in openapi.describe({})["paths"].items():
        for operation in methods.values():
            for response in operation["responses"].values():
                (media,) = response["content"].values()
                named = media["schema"].get("$ref", "").rpartition("/")[2]
                assert not named or named in answers.SCHEMAS, path
            assert any(status.startswith("2") for status in operation["responses"]), path


_HEALTHY = {"ok": True, "stalled": 0}
_LETTER = {"id": "hw.dlq.a.v1:0@1", "code": "x", "message": "m", "at_ms": 1, "done": None}


def test_the_judge_takes_what_the_document_says() -> None:
    """Against which every answer in the tests of the doors is held."""
    judge = Described(openapi.describe({}))
    judge.check("GET", "/livez", 200, JSON, _HEALTHY)
    judge.check("GET", "/api/v1/dlq", 200, JSON, {"records": [_LETTER]})
    judge.check("GET", "/api/v1/dlq/replay/edit", 404, PROBLEM, {"title": "?"})


@pytest.mark.parametrize(
    ("path", "status", "media", "body"),
    [
        ("/api/v1/dlq", 200, JSON, {"records": [_LETTER | {"colour": "red"}]}),
        ("/api/v1/dlq", 200, JSON, {"records": [_LETTER | {"at_ms": "noon"}]}),
        ("/api/v1/dlq", 200, JSON, {"records": [{**_LETTER, "done": 1}]}),
        ("/api/v1/dlq", 200, JSON, {"records": [{}]}),
        ("/api/v1/dlq", 200, "text/plain", None),
        ("/api/v1/dlq", 404, PROBLEM, {"title": "No"}),
        ("/livez", 500, JSON, _HEALTHY),
        ("/nowhere", 200, JSON, {}),
    ],
)
def test_the_judge_finds_what_it_does_not_say(
    path: str, status: int, media: str, body: object
) -> None:
    """The control: a field too many, of another type, or missing; another form, status or path."""
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        Described(openapi.describe({})).check("GET", path, status, media, body)


@pytest.mark.parametrize(
    ("path", "good", "bad"),
    [
        ("/api/v1/runs/t/resume", {"add_usd": 0.5, "attempt": 2}, {"add_usd": "much"}),
        ("/api/v1/runs/t/cancel", None, {"why": "late"}),
        ("/api/v1/runs/t/signals/go", {"value": [1]}, {"values": 1}),
        ("/api/v1/dlq/replay", {"ids": ["a"], "rate": 10}, {"topic": "x"}),
        ("/api/v1/dlq/hw.dlq.a.v1:0@1/edit", {"value": None}, None),
        ("/api/v1/approvals/a/deny", {"digest": "d"}, {"reason": "no"}),
        ("/livez", None, {}),
    ],
)
def test_the_judge_knows_what_is_sent(path: str, good: object, bad: object) -> None:
    """By which every request that the tests of the doors make, and that is taken, is held."""
    judge = Described(openapi.describe({}))
    method = "GET" if path == "/livez" else "POST"
    judge.check_sent(method, path, good)
    with pytest.raises((AssertionError, jsonschema.ValidationError)):
        judge.check_sent(method, path, bad)


def test_a_run_is_answered_as_the_document_says() -> None:
    """Field by field what the view gives, calls included."""
    index = RunIndex("hw.evt.runs.v1")
    usage = Usage(model="m", input_tokens=1, output_tokens=2, usd_nano=3)
    note = CallNote(
        number=1, kind="model", name="small", state="answered", child="c", detail="d", usage=usage,
        approval="a", verdict="approved", by="ana",
    )  # fmt: skip
    event = RunEvent(
        run="a.0.t", task_id="t", agent="a", tenant="x", status="started", calls=(note,)
    )
    index.fold([(Position("id", "hw.evt.runs.v1", 0, 0), Meta(id="m", tenant="x"), event)])
    run = index.get("t")
    assert run is not None
    told = answers.SCHEMAS["Run"]["properties"]
    assert run.keys() == told.keys() - {"id"}
    assert run["status"] in told["status"]["enum"]
    assert run["calls"][0].keys() == answers.SCHEMAS["Call"]["properties"].keys()
