"""Python types to Avro: one mechanism for our own messages and rows and for users' types."""

from __future__ import annotations

import dataclasses
import decimal
import enum
import functools
import inspect
import re
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import pydantic

from headwater.contracts import json_text
from headwater.contracts.forms import Convert, Form, making, same
from headwater.contracts.scalars import SCALARS, Scale, decimal_of
from headwater.contracts.shape import Shape, reason
from headwater.contracts.unions import union_of
from headwater.errors import SettingsError

OWN = "headwater"
"""Namespace of the platform's own schemas; no app has this name."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class _JsonMark:
    """Marks a type that travels as JSON text."""


Json = typing.Annotated[Any, _JsonMark]
"""Any JSON value; it travels as text."""


@functools.cache
def shape_of(type_: Any, *, name: str | None = None, namespace: str = "headwater") -> Shape[Any]:
    """Return a type's shape; what is no record is wrapped in one with the single field `value`.

    Raises:
        SettingsError: The type, or a field's, has no Avro form; the message names it.
    """
    of: str = name or getattr(type_, "__name__", None) or "Value"
    builder = _Builder(namespace)
    form = builder.form(type_, of)
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type_)
    if form.record:
        schema = dict(form.schema)
        return Shape(form.record, schema, form, adapter)
    schema = {
        "type": "record",
        "name": of,
        "namespace": namespace,
        "fields": [{"name": "value", "type": form.schema}],
    }
    dump, load = form.dump or same, form.load or same
    wrapped = Form(
        schema=schema,
        dump=lambda value: {"value": dump(value)},
        load=lambda datum: load(datum["value"]),
        kind="wrapped",
        parts=(form,),
    )
    shape = Shape(of, schema, wrapped, adapter)
    return shape.through(functools.partial(_checked, adapter), adapter.validate_python)


def shape_of_parameters(
    parameters: Sequence[tuple[str, Any, Any]], *, name: str, namespace: str = "headwater"
) -> Shape[dict[str, Any]]:
    """Return the shape of a tool's parameters: (name, annotation, default or `...`) each."""
    fields: dict[str, Any] = {
        field: (annotation, default) for field, annotation, default in parameters
    }
    model = pydantic.create_model(name, **fields)
    inner = shape_of(model, name=name, namespace=namespace)
    names = tuple(model.model_fields)
    return inner.through(
        lambda kwargs: model(**kwargs),
        lambda value: {field: getattr(value, field) for field in names},
    )


class _Builder:
    """Walks one type; named types are defined once and then referred to."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._defined: dict[Any, tuple[str, dict[str, Convert]]] = {}

    def form(self, type_: Any, where: str) -> Form:
        """Return a type's form; `where` names it in refusals."""
        if type_ in SCALARS:
            return SCALARS[type_]
        origin = typing.get_origin(type_)
        if origin is typing.Annotated:
            return self._annotated(type_, where)
        if origin in {typing.Union, types.UnionType}:
            return self._union(typing.get_args(type_), where)
        if origin is typing.Literal:
            return self._literal(typing.get_args(type_), where)
        if origin in {list, tuple, Sequence} or type_ in {list, tuple}:
            return self._array(type_, origin, where)
        if origin in {dict, Mapping}:
            return self._map(type_, where)
        if isinstance(type_, type):
            if issubclass(type_, enum.Enum):
                return self._enum(type_)
            if issubclass(type_, pydantic.BaseModel) or dataclasses.is_dataclass(type_):
                return self._record(type_, where)
        raise SettingsError(f"{where}: {_name(type_)} has no Avro form; use a type the docs list")

    def _full(self, type_: type) -> str:
        """Return a type's full name, which no other type of the same schema may have."""
        full = f"{self._namespace}.{type_.__name__}"
        for other, (name, _) in self._defined.items():
            if name == full and other is not type_:
                raise SettingsError(
                    f"{type_.__name__}: {type_.__module__}.{type_.__qualname__} and "
                    f"{other.__module__}.{other.__qualname__} have the same name in Avro; rename one"
                )
        return full

    def _annotated(self, type_: Any, where: str) -> Form:
        base, *marks = typing.get_args(type_)
        for mark in marks:
            if mark is _JsonMark:
                return Form(
                    schema="string", dump=json_text.dump, load=json_text.load, kind="string"
                )
            if isinstance(mark, Scale) and base is decimal.Decimal:
                return decimal_of(mark)
        return self.form(base, where)

    def _union(self, members: Sequence[Any], where: str) -> Form:
        rest = [member for member in members if member is not type(None)]
        forms = [self.form(member, where) for member in rest]
        return union_of(forms, where, null=len(rest) < len(members))

    def _literal(self, values: Sequence[Any], where: str) -> Form:
        kinds = {type(value) for value in values}
        if len(kinds) != 1 or not kinds <= {str, int, bool}:
            raise SettingsError(f"{where}: a Literal's values must be all text, int or bool")
        kind = kinds.pop()
        # Our own messages take a neighbouring version's new word; a user's type takes its own only.
        own = self._namespace == OWN
        check = None if own else _one_of(frozenset(values), where)
        plain = SCALARS[kind]
        return Form(schema=plain.schema, dump=check, load=check, python=(kind,), kind=plain.kind)

    def _array(self, type_: Any, origin: Any, where: str) -> Form:
        args = typing.get_args(type_)
        if origin is tuple and (len(args) != 2 or args[1] is not Ellipsis):  # noqa: PLR2004 - tuple[T, ...]
            raise SettingsError(f"{where}: of tuples only tuple[T, ...] has an Avro form")
        if not args:
            raise SettingsError(f"{where}: a list must say of what: list[str]")
        item = self.form(args[0], where + "[]")
        make = tuple if origin is tuple else list
        dump, load = item.dump, item.load
        return Form(
            schema={"type": "array", "items": item.schema},
            dump=(lambda v: [dump(i) for i in v]) if dump else list,
            load=(lambda v: make(load(i) for i in v))
            if load
            else (make if make is tuple else None),
            python=(list, tuple),
            kind="tuple" if make is tuple else "list",
            parts=(item,),
        )

    def _map(self, type_: Any, where: str) -> Form:
        args = typing.get_args(type_)
        if len(args) != 2 or args[0] is not str:  # noqa: PLR2004 - key and value
            raise SettingsError(f"{where}: of dicts only dict[str, T] has an Avro form")
        item = self.form(args[1], where + "{}")
        dump, load = item.dump, item.load
        return Form(
            schema={"type": "map", "values": item.schema},
            dump=(lambda v: {k: dump(i) for k, i in v.items()}) if dump else None,
            load=(lambda v: {k: load(i) for k, i in v.items()}) if load else None,
            python=(dict,),
        )

    def _enum(self, type_: type[enum.Enum]) -> Form:
        names = [member.name for member in type_]
        for name in names:
            _plain_name(name, type_.__name__)
        full = self._full(type_)
        form = {"type": "enum", "name": full, "symbols": names}
        schema: Any = full if type_ in self._defined else form
        self._defined[type_] = (full, {})
        return Form(
            schema=schema,
            dump=lambda v: v.name,
            load=lambda s: type_[s],
            python=(type_,),
            kind="enum",
        )

    def _record(self, type_: Any, where: str) -> Form:
        full = self._full(type_)
        if type_ in self._defined:
            lazy = self._defined[type_][1]
            return Form(
                schema=full,
                dump=lambda v: lazy["dump"](v),  # noqa: PLW0108 - it is filled in later
                load=lambda v: lazy["load"](v),  # noqa: PLW0108 - as above
                record=full,
                python=(type_,),
                kind="record",
            )
        converters: dict[str, Convert] = {}
        self._defined[type_] = (full, converters)
        hints = typing.get_type_hints(type_, include_extras=True)
        fields = _fields(type_)
        schema_fields: list[dict[str, Any]] = []
        forms: list[tuple[str, Form]] = []
        for field, default in fields:
            _plain_name(field, where)
            form = self.form(hints[field], f"{where}.{field}")
            forms.append((field, form))
            schema_fields.append(
                {"name": field, "type": form.schema, **_default(form, default, f"{where}.{field}")}
            )
        schema = {
            "type": "record",
            "name": type_.__name__,
            "namespace": self._namespace,
            "fields": schema_fields,
        }
        converters["dump"] = _compile_dump(forms)
        converters["load"] = _compile_load(type_, forms)
        return Form(
            schema=schema,
            dump=converters["dump"],
            load=converters["load"],
            record=full,
            python=(type_,),
            fields=tuple(forms),
            kind="record",
        )


def _plain_name(name: str, where: str) -> None:
    if not _NAME.fullmatch(name):
        raise SettingsError(f"{where}.{name}: Avro's names are of A-Z a-z 0-9 _, no digit first")


def _fields(type_: Any) -> list[tuple[str, Any]]:
    """Return (name, default) of each field; the default is `...` if there is none."""
    if dataclasses.is_dataclass(type_):
        found = []
        for field in dataclasses.fields(type_):
            default: Any = ...
            if field.default is not dataclasses.MISSING:
                default = field.default
            elif field.default_factory is not dataclasses.MISSING:
                default = field.default_factory()
            found.append((field.name, default))
        return found
    return [
        (name, ... if field.is_required() else field.get_default(call_default_factory=True))
        for name, field in type_.model_fields.items()
    ]


def _default(form: Form, default: Any, where: str) -> dict[str, Any]:
    """Return a field's Avro default, where the Python one can be written as one."""
    if default is ...:
        return {}
    if isinstance(form.schema, list):
        return {"default": None} if default is None and form.schema[0] == "null" else {}
    try:
        value = form.dump(default) if form.dump else default
    except (ValueError, TypeError, AttributeError) as error:
        raise SettingsError(f"{where}: its default {default!r} does not fit: {error}") from error
    if isinstance(value, bytes):
        value = value.decode("iso-8859-1")
    if isinstance(value, (str, int, float, bool, list, dict)):
        return {"default": value}
    return {}


def _compile_dump(forms: list[tuple[str, Form]]) -> Convert:
    """Compile attributes -> dict, one expression, so that a message costs one call."""
    scope: dict[str, Any] = {}
    parts = []
    for number, (field, form) in enumerate(forms):
        if form.dump is None:
            parts.append(f"{field!r}: v.{field}")
        else:
            scope[f"d{number}"] = form.dump
            parts.append(f"{field!r}: d{number}(v.{field})")
    return typing.cast("Convert", eval(f"lambda v: {{{', '.join(parts)}}}", scope))  # noqa: S307 - of our own field names


def _compile_load(type_: Any, forms: list[tuple[str, Form]]) -> Convert:
    scope: dict[str, Any] = {}
    values = {}
    for number, (field, form) in enumerate(forms):
        values[field] = f"v[{field!r}]"
        if form.load is not None:
            scope[f"l{number}"] = form.load
            values[field] = f"l{number}({values[field]})"
    return typing.cast("Convert", eval(f"lambda v: {making(type_, values, scope)}", scope))  # noqa: S307 - as above


def _one_of(allowed: frozenset[Any], where: str) -> Convert:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{where}: {value!r} is none of {sorted(allowed)}")
        return value

    return check


def _checked(adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise ValueError(reason(error)) from error


def _name(type_: Any) -> str:
    return type_.__name__ if inspect.isclass(type_) else str(type_)
