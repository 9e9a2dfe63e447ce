"""An allowance: what may be spent is reserved before a call is sent and settled when it is answered."""

from __future__ import annotations

import dataclasses

from headwater.contracts.frozen import Frozen
from headwater.contracts.messages import Limits, Spent

NOTHING = Spent()


def plus(one: Spent, other: Spent) -> Spent:
    """Add two amounts."""
    return Spent(
        steps=one.steps + other.steps,
        tokens=one.tokens + other.tokens,
        usd_nano=one.usd_nano + other.usd_nano,
    )


def minus(one: Spent, other: Spent) -> Spent:
    """Subtract an amount, never below nothing."""
    return Spent(
        steps=max(0, one.steps - other.steps),
        tokens=max(0, one.tokens - other.tokens),
        usd_nano=max(0, one.usd_nano - other.usd_nano),
    )


def raised(limits: Limits, added: Spent) -> Limits:
    """Return limits with something added; what has no limit stays without."""
    return dataclasses.replace(
        limits,
        steps=None if limits.steps is None else limits.steps + added.steps,
        tokens=None if limits.tokens is None else limits.tokens + added.tokens,
        usd_nano=None if limits.usd_nano is None else limits.usd_nano + added.usd_nano,
    )


class Allowance(Frozen, kw_only=True):
    """What a run may spend, has reserved and has spent.

    `reserved + spent` never passes the limit at a send. A bill over the reserve can pass it
    afterwards; the next send is then refused.
    """

    limits: Limits
    reserved: Spent = NOTHING
    spent: Spent = NOTHING

    def lacking(self, cost: Spent) -> str:
        """Return which limit a cost would pass, in words; empty if it fits."""
        limits, reserved, spent = self.limits, self.reserved, self.spent
        if limits.steps is not None and reserved.steps + spent.steps + cost.steps > limits.steps:
            return f"{limits.steps} steps"
        tokens = reserved.tokens + spent.tokens + cost.tokens
        if limits.tokens is not None and tokens > limits.tokens:
            return f"{limits.tokens} tokens"
        usd_nano = reserved.usd_nano + spent.usd_nano + cost.usd_nano
        if limits.usd_nano is not None and usd_nano > limits.usd_nano:
            return f"{limits.usd_nano / 1e9:g} USD"
        return ""

    def share(self, wanted: Limits) -> Limits:
        """Return a child's limits: what it wants where that fits, else half of what is left."""
        used = plus(self.reserved, self.spent)
        return dataclasses.replace(
            wanted,
            steps=_share(wanted.steps, self.limits.steps, used.steps + 1),
            tokens=_share(wanted.tokens, self.limits.tokens, used.tokens),
            usd_nano=_share(wanted.usd_nano, self.limits.usd_nano, used.usd_nano),
        )


def ceiling(limits: Limits) -> Spent:
    """Return the most that limits allow to be spent, as a reserve; a kind without limit reserves none."""
    return Spent(steps=limits.steps or 0, tokens=limits.tokens or 0, usd_nano=limits.usd_nano or 0)


def _share(wanted: int | None, limit: int | None, used: int) -> int | None:
    if limit is None:
        return wanted
    left = max(0, limit - used)
    return wanted if wanted is not None and wanted <= left else left // 2
