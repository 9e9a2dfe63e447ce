"""The bank's own systems, in memory: what stands behind the tools."""

from __future__ import annotations

import dataclasses
import decimal
import threading


@dataclasses.dataclass(slots=True)
class Bank:
    """Accounts and cards.

    It remembers the keys of what it did: the same key again changes nothing and returns the same
    answer. A real system does this with a unique index, and it is what makes a tool safe to repeat.
    """

    balances: dict[str, decimal.Decimal]
    blocked: set[str] = dataclasses.field(default_factory=set)
    answers: dict[str, str] = dataclasses.field(default_factory=dict)
    _lock: threading.Lock = dataclasses.field(default_factory=threading.Lock)

    def balance(self, account: str) -> decimal.Decimal:
        """Return what is in an account."""
        return self.balances.get(account, decimal.Decimal())

    def block(self, card_id: str, key: str) -> str:
        """Block a card, and return the reference of that."""
        with self._lock:
            if key not in self.answers:
                self.blocked.add(card_id)
                self.answers[key] = f"B-{len(self.answers) + 1:04}"
            return self.answers[key]

    def transfer(self, account: str, to: str, amount: decimal.Decimal, key: str) -> str:
        """Move money, and return the reference of that.

        Raises:
            ValueError: There is too little in the account.
        """
        with self._lock:
            if key not in self.answers:
                if self.balance(account) < amount:
                    raise ValueError(f"account {account} has less than {amount}")
                self.balances[account] = self.balance(account) - amount
                self.balances[to] = self.balance(to) + amount
                self.answers[key] = f"T-{len(self.answers) + 1:04}"
            return self.answers[key]


def example() -> Bank:
    """Return a bank with three customers."""
    return Bank(
        balances={
            "ana": decimal.Decimal("15000.00"),
            "ben": decimal.Decimal("80.50"),
            "dora": decimal.Decimal("310.20"),
        },
    )
