"""Names of tenants, as every door takes them."""

from __future__ import annotations

import pytest

from headwater.contracts import headers


@pytest.mark.parametrize(
    ("name", "valid"),
    [
        ("t1", True),
        ("a.b_c-9", True),
        ("", False),
        ("T1", False),
        ("a" * 65, False),
        ("a b", False),
        ("a\n", False),
    ],
)
def test_a_tenants_name_can_stand_in_a_header_and_a_key(name: str, valid: bool) -> None:
    """1 to 64 of `a-z 0-9 . _ -`, and nothing behind them."""
    assert headers.valid_tenant(name) is valid
