"""Providers: whether pydantic-ai knows those that an app's models name, before anything is asked."""

from __future__ import annotations

import difflib
import typing
from collections.abc import Mapping

from pydantic_ai.exceptions import UserError
from pydantic_ai.models import OpenAIChatCompatibleProvider, known_model_names
from pydantic_ai.providers import infer_provider_class

from headwater.errors import SettingsError
from headwater.sdk.models import Model

NEAR_MAX = 3
_SHARE = 0.5


def check(models: Mapping[str, Model]) -> None:
    """Refuse an app whose models name a provider that there is not.

    Nothing of a provider that is known is imported, and whether it has such a model is its own to say.

    Args:
        models: The app's models.

    Raises:
        SettingsError: The provider of one is unknown; the message names the nearest.
    """
    known = _named()
    for name, model in models.items():
        if not isinstance(model.spec, str):
            continue
        provider = model.spec.partition(":")[0]
        if provider in known or _is_provider(provider):
            continue
        near = difflib.get_close_matches(provider, known, n=NEAR_MAX, cutoff=_SHARE)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(known)}."
        raise SettingsError(
            f"model {name}: {model.spec!r} names no provider that pydantic-ai has: {hint} For an "
            "address that speaks OpenAI's interface, give app.model a function that builds the model"
        )


def _named() -> list[str]:
    """Return the providers that pydantic-ai's own lists name; it has a few more."""
    of_models = {name.partition(":")[0] for name in known_model_names()}
    return sorted({*of_models, *typing.get_args(OpenAIChatCompatibleProvider.__value__)})


def _is_provider(name: str) -> bool:
    """Say whether pydantic-ai has a provider that its lists leave out; only that one is imported."""
    try:
        infer_provider_class(name)
    except (ValueError, UserError):
        return False
    except ImportError:
        return True  # it is known, and its package is not here: the models role says which that is
    return True
