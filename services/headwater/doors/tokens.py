"""The tail of streamed answers: the newest pieces, per run, for those who follow one."""

from __future__ import annotations

import dataclasses
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

from headwater.contracts.messages import Token
from headwater.contracts.records import Partition
from headwater.core.messages import Meta, Position

RUNS_MAX = 1_000
PIECES_MAX = 10_000


class Tail:
    """Keeps the newest pieces; a projection that remembers nothing.

    Args:
        topic: The token topic.
    """

    def __init__(self, topic: str) -> None:
        self.topics = (topic,)
        self._lock = threading.Lock()
        self._runs: OrderedDict[str, list[dict[str, Any]]] = OrderedDict()

    def resume(self) -> Mapping[Partition, int]:
        """Begin at the start: the topic is short-lived."""
        return {}

    def fold(self, batch: Sequence[tuple[Position, Meta, Any]]) -> None:
        """Take pieces in."""
        with self._lock:
            for _, _, message in batch:
                if not isinstance(message, Token):
                    continue
                pieces = self._runs.setdefault(message.run, [])
                self._runs.move_to_end(message.run)
                if len(pieces) < PIECES_MAX:
                    pieces.append(dataclasses.asdict(message))
            while len(self._runs) > RUNS_MAX:
                self._runs.popitem(last=False)

    def of(self, run: str, after: int) -> tuple[int, list[dict[str, Any]]]:
        """Return the next position and a run's pieces after one; begin with -1."""
        with self._lock:
            pieces = self._runs.get(run, [])
            return len(pieces), pieces[max(0, after) :]
