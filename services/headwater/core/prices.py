"""Prices of models: a frozen snapshot, so that what a call may cost is a pure function."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from headwater.contracts.messages import Spent


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """What a million tokens cost, in billionths of a US dollar."""

    input_nano: int
    output_nano: int

    def cost(self, input_tokens: int, output_tokens: int) -> int:
        """Return what so many tokens cost, in billionths of a US dollar, rounded up."""
        total = input_tokens * self.input_nano + output_tokens * self.output_nano
        return -(-total // 1_000_000)


def usd_per_million(*, input_usd: float, output_usd: float) -> Price:
    """Return a price from US dollars for a million tokens."""
    return Price(input_nano=round(input_usd * 1e9), output_nano=round(output_usd * 1e9))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices by the app's model names.

    Args:
        of: Model's name in the app to its price.
        source: Where they come from, for messages.
        declared: Models whose price a person named; all others' comes from a public list.
    """

    of: Mapping[str, Price] = dataclasses.field(default_factory=dict)
    source: str = "HEADWATER_PRICES__FILE"
    declared: frozenset[str] = frozenset()

    def ceiling(self, model: str, *, input_bytes: int, max_tokens: int) -> tuple[Spent | None, str]:
        """Return the most one call can cost, or `None` and why that is unknown.

        A token is at least one byte of UTF-8, so the bytes of the input bound its tokens.
        """
        price = self.of.get(model)
        if price is None:
            return None, (
                f"no price is known for model {model!r}, and the run has a budget in USD: "
                f"name one in the file of {self.source}, or give the agent usd=None"
            )
        cost = price.cost(input_bytes, max_tokens)
        return Spent(tokens=input_bytes + max_tokens, usd_nano=cost), ""
