"""A decider's membership on Kafka: outputs and offsets are one transaction, or none of it happened."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from headwater.contracts.records import Draft
from headwater.errors import SettingsError, WorkRefusedError
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_member import KafkaMember
from headwater.log.port import Claim, Poll, Work

logger = logging.getLogger(__name__)

_REFUSALS = frozenset(
    {
        KafkaError.MSG_SIZE_TOO_LARGE,
        KafkaError.RECORD_LIST_TOO_LARGE,
        KafkaError.INVALID_MSG,
        KafkaError.INVALID_RECORD,
        KafkaError.INVALID_TIMESTAMP,
    }
)
"""What the log says of a record that it will never take."""


class _RefusedError(Exception):
    """A record of the work will never be taken."""


class KafkaOwner(KafkaMember):
    """Commits work; see `log.port.Owner`.

    Args:
        config: The cluster.
        topics: What is read.
        group: The group.
        instance: This member's stable name; with the group it is the transactional id.
    """

    def __init__(
        self, config: KafkaConfig, topics: Collection[str], *, group: str, instance: str
    ) -> None:
        self._producer: Producer | None = None
        self._said_waiting = False
        self._errors: list[KafkaError] = []
        super().__init__(config, topics, group=group, instance=instance)
        self._metadata = self._consumer.consumer_group_metadata()

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; while no producer can be had, nothing is delivered."""
        if self._producer is None and not self._open():
            wait_ms = min(wait_ms, 100)
        poll = super().poll(records_max=records_max, wait_ms=wait_ms)
        self._metadata = self._consumer.consumer_group_metadata()
        return poll

    def commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return them.

        Raises:
            WorkRefusedError: The log refused it twice; nothing was written, the claims still hold.
        """
        for again in (False, True):
            held = [one for one in work if self.holds(one.claim)]
            if not held:
                return frozenset()
            try:
                self._transact(held)
            except _RefusedError as error:
                if not self._abort():
                    return frozenset()
                if again:
                    raise WorkRefusedError(str(error)) from error
            except (KafkaException, TimeoutError) as error:
                self._give_up(error)
                return frozenset()
            else:
                return frozenset(one.claim for one in held)
        raise AssertionError("the second try returns or raises")

    def close(self, *, leave: bool = False) -> None:
        """End the membership."""
        super().close(leave=leave)
        self._producer = None

    def _transact(self, held: Sequence[Work]) -> None:
        producer, timeout_s = self._producer, self.config.call_s
        if producer is None:
            raise TimeoutError("no producer could be had")
        self._errors = []
        producer.begin_transaction()
        for one in held:
            for draft in one.drafts:
                self._produce(producer, draft)
        left = producer.flush(timeout_s)
        if self._errors:
            error = self._errors[0]
            if error.code() in _REFUSALS:
                raise _RefusedError(error.str())
            raise KafkaException(error)
        if left:
            raise TimeoutError(f"{left} records were not written within {timeout_s:g} s")
        offsets = [
            TopicPartition(one.claim.partition.topic, one.claim.partition.number, one.next_offset)
            for one in held
        ]
        producer.send_offsets_to_transaction(offsets, self._metadata, timeout_s)
        producer.commit_transaction(timeout_s)

    def _produce(self, producer: Producer, draft: Draft) -> None:
        while True:
            try:
                producer.produce(
                    draft.topic,
                    value=draft.value,
                    key=draft.key,
                    partition=-1 if draft.partition is None else draft.partition,
                    headers=[*draft.headers],
                    on_delivery=self._delivered,
                )
            except BufferError:
                producer.poll(0.1)
            except KafkaException as error:
                if error.args[0].code() in _REFUSALS:
                    raise _RefusedError(error.args[0].str()) from error
                raise
            else:
                return

    def _delivered(self, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self._errors.append(error)

    def _abort(self) -> bool:
        """Abort; `False` if even that came to nothing, and the claims are lost."""
        assert self._producer is not None, "a refusal comes from a producer"
        try:
            self._producer.abort_transaction(self.config.call_s)
        except KafkaException as error:
            self._give_up(error)
            return False
        return True

    def _give_up(self, error: Exception) -> None:
        """Nobody knows how the commit ended, or the group has moved on: begin again from the log.

        The commit is never tried again on this producer: a late end of transaction could then end
        a later one. A new producer of the same id fences it and settles what it left.
        """
        logger.warning("%s: a commit came to nothing we know of: %s", self.group, error)
        producer, self._producer = self._producer, None
        if producer is not None:
            producer.purge(in_queue=True, in_flight=True, blocking=False)
        del producer
        self._lose_all()

    def _open(self) -> bool:
        """Have a producer that fences whatever had this id before."""
        producer = Producer(self.config.transactional(self.group, self.instance))
        try:
            producer.init_transactions(self.config.call_s)
        except KafkaException as error:
            code = error.args[0]
            if code.code() in {
                KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
                KafkaError.CLUSTER_AUTHORIZATION_FAILED,
            }:
                raise SettingsError(
                    f"the cluster does not let us write as {self.group}/{self.instance}: "
                    f"grant WRITE on transactional ids that begin with the namespace ({code.str()})"
                ) from error
            if not self._said_waiting:
                logger.warning("%s waits for a producer: %s", self.group, code.str())
                self._said_waiting = True
            return False
        self._said_waiting = False
        self._producer = producer
        return True
