"""Assertions of the shipped suite explain themselves as those of tests do."""

import pytest

pytest.register_assert_rewrite(
    "headwater.testing.conformance_groups",
    "headwater.testing.conformance_records",
    "headwater.testing.conformance_transactions",
    "headwater.testing.conformance_world",
)
