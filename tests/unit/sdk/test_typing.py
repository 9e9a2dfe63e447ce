"""Authors' code under a strict type checker."""

from __future__ import annotations

import importlib.resources
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[3]


@pytest.mark.slow
def test_declarations_keep_their_types() -> None:
    """What authors declare is typed as what they await, their mistakes are found, and examples are clean."""
    command = [sys.executable, "-m", "mypy", "tests/unit/sdk/typed.py", "examples"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=380, check=False
    )
    assert done.returncode == 0, done.stdout


def test_the_package_says_that_it_is_typed() -> None:
    """Without its marker a type checker takes everything of a package for `Any`, and finds nothing."""
    assert (importlib.resources.files("headwater") / "py.typed").is_file()
