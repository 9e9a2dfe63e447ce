"""Prices: from the app's own declarations, a file, and genai-prices, in that order."""

from __future__ import annotations

import decimal
import pathlib
from collections.abc import Mapping

import genai_prices
import pydantic
import yaml
from pydantic_ai.messages import ModelResponse

from headwater.core.prices import Price, Prices
from headwater.errors import SettingsError
from headwater.sdk.models import Model

NANO = 1_000_000_000
MILLION = 1_000_000


class FilePrice(pydantic.BaseModel):
    """One model in a prices file: US dollars for a million tokens."""

    model_config = pydantic.ConfigDict(extra="forbid")

    input_usd: float = pydantic.Field(ge=0)
    output_usd: float = pydantic.Field(ge=0)

    def price(self) -> Price:
        """Return it in billionths."""
        return Price(
            input_nano=round(self.input_usd * NANO), output_nano=round(self.output_usd * NANO)
        )


def snapshot(models: Mapping[str, Model], file: pathlib.Path | None = None) -> Prices:
    """Return the prices of an app's models.

    Args:
        models: The app's models.
        file: YAML or JSON: model's name, or its `provider:model`, to `{input_usd, output_usd}`.

    Raises:
        SettingsError: The file cannot be read; the message names it and the field.
    """
    written = {} if file is None else _read(file)
    found: dict[str, Price] = {}
    for name, model in models.items():
        spec = model.spec if isinstance(model.spec, str) else ""
        price = model.price or written.get(name) or written.get(spec) or _listed(spec)
        if price is not None:
            found[name] = price
    return Prices(of=found)


def billed(prices: Prices, name: str, response: ModelResponse) -> int:
    """Return what an answer cost, in billionths of a US dollar; 0 if nobody knows."""
    usage, price = response.usage, prices.of.get(name)
    if price is not None:
        return price.cost(usage.input_tokens, usage.output_tokens)
    try:
        return _nano(response.cost().total_price)
    except (LookupError, AssertionError, ValueError):
        return 0


def _read(file: pathlib.Path) -> dict[str, Price]:
    try:
        content = yaml.safe_load(file.read_text())
        adapter = pydantic.TypeAdapter(dict[str, FilePrice])
        return {name: one.price() for name, one in adapter.validate_python(content or {}).items()}
    except (OSError, yaml.YAMLError, pydantic.ValidationError) as error:
        raise SettingsError(f"HEADWATER_PRICES__FILE {file}: {error}") from error


def _listed(spec: str) -> Price | None:
    provider, _, model = spec.partition(":")
    if not model:
        return None
    try:
        prices = [
            genai_prices.calc_price(usage, model_ref=model, provider_id=provider).total_price
            for usage in (
                genai_prices.Usage(input_tokens=MILLION),
                genai_prices.Usage(output_tokens=MILLION),
            )
        ]
    except LookupError:
        return None
    return Price(input_nano=_nano(prices[0]), output_nano=_nano(prices[1]))


def _nano(usd: decimal.Decimal) -> int:
    return round(usd * NANO)
