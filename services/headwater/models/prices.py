"""Prices: from a file, the app's own declarations, and genai-prices, in that order."""

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

    input_usd: float = pydantic.Field(ge=0, allow_inf_nan=False)
    output_usd: float = pydantic.Field(ge=0, allow_inf_nan=False)

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
    declared: set[str] = set()
    for name, model in models.items():
        spec = model.spec if isinstance(model.spec, str) else ""
        named = written.get(name) or written.get(spec) or model.price
        if named is not None:
            declared.add(name)
        price = named or _listed(spec)
        if price is not None:
            found[name] = price
    return Prices(of=found, declared=frozenset(declared))


def billed(prices: Prices, name: str, response: ModelResponse) -> int:
    """Return what an answer cost, in billionths of a US dollar; 0 if nobody knows.

    A price that a person named counts before the list's, which knows tiers and cached tokens.
    """
    usage, price = response.usage, prices.of.get(name)
    if name not in prices.declared:
        try:
            return _nano(response.cost().total_price)
        except (LookupError, AssertionError, ValueError):
            pass  # the list does not know what answered; its price for what was asked still counts
    return 0 if price is None else price.cost(usage.input_tokens, usage.output_tokens)


def _read(file: pathlib.Path) -> dict[str, Price]:
    try:
        content = yaml.safe_load(file.read_text())
        adapter = pydantic.TypeAdapter(dict[str, FilePrice])
        return {name: one.price() for name, one in adapter.validate_python(content or {}).items()}
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise SettingsError(
            f"HEADWATER_PRICES__FILE {file}: {where}: {first['msg']}; it is a mapping of "
            "model: {input_usd: ..., output_usd: ...}, in US dollars for a million tokens"
        ) from error
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        words = " ".join(str(error).split())
        raise SettingsError(f"HEADWATER_PRICES__FILE {file}: {words}") from error


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
