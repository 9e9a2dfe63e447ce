"""Versions: which is later, and who may take what a later one wrote."""

from __future__ import annotations

import pytest

from headwater.core.versions import Versions, in_order, is_later


@pytest.mark.parametrize(
    ("wrote", "own", "later"),
    [
        ("1.10", "1.9", True),
        ("1.9", "1.10", False),
        ("2.0", "2.0", False),
        ("2.0", "2.0rc1", True),
        ("2.0.post1", "2.0", True),
        ("2.0", "2", False),
        ("2.0+b", "2.0+a", True),
        ("", "1", False),
        ("2", "", False),
        ("spring", "1.0", False),
    ],
)
def test_versions_come_in_the_order_of_distributions(wrote, own, later):
    """Text compares as PEP 440 has it, and not letter by letter; what is no version is never later."""
    assert is_later(wrote, own) is later


def test_older_code_takes_what_nobody_else_will():
    """For a version that was taken back, or that nobody had for a while; not before that is known."""
    assert not Versions().may_take("1", "2")
    assert Versions().may_take("2", "1")
    assert Versions(withdrawn=frozenset({"2"})).may_take("1", "2")
    assert not Versions(withdrawn=frozenset({"2"})).may_take("1", "3")
    assert not Versions(lately=frozenset({"1", "2"})).may_take("1", "2")
    assert Versions(lately=frozenset({"1"})).may_take("1", "2")


def test_versions_are_put_in_order_as_versions_and_not_as_text() -> None:
    """A list that an operator reads ends with the latest."""
    assert in_order(["10.0", "2.0", "2.0.dev1"]) == ["2.0.dev1", "2.0", "10.0"]
