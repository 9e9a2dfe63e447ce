"""The catalog: writer schemas by fingerprint."""

from __future__ import annotations

import functools
import json
import re
from typing import Any, Protocol

from headwater.contracts import limits, parsing
from headwater.errors import PoisonError

SCHEMA_BYTES_MAX = 256 * 1024
SCHEMA_DEPTH_MAX = 200


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
        """Learn a schema; return its fingerprint.

        Raises:
            PoisonError: Text that is no schema, or one over the limits (`invalid-schema`).
        """
        if isinstance(schema, str):
            own, parsed = _learnt(schema)
            self._parsed[own] = parsed
            return own
        loaded = schema
        own = parsing.fingerprint(loaded)
        self._parsed[own] = parsing.parse(loaded)
        return own

    def by_fingerprint(self, own: bytes) -> Any:
        """Return a writer schema."""
        found = self._parsed.get(own)
        if found is None:
            raise PoisonError("unknown-schema", f"no schema is known with fingerprint {own.hex()}")
        return found

    def knows(self, own: bytes) -> bool:
        """Say whether a schema is known by its fingerprint."""
        return own in self._parsed

    def schema(self, own: bytes) -> Any:
        """Return a schema by its fingerprint, as JSON has it.

        Raises:
            PoisonError: Nobody knows it (`unknown-schema`).
        """
        return parsing.plain(self.by_fingerprint(own))

    def by_id(self, schema_id: int) -> Any:
        """Return a writer schema by its registry id."""
        found = self._ids.get(schema_id)
        if found is None:
            if self._registry is None:
                raise PoisonError("unknown-schema", f"no registry is set to look up id {schema_id}")
            text = self._registry.by_id(schema_id)
            try:
                _, found = _learnt(text)
            except PoisonError as error:
                raise PoisonError(
                    "unknown-schema", f"schema {schema_id} of the registry: {error}"
                ) from error
            self._ids[schema_id] = found
        return found


@functools.lru_cache(maxsize=1_024)
def _learnt(text: str) -> tuple[bytes, Any]:
    """Return a foreign schema's fingerprint and parsed form."""
    if len(text) > SCHEMA_BYTES_MAX:
        raise PoisonError(
            "invalid-schema", f"it has {len(text)} characters; at most {SCHEMA_BYTES_MAX}"
        )
    if _depth(text) > SCHEMA_DEPTH_MAX:
        raise PoisonError("invalid-schema", f"it nests over {SCHEMA_DEPTH_MAX} levels")
    try:
        loaded = json.loads(text)
        parsed = parsing.parse(loaded)
        limits.prepare(parsed)
        return parsing.fingerprint(loaded), parsed
    except Exception as error:
        raise PoisonError("invalid-schema", f"it is no Avro: {error}") from error


def _depth(text: str) -> int:
    """Return at least how deep JSON text nests, without recursion; brackets in strings count too."""
    deepest = depth = 0
    for bracket in _BRACKETS.findall(text):
        depth += 1 if bracket in "[{" else -1
        deepest = max(deepest, depth)
    return deepest


_BRACKETS = re.compile(r"[\[\]{}]")
