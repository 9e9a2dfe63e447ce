"""Published schemas: every version of what headwater itself writes, shipped beside its code."""

from __future__ import annotations

import functools
import pathlib

_PACKAGE = pathlib.Path(__file__).parent
_HOMES = (_PACKAGE / "data/schemas", _PACKAGE.parents[2] / "schemas")
"""Where they are in a wheel, and in the repository."""


@functools.cache
def texts() -> tuple[str, ...]:
    """Return the schemas' texts, so that what an earlier version wrote is read without asking anybody."""
    home = next(path for path in _HOMES if path.is_dir())
    return tuple(path.read_text(encoding="utf-8") for path in sorted(home.glob("*/v*.avsc")))
