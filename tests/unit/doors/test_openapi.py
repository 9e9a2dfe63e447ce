"""The interface as OpenAPI: what a list can be narrowed by, and who may ask."""

from __future__ import annotations

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
    assert {"status", "to"} <= of["/api/v1/approvals"].keys()
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
