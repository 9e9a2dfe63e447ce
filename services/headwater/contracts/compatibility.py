"""Compatibility: whether two versions of a schema can read each other's bytes.

Judged by Apache Avro's own checker, both ways: new code must read old records, and old code, which
runs beside it during a deploy, must read new ones.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from typing import Any, Literal

from avro.compatibility import ReaderWriterCompatibilityChecker, SchemaCompatibilityType
from avro.schema import parse

Direction = Literal["backward", "forward"]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Break:
    """A change that breaks readers.

    Args:
        direction: `backward`: new code cannot read old records; `forward`: old code cannot read new ones.
        fields: Where, as `Record.field.field`.
        reason: The checker's words.
    """

    direction: Direction
    fields: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        who = (
            "new code cannot read old"
            if self.direction == "backward"
            else "old code cannot read new"
        )
        return f"{', '.join(self.fields)}: {who} records ({self.reason})"


def breaks(old: dict[str, Any], new: dict[str, Any]) -> list[Break]:
    """Return what a new version of a schema would break; empty if nothing.

    Args:
        old: The schema that records were written with.
        new: The schema that is to replace it.
    """
    found: list[Break] = []
    pairs: tuple[tuple[Direction, dict[str, Any], dict[str, Any]], ...] = (
        ("backward", new, old),
        ("forward", old, new),
    )
    for direction, reader, writer in pairs:
        result = ReaderWriterCompatibilityChecker().get_compatibility(
            parse(json.dumps(reader)), parse(json.dumps(writer))
        )
        if result.compatibility is SchemaCompatibilityType.compatible:
            continue
        paths = {_path(reader, location) for location in result.locations}
        fields = {path for path in paths if "." in path} or paths
        reason = "; ".join(sorted(str(message) for message in result.messages))
        found.append(Break(direction=direction, fields=tuple(sorted(fields)), reason=reason))
    return found


def broken(new: Iterable[dict[str, Any]], old: Iterable[dict[str, Any]]) -> list[Break]:
    """Return what schemas break of the versions that went by their full names.

    Args:
        new: The schemas as they are now.
        old: Every version before.
    """
    now = {full_name(schema): schema for schema in new}
    return [
        one
        for schema in old
        if full_name(schema) in now
        for one in breaks(schema, now[full_name(schema)])
    ]


def full_name(schema: dict[str, Any]) -> str:
    """Return a record's name with its namespace."""
    return ".".join(str(schema[part]) for part in ("namespace", "name") if schema.get(part))


def refusal(found: Sequence[Break]) -> str:
    """Return the one line that refuses a breaking change, and what to do instead."""
    more = f"; and {len(found) - 1} more" if len(found) > 1 else ""
    return (
        f"{found[0]}{more}: give a new field a default, keep the old one, or begin a new type under "
        "another name"
    )


def _path(schema: Any, location: str) -> str:
    """Return a checker's location, `/fields/4/type`, as names: `Claim.amount`."""
    at, names = schema, [_short(schema)]
    for part in location.strip("/").split("/"):
        if isinstance(at, dict) and part in at:
            at = at[part]
        elif isinstance(at, list) and part.isdecimal() and int(part) < len(at):
            at = at[int(part)]
            if isinstance(at, dict) and "type" in at and "name" in at and not _is_named(at):
                names.append(str(at["name"]))
        else:
            break
    return ".".join(names)


def _is_named(at: dict[str, Any]) -> bool:
    return at["type"] in ("record", "enum", "fixed")


def _short(schema: Any) -> str:
    return (
        str(schema.get("name", "schema")).rpartition(".")[2]
        if isinstance(schema, dict)
        else "schema"
    )
