"""Versions of an app: which is later, and whether older code may take what a later one wrote."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from packaging.version import InvalidVersion, Version


@functools.lru_cache(maxsize=1_024)
def is_later(wrote: str, own: str) -> bool:
    """Say whether one version comes after another, as Python's distributions order theirs (PEP 440).

    Equal text is the same version. Text that is no such version is later than nothing: where nobody
    can say which comes first, code that is there goes on.

    Example:
        >>> is_later("1.10", "1.9"), is_later("1.0", "1.0.dev1"), is_later("spring", "1.0")
        (True, True, False)
    """
    if wrote == own:
        return False
    try:
        return Version(wrote) > Version(own)
    except InvalidVersion:
        return False


def in_order(versions: Iterable[str]) -> list[str]:
    """Return versions, earliest first.

    Example:
        >>> in_order(["10.0", "2.0", "2.0.dev1"])
        ['2.0.dev1', '2.0', '10.0']
    """
    return sorted(sorted(versions), key=_ORDER)


_ORDER = functools.cmp_to_key(lambda a, b: is_later(a, b) - is_later(b, a))


@dataclasses.dataclass(frozen=True, slots=True)
class Versions:
    """What is known of an app's versions at one moment: reference data, swapped between batches.

    Args:
        withdrawn: Versions that an operator took back; older code takes what they wrote.
        lately: Versions that some member had within the last minutes; `None` while nobody has looked
            for that long.
    """

    withdrawn: frozenset[str] = frozenset()
    lately: frozenset[str] | None = None

    def may_take(self, own: str, wrote: str) -> bool:
        """Say whether code of one version may go on with what another one wrote."""
        if not is_later(wrote, own) or wrote in self.withdrawn:
            return True
        return self.lately is not None and wrote not in self.lately
