"""A shape: what writes a type's values and reads them, as Avro and as JSON."""

from __future__ import annotations

import copy
import typing
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import pydantic
import pydantic_core

from headwater.contracts import compiled, frames, json_text, limits, parsing
from headwater.contracts.catalog import Schemas
from headwater.contracts.forms import Convert, Form, same
from headwater.errors import PoisonError

T = TypeVar("T")

_NO_OBJECT = frozenset({"dataclass_type", "dict_type", "model_attributes_type", "model_type"})
"""What pydantic calls a value that would have fields."""
_SHOULD = "Input should "


class Shape(Generic[T]):
    """A Python type and its Avro schema.

    Args:
        name: Record name.
        form: The type's form; always a record.
        adapter: pydantic's view of the type, for JSON.
    """

    def __init__(
        self, name: str, schema: dict[str, Any], form: Form, adapter: pydantic.TypeAdapter[T]
    ) -> None:
        self.name = name
        self.schema = schema
        self._parsed = parsing.parse(schema)
        self.fingerprint = parsing.fingerprint(schema)
        self._prefix = frames.SINGLE + self.fingerprint
        self._fields = form.fields
        self._dump = form.dump or same
        self._load = form.load or same
        self._adapter = adapter
        self._write = compiled.writer(form)
        self._read = compiled.reader(form)
        self._form = form

    def encode(self, value: T) -> bytes:
        """Return single-object Avro.

        Raises:
            PoisonError: The value does not fit the type; the message names the field.
        """
        if self._write is not None:
            try:
                return self._prefix + self._write(value)
            except Exception:  # noqa: BLE001, S110 - fastavro says below what does not fit
                pass
        try:
            return self._prefix + frames.write(self._parsed, self._dump(value))
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError) as error:
            place = _culprit(self.schema, self._fields, value)
            raise PoisonError("invalid-value", f"{self.name}{place}: {error}") from error

    def decode(self, data: bytes, schemas: Schemas, *, trusted: bool = False) -> T:
        """Read either framing; the writer's schema is resolved to this one.

        Args:
            data: The frame and the datum.
            schemas: Where the writer's schema is found.
            trusted: Whether a process of ours wrote it: then limits are not checked again.

        Raises:
            PoisonError: The bytes are not of this type, or of a schema nobody knows.
            TransientError: The registry is away.
        """
        if self._read is not None and data.startswith(self._prefix):
            if not trusted:
                limits.check(data[len(self._prefix) :], self._parsed)
            try:
                value: T
                value, end = self._read(data, len(self._prefix))
                if end == len(data):
                    return value
            except Exception:  # noqa: BLE001, S110 - as above
                pass
        datum = frames.read(data, self._parsed, self.fingerprint, schemas, trusted=trusted)
        try:
            return typing.cast("T", self._load(datum))
        except pydantic.ValidationError as error:
            raise PoisonError("invalid-value", f"{self.name}: {reason(error)}") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise PoisonError("invalid-value", f"{self.name}: {error}") from error
        except Exception as error:
            # A type's author validates foreign bytes here; what that raises is about this record.
            if trusted:
                raise
            kind = type(error).__name__
            raise PoisonError("invalid-value", f"{self.name}: {kind}: {error}") from error

    def field(self, name: str, schemas: Schemas) -> Callable[[bytes], Any]:
        """Return what reads one field of values that a process of ours wrote, and nothing after it.

        It raises `PoisonError` as `decode` does, unless it is after the field that bytes are damaged.
        """
        read, size = compiled.field_reader(self._form, name), len(self._prefix)

        def field(data: bytes) -> Any:
            if read is not None and data.startswith(self._prefix):
                try:
                    return read(data, size)
                except Exception:  # noqa: BLE001, S110 - decoding says below what is wrong
                    pass
            return getattr(self.decode(data, schemas, trusted=True), name)

        return field

    def through(self, before: Convert, after: Convert) -> Shape[Any]:
        """Return this shape for other values.

        Args:
            before: Makes of one of them what is written.
            after: Makes one of them of what was read.
        """
        other: Shape[Any] = copy.copy(self)
        dump, load, write, read = self._dump, self._load, self._write, self._read
        other._dump = lambda value: dump(before(value))
        other._load = lambda datum: after(load(datum))
        if write is not None:
            other._write = lambda value: write(before(value))
        if read is not None:

            def read_after(data: bytes, at: int) -> tuple[Any, int]:
                value, end = read(data, at)
                return after(value), end

            other._read = read_after
        return other

    def to_json(self, value: T) -> bytes:
        """Return the value as JSON; bytes that are no UTF-8 make all of its bytes base64."""
        try:
            return self._adapter.dump_json(value)
        except pydantic_core.PydanticSerializationError:
            plain = self._adapter.dump_python(value)
            return pydantic_core.to_json(plain, bytes_mode="base64")

    def from_json(self, data: bytes | str) -> T:
        """Read JSON.

        Raises:
            PoisonError: It does not fit; the message names the field.
        """
        try:
            return self._adapter.validate_json(data)
        except pydantic.ValidationError as error:
            raise PoisonError("invalid-json", f"{self.name}: {self._unfit(error)}") from error
        except Exception as error:  # a validator of the type's author may raise anything
            kind = type(error).__name__
            raise PoisonError("invalid-json", f"{self.name}: {kind}: {error}") from error

    def _unfit(self, error: pydantic.ValidationError) -> str:
        """Return why JSON does not fit; where it is no object at all, also what one has in it."""
        first = error.errors(include_url=False, include_input=False)[0]
        fields = self.json_schema().get("properties", {})
        whole = not first["loc"] and first["type"] in _NO_OBJECT
        return reason(error) + (f" with {', '.join(fields)}" if whole and fields else "")

    def json_schema(self) -> dict[str, Any]:
        """Return the type's JSON schema, for OpenAPI and models."""
        return self._adapter.json_schema()

    def digest_of(self, value: T) -> bytes:
        """Return a value's datum as bytes: equal for equal values, whatever framed or ordered them."""
        return frames.write(self._parsed, json_text.ordered(self._dump(value)))


def _culprit(schema: dict[str, Any], fields: Sequence[tuple[str, Form]], value: Any) -> str:
    """Return which of a record's fields cannot be written, as `.field`; empty if that is unclear."""
    datum: dict[str, Any] = {}
    for number, (name, form) in enumerate(fields, start=1):
        try:
            part = value[name] if isinstance(value, dict) else getattr(value, name)
            datum[name] = (form.dump or same)(part)
            # A schema of the fields so far: what a field refers to is defined in one before it.
            frames.write(parsing.parse({**schema, "fields": schema["fields"][:number]}), datum)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
            return f".{name}" if isinstance(value, dict) or hasattr(value, name) else ""
    return ""


def reason(error: pydantic.ValidationError) -> str:
    """Return why pydantic refuses a value, and where in it."""
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    said = str(first["msg"]).removeprefix("Value error, ")
    if first["type"] == "missing":
        return f"{place} is missing"
    if said.startswith(_SHOULD):
        return f"{place or 'it'} should {said.removeprefix(_SHOULD)}"
    return f"{place}: {said}" if place else said
