"""What transactions cost at saturation: turns a second with them, over turns a second without.

Both sides are the same deciding loop with the same backlog of replies. Without them the same records
are written by an idempotent producer, waited for, and the offset is committed after them: at least
once, which nobody may run.
"""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks import cluster, hop
from confluent_kafka import Producer, TopicPartition

from headwater.hosts import calm_collector
from headwater.log.kafka import KafkaLog
from headwater.log.kafka_owner import KafkaOwner
from headwater.log.port import Work

WARM_PAIRS = 1
"""Pairs that are not counted: a broker just started is slow, and the first side would have it alone."""
_CALL_S = 30.0


class PlainOwner(KafkaOwner):
    """Writes work and then its offsets, in no transaction."""

    def _open(self) -> bool:
        transactional = self.config.transactional(self.group, self.instance)
        self._producer = Producer(
            {name: value for name, value in transactional.items() if "transaction" not in name}
        )
        return True

    def _begin_ahead(self) -> None:
        """There is nothing to begin."""

    def _transact(self, held: Sequence[Work]) -> None:
        producer = self._producer
        assert producer is not None, "a poll has opened it"
        for one in held:
            self._produce_all(producer, one.drafts)
        left = producer.flush(_CALL_S)
        assert left == 0, f"{left} records were not written"
        places = [(one.claim.partition, one.next_offset) for one in held]
        offsets = [TopicPartition(place.topic, place.number, offset) for place, offset in places]
        self._consumer.commit(offsets=offsets, asynchronous=False)


class PlainLog(KafkaLog):
    """A cluster whose owners use no transactions."""

    owner = PlainOwner


def main() -> None:
    """Alternate, and print the ratio."""
    calm_collector()
    with cluster.config() as config:
        pairs = []
        for number in range(-WARM_PAIRS, cluster.REPETITIONS):
            order = (KafkaLog, PlainLog) if number % 2 else (PlainLog, KafkaLog)
            sides = {log: hop.turns(config, of=log) for log in order}
            if number >= 0:
                pairs.append((sides[KafkaLog].per_s, sides[PlainLog].per_s))
        cluster.report(
            "eos-tax", pairs, unit="turns/s with transactions against turns/s without; at least 0.9"
        )


if __name__ == "__main__":
    main()
