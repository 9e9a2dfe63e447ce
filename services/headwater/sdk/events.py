"""Events: what agents publish beside their outcomes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pydantic

from headwater.contracts.shape import Shape
from headwater.errors import SettingsError
from headwater.sdk.calls import encoded
from headwater.sdk.surface import Surface


class Events:
    """The events of one agent; an event's CloudEvents type is the name of its class.

    Args:
        what: Whose they are, for refusals: `agent triage`.
        emits: Types that are declared, so that their schemas are published with the app's.
        surface: Learns the schemas.

    Raises:
        SettingsError: A type is no record, or has no Avro form.
    """

    def __init__(self, what: str, emits: Sequence[type], surface: Surface) -> None:
        self._what = what
        self._surface = surface
        self.shapes: dict[type, Shape[Any]] = {}
        for type_ in emits:
            self.shape(type_)

    def shape(self, type_: type) -> Shape[Any]:
        """Return an event type's shape; one that was not declared is learned now.

        Raises:
            SettingsError: It is no record, or has no Avro form.
        """
        found = self.shapes.get(type_)
        if found is None:
            if not (dataclasses.is_dataclass(type_) or issubclass(type_, pydantic.BaseModel)):
                raise SettingsError(
                    f"{self._what} emits {type_.__name__}: an event is a pydantic model or a dataclass, "
                    "because its class's name is its CloudEvents type"
                )
            where = f"{self._what}: event {type_.__name__}"
            found = self.shapes[type_] = self._surface.shape(where, type_, type_.__name__)
        return found

    def encode(self, event: Any) -> tuple[str, bytes]:
        """Return an event's CloudEvents type and value.

        Raises:
            SettingsError: Its type is no record.
            ValueError: A field does not fit its type.
        """
        type_ = type(event)
        return type_.__name__, encoded(f"event {type_.__name__}", self.shape(type_), event)
