"""What the log over Kafka says of a partition of a topic that has grown, without a cluster."""

from __future__ import annotations

import concurrent.futures
import threading
import types

import pytest

from headwater.contracts.records import Partition
from headwater.log.kafka import KafkaLog


@pytest.fixture
def log() -> KafkaLog:
    """A log that counted one partition before its topic grew to four."""
    log = object.__new__(KafkaLog)
    log._ids, log._counts = {"t": "id"}, {"t": 1}
    log._grown, log._grown_s = {}, {}
    return log


def test_two_loops_that_ask_at_once_both_hear_that_a_topic_has_grown(log, monkeypatch):
    """Approvals was still looking as admission asked, which refused a run's resume as one without a place."""
    both = threading.Barrier(2, timeout=120)

    def look(topic: str) -> types.SimpleNamespace:
        both.wait()  # neither has an answer before the other has asked
        return types.SimpleNamespace(partitions=[0, 1, 2, 3])

    monkeypatch.setattr(log, "_look", look)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(log.has, Partition("t", 3)) for _ in range(2)]
        assert [one.result() for one in asked] == [True, True]
