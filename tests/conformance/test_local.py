"""The local log keeps every promise of the port, and the ones that only a simulator sees."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence

import pytest

from headwater.contracts.records import Draft
from headwater.log import local
from headwater.log.local_member import LocalMember
from headwater.log.port import Log, Member
from headwater.testing import conformance

_numbers = itertools.count(1)


class LocalHarness:
    """The local log under the suite; several processes share one object, which is thread-safe."""

    def __init__(self) -> None:
        self.namespace = f"t{next(_numbers)}"
        self._log = local.LocalLog()

    def create(
        self,
        topic: str,
        *,
        partitions: int = 1,
        compacted: bool = False,
        max_bytes: int | None = None,
    ) -> None:
        self._log.create(
            topic,
            partitions=partitions,
            compacted=compacted,
            max_bytes=max_bytes or local.RECORD_BYTES_MAX,
        )

    def recreate(self, topic: str) -> None:
        self._log.delete(topic)
        self._log.create(topic)

    def log(self) -> Log:
        return self._log

    def begin_group(self, group: str, topics: Collection[str]) -> None:
        self._log.begin_group(group, topics)

    def open_transaction(self, drafts: Sequence[Draft]) -> conformance.OpenTransaction:
        return self._log.hold(drafts)

    def expire(self, member: Member) -> None:
        assert isinstance(member, LocalMember)
        self._log.evict(member)

    def compact(self, topic: str) -> None:
        self._log.compact(topic, tombstone_ms=-1)


class TestLocal(conformance.LogConformance):
    @pytest.fixture
    def harness(self) -> conformance.Harness:
        return LocalHarness()
