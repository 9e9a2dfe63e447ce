"""Appends outside transactions: one idempotent producer, with a thread of its own that answers."""

from __future__ import annotations

import asyncio
import logging
import threading

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from headwater.contracts.records import Draft, Partition
from headwater.errors import PoisonError, TransientError
from headwater.log import kafka_errors
from headwater.log.kafka_config import KafkaConfig
from headwater.log.kafka_watch import WATCHDOG, exit_now

logger = logging.getLogger(__name__)

_POLL_S = 0.1
_FULL_S = 0.01

Place = tuple[Partition, int]


class Appender:
    """Writes records one by one, for callers on any event loop.

    Args:
        config: The cluster.
    """

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._producer: Producer | None = None
        self._closing = threading.Event()

    async def append(self, draft: Draft) -> Place:
        """Write one record; return where it is, once all replicas in sync have it.

        Raises:
            TransientError: The cluster is away.
            PoisonError: The record can never be written.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Place] = loop.create_future()
        producer = self._live()

        def delivered(error: KafkaError | None, message: Message) -> None:
            if error is not None and error.fatal():
                self._replace(producer)
            where = (Partition(message.topic(), message.partition()), message.offset())
            try:
                loop.call_soon_threadsafe(_settle, future, error, where)
            except RuntimeError:
                logger.debug("%s was written for an event loop that has ended", draft.topic)

        looked = False
        while True:
            try:
                producer.produce(
                    draft.topic,
                    value=draft.value,
                    key=draft.key,
                    partition=-1 if draft.partition is None else draft.partition,
                    headers=[*draft.headers],
                    on_delivery=delivered,
                )
            except BufferError:
                await asyncio.sleep(_FULL_S)
            except KafkaException as failure:
                error = failure.args[0]
                if error.fatal():
                    self._replace(producer)
                if looked or error.code() != kafka_errors.GROWN:
                    raise _meaning(error) from failure
                looked = True
                await asyncio.to_thread(self._look, producer, draft.topic)
            else:
                return await future

    def close(self) -> None:
        """Write what is still to be written, and stop."""
        self._closing.set()
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            with WATCHDOG.over("flush of appends", self._config.append_s + self._config.call_s):
                left = producer.flush(self._config.append_s)
            if left:
                logger.warning("%d appends were not written before the end", left)

    def _live(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = producer = Producer(self._config.producer())
                threading.Thread(
                    target=self._answer, args=(producer,), name="kafka.append", daemon=True
                ).start()
            return self._producer

    def _look(self, producer: Producer, topic: str) -> None:
        try:
            producer.list_topics(topic, self._config.call_s)
        except KafkaException as failure:
            raise _meaning(failure.args[0]) from failure

    def _replace(self, producer: Producer) -> None:
        """Let go of a producer that will never write again; the next append makes another."""
        with self._lock:
            if self._producer is producer:
                self._producer = None

    def _answer(self, producer: Producer) -> None:
        try:
            while not self._closing.is_set() and (self._producer is producer or len(producer)):
                producer.poll(_POLL_S)
        except BaseException as error:
            exit_now(f"the thread that answers appends died of {error!r}")
            raise


def _settle(future: asyncio.Future[Place], error: KafkaError | None, where: Place) -> None:
    if future.done():
        return  # whoever waited has been cancelled
    if error is None:
        future.set_result(where)
    else:
        future.set_exception(_meaning(error))


def _meaning(error: KafkaError) -> Exception:
    code = error.code()
    if code in kafka_errors.TOO_LARGE:
        return PoisonError("too-large", f"the log does not take so large a record: {error.str()}")
    if code in kafka_errors.FORBIDDEN:
        return kafka_errors.forbidden("write", error)
    if code in kafka_errors.UNKNOWN_TOPIC:
        return kafka_errors.no_topic("of the record", error.str())
    if code in kafka_errors.REFUSED:
        return PoisonError("unwritable", f"the log does not take this record: {error.str()}")
    return TransientError(f"the record could not be written: {error.str()}")
