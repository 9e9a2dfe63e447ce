"""Partitions of a group that nobody owns, and that the group will not give to anybody by itself."""

from __future__ import annotations

import concurrent.futures
import logging
import time
from collections.abc import Collection
from typing import Any

from confluent_kafka import ConsumerGroupState, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from headwater.contracts.records import Partition
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig

logger = logging.getLogger(__name__)

_ANSWER_S = 3_600.0
"""How long the client waits for the group's description, at its most. Once it has given up a question to a
coordinator that is away, it fails an assertion when that is back, and the process ends (librdkafka 2.16)."""
_NONE: frozenset[Partition] = frozenset()
_Asked = tuple[concurrent.futures.Future[Any], ...]
"""The group's description, then one of each topic."""


class Unowned:
    """Looks, after a process has started, for partitions that its predecessor gave up and nobody got.

    In a cooperative rebalance a member gives partitions up in one generation, and they are given to
    others in the next, for which it joins anew. One with a stable name that dies between the two and
    comes back is answered with what it had kept, and no rebalance begins: the partitions stay without
    an owner until something else moves the group (Kafka 4.1, classic protocol). So whoever starts
    looks until it has seen every partition owned.

    Args:
        admin: Asks the cluster.
        topics: What the group reads.
        group: The group.
        config: The cluster.
    """

    def __init__(
        self, admin: AdminClient, topics: Collection[str], *, group: str, config: KafkaConfig
    ) -> None:
        self.settled = config.group_protocol == "consumer"
        """Whether all partitions have been seen owned, or the group's coordinator sees to it."""
        self._admin = admin
        self._topics = [*topics]
        self._group = group
        self._call_s, self._wait_s = config.call_s, config.rejoin_s
        self._asked: _Asked | None = None
        self._ask_from_s = 0.0
        self._before = _NONE

    def look(self) -> frozenset[Partition]:
        """Return what had no owner in two looks, one after the other; never waits for an answer."""
        if self._asked is None:
            if not self.settled and time.monotonic() >= self._ask_from_s:
                self._asked = self._ask()
            return _NONE
        if not all(future.done() for future in self._asked):
            return _NONE
        asked, self._asked = self._asked, None
        self._ask_from_s = time.monotonic() + self._wait_s
        before, self._before = self._before, self._without_owner(asked)
        return before & self._before

    def _ask(self) -> _Asked:
        groups = self._admin.describe_consumer_groups([self._group], request_timeout=_ANSWER_S)
        topics = self._admin.describe_topics(
            TopicCollection(self._topics), request_timeout=self._call_s
        )
        return (groups[self._group], *topics.values())

    def _without_owner(self, asked: _Asked) -> frozenset[Partition]:
        try:
            found, *topics = (future.result() for future in asked)
        except KafkaException as failure:
            error = failure.args[0]
            if not kafka_errors.is_away(error):
                logger.warning("%s does not say who owns what: %s", self._group, error.str())
                self.settled = True
            return _NONE
        if found.state is not ConsumerGroupState.STABLE:
            return _NONE
        without = {
            Partition(topic.name, partition.id)
            for topic in topics
            for partition in topic.partitions
        } - {
            Partition(place.topic, place.partition)
            for member in found.members
            for place in member.assignment.topic_partitions
        }
        self.settled = not without
        return frozenset(without)
