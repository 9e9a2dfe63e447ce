"""The codec: messages and rows as single-object Avro, found by fingerprint."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from headwater.contracts import frames, messages, published
from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import shape_of
from headwater.contracts.shape import Shape
from headwater.errors import PoisonError


class Codec:
    """Encodes and decodes the registered types.

    Args:
        schemas: Knows other versions; it is told the published ones.
        types: What can be encoded and decoded.
    """

    def __init__(self, schemas: Schemas, types: Iterable[type] = messages.SHIPPED) -> None:
        self._schemas = schemas
        self._by_type: dict[type, Shape[Any]] = {}
        self._by_fingerprint: dict[bytes, Shape[Any]] = {}
        self._by_name: dict[str, Shape[Any]] = {}
        for text in published.texts():
            schemas.add(text)
        self.register(*types)

    def register(self, *types: type) -> None:
        """Learn more types."""
        for type_ in types:
            shape = shape_of(type_)
            self._by_type[type_] = shape
            self._by_fingerprint[shape.fingerprint] = shape
            self._by_name[shape.name] = shape
            self._schemas.add(shape.schema)

    def encode(self, value: Any) -> bytes:
        """Return single-object Avro."""
        return self._by_type[type(value)].encode(value)

    def decode(self, data: bytes) -> Any:
        """Return the message.

        Raises:
            PoisonError: It is none that we know.
        """
        own = data[2:10]
        shape = self._by_fingerprint.get(own)
        if shape is None or data[:2] != frames.SINGLE:
            if data[:2] != frames.SINGLE:
                raise PoisonError("wrong-magic", "the value does not begin with C3 01")
            writer = self._schemas.by_fingerprint(own)
            name = writer.get("name", "") if isinstance(writer, dict) else str(writer)
            shape = self._by_name.get(name)
            if shape is None:
                raise PoisonError("unknown-message", f"{name} is no message of ours")
        return shape.decode(data, self._schemas, trusted=True)

    def field(self, kind: type, name: str) -> Callable[[bytes], Any]:
        """Return what reads one field of encoded values of a type, and nothing after it.

        It raises `PoisonError` as `decode` does, unless it is after the field that bytes are damaged.
        """
        return self._by_type[kind].field(name, self._schemas)
