"""Frozen values that are made quickly."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

P = ParamSpec("P")
T = TypeVar("T", bound=type)
V = TypeVar("V")
_QUICK: set[type] = set()


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
    takes, body, scope = _filling(of)
    exec("\n".join([f"def __init__(self, {takes}):", *body]), scope)  # noqa: S102 - of a class's own fields
    scope["__init__"].__qualname__ = f"{of.__qualname__}.__init__"
    setattr(of, "__init__", scope["__init__"])  # noqa: B010 - the checker warns of assigning it
    _QUICK.add(of)
    return of


def is_quick(of: type) -> bool:
    """Say whether a class was made quick, so that nothing but its fields is to be filled."""
    return of in _QUICK


def maker(of: Callable[P, V]) -> Callable[P, V]:
    """Return a function that makes what a class of this kind makes, of the same arguments.

    To call a class costs a tuple and a dict of its arguments, to call a function does not, so this
    takes half the time. It is for what every turn makes.

    Example:
        >>> @dataclasses.dataclass(frozen=True, slots=True)
        ... class Point:
        ...     x: int
        ...     y: int = 0
        >>> maker(Point)(1, y=2)
        Point(x=1, y=2)
    """
    takes, body, scope = _filling(of)
    scope |= {"new": object.__new__, "of": of}
    lines = [f"def make({takes}):", " self = new(of)", *body, " return self"]
    exec("\n".join(lines), scope)  # noqa: S102 - as above
    return cast("Callable[P, V]", scope["make"])


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
    exec("\n".join(lines), scope)  # noqa: S102 - as above
    return cast("Callable[[V], V]", scope["copy"])


def _filling(of: Any) -> tuple[str, list[str], dict[str, Any]]:
    """Return a class's parameters, the lines that fill `self` with them, and what the lines name."""
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
    return ", ".join([*places, *(["*", *named] if named else [])]), body, scope
