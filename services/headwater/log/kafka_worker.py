"""An effector's membership on Kafka: offsets in the background, no outputs."""

from __future__ import annotations

from confluent_kafka import KafkaException, TopicPartition

from headwater.log.kafka_member import KafkaMember, logger
from headwater.log.port import Claim


class KafkaWorker(KafkaMember):
    """Marks what is answered; see `log.port.Worker`."""

    def mark(self, claim: Claim, next_offset: int, metadata: str = "") -> None:
        """Commit an offset in the background; a stale claim's is ignored."""
        if not self.holds(claim):
            return
        place = claim.partition
        offset = TopicPartition(place.topic, place.number, next_offset, metadata)
        try:
            self._consumer.commit(offsets=[offset], asynchronous=True)
        except KafkaException as error:
            logger.warning("%s: a mark is lost, its requests may repeat: %s", self.group, error)

    def close(self, *, leave: bool = False) -> None:
        """End the membership, after the marks under way."""
        if not self._closed:
            self._consumer.poll(0)
        super().close(leave=leave)
