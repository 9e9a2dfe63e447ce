"""Whether versions of a schema can read each other."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from headwater.contracts import compatibility

_CLAIM: dict[str, Any] = {
    "type": "record",
    "name": "Claim",
    "namespace": "bank",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "amount", "type": "int"},
        {"name": "kind", "type": {"type": "enum", "name": "Kind", "symbols": ["CAR", "HOME"]}},
        {
            "name": "place",
            "type": {"type": "record", "name": "Place", "fields": [{"name": "x", "type": "int"}]},
        },
    ],
}


def changed(change: str) -> dict[str, Any]:
    """Return the claim after a change."""
    schema = copy.deepcopy(_CLAIM)
    fields = schema["fields"]
    match change:
        case "retyped":
            fields[1]["type"] = "string"
        case "symbol gone":
            fields[2]["type"]["symbols"] = ["CAR"]
        case "symbol new":
            fields[2]["type"]["symbols"].append("BOAT")
        case "inner field without default":
            fields[3]["type"]["fields"].append({"name": "y", "type": "int"})
        case "field without default":
            fields.append({"name": "note", "type": "string"})
        case "field gone":
            del fields[1]
        case "field with default":
            fields.append({"name": "note", "type": "string", "default": ""})
        case "optional field":
            fields.append({"name": "note", "type": ["null", "string"], "default": None})
    return schema


@pytest.mark.parametrize(
    ("change", "field", "directions"),
    [
        ("retyped", "Claim.amount", {"backward", "forward"}),
        ("symbol gone", "Claim.kind", {"backward"}),
        ("symbol new", "Claim.kind", {"forward"}),
        ("inner field without default", "Claim.place.y", {"backward"}),
        ("field without default", "Claim.note", {"backward"}),
        ("field gone", "Claim.amount", {"forward"}),
    ],
)
def test_a_breaking_change_is_named_by_its_field(
    change: str, field: str, directions: set[str]
) -> None:
    """Whoever changed a type learns which field, and whose reading breaks."""
    found = compatibility.breaks(_CLAIM, changed(change))
    assert {one.direction for one in found} == directions
    assert all(field in one.fields for one in found), found
    assert field in compatibility.refusal(found)


@pytest.mark.parametrize("change", ["nothing", "field with default", "optional field"])
def test_a_change_that_both_can_read_is_none(change: str) -> None:
    """New code reads old records, old code reads new ones."""
    assert compatibility.breaks(_CLAIM, changed(change)) == []


def test_versions_are_compared_by_their_full_names() -> None:
    """A record of the same name in another namespace is another record."""
    foreign = {**_CLAIM, "namespace": "fraud"}
    new = [changed("retyped")]
    assert compatibility.broken(new, [foreign]) == []
    assert len(compatibility.broken(new, [_CLAIM, foreign])) == 2


def test_a_break_inside_an_optional_record_is_named() -> None:
    """Through the members of a union."""
    inner = {"type": "record", "name": "Inner", "fields": [{"name": "x", "type": "int"}]}
    old = {
        "type": "record",
        "name": "Outer",
        "fields": [{"name": "maybe", "type": ["null", inner]}],
    }
    new = copy.deepcopy(old)
    new["fields"][0]["type"][1]["fields"].append({"name": "y", "type": "int"})
    (found,) = compatibility.breaks(old, new)
    assert any(field.startswith("Outer.maybe") for field in found.fields)
