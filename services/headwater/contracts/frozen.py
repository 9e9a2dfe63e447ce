"""Frozen values: what every turn makes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, ClassVar, dataclass_transform

import msgspec
import pydantic
from pydantic_core import core_schema


class _OfTwin:
    """What a class's twin has by this name; asked for late, as a class's fields are once it is made."""

    def __set_name__(self, of: type, name: str) -> None:
        self._name = name

    def __get__(self, value: Frozen | None, of: type[Frozen]) -> Any:
        return getattr(_twin(of), self._name)


@dataclass_transform(frozen_default=True, field_specifiers=(msgspec.field,))
class Frozen(msgspec.Struct, frozen=True):
    """A frozen value with slots, made in a tenth of the time that a frozen dataclass takes.

    It is for what every turn makes, some fifty values. To `dataclasses` and to pydantic it is a
    dataclass; only its `__init__` and what it raises when it is set to are msgspec's.

    Example:
        >>> class Point(Frozen):
        ...     x: int
        ...     y: int = 0
        >>> dataclasses.replace(Point(1), y=2)
        Point(x=1, y=2)
    """

    __dataclass_fields__: ClassVar[dict[str, dataclasses.Field[Any]]] = _OfTwin()  # type: ignore[assignment] # it gives one
    __dataclass_params__: ClassVar[Any] = _OfTwin()

    def __hash__(self) -> int:
        """Return what its fields make, as a dataclass does.

        msgspec's own takes in where the type lies in memory, so that sets of these have another order in
        each process, and a seed of the simulator another history.
        """
        return hash(msgspec.structs.astuple(self))

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: pydantic.GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        """Have pydantic read its twin and make it of that; all else is as for any dataclass.

        What pydantic reads as a dataclass it makes empty and fills then, which this cannot be.
        """

        def made(value: Any, _: pydantic.ValidatorFunctionWrapHandler) -> Any:
            if isinstance(value, cls):
                return value
            return cls(**vars(_reader(cls).validate_python(value)))

        schema = core_schema.no_info_wrap_validator_function(made, handler(source))
        # What is said of a union's members calls each by its name.
        tag = pydantic.Tag(cls.__name__)
        return tag.__get_pydantic_core_schema__(source, lambda _: schema)  # type: ignore[arg-type] # all it asks of a handler


@functools.cache
def _reader(of: type[Frozen]) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(_twin(of))


@functools.cache
def _twin(of: type[Frozen]) -> type:
    """Return a dataclass of the same name and fields."""
    fields = msgspec.structs.fields(of)
    theirs = [field.name for field in fields if field.name not in of.__annotations__]
    assert not theirs, f"{of.__name__} has {', '.join(theirs)} from a class above: let it name all"
    space: dict[str, Any] = {"__annotations__": of.__annotations__}
    for field in fields:
        given: dict[str, Any] = {"kw_only": field.name not in of.__match_args__}
        if field.default is not msgspec.NODEFAULT:
            given["default"] = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            given["default_factory"] = field.default_factory
        space[field.name] = dataclasses.field(**given)
    for name in ("__module__", "__qualname__", "__doc__"):
        space[name] = getattr(of, name)
    order = of.__struct_config__.order
    return dataclasses.dataclass(frozen=True, order=order)(type(of.__name__, (), space))
