"""The package's front: every public name is there, and light."""

from __future__ import annotations

import doctest
import importlib
import subprocess
import sys

import pytest

import headwater

MODULES = ("app", "types")


def test_every_public_name_is_there() -> None:
    """What stands in `__all__` can be used."""
    for name in headwater.__all__:
        assert getattr(headwater, name) is not None
    assert headwater.testing.App.__module__ == "headwater.testing.app"
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        headwater.Nonsense  # noqa: B018 - it raises


def test_import_leaves_out_what_few_need() -> None:
    """Neither providers' libraries nor Kafka nor HTTP are imported before they are used."""
    heavy = ("pydantic_ai", "confluent_kafka", "httpx", "starlette", "pydantic_settings")
    code = f"import sys, headwater; print([m for m in {heavy!r} if m in sys.modules])"
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=180
    )
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_documentation_run(name: str) -> None:
    """Documentation is executed."""
    failed, tried = doctest.testmod(importlib.import_module(f"headwater.sdk.{name}"))
    assert (failed, tried > 0) == (0, True)
