"""A watchdog over calls of the Kafka client: one that never returns stops the process, loudly.

A hanging call would hold partitions for ever while its heartbeats go on, so nobody would take over.
"""

from __future__ import annotations

import contextlib
import faulthandler
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterator

logger = logging.getLogger(__name__)

EXIT_STATUS = 70
TICK_S = 1.0


def exit_now(words: str) -> None:
    """End the process at once, with every thread's stack on stderr."""
    logger.critical("%s; the process ends so that another can take over", words)
    logging.shutdown()
    faulthandler.dump_traceback(file=sys.stderr, all_threads=True)
    os._exit(EXIT_STATUS)


class Watchdog:
    """Watches calls that must end.

    It counts its own ticks instead of reading a clock, so a process that was stopped for an hour
    and goes on is not taken for one that hung for an hour.

    Args:
        on_hang: What to do about a call that did not end; it is told which.
        tick_s: How often to look.
    """

    def __init__(
        self, on_hang: Callable[[str], None] = exit_now, *, tick_s: float = TICK_S
    ) -> None:
        self._on_hang = on_hang
        self._tick_s = tick_s
        self._ticks = 0
        self._numbers = itertools.count()
        self._calls: dict[int, tuple[str, int]] = {}
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._stopped = threading.Event()

    @contextlib.contextmanager
    def over(self, name: str, bound_s: float) -> Iterator[None]:
        """Watch one call.

        Args:
            name: For the last words.
            bound_s: How long it may take; it gets two ticks of grace.
        """
        if self._thread is None:
            self._start()
        number = next(self._numbers)
        self._calls[number] = (name, self._ticks + 2 + int(bound_s / self._tick_s))
        try:
            yield
        finally:
            self._calls.pop(number, None)

    def tick(self) -> None:
        """Look once."""
        self._ticks += 1
        for name, until in [*self._calls.values()]:
            if self._ticks > until:
                self._on_hang(f"the Kafka client's {name} did not return in time")

    def stop(self) -> None:
        """Stop looking."""
        self._stopped.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="kafka.watchdog", daemon=True
                )
                self._thread.start()

    def _run(self) -> None:
        while not self._stopped.wait(self._tick_s):
            self.tick()


WATCHDOG = Watchdog()
"""The process's own."""
