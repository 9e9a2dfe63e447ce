"""Limits on untrusted bytes, checked before they are decoded.

Measured: a nested message of 10,001 bytes kills a fastavro process, and five bytes of `array<null>`
become 400 MB. So a datum is walked first, without making anything of it, and refused where it nests
too deep or holds too many items. A schema whose data can do neither is not walked. Records that refer
to records twice each double what a datum of no bytes becomes, so they are walked and counted as well.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headwater.errors import PoisonError

DEPTH_MAX = 64
ITEMS_MAX = 100_000
DECIMAL_BYTES_MAX = 256
"""616 digits. A decimal's digits cost the square of their number: 500,000 bytes took 18 s."""
_VARINT_BYTES_MAX = 10
_SCHEMAS_MAX = 10_000
_FIXED = {"boolean": 1, "float": 4, "double": 8}

Walk = Callable[["_Datum", int], None]


class _Datum:
    """Bytes, how far the walk got, and how many items it met."""

    __slots__ = ("at", "data", "items")

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0
        self.items = 0

    def long(self) -> int:
        """Read a zigzag varint."""
        value, shift, data, at = 0, 0, self.data, self.at
        for taken in range(_VARINT_BYTES_MAX):
            if at + taken >= len(data):
                raise PoisonError("undecodable", "the datum ends in the middle of a number")
            byte = data[at + taken]
            value |= (byte & 0x7F) << shift
            if byte < 0x80:  # noqa: PLR2004 - the last byte of a varint has no high bit
                self.at = at + taken + 1
                return (value >> 1) ^ -(value & 1)
            shift += 7
        raise PoisonError("undecodable", f"a number of the datum is over {_VARINT_BYTES_MAX} bytes")

    def skip(self, size: int) -> None:
        """Pass over bytes that must be there."""
        if size < 0 or size > len(self.data) - self.at:
            raise PoisonError("undecodable", f"a value of {size} bytes is longer than the datum")
        self.at += size

    def nothing(self) -> None:
        """Count a value that takes no bytes: many of them stand in a few bytes of blocks."""
        self.items += 1
        if self.items > ITEMS_MAX:
            raise PoisonError("too-many-items", f"the datum holds over {ITEMS_MAX} items in all")

    def block(self) -> int:
        """Return how many items the next block of an array or map has; 0 at its end."""
        count = self.long()
        if count < 0:
            count = -count
            self.long()  # the block's size in bytes, which need not be true
        self.items += count
        if self.items > ITEMS_MAX:
            raise PoisonError("too-many-items", f"the datum holds over {ITEMS_MAX} items in all")
        return count


def prepare(schema: Any) -> None:
    """Compile a schema's walk before the first datum comes.

    Args:
        schema: As parsed; any exception means that its data cannot be walked.
    """
    _walk_of(schema)


def check(data: bytes, schema: Any) -> None:
    """Walk a datum.

    Args:
        data: Without its frame.
        schema: Its writer's, parsed.

    Raises:
        PoisonError: It is over a limit (`too-deep`, `too-many-items`, `too-large`), or ends early
            (`undecodable`).
    """
    walk = _walk_of(schema)
    if walk is not None:
        walk(_Datum(data), 0)


_known: dict[int, tuple[Any, Walk | None]] = {}
"""By identity; the schema is kept beside it, so that its identity is not another's."""


def _walk_of(schema: Any) -> Walk | None:
    found = _known.get(id(schema))
    if found is None:
        if len(_known) >= _SCHEMAS_MAX:
            _known.clear()
        compiler = _Compiler()
        walk = compiler.walk(schema)
        found = _known[id(schema)] = (schema, walk if compiler.unbounded else None)
    return found[1]


class _Compiler:
    """Turns a schema into a walk, and notes whether its data can be larger than they look."""

    def __init__(self) -> None:
        self.unbounded = False
        self._named: dict[str, list[Walk]] = {}

    def walk(self, schema: Any) -> Walk:
        """Return the walk of a schema."""
        if isinstance(schema, list):
            return self._union(schema)
        if isinstance(schema, str):
            return self._named_or_primitive(schema)
        kind = schema["type"]
        if kind in {"record", "error"}:
            return self._record(schema)
        if kind == "array":
            return self._items(self.walk(schema["items"]), keyed=False)
        if kind == "map":
            return self._items(self.walk(schema["values"]), keyed=True)
        if kind == "enum":
            return self._name(schema, lambda datum, _: _number(datum))
        if kind == "fixed":
            return self._name(schema, self._fixed(schema))
        if kind == "bytes" and schema.get("logicalType") == "decimal":
            self.unbounded = True
            return _decimal
        return self.walk(kind)

    def _fixed(self, schema: Any) -> Walk:
        size = int(schema["size"])
        if size > DECIMAL_BYTES_MAX and schema.get("logicalType") == "decimal":
            raise ValueError(f"a decimal of {size} bytes; at most {DECIMAL_BYTES_MAX}")
        if not size:
            return lambda datum, _: datum.nothing()
        return lambda datum, _: datum.skip(size)

    def _name(self, schema: Any, walk: Walk) -> Walk:
        self._named.setdefault(schema["name"], []).append(walk)
        return walk

    def _named_or_primitive(self, name: str) -> Walk:
        if name in {"int", "long"}:
            return lambda datum, _: _number(datum)
        if name in {"bytes", "string"}:
            return lambda datum, _: datum.skip(datum.long())
        if name == "null":
            return lambda datum, _: datum.nothing()
        if name in _FIXED:
            size = _FIXED[name]
            return lambda datum, _: datum.skip(size)
        target = self._named.setdefault(name, [])
        self.unbounded = True  # the type contains itself, or a part twice, which may again
        return lambda datum, depth: target[0](datum, depth)  # noqa: PLW0108 - it is filled in later

    def _union(self, members: list[Any]) -> Walk:
        # Which member it is takes a byte, so an absent value is not one of no bytes.
        walks = [_absent if member == "null" else self.walk(member) for member in members]

        def walk(datum: _Datum, depth: int) -> None:
            chosen = datum.long()
            if not 0 <= chosen < len(walks):
                raise PoisonError("undecodable", f"a union has no member {chosen}")
            walks[chosen](datum, depth)

        return walk

    def _record(self, schema: Any) -> Walk:
        target = self._named.setdefault(schema["name"], [])
        walks = [self.walk(field["type"]) for field in schema["fields"]]

        def walk(datum: _Datum, depth: int) -> None:
            if depth >= DEPTH_MAX:
                raise PoisonError("too-deep", f"the datum nests over {DEPTH_MAX} levels")
            if not walks:
                datum.nothing()
            for field in walks:
                field(datum, depth + 1)

        target.append(walk)
        return walk

    def _items(self, item: Walk, *, keyed: bool) -> Walk:
        self.unbounded = True

        def walk(datum: _Datum, depth: int) -> None:
            if depth >= DEPTH_MAX:
                raise PoisonError("too-deep", f"the datum nests over {DEPTH_MAX} levels")
            while count := datum.block():
                for _ in range(count):
                    if keyed:
                        datum.skip(datum.long())
                    item(datum, depth + 1)

        return walk


def _absent(datum: _Datum, depth: int) -> None:
    del datum, depth  # it has no bytes, and is counted nowhere


def _number(datum: _Datum) -> None:
    datum.long()


def _decimal(datum: _Datum, depth: int) -> None:
    del depth
    size = datum.long()
    if size > DECIMAL_BYTES_MAX:
        raise PoisonError("too-large", f"a decimal of {size} bytes; at most {DECIMAL_BYTES_MAX}")
    datum.skip(size)
