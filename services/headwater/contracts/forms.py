"""A form: how one Python type is written as Avro."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

Convert = Callable[[Any], Any]
Kind = Literal[
    "",
    "string",
    "long",
    "boolean",
    "bytes",
    "optional",
    "union",
    "list",
    "tuple",
    "enum",
    "record",
    "wrapped",
]


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """A type's Avro form.

    Args:
        schema: Its schema, or the name of one that is defined before it.
        dump: Makes of a value what Avro writes; `None` if that is the value.
        load: Makes a value of what Avro read; `None` likewise.
        record: Full name, if it is a record.
        python: Types whose values are of this form.
        fields: Of a record.
        kind: What its bytes are; empty if only the library writes them.
        parts: Forms within, where it is no record.
    """

    schema: Any
    dump: Convert | None = None
    load: Convert | None = None
    record: str = ""
    python: tuple[type, ...] = ()
    fields: tuple[tuple[str, Form], ...] = ()
    kind: Kind = ""
    parts: tuple[Form, ...] = ()


def same(value: Any) -> Any:
    """Return the value: what converts where a form has nothing to convert."""
    return value


def making(type_: Any, values: dict[str, str], scope: dict[str, Any]) -> str:
    """Return an expression that makes a record of its fields.

    Args:
        type_: A dataclass or a pydantic model.
        values: An expression for each field.
        scope: Where the expression finds the type; it is put there.
    """
    name = f"T{len(scope)}"
    scope[name] = type_
    if dataclasses.is_dataclass(type_):
        return f"{name}({', '.join(f'{field}={value}' for field, value in values.items())})"
    # A field's alias is for JSON; Avro's fields have the names that the type's author sees.
    how = ", by_name=True, by_alias=False" if _aliased(type_) else ""
    given = ", ".join(f"{field!r}: {value}" for field, value in values.items())
    return f"{name}.model_validate({{{given}}}{how})"


def _aliased(type_: Any) -> bool:
    return any(field.alias or field.validation_alias for field in type_.model_fields.values())
