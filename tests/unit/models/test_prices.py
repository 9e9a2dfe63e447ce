"""Prices: who names them, what a call can cost, what an answer did cost."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_ai.messages import ModelResponse, TextPart
from pydantic_ai.usage import RequestUsage

from headwater.core.prices import Price, Prices, usd_per_million
from headwater.errors import SettingsError
from headwater.models.prices import billed, snapshot
from headwater.sdk.models import Model

LISTED = "openai:gpt-5-mini"


def response(model="gpt-5-mini", *, read=0, **usage) -> ModelResponse:
    return ModelResponse(
        parts=[TextPart("x")],
        model_name=model,
        provider_name="openai",
        usage=RequestUsage(cache_read_tokens=read, **usage),
    )


def test_a_listed_model_has_the_lists_price():
    """genai-prices knows the usual providers' models; nobody has to name them."""
    prices = snapshot({"small": Model("small", LISTED)})
    assert prices.of["small"].input_nano > 0
    assert prices.of["small"].output_nano > prices.of["small"].input_nano
    assert prices.declared == frozenset()


@pytest.mark.parametrize("spec", ["nowhere:nothing", "openai:nothing", lambda _: None])
def test_a_model_nobody_lists_has_no_price(spec):
    """An unknown price is unknown, not zero."""
    assert snapshot({"small": Model("small", spec)}).of == {}


@pytest.mark.parametrize("key", ["small", LISTED])
@pytest.mark.parametrize("name", ["prices.yaml", "prices.json"])
def test_the_file_counts_before_all_others(tmp_path, key, name):
    """YAML or JSON, by the app's name or the provider's; it overrides the app and the list."""
    file = tmp_path / name
    file.write_text(json.dumps({key: {"input_usd": 3, "output_usd": 0.5}}))
    model = Model("small", LISTED, price=usd_per_million(input_usd=9, output_usd=9))
    prices = snapshot({"small": model}, file)
    assert prices.of["small"] == Price(input_nano=3_000_000_000, output_nano=500_000_000)
    assert prices.declared == {"small"}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("small: 3", "small"),
        ("small: {input_usd: 1}", "output_usd"),
        ("small: {input_usd: -1, output_usd: 1}", "input_usd"),
        ("small: {input_usd: .inf, output_usd: 1}", "input_usd"),
        ("small: {input_usd: 1, output_usd: 1, currency: EUR}", "currency"),
        ("- small", "the file"),
        ("{", "prices.yaml"),
        (None, "No such file"),
    ],
)
def test_a_file_that_cannot_be_read_stops_the_start(tmp_path, text, words):
    """In one line: the variable, the file and the field."""
    file = tmp_path / "prices.yaml"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SettingsError, match="HEADWATER_PRICES__FILE") as caught:
        snapshot({"small": Model("small", LISTED)}, file)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_empty_file_names_no_price(tmp_path):
    """A file may be empty."""
    file = tmp_path / "prices.yaml"
    file.write_text("")
    assert snapshot({"small": Model("small", "openai:nothing")}, file).of == {}


def test_an_unknown_price_names_the_file():
    """A run with a money budget is told what to do."""
    most, why = Prices().ceiling("small", input_bytes=1, max_tokens=1)
    assert most is None
    assert "small" in why
    assert "HEADWATER_PRICES__FILE" in why


@given(
    text=st.text(max_size=200),
    max_tokens=st.integers(0, 10_000),
    price=st.builds(Price, input_nano=st.integers(0, 10**12), output_nano=st.integers(0, 10**12)),
    share=st.floats(0, 1),
)
def test_a_bill_is_never_over_its_ceiling(text, max_tokens, price, share):
    """A token is at least a byte, and no more than `max_tokens` are written."""
    size = len(text.encode())
    most, _ = Prices(of={"m": price}).ceiling("m", input_bytes=size, max_tokens=max_tokens)
    assert most is not None
    bill = price.cost(int(size * share), int(max_tokens * share))
    assert bill <= most.usd_nano
    assert most.tokens == size + max_tokens


def test_a_named_price_is_what_is_billed():
    """Who names a price is taken at their word."""
    prices = Prices(
        of={"small": usd_per_million(input_usd=1, output_usd=2)}, declared=frozenset({"small"})
    )
    assert billed(prices, "small", response(input_tokens=10, output_tokens=5)) == 20_000


def test_the_list_knows_of_cached_tokens():
    """A listed model's bill is the list's own: cached tokens cost less."""
    prices = snapshot({"small": Model("small", LISTED)})
    plain = billed(prices, "small", response(input_tokens=1_000_000))
    cached = billed(prices, "small", response(input_tokens=1_000_000, read=900_000))
    assert plain == prices.of["small"].input_nano
    assert 0 < cached < plain


def test_an_answer_by_an_unknown_model_costs_what_the_asked_one_does():
    """A proxy may answer under another name; nothing is free for that."""
    prices = snapshot({"small": Model("small", LISTED)})
    bill = billed(prices, "small", response("nobody-knows", input_tokens=1_000_000))
    assert bill == prices.of["small"].input_nano
    assert billed(Prices(), "small", response("nobody-knows", input_tokens=5)) == 0
