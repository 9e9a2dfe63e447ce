"""Observing: who is told what a deciding loop has committed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headwater.runtime.committing import Taken


class Observer(Protocol):
    """Watches what was committed: spans, logs, metrics."""

    def committed(self, decider: str, taken: Sequence[Taken], *, seconds: float) -> None:
        """Called once per committed batch, with how long the commit took."""
        ...


class Unobserved:
    """The observer of a loop that nobody watches."""

    def committed(self, decider: str, taken: Sequence[Taken], *, seconds: float) -> None:
        """Look away."""
