"""The catalog: writer schemas by fingerprint."""

from __future__ import annotations

import json
from typing import Any, Protocol

from headwater.contracts import frames
from headwater.errors import PoisonError


class Registry(Protocol):
    """A schema registry."""

    def by_id(self, schema_id: int) -> str:
        """Return a schema's text."""
        ...


class Schemas:
    """Writer schemas that this process knows."""

    def __init__(self, registry: Registry | None = None) -> None:
        self._registry = registry
        self._parsed: dict[bytes, Any] = {}
        self._ids: dict[int, Any] = {}

    def connect(self, registry: Registry) -> None:
        """Look ids up in this registry from now on."""
        self._registry = registry

    def add(self, schema: dict[str, Any] | str) -> bytes:
        """Learn a schema; return its fingerprint."""
        loaded = json.loads(schema) if isinstance(schema, str) else schema
        own = frames.fingerprint(loaded)
        self._parsed[own] = frames.parse(loaded)
        return own

    def by_fingerprint(self, own: bytes) -> Any:
        """Return a writer schema."""
        found = self._parsed.get(own)
        if found is None:
            raise PoisonError("unknown-schema", f"no schema is known with fingerprint {own.hex()}")
        return found

    def by_id(self, schema_id: int) -> Any:
        """Return a writer schema by its registry id."""
        found = self._ids.get(schema_id)
        if found is None:
            if self._registry is None:
                raise PoisonError("unknown-schema", f"no registry is set to look up id {schema_id}")
            found = _parsed(self._registry.by_id(schema_id), schema_id)
            self._ids[schema_id] = found
        return found


def _parsed(text: str, schema_id: int) -> Any:
    try:
        return frames.parse(json.loads(text))
    except Exception as error:
        raise PoisonError(
            "unknown-schema", f"schema {schema_id} of the registry is no Avro: {error}"
        ) from error
