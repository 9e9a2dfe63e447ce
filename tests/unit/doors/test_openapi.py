"""The interface as OpenAPI: what a list can be narrowed by, and who may ask."""

from __future__ import annotations

from headwater.doors import openapi


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
