"""Doubles: models and tools that stand in for an app's own in a test."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from headwater.core.prices import Price
from headwater.models.scripted import Scripted
from headwater.sdk.models import Model
from headwater.sdk.tools import Tool

_FREE = Price(input_nano=0, output_nano=0)


def scripted(model: Model, script: Any) -> Model:
    """Return a model that follows a script, or asks a pydantic-ai model; it costs nothing unless priced."""
    from pydantic_ai.models import Model as ProviderModel  # noqa: PLC0415 - heavy

    if isinstance(script, ProviderModel):
        made: Callable[..., Any] = functools.partial(_same, script)
    elif isinstance(script, Scripted):
        made = script
    else:
        made = Scripted(script)
    return Model(model.name, made, settings=model.settings, price=model.price or _FREE)


def _same(model: Any, settings: Any) -> Any:
    return model


def faked(tool: Tool[Any, Any], fake: Callable[..., Any]) -> Tool[Any, Any]:
    """Return a tool that another function runs for, on the same terms."""
    other = object.__new__(type(tool))
    other.__dict__.update(tool.__dict__)
    other.function = fake
    other.wants_call = False
    return other
