"""Projecting: the loop that folds committed records into a view."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

from headwater.contracts.records import Partition, Record
from headwater.core.messages import Meta, Position
from headwater.core.projection import Projection
from headwater.errors import PoisonError
from headwater.log.port import Log

logger = logging.getLogger(__name__)

Opener = Callable[[Record], tuple[Meta, Any]]

RECORDS_MAX = 2_000
_IDLE_MS = 200


class Projecting:
    """Reads the projection's topics from where its view is, and folds what comes.

    Args:
        log: The log; read without a group.
        projection: The view.
        opener: Reads a record as (meta, message).
    """

    def __init__(self, *, log: Log, projection: Projection, opener: Opener) -> None:
        self._log = log
        self._projection = projection
        self._open = opener
        resume = projection.resume()
        starts = {
            place: resume.get(place, 0)
            for topic in projection.topics
            for place in (Partition(topic, n) for n in range(log.partitions(topic)))
        }
        self._reader = log.read(starts)

    @property
    def caught_up(self) -> bool:
        """Whether the view has everything that was there when the loop began."""
        return self._reader.at_end

    def step(self, wait_ms: int = 0) -> int:
        """Fold one batch; return how many records it had."""
        records = self._reader.poll(records_max=RECORDS_MAX, wait_ms=wait_ms)
        batch: list[tuple[Position, Meta, Any]] = []
        for record in records:
            place = record.partition
            at = Position(self._log.topic_id(place.topic), place.topic, place.number, record.offset)
            try:
                meta, message = self._open(record)
            except PoisonError as error:
                logger.warning("%s@%d is left out of the view: %s", place, record.offset, error)
                meta, message = Meta(id="", tenant=""), None
            batch.append((at, meta, message))
        if batch:
            self._projection.fold(batch)
        return len(batch)

    def run(self, stop: threading.Event) -> None:
        """Fold until told to stop."""
        try:
            while not stop.is_set():
                self.step(_IDLE_MS)
        finally:
            self.close()

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()
