"""Wanted: which kept records an operator means."""

from __future__ import annotations

import dataclasses
import re

from headwater.contracts.quarantine import Reason
from headwater.contracts.records import Partition, Record

_ID = re.compile(r"(?P<topic>[A-Za-z0-9._-]{1,249}):(?P<number>\d{1,9})@(?P<offset>\d{1,18})")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """A filter; what is empty lets everything pass.

    Args:
        places: Places of kept records.
        runs: Runs whose dead letters are meant.
        source: Topic they came from.
        tenant: Whose they are, as far as they say.
        error: Class of the error, with or without the module before it.
        since_ms: Kept at this time or later.
    """

    places: frozenset[tuple[Partition, int]] = frozenset()
    runs: frozenset[str] = frozenset()
    source: str = ""
    tenant: str = ""
    error: str = ""
    since_ms: int = 0

    @property
    def everything(self) -> bool:
        """Whether all pass."""
        return self == Wanted()

    def takes(self, record: Record, why: Reason) -> bool:
        """Say whether a record is meant."""
        if (self.places or self.runs) and not (
            (record.partition, record.offset) in self.places or (why.run and why.run in self.runs)
        ):
            return False
        return (
            (not self.source or why.source.topic == self.source)
            and (not self.tenant or tenant_of(record, why) == self.tenant)
            and (not self.error or self.error in (why.code, why.code.rpartition(".")[2]))
            and record.time_ms >= self.since_ms
        )

    def within(self, topic: str) -> Wanted | None:
        """Return what of it concerns one topic; `None` if only records of others are named."""
        mine = frozenset(one for one in self.places if one[0].topic == topic)
        if self.places and not mine and not self.runs:
            return None
        return dataclasses.replace(self, places=mine)

    def span(self) -> tuple[int, int] | None:
        """Return the first and the last offset that can be meant; `None` if any can be."""
        if not self.places or self.runs:
            return None
        offsets = [offset for _, offset in self.places]
        return min(offsets), max(offsets)


def tenant_of(record: Record, why: Reason) -> str:
    """Return whose a kept record is: as headwater noted it, or as its producer said."""
    return why.tenant or (record.header("ce_tenantid") or b"").decode("utf-8", "replace")


def place_of(text: str) -> tuple[Partition, int] | None:
    """Return the place that a kept record's id names: `topic:partition@offset`."""
    found = _ID.fullmatch(text)
    if found is None:
        return None
    return Partition(found["topic"], int(found["number"])), int(found["offset"])
