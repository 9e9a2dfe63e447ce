"""Unions: one form of several, each value written and read as the member it is."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Sequence
from typing import Any

from headwater.contracts.forms import Convert, Form
from headwater.errors import SettingsError


def union_of(forms: list[Form], where: str, *, null: bool) -> Form:
    """Return the form of a union.

    Args:
        forms: Of its members, `None` apart.
        where: What has the union, for refusals.
        null: Whether `None` is a member.

    Raises:
        SettingsError: Two members could not be told apart.
    """
    if null and len(forms) == 1:
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
    if null:
        schema.insert(0, "null")
    if len({_kind(one) for one in schema}) < len(schema):
        raise SettingsError(f"{where}: two members of the union look the same in Avro")
    return Form(
        schema=schema,
        dump=_dump(forms),
        load=_load(forms, where),
        kind="union",
        parts=tuple(forms),
    )


def _kind(schema: Any) -> str:
    """Return what tells members of a union apart: a name, or the bare type."""
    if isinstance(schema, dict):
        return str(schema.get("name") or schema["type"])
    return str(schema)


def _optional(convert: Convert | None) -> Convert | None:
    if convert is None:
        return None
    return lambda value: None if value is None else convert(value)


def _dump(forms: Sequence[Form]) -> Convert:
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


def _load(forms: Sequence[Form], where: str) -> Convert:
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
