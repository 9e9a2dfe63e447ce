"""Parsing: Avro schemas as fastavro takes them, and what they are known by."""

from __future__ import annotations

from typing import Any

from fastavro.schema import fingerprint as _fingerprint
from fastavro.schema import parse_schema, to_parsing_canonical_form


def parse(schema: Any) -> Any:
    """Return a schema as fastavro wants it."""
    return parse_schema(schema)


def fingerprint(schema: Any) -> bytes:
    """Return the CRC-64-AVRO fingerprint of a schema's canonical form: 8 bytes, as framed."""
    canonical = to_parsing_canonical_form(parse_schema(schema))
    return bytes.fromhex(_fingerprint(canonical, "CRC-64-AVRO"))


def plain(parsed: Any) -> Any:
    """Return a schema without what fastavro notes in it: what `parse` was given, in full names."""
    if isinstance(parsed, list):
        return [plain(part) for part in parsed]
    if isinstance(parsed, dict):
        return {name: plain(part) for name, part in parsed.items() if not name.startswith("__")}
    return parsed
