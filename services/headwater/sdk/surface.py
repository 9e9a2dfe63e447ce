"""Surface: the names and schemas that an app shows to topics, producers and other processes."""

from __future__ import annotations

import json
import re
import typing
from collections.abc import Callable, Iterator
from typing import Any

from pydantic.errors import PydanticUserError

from headwater.contracts.catalog import Schemas
from headwater.contracts.derive import shape_of
from headwater.contracts.shape import Shape
from headwater.errors import SettingsError

OURS = "headwater"
"""Namespace of the platform's own schemas; no app may have it."""
RESERVED = frozenset({"admission", "approvals", "runs", "tokens"})
"""Names of the platform's own inboxes and event topics; no agent may have them."""
_REFUSALS = (PydanticUserError, NameError, TypeError, ValueError)
"""What pydantic raises for types that it cannot take."""
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,63}")


class Surface:
    """Every schema of an app, each full name meaning one thing.

    Args:
        namespace: Begins the full names of the app's records.
    """

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        self.schemas = Schemas()
        self._definitions: dict[str, tuple[str, str]] = {}

    def shape(self, where: str, type_: Any, name: str) -> Shape[Any]:
        """Return a type's shape, and learn it.

        Args:
            where: Whose it is, for refusals: `agent triage: claim`.
            type_: The type.
            name: Name of the record around it, if it is none itself.

        Raises:
            SettingsError: It has no Avro form, or another type has its name.
        """
        return self.learn(where, lambda: shape_of(type_, name=name, namespace=self.namespace))

    def try_parameter(self, what: str, name: str, type_: Any) -> None:
        """Refuse a parameter's type by the parameter's name.

        Raises:
            SettingsError: It has no Avro form.
        """
        try:
            shape_of(type_, name=name, namespace=self.namespace)
        except SettingsError as error:
            raise SettingsError(f"{what}: parameter {error}") from error
        except _REFUSALS as error:
            raise SettingsError(
                f"{what}: parameter {name}: the type cannot be used: {error}"
            ) from error

    def learn(self, where: str, make: Callable[[], Shape[Any]]) -> Shape[Any]:
        """Make a shape and learn it; see `shape`."""
        try:
            shape = make()
        except SettingsError as error:
            raise SettingsError(f"{where}: {error}") from error
        except _REFUSALS as error:
            raise SettingsError(f"{where}: the type cannot be used: {error}") from error
        for name, definition in definitions(shape.schema):
            first, known = self._definitions.setdefault(name, (where, definition))
            if known != definition:
                raise SettingsError(
                    f"{where}: its type {name} is another than the {name} of {first}; rename one"
                )
        self.schemas.add(shape.schema)
        return shape


def definitions(schema: Any) -> Iterator[tuple[str, str]]:
    """Yield (full name, definition) of a schema's named types, each as if alone."""
    if isinstance(schema, list):
        for member in schema:
            yield from definitions(member)
    elif isinstance(schema, dict):
        if schema["type"] in ("record", "enum"):
            yield _full(schema), json.dumps(_flat(schema, top=True), sort_keys=True)
        for field in schema.get("fields", ()):
            yield from definitions(field["type"])
        for part in ("items", "values"):
            yield from definitions(schema.get(part))


def _flat(schema: Any, *, top: bool = False) -> Any:
    """Return a definition with the named types in it told by their names."""
    if isinstance(schema, list):
        return [_flat(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    if "name" in schema and "type" in schema and not top:
        if schema["type"] in ("record", "enum"):
            return _full(schema)
        return {**schema, "type": _flat(schema["type"])}
    inner = {part: _flat(schema[part]) for part in ("items", "values") if part in schema}
    if "fields" in schema:
        inner["fields"] = [_flat(field) for field in schema["fields"]]
    return {**schema, **inner}


def _full(schema: dict[str, Any]) -> str:
    namespace = schema.get("namespace")
    return f"{namespace}.{schema['name']}" if namespace else str(schema["name"])


def check_name(what: str, name: str) -> None:
    """Refuse a name that topics cannot carry.

    Raises:
        SettingsError: It is one.
    """
    if not _NAME.fullmatch(name):
        raise SettingsError(
            f"{what} {name!r}: a name is a-z, then up to 63 of a-z 0-9 _ -, because topics carry it"
        )


def check_timeout(what: str, timeout_s: float | None) -> None:
    """Refuse a time limit that no call can keep.

    Raises:
        SettingsError: It is one.
    """
    if timeout_s is not None and not 0 < timeout_s < float("inf"):
        raise SettingsError(
            f"{what}: timeout_s must be over 0 seconds, not {timeout_s}; leave it out for no limit"
        )


def title(name: str) -> str:
    """Return a name as records carry it: `block_card` is `BlockCard`."""
    return "".join(part.capitalize() for part in re.split("[_-]", name))


def hints(what: str, function: Callable[..., Any]) -> dict[str, Any]:
    """Return a function's type hints.

    Raises:
        SettingsError: One names what is not there.
    """
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError, AttributeError) as error:
        raise SettingsError(
            f"{what}: a type hint cannot be read: {error}; define types at the module's top level, "
            "outside `if TYPE_CHECKING`"
        ) from error
