"""The promises of the log's port, as tests that every log must pass.

A log's own test module subclasses `LogConformance` and provides the fixture `harness`:

    class TestLocal(LogConformance):
        @pytest.fixture
        def harness(self) -> Iterator[Harness]: ...

Each test's name is its claim. Assertions explain themselves if the test directory's
`conftest.py` calls `pytest.register_assert_rewrite` for `headwater.testing.conformance_*`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from headwater.testing.conformance_groups import GroupClaims
from headwater.testing.conformance_intentions import IntentionClaims
from headwater.testing.conformance_records import RecordClaims
from headwater.testing.conformance_transactions import TransactionClaims
from headwater.testing.conformance_world import Harness, OpenTransaction, World


class LogConformance(RecordClaims, GroupClaims, TransactionClaims, IntentionClaims):
    """Every promise of the port."""

    @pytest.fixture
    def world(self, harness: Harness) -> Iterator[World]:
        """One test's topics, groups and members; the members end with it."""
        world = World(harness)
        yield world
        world.end()


__all__ = ["Harness", "LogConformance", "OpenTransaction", "World"]
