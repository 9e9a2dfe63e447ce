"""Backlogs: how much of its time the oldest untaken record has left."""

from __future__ import annotations

import asyncio

import pytest

from headwater.backlogs import Backlog, oldest, retention_ms
from headwater.contracts.records import Draft, Partition
from headwater.log.local import LocalLog

HOUR_MS = 3_600_000


class Clock:
    now_ms = 0

    def __call__(self) -> int:
        return self.now_ms


@pytest.mark.parametrize(
    ("config", "kept_ms"),
    [
        ({}, 7 * 24 * HOUR_MS),
        ({"retention.ms": str(HOUR_MS)}, HOUR_MS),
        ({"retention.ms": "-1"}, None),
        ({"cleanup.policy": "compact", "retention.ms": "1"}, None),
        ({"cleanup.policy": "compact,delete", "retention.ms": "1"}, 1),
    ],
)
def test_time_is_what_the_topic_says(config: dict[str, str], kept_ms: int | None) -> None:
    """For good where it is compacted alone, or says so."""
    assert retention_ms(config) == kept_ms


def test_oldest_untaken_record_of_each_partition_is_found() -> None:
    """What was taken does not count, nor a partition without a backlog, nor a group without offsets."""
    clock = Clock()
    log = LocalLog(clock=clock)
    log.create("hw.cmd.a.v1", partitions=2)
    log.begin_group("hw.intake", ["hw.cmd.a.v1"])
    for at_ms in (0, HOUR_MS, 2 * HOUR_MS):
        clock.now_ms = at_ms
        asyncio.run(log.append(Draft(topic="hw.cmd.a.v1", key=b"k", value=b"v", partition=1)))
    groups = {"hw.intake": ["hw.cmd.a.v1"], "hw.nobody": ["hw.cmd.a.v1"]}
    configs = {"hw.cmd.a.v1": {"retention.ms": str(4 * HOUR_MS)}}
    place = Partition("hw.cmd.a.v1", 1)
    (found,) = oldest(log, groups, configs, now_ms=3 * HOUR_MS)
    assert found == Backlog(
        group="hw.intake", place=place, age_ms=3 * HOUR_MS, retention_ms=4 * HOUR_MS
    )
    assert found.share == 0.75
    worker = log.work(["hw.cmd.a.v1"], group="hw.intake", instance="i")
    claims = {claim.partition: claim for claim in worker.poll(records_max=1, wait_ms=0).gained}
    worker.mark(claims[place], 1)
    worker.poll(records_max=1, wait_ms=0)
    (found,) = oldest(log, groups, configs, now_ms=3 * HOUR_MS)
    assert found.age_ms == 2 * HOUR_MS
    worker.mark(claims[place], 3)
    worker.poll(records_max=1, wait_ms=0)
    assert [*oldest(log, groups, configs, now_ms=3 * HOUR_MS)] == []


def test_record_that_is_kept_for_good_never_runs_out() -> None:
    """Its share of no time is none."""
    assert Backlog(group="g", place=Partition("t", 0), age_ms=9, retention_ms=None).share == 0
