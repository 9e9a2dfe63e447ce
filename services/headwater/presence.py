"""Presence: whether the log answers now, for whoever asks whether a process can do its work."""

from __future__ import annotations

import threading
from collections.abc import Callable

EVERY_S = 2.0
"""How long after one answer the log is asked again."""
WAIT_S = 3.0
"""How long an answer may take: together, what it takes at most to notice that the log is away."""


class Presence:
    """Asks the log again and again whether it is there.

    Args:
        ask: Returns whether it answers within so many seconds; it blocks meanwhile.
        every_s: How long after one answer it is asked again.
        wait_s: How long an answer may take.
    """

    def __init__(
        self, ask: Callable[[float], bool], *, every_s: float = EVERY_S, wait_s: float = WAIT_S
    ) -> None:
        self._ask = ask
        self._every_s = every_s
        self._wait_s = wait_s
        self.here = True
        """What it last found; whoever starts has just been answered."""

    def run(self, stop: threading.Event) -> None:
        """Ask until told to stop."""
        while not stop.wait(self._every_s):
            self.here = self._ask(self._wait_s)
