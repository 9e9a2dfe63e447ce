"""Suspects: records that were at work when a process died, known to every process of the namespace."""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterable

from headwater.contracts.ctl import Suspect
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent
from headwater.core.envelope import Envelope
from headwater.core.messages import Address, Meta
from headwater.errors import PoisonError, ProcessKillerError, SettingsError
from headwater.log.port import Log, Reader
from headwater.runtime.posts import Accusation
from headwater.runtime.retrying import Retrying

logger = logging.getLogger(__name__)

RECORDS_MAX = 1_000
WAIT_MS = 500
DEATHS_KEPT = 8
"""How many deaths a suspect's record names."""
_Place = tuple[str, int, int]


class Suspects:
    """Who is suspected, as the log says.

    Args:
        log: The log.
        topic: The topic of suspects, of one partition.
        envelope: Seals and opens its records.
        instance: Name of this process, for the words.
        retrying: Waits for a log that is away.
        deaths_max: How many deaths alone make a killer.
    """

    def __init__(
        self,
        log: Log,
        *,
        topic: str,
        envelope: Envelope,
        instance: str,
        retrying: Retrying,
        deaths_max: int = 3,
    ) -> None:
        self._log = log
        self._place = Partition(topic, 0)
        self._envelope = envelope
        self._instance = instance
        self._retrying = retrying
        self.deaths_max = deaths_max
        self._known: dict[_Place, Suspect] = {}
        self._written: dict[_Place, int] = {}
        """Offset of the newest record of ours, so that an older one read later changes nothing."""
        self._reader: Reader | None = None
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._known)

    def find(self, record: Record) -> Suspect | None:
        """Return what is held against a record; `None` for nothing."""
        if not self._known:
            return None
        return self._known.get(_place(record))

    def check(self, record: Record) -> Suspect | None:
        """Return what is held against a record that may be tried again.

        Raises:
            ProcessKillerError: It has had its deaths.
        """
        suspect = self.find(record)
        if suspect is not None and suspect.alone >= self.deaths_max:
            deaths = "; ".join(suspect.deaths)
            raise ProcessKillerError(
                f"{suspect.what} is not run again: {suspect.alone} processes died of it alone ({deaths})"
            )
        return suspect

    def restore(self) -> None:
        """Read all that the log has; blocks, for as long as the log is away."""
        self._reader = self._log.read({self._place: 0})
        while not self._reader.at_end:
            self._take(self._reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS))

    def follow(self, stop: threading.Event) -> None:
        """Go on reading what other processes say, until told to stop."""
        assert self._reader is not None, "restored before"
        try:
            while not stop.is_set():
                self._take(self._reader.poll(records_max=RECORDS_MAX, wait_ms=WAIT_MS))
        finally:
            self._reader.close()

    async def accuse(self, accusations: Iterable[Accusation]) -> None:
        """Write down who was at work when a process died, however long that takes."""
        for one in accusations:
            post = one.post
            try:
                topic_id = self._log.topic_id(post.partition.topic)
            except SettingsError as error:
                logger.warning("%s is not suspected: %s", post.place, error)
                continue
            place = post.partition.topic, post.partition.number, post.offset
            suspect = self._known.get(place) or Suspect(
                topic=post.partition.topic,
                topic_id=topic_id,
                partition=post.partition.number,
                offset=post.offset,
                what=post.what,
            )
            await self._write(place, self._after(suspect, one.cause, alone=one.alone))

    async def died(self, record: Record, cause: str) -> bool:
        """Count one more death alone; return whether the record may be tried again."""
        place = _place(record)
        suspect = self._known.get(place)
        if suspect is None:
            return True
        suspect = self._after(suspect, cause, alone=True)
        await self._write(place, suspect)
        return suspect.alone < self.deaths_max

    async def clear(self, record: Record) -> None:
        """A record has survived: it is suspected no more."""
        place = _place(record)
        if place in self._known:
            await self._write(place, None)

    def _after(self, suspect: Suspect, cause: str, *, alone: bool) -> Suspect:
        words = f"{self._instance}, {'alone' if alone else 'among others'}: {cause}"
        return dataclasses.replace(
            suspect,
            alone=suspect.alone + alone,
            deaths=(*suspect.deaths, words)[-DEATHS_KEPT:],
        )

    async def _write(self, place: _Place, suspect: Suspect | None) -> None:
        known = suspect or self._known[place]
        key = f"{known.topic_id}/{known.partition}@{known.offset}"
        draft = Draft(topic=self._place.topic, key=key.encode(), value=None, partition=0)
        if suspect is not None:
            meta = Meta(id=key, tenant="")
            draft = self._envelope.seal(
                Sent(message=suspect, to=Address(self._place.topic, key, 0), meta=meta)
            )
        _, offset = await self._retrying.forever(
            "what is suspected of a death", lambda: self._log.append(draft)
        )
        with self._lock:
            self._written[place] = offset
            self._set(place, suspect)

    def _take(self, records: Iterable[Record]) -> None:
        for record in records:
            with self._lock:
                self._read(record)

    def _read(self, record: Record) -> None:
        if record.value is None:
            key = (record.key or b"").decode("utf-8", "replace")
            for place, suspect in [*self._known.items()]:
                if key == f"{suspect.topic_id}/{suspect.partition}@{suspect.offset}":
                    self._newer(place, record.offset, None)
            return
        try:
            _, suspect = self._envelope.open(record)
        except PoisonError as error:
            logger.warning("%s@%d names no suspect: %s", record.partition, record.offset, error)
            return
        if isinstance(suspect, Suspect) and self._lives(suspect):
            place = suspect.topic, suspect.partition, suspect.offset
            self._newer(place, record.offset, suspect)

    def _newer(self, place: _Place, offset: int, suspect: Suspect | None) -> None:
        if offset >= self._written.get(place, -1):
            self._written.pop(place, None)
            self._set(place, suspect)

    def _set(self, place: _Place, suspect: Suspect | None) -> None:
        if suspect is None:
            self._known.pop(place, None)
        else:
            self._known[place] = suspect

    def _lives(self, suspect: Suspect) -> bool:
        """Say whether the topic is still the one that the record was in."""
        try:
            return self._log.topic_id(suspect.topic) == suspect.topic_id
        except SettingsError:
            return False


def _place(record: Record) -> _Place:
    return record.partition.topic, record.partition.number, record.offset
