"""Backlogs: how old the oldest record is that a group has not taken, against how long it is kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from headwater.contracts.records import Partition
from headwater.errors import SettingsError
from headwater.log.port import Log

FOREVER_MS = 1 << 62
WARN_SHARE = 0.5
FAIL_SHARE = 0.9
_DAY_MS = 86_400_000
RETENTION_MS = 7 * _DAY_MS
"""Of topics that do not say: Kafka's default."""
_POLLS_MAX = 50


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Backlog:
    """The oldest record of a partition that a group has not taken.

    Args:
        group: The group.
        place: The partition.
        age_ms: How long ago it was appended.
        retention_ms: How long it is kept; `None` for good.
    """

    group: str
    place: Partition
    age_ms: int
    retention_ms: int | None

    @property
    def share(self) -> float:
        """How much of its time has passed: 1 and it is gone."""
        return 0.0 if self.retention_ms is None else self.age_ms / max(1, self.retention_ms)


def oldest(
    log: Log,
    groups: Mapping[str, Sequence[str]],
    configs: Mapping[str, Mapping[str, str]],
    *,
    now_ms: int,
) -> Iterator[Backlog]:
    """Yield the backlog of every partition that has one.

    Args:
        log: The log.
        groups: Group to the topics it reads.
        configs: Topic to its settings.
        now_ms: Wall clock.
    """
    for group, topics in groups.items():
        for topic in topics:
            for number in range(log.partitions(topic)):
                place = Partition(topic, number)
                time_ms = _waiting_since(log, group, place)
                if time_ms is not None:
                    yield Backlog(
                        group=group,
                        place=place,
                        age_ms=max(0, now_ms - time_ms),
                        retention_ms=retention_ms(configs.get(topic, {})),
                    )


def retention_ms(config: Mapping[str, str]) -> int | None:
    """Return how long a topic keeps records; `None` for good."""
    if "delete" not in config.get("cleanup.policy", "delete"):
        return None
    given = int(config.get("retention.ms") or RETENTION_MS)
    return None if given < 0 else given


def _waiting_since(log: Log, group: str, place: Partition) -> int | None:
    """Return when the first record was appended that a group has not taken; `None` if it has all."""
    try:
        offset, _ = log.committed(group, place)
    except SettingsError:
        return None  # no offset yet; `topics plan` says so
    if offset >= log.offset_at(place, FOREVER_MS):
        return None
    reader = log.read({place: offset})
    try:
        for _ in range(_POLLS_MAX):
            if records := reader.poll(records_max=1, wait_ms=200):
                return records[0].time_ms
            if reader.at_end:
                return None
    finally:
        reader.close()
    return None
