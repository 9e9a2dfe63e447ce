"""Python types to Avro: one mechanism for our own messages and rows and for users' types."""

from __future__ import annotations

import copy
import dataclasses
import datetime
import decimal
import enum
import functools
import inspect
import operator
import re
import types
import typing
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

import pydantic
import pydantic_core

from headwater.contracts import compiled, frames, json_text, limits
from headwater.contracts.catalog import Schemas
from headwater.contracts.forms import Convert, Form, making
from headwater.errors import PoisonError, SettingsError

T = TypeVar("T")
MILLION = 1_000_000
OWN = "headwater"
"""Namespace of the platform's own schemas; no app has this name."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """How a decimal travels: `precision` digits in all, `scale` of them after the point."""

    precision: int
    scale: int


class _JsonMark:
    """Marks a type that travels as JSON text."""


Json = typing.Annotated[Any, _JsonMark]
"""Any JSON value; it travels as text."""


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
        self._parsed = frames.parse(schema)
        self.fingerprint = frames.fingerprint(schema)
        self._prefix = frames.SINGLE + self.fingerprint
        self._fields = form.fields
        self._dump = form.dump or _same
        self._load = form.load or _same
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
            raise PoisonError("invalid-value", f"{self.name}: {_first(error)}") from error
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
                    return read(data, size)[0]
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
            raise PoisonError("invalid-json", f"{self.name}: {_first(error)}") from error
        except Exception as error:  # a validator of the type's author may raise anything
            kind = type(error).__name__
            raise PoisonError("invalid-json", f"{self.name}: {kind}: {error}") from error

    def json_schema(self) -> dict[str, Any]:
        """Return the type's JSON schema, for OpenAPI and models."""
        return self._adapter.json_schema()

    def digest_of(self, value: T) -> bytes:
        """Return a value's datum as bytes: equal for equal values, whatever framed or ordered them."""
        return frames.write(self._parsed, json_text.ordered(self._dump(value)))


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
    dump, load = form.dump or _same, form.load or _same
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
        if type_ in _SCALARS:
            return _SCALARS[type_]
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
                return _decimal(mark)
        return self.form(base, where)

    def _union(self, members: Sequence[Any], where: str) -> Form:
        rest = [member for member in members if member is not type(None)]
        forms = [self.form(member, where) for member in rest]
        if len(rest) < len(members) and len(forms) == 1:
            one = forms[0]
            return Form(
                schema=["null", one.schema],
                dump=_optional(one.dump),
                load=_optional(one.load),
                kind="optional",
                parts=(one,),
            )
        # A datetime is a date too, and fastavro takes the first member that fits.
        forms.sort(key=lambda form: form.python == (datetime.date,))
        schema = [form.schema for form in forms]
        if len(rest) < len(members):
            schema.insert(0, "null")
        if len({_kind(one) for one in schema}) < len(schema):
            raise SettingsError(f"{where}: two members of the union look the same in Avro")
        return Form(
            schema=schema,
            dump=_union_dump(forms),
            load=_union_load(forms, where),
            kind="union",
            parts=tuple(forms),
        )

    def _literal(self, values: Sequence[Any], where: str) -> Form:
        kinds = {type(value) for value in values}
        if len(kinds) != 1 or not kinds <= {str, int, bool}:
            raise SettingsError(f"{where}: a Literal's values must be all text, int or bool")
        kind = kinds.pop()
        # Our own messages take a neighbouring version's new word; a user's type takes its own only.
        own = self._namespace == OWN
        check = None if own else _one_of(frozenset(values), where)
        plain = _SCALARS[kind]
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


def _kind(schema: Any) -> str:
    """Return what tells members of a union apart: a name, or the bare type."""
    if isinstance(schema, dict):
        return str(schema.get("name") or schema["type"])
    return str(schema)


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


def _culprit(schema: dict[str, Any], fields: Sequence[tuple[str, Form]], value: Any) -> str:
    """Return which of a record's fields cannot be written, as `.field`; empty if that is unclear."""
    datum: dict[str, Any] = {}
    for number, (name, form) in enumerate(fields, start=1):
        try:
            datum[name] = (form.dump or _same)(getattr(value, name))
            # A schema of the fields so far: what a field refers to is defined in one before it.
            frames.write(frames.parse({**schema, "fields": schema["fields"][:number]}), datum)
        except (ValueError, TypeError, AttributeError, KeyError, OverflowError):
            return f".{name}" if hasattr(value, name) else ""
    return ""


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


def _optional(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _union_dump(forms: Sequence[Form]) -> Convert:
    table: dict[type, tuple[Form, str]] = {}
    for form in forms:
        for python in form.python:
            table[python] = (form, form.record)

    def dump(value: Any) -> Any:
        if value is None:
            return None
        found = table.get(type(value))
        if found is None:
            raise ValueError(f"{type(value).__name__} is no member of the union")
        form, record = found
        datum = form.dump(value) if form.dump else value
        return (record, datum) if record else datum

    return dump


def _union_load(forms: Sequence[Form], where: str) -> Convert:
    """Return what finds a member by what Avro read: a record's name, else the datum's type."""
    records = {form.record: form for form in forms if form.record}
    plain: dict[type, Convert | None] = {}
    for form in forms:
        if form.record:
            continue
        if not form.python:
            raise SettingsError(f"{where}: Json is any value already; it is no member of a union")
        for read in _read_as(form):
            if read in plain:
                raise SettingsError(f"{where}: two members of the union look the same in Avro")
            plain[read] = form.load
    if len(records) == 1:  # then fastavro leaves its name out
        ((_, only),) = records.items()
        if dict in plain:
            raise SettingsError(f"{where}: a record and a dict look the same in Avro")
        plain[dict] = only.load

    def load(datum: Any) -> Any:
        if isinstance(datum, tuple):
            name, value = datum
            found = records[name].load
            return found(value) if found else value
        convert = plain.get(type(datum))
        return convert(datum) if convert else datum

    return load


def _read_as(form: Form) -> tuple[type, ...]:
    """Return the types that fastavro gives for a member of a union."""
    if issubclass(form.python[0], enum.Enum):
        return (str,)
    return form.python[:1]


def _decimal(mark: Scale) -> Form:
    quantum = decimal.Decimal(1).scaleb(-mark.scale)

    def dump(value: decimal.Decimal) -> bytes:
        exact = value.quantize(quantum)
        if exact != value:
            raise ValueError(f"{value} has more than {mark.scale} digits after the point")
        number = int(exact.scaleb(mark.scale))
        if len(str(abs(number))) > mark.precision:
            raise ValueError(f"{value} has more than {mark.precision} digits")
        return number.to_bytes((number.bit_length() // 8) + 1, "big", signed=True)

    return Form(
        schema={
            "type": "bytes",
            "logicalType": "decimal",
            "precision": mark.precision,
            "scale": mark.scale,
        },
        dump=lambda v: _exact(v, dump),
        python=(decimal.Decimal,),
    )


def _one_of(allowed: frozenset[Any], where: str) -> Convert:
    def check(value: Any) -> Any:
        if value not in allowed:
            raise ValueError(f"{where}: {value!r} is none of {sorted(allowed)}")
        return value

    return check


def _exact(value: decimal.Decimal, dump: Callable[[decimal.Decimal], bytes]) -> decimal.Decimal:
    dump(value)  # refuses what would be rounded
    return value


def _aware(value: datetime.datetime) -> datetime.datetime:
    if value.tzinfo is None:
        raise ValueError(f"{value} has no time zone")
    return value


def _checked(adapter: pydantic.TypeAdapter[Any], value: Any) -> Any:
    try:
        return adapter.validate_python(value)
    except pydantic.ValidationError as error:
        raise ValueError(_first(error)) from error


def _first(error: pydantic.ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _same(value: Any) -> Any:
    return value


def _name(type_: Any) -> str:
    return type_.__name__ if inspect.isclass(type_) else str(type_)


_SCALARS: dict[Any, Form] = {
    str: Form(schema="string", python=(str,), kind="string"),
    int: Form(schema="long", dump=operator.index, python=(int,), kind="long"),
    float: Form(schema="double", dump=float, python=(float,)),
    bool: Form(schema="boolean", python=(bool,), kind="boolean"),
    bytes: Form(schema="bytes", python=(bytes,), kind="bytes"),
    datetime.datetime: Form(
        schema={"type": "long", "logicalType": "timestamp-micros"},
        dump=_aware,
        python=(datetime.datetime,),
    ),
    datetime.date: Form(schema={"type": "int", "logicalType": "date"}, python=(datetime.date,)),
    uuid.UUID: Form(
        schema={"type": "string", "logicalType": "uuid"},
        load=lambda v: v if isinstance(v, uuid.UUID) else uuid.UUID(v),
        python=(uuid.UUID,),
    ),
}
