"""A member that writes in transactions on Kafka: records and offsets together, or none of it happened."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection, Iterable, Iterator, Sequence

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from headwater.contracts.records import Draft
from headwater.errors import SettingsError, WorkRefusedError
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_generation import Generation
from headwater.log.kafka_member import First, KafkaMember
from headwater.log.kafka_unowned import Unowned
from headwater.log.kafka_watch import WATCHDOG
from headwater.log.port import Claim, Poll, Work

logger = logging.getLogger(__name__)

_MOVED_ON = frozenset({KafkaError.ILLEGAL_GENERATION, KafkaError.REBALANCE_IN_PROGRESS})
"""The group has a new generation, or is about to: what we still own in it can be written in it."""
_GENERATIONS_MAX = 5
"""How often in a row one piece of work may meet that."""
_CATCH_UP_POLL_S = 0.01
_FEW = 100
_DUE_S = 0.0011
"""A millisecond after a transaction's first record, by a timer, the client asks for its partitions to be
added. Its thread sleeps for whole milliseconds from whatever it did last (librdkafka 2.16,
`rd_kafka_thread_main`), so that offsets answered meanwhile have it oversleep, and a request wakes it."""
_OPEN_AGAIN_S = 0.2
_TWICE = "the client may have sent a request twice"


class _AbortedError(Exception):
    """The transaction can be aborted with a known outcome.

    Args:
        error: Why.
    """

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error


class _MovedOnError(Exception):
    """The transaction was aborted, because the group has moved on.

    Args:
        error: What the broker said.
    """

    def __init__(self, error: KafkaError) -> None:
        super().__init__(error.str())
        self.error = error


class KafkaTransactor(KafkaMember):
    """Writes work of live claims; an owner commits by it, a worker notes what it is about to do.

    Args:
        config: The cluster.
        topics: What is read.
        group: The group.
        instance: This member's stable name; with the group it is the transactional id.
        first: Looks a group's committed offset up, for a claim resumed without one.
        unowned: Looks for partitions that a predecessor gave up and nobody got.
        writer: Instead of that id, one which others write under too.
    """

    def __init__(
        self,
        config: KafkaConfig,
        topics: Collection[str],
        *,
        group: str,
        instance: str,
        first: First,
        unowned: Unowned,
        writer: str = "",
    ) -> None:
        self._writer = writer
        self._producer: Producer | None = None
        self._said_waiting = False
        self._open_from_s = 0.0
        self._delivery_error: KafkaError | None = None
        self._begun = False
        """Whether the next transaction was begun; the broker hears of it with its first request."""
        super().__init__(
            config, topics, group=group, instance=instance, first=first, unowned=unowned
        )
        self._generation = Generation(self._consumer, silent=config.group_protocol == "consumer")

    def poll(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        poll = super().poll(records_max=records_max, wait_ms=wait_ms)
        self._generation.polled()
        return poll

    def _poll_opened(self, *, records_max: int, wait_ms: int) -> Poll:
        """Wait for news; without a producer nothing is gained.

        The producer comes after the membership: whoever took the name over has fenced the
        membership first, so a process that lost its name never fences its heir's producer.

        Raises:
            SettingsError: Another process has joined under this name, or records expired unread.
        """
        if self._producer is None and self._claims:
            wait_ms = min(wait_ms, int(_OPEN_AGAIN_S * 1000))
        poll = KafkaTransactor.poll(self, records_max=records_max, wait_ms=wait_ms)
        if self._producer is None and self._claims and not self._open():
            self._gained |= poll.gained
            return Poll(lost=poll.lost)
        return poll

    def _commit(self, work: Sequence[Work]) -> frozenset[Claim]:
        """Write the work of the claims that hold, all or none, and return them.

        Raises:
            WorkRefusedError: The log refused it twice; nothing was written, the claims still hold.
        """
        for _ in range(_GENERATIONS_MAX):
            held = [one for one in work if self.holds(one.claim)]
            if not held:
                return frozenset()
            try:
                return self._write(held)
            except _MovedOnError as moved:
                if not self._catch_up():
                    self._give_up(KafkaException(moved.error))
                    return frozenset()
        self._give_up(TimeoutError("the group does not settle"))
        return frozenset()

    def _write(self, held: Sequence[Work]) -> frozenset[Claim]:
        """Write, a second time if the first was refused; return the claims, or none of them.

        Raises:
            WorkRefusedError: It was refused twice.
            _MovedOnError: Nothing was written, because the group has a new generation.
        """
        for again in (False, True):
            try:
                self._transact(held)
            except _AbortedError as aborted:
                if not self._abort(aborted.error) or not self._renew():
                    return frozenset()
                if again:
                    raise WorkRefusedError(str(aborted)) from aborted
            except (KafkaException, TimeoutError) as error:
                self._give_up(error)
                return frozenset()
            else:
                return frozenset(one.claim for one in held)
        raise AssertionError("the second try returns or raises")  # pragma: no cover - for the types

    def _catch_up(self) -> bool:
        """Poll until we are in the group's new generation, and know what we own there.

        The transaction was aborted, so a revocation finds nothing under way. What is read meanwhile
        is for the next poll. A member whose partitions stay goes on with them at once.
        """
        generation = self._generation
        before = generation.number
        until = time.monotonic() + self.config.rejoin_s
        while generation.number in {before, -1} or not generation.told:
            if time.monotonic() > until:
                return False
            self._read_ahead(_CATCH_UP_POLL_S)
            generation.look()
        return True

    def _on_assign(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        super()._on_assign(consumer, partitions)
        if not self._closed:
            self._generation.tell()

    def _on_revoke(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        super()._on_revoke(consumer, partitions)
        if not self._closed:
            self._generation.tell()

    def _on_lost(self, consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        super()._on_lost(consumer, partitions)
        self._generation.moved()

    def close(self, *, leave: bool = False) -> None:
        """End the membership; whatever is to be written was."""
        super().close(leave=leave)
        self._discard()

    def _transact(self, held: Sequence[Work]) -> None:
        """Write one transaction; offsets go while records are on their way, so neither waits for the other.

        Raises:
            _AbortedError: It can be aborted.
            KafkaException: Nobody knows how it ended.
            TimeoutError: The same.
        """
        producer, call_s = self._producer, self.config.call_s
        if producer is None or self._generation.number < 0:
            raise TimeoutError("it is no member of the group now")
        self._delivery_error = None
        with WATCHDOG.over(f"transaction of {self.group}", call_s * 6):
            try:
                if not self._begun:
                    producer.begin_transaction()
                self._begun = False
                due_s = time.monotonic() + _DUE_S
                try:
                    for one in held:
                        self._produce_all(producer, one.drafts)
                except (KafkaException, TimeoutError, _AbortedError):
                    raise
                except Exception:
                    self._take_back(producer)  # what makes the drafts broke, not the log
                    raise
                offsets = [
                    TopicPartition(
                        one.claim.partition.topic,
                        one.claim.partition.number,
                        one.next_offset,
                        one.metadata,
                    )
                    for one in held
                ]
                with self._once():
                    producer.send_offsets_to_transaction(
                        offsets, self._generation.metadata, self.config.once_s
                    )
                if len(producer) > _FEW:
                    self._flush(producer)
                elif len(producer) and (early_s := due_s - time.monotonic()) > 0:
                    time.sleep(early_s)
                with self._once():
                    self._end(producer)
            except KafkaException as failure:
                error = failure.args[0]
                if error.txn_requires_abort() and not error.fatal():
                    raise _AbortedError(self._refusal(producer) or error) from failure
                raise

    def _begin_ahead(self) -> None:
        """Begin the next transaction while there is nothing to write, in the client and nowhere else."""
        producer = self._producer
        if producer is None or self._begun:
            return
        try:
            with WATCHDOG.over(f"begin of {self.group}", self.config.call_s):
                producer.begin_transaction()
        except KafkaException as failure:
            self._give_up(failure)
        else:
            self._begun = True

    def _flush(self, producer: Producer) -> None:
        """Have records written before the end is asked for, which is not waited for as long.

        Raises:
            _AbortedError: The log refused one.
            KafkaException: The producer met a fatal error.
            TimeoutError: They were not written in time.
        """
        left = _flush(producer, self.config.call_s)
        if self._delivery_error is not None:
            raise _AbortedError(self._delivery_error)
        if left:
            raise TimeoutError(f"{left} records were not written within {self.config.call_s:g} s")

    def _take_back(self, producer: Producer) -> None:
        """Abort what was begun, or let go of its producer."""
        try:
            with self._once():
                producer.abort_transaction(self.config.once_s)
        except (KafkaException, TimeoutError) as failure:
            self._give_up(failure)

    def _refusal(self, producer: Producer) -> KafkaError | None:
        """Return what the log said of a record that it refused; whatever else failed says less."""
        producer.poll(0)
        error = self._delivery_error
        if error is None or error.code() not in kafka_errors.REFUSED | kafka_errors.FORBIDDEN:
            return None
        return error

    def _end(self, producer: Producer) -> None:
        """Write what is not written yet, and commit; alone, so that a test can get between."""
        producer.commit_transaction(self.config.once_s)

    @contextlib.contextmanager
    def _once(self) -> Iterator[None]:
        """Have a request sent once, or the producer thrown away.

        The client sends a request again that is not answered in time. The late twin of one that ends a
        transaction, or says how far it reached, could act on the transaction after it.

        Raises:
            TimeoutError: It was answered, but perhaps only when it had been sent again.
        """
        until_s = time.monotonic() + self.config.resend_s
        try:
            yield
        except KafkaException as failure:
            if failure.args[0].fatal() or time.monotonic() < until_s:
                raise
            raise TimeoutError(_TWICE) from failure
        if time.monotonic() >= until_s:
            raise TimeoutError(_TWICE)

    def _produce_all(self, producer: Producer, drafts: Iterable[Draft]) -> None:
        """Write drafts; the client is called without a detour as long as its queue has room."""
        produce, delivered = producer.produce, self._delivered
        for draft in drafts:
            partition = draft.partition
            try:
                produce(
                    draft.topic,
                    draft.value,
                    draft.key,
                    -1 if partition is None else partition,
                    delivered,
                    headers=[*draft.headers],
                )
            except (BufferError, KafkaException):
                self._produce(producer, draft)

    def _produce(self, producer: Producer, draft: Draft) -> None:
        partition = -1 if draft.partition is None else draft.partition
        until = time.monotonic() + self.config.call_s
        while True:
            try:
                producer.produce(
                    draft.topic,
                    value=draft.value,
                    key=draft.key,
                    partition=partition,
                    headers=[*draft.headers],
                    on_delivery=self._delivered,
                )
            except BufferError:
                if time.monotonic() > until:
                    raise TimeoutError("the client's queue stayed full") from None
                producer.poll(0.1)
            except KafkaException as failure:
                error = failure.args[0]
                if error.code() in kafka_errors.REFUSED:
                    raise _AbortedError(error) from failure
                raise
            else:
                return

    def _delivered(self, error: KafkaError | None, _message: Message) -> None:
        if error is None:
            return
        first = self._delivery_error
        if first is None or (
            error.code() in kafka_errors.REFUSED and first.code() not in kafka_errors.REFUSED
        ):
            self._delivery_error = error  # what was purged with it says less

    def _abort(self, error: KafkaError) -> bool:
        """Abort; `False` if that is no answer to the error, or came to nothing: the claims are lost.

        Raises:
            _MovedOnError: The error was that the group has a new generation.
        """
        producer = self._producer
        assert producer is not None, "a transaction has a producer"
        try:
            with WATCHDOG.over(f"abort of {self.group}", self.config.call_s * 2), self._once():
                producer.abort_transaction(self.config.once_s)
        except (KafkaException, TimeoutError) as failure:
            self._give_up(failure)
            return False
        if error.code() in kafka_errors.FORBIDDEN:
            raise kafka_errors.forbidden(f"write for {self.group}", error)
        if error.code() in _MOVED_ON:
            raise _MovedOnError(error)
        if error.code() not in kafka_errors.REFUSED:
            # The group has moved on or the cluster is away: the record is not to blame.
            self._give_up(KafkaException(error))
            return False
        return True

    def _renew(self) -> bool:
        """Replace the producer after an abort: what was refused left a gap in its sequence."""
        self._discard()
        if self._open():
            return True
        self._lose_all()
        return False

    def _give_up(self, error: Exception) -> None:
        """Nobody knows how the commit ended, or the group has moved on: begin again from the log.

        The commit is never tried again on this producer: a late end of transaction could then end
        a later one. A new producer of the same id fences it and settles what it left.
        """
        logger.warning("%s: a commit came to nothing we know of: %s", self.group, error)
        self._discard()
        cause = error.args[0] if isinstance(error, KafkaException) else None
        if cause is not None and (cause.fatal() or cause.code() in kafka_errors.FENCED):
            # If it was another process of our name, a heartbeat says so before we fence it.
            self._open_from_s = time.monotonic() + 2 * self.config.heartbeat_ms / 1000
        self._lose_all()

    def _discard(self) -> None:
        producer, self._producer = self._producer, None
        self._begun = False
        if producer is not None:
            with WATCHDOG.over(f"end of a producer of {self.group}", self.config.call_s * 2):
                producer.purge(in_queue=True, in_flight=True, blocking=False)
                del producer

    def _open(self) -> bool:
        """Have a producer that fences whatever had this id before."""
        if time.monotonic() < self._open_from_s:
            return False
        producer = Producer(self.config.transactional(self.group, self.instance, self._writer))
        try:
            with WATCHDOG.over(f"init_transactions of {self.group}", self.config.call_s * 2):
                producer.init_transactions(self.config.call_s)
        except KafkaException as failure:
            error = failure.args[0]
            if error.code() in kafka_errors.FORBIDDEN:
                raise kafka_errors.forbidden(
                    f"write as {self.group}/{self.instance}", error
                ) from failure
            if error.code() == KafkaError.INVALID_TRANSACTION_TIMEOUT:
                raise SettingsError(
                    f"HEADWATER_KAFKA__TRANSACTION_MS is {self.config.transaction_ms}, more than the "
                    "broker's transaction.max.timeout.ms: lower it"
                ) from failure
            if not self._said_waiting:
                logger.warning("%s waits for a producer: %s", self.group, error.str())
                self._said_waiting = True
            return False
        self._said_waiting = False
        self._producer = producer
        return True


def _flush(producer: Producer, wait_s: float) -> int:
    """Write what was produced; return how many records were not written in time.

    Raises:
        KafkaException: The producer met a fatal error. The client raises it in the middle of its
            callbacks, where the interpreter takes it for a bug of theirs, so it is unwrapped here.
    """
    try:
        return int(producer.flush(wait_s))
    except SystemError as broken:
        if isinstance(broken.__cause__, KafkaException):
            raise broken.__cause__ from None
        raise KafkaException(KafkaError(KafkaError._FAIL, str(broken), fatal=True)) from broken  # noqa: SLF001 - the client's own name
