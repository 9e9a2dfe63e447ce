"""Allowances: reserve before, settle after."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headwater.contracts.messages import Limits, Spent
from headwater.core.allowance import Allowance, ceiling, minus, plus
from headwater.core.prices import Prices, usd_per_million

SPENT = st.builds(
    Spent, steps=st.integers(0, 5), tokens=st.integers(0, 50), usd_nano=st.integers(0, 50)
)


@given(st.lists(SPENT, max_size=20))
def test_reserved_and_spent_never_pass_the_limit(costs):
    """Whatever is asked, what fits is sent and the rest is refused."""
    limits = Limits(steps=10, tokens=100, usd_nano=100)
    reserved = spent = Spent()
    for cost in costs:
        if not Allowance(limits=limits, reserved=reserved, spent=spent).lacking(cost):
            reserved = plus(reserved, cost)
            if cost.tokens % 2:
                reserved, spent = minus(reserved, cost), plus(spent, Spent(steps=cost.steps))
        used = plus(reserved, spent)
        assert used.steps <= 10
        assert used.tokens <= 100
        assert used.usd_nano <= 100


def test_refusal_names_the_limit():
    """An author sees which limit was in the way."""
    allowance = Allowance(limits=Limits(steps=1, tokens=2, usd_nano=3_000_000_000))
    assert allowance.lacking(Spent(steps=2)) == "1 steps"
    assert allowance.lacking(Spent(tokens=3)) == "2 tokens"
    assert allowance.lacking(Spent(usd_nano=4_000_000_000)) == "3 USD"
    assert allowance.lacking(Spent()) == ""
    free = Allowance(limits=Limits(steps=None, tokens=None, usd_nano=None))
    assert free.lacking(Spent(steps=10**9, tokens=10**9, usd_nano=10**18)) == ""


def test_child_gets_what_it_wants_or_half_of_what_is_left():
    """One child cannot take everything from its siblings by default."""
    parent = Allowance(limits=Limits(steps=11, tokens=None, usd_nano=100))
    share = parent.share(Limits(steps=100, tokens=7, usd_nano=40))
    assert (share.steps, share.tokens, share.usd_nano) == (5, 7, 40)
    broke = Allowance(limits=Limits(usd_nano=10), spent=Spent(usd_nano=50))
    assert broke.share(Limits()).usd_nano == 0
    assert ceiling(Limits(steps=None, tokens=5, usd_nano=None)) == Spent(tokens=5)


def test_prices_bound_a_call_before_it_is_made():
    """A token is at least a byte, so bytes bound what the input can cost; an unknown price has no bound."""
    prices = Prices(of={"small": usd_per_million(input_usd=1, output_usd=2)})
    most, why = prices.ceiling("small", input_bytes=1_000, max_tokens=100)
    assert most == Spent(tokens=1_100, usd_nano=1_200_000)
    assert why == ""
    nothing, why = prices.ceiling("other", input_bytes=1, max_tokens=1)
    assert nothing is None
    assert "HEADWATER_PRICES__FILE" in why
    assert prices.of["small"].cost(1, 0) == 1_000
