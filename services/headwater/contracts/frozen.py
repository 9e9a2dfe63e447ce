"""Frozen values that are made quickly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar, cast

T = TypeVar("T", bound=type)
V = TypeVar("V")


def quick(of: T) -> T:
    """Have a frozen dataclass with slots fill them directly.

    What `dataclasses` writes for a frozen class looks each field up by its name as it sets it, which
    makes a value cost twice as much; a turn makes some fifty. The value is as frozen as before.

    Example:
        >>> @quick
        ... @dataclasses.dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> Point(1)
        Point(x=1, y=0)
    """
    scope: dict[str, Any] = {"missing": dataclasses.MISSING}
    places: list[str] = []
    named: list[str] = []
    body: list[str] = []
    for field in dataclasses.fields(of):
        name = field.name
        scope[f"set_{name}"] = getattr(of, name).__set__
        taken, value = name, name
        if field.default_factory is not dataclasses.MISSING:
            scope[f"make_{name}"] = field.default_factory
            taken, value = f"{name}=missing", f"make_{name}() if {name} is missing else {name}"
        elif field.default is not dataclasses.MISSING:
            scope[f"default_{name}"] = field.default
            taken = f"{name}=default_{name}"
        (named if field.kw_only else places).append(taken)
        body.append(f" set_{name}(self, {value})")
    if hasattr(of, "__post_init__"):
        body.append(" self.__post_init__()")
    takes = ", ".join(["self", *places, *(["*", *named] if named else [])])
    exec("\n".join([f"def __init__({takes}):", *body]), scope)  # noqa: S102 - of a class's own fields
    scope["__init__"].__qualname__ = f"{of.__qualname__}.__init__"
    setattr(of, "__init__", scope["__init__"])  # noqa: B010 - the checker warns of assigning it
    return of


def setters(of: type) -> dict[str, Callable[[Any, Any], None]]:
    """Return what sets each field of a frozen class with slots, for a value that nobody else has yet."""
    return {field.name: getattr(of, field.name).__set__ for field in dataclasses.fields(of)}


def copier(of: type[V]) -> Callable[[V], V]:
    """Return a function that copies values of a frozen class with slots.

    What `copy` does with them takes ten times as long.
    """
    sets = setters(of)
    scope: dict[str, Any] = {"new": object.__new__, "of": of}
    scope |= {f"set_{name}": set_ for name, set_ in sets.items()}
    body = [f" set_{name}(to, value.{name})" for name in sets]
    lines = ["def copy(value):", " to = new(of)", *body, " return to"]
    exec("\n".join(lines), scope)  # noqa: S102 - of a class's own fields
    return cast("Callable[[V], V]", scope["copy"])
