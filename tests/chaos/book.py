"""What a run wrote, read back by plain read-committed clients, and held to the invariants."""

from __future__ import annotations

import collections
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from confluent_kafka import (
    Consumer,
    ConsumerGroupTopicPartitions,
    IsolationLevel,
    KafkaError,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.chaos import app
from tests.chaos.world import BEGUN, HANDED, Deed

from headwater.assembly import ROWS
from headwater.contracts import messages
from headwater.contracts.codec import Codec
from headwater.contracts.records import Partition, Record
from headwater.runtime import doneset
from headwater.runtime.noting import Lease
from headwater.testing.invariants import Act, Book, Death, violations

AGENT = "clerk"
GROUPS = {
    "intake": f"cmd.{AGENT}",
    "admission": "inbox.admission",
    f"runs.{AGENT}": f"inbox.{AGENT}",
    "models": "req.model",
    "tools.desk": "req.tool.desk",
}
"""Groups, and what each consumes."""
SAFETIES = {"small": "paid", "file": "write", "pay": "irreversible"}
"""Of the calls that are counted; reads are not, which are made again whenever partitions move."""
CALL_S_MAX = 120.0
READ_S_MAX = 240.0
SLACK_MS = 2
"""Clocks of one machine, rounded to milliseconds."""
_MODEL = "small"


def acts(
    deeds: Iterable[Deed], keys: Mapping[str, str], deaths: Collection[Death]
) -> Iterator[Act]:
    """Return what calls did to the world.

    Args:
        deeds: What happened outside, in order.
        keys: Calls that were told no key, by question.
        deaths: Who died or stood still, and when.
    """
    handed: dict[tuple[str, str], int] = {}
    for deed in deeds:
        if deed.event == HANDED:
            handed[deed.key, deed.holder] = deed.at_ms
        elif deed.event == BEGUN and deed.name in SAFETIES:
            key = deed.key or keys.get(deed.what, "")
            began_ms = handed.get((key, deed.holder), deed.at_ms)
            yield Act(
                key=key,
                name=deed.name,
                safety=SAFETIES[deed.name],
                holder=deed.holder,
                at_ms=deed.at_ms,
                began_ms=began_ms,
                order_key="ordered" if deed.name == "file" else "",
                late=any(
                    death.who == deed.holder and began_ms <= death.at_ms <= deed.at_ms
                    for death in deaths
                ),
            )


class Reading:
    """A run read back.

    Args:
        bootstrap: The cluster.
        namespace: The run's.
        asked: The questions, by event id.
        deeds: What happened outside.
        deaths: Who died, stood still, or gave partitions up, and when.
        replays: Whether runs can be replayed with the agent as it is here.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        asked: Mapping[str, app.Question],
        deeds: Sequence[Deed],
        deaths: Sequence[Death],
        *,
        replays: bool = True,
    ) -> None:
        self._bootstrap, self._namespace, self._asked = bootstrap, namespace, asked
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._reached = {group: self._offsets(group) for group in GROUPS}
        self.book = Book(
            records=self._records(),
            codec=Codec(app.app.schemas, (*messages.SHIPPED, *ROWS)),
            namespace=namespace,
            deaths=deaths,
            offsets={
                (f"{namespace}.{group}", Partition(self._topic(GROUPS[group]), number)): offset
                for group, places in self._reached.items()
                for number, (offset, _) in places.items()
            },
            unfinished=[*self._unfinished()],
            agents=dict(app.app.agents) if replays else {},
            slack_ms=SLACK_MS,
            blind_ms=Lease().blind_ms,
        )
        self.book.acts = [*acts(deeds, self._models(), deaths)]

    @property
    def records(self) -> int:
        """How many records the roles consumed."""
        return sum(len(self.book.topics.get(self._topic(name), ())) for name in GROUPS.values())

    def violations(self) -> dict[str, list[str]]:
        """Return what does not hold, by invariant; one that holds is not in it."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        for one in violations(self.book):
            found[str(one.number)].append(one.what)
        if wrong := [*self._answers()]:
            found["answers"] = wrong
        return dict(found)

    def at_rest(self) -> bool:
        """Whether every group has gone past what there is to read, and every slot is closed."""
        if self.book.rows["Slot"] or self.book.unfinished:
            return False
        ends = {
            read.record.partition: read.record.offset
            for name in GROUPS.values()
            for read in self.book.topics.get(self._topic(name), ())
        }
        # An offset that a transaction is about to change is told as a negative one.
        return not any(
            offset < 0 or ends.get(place, -1) >= offset
            for (_, place), offset in self.book.offsets.items()
        ) and not any(done for places in self._reached.values() for _, done in places.values())

    def _answers(self) -> Iterator[str]:
        """Every question has one outcome, with the answer that plain functions give; none is refused."""
        output = app.app.agents[AGENT].output
        found: dict[str, list[str]] = collections.defaultdict(list)
        for reads in self.book.outcomes.values():
            for read in reads:
                found[read.header("ce_correlationid")].append(read.header("ce_type"))
                event_id = read.header("ce_correlationid")
                question = self._asked.get(event_id)
                if question is None:
                    yield f"{event_id} was never asked"
                elif read.header("ce_type") == f"{AGENT}.completed":
                    answer = output.decode(read.record.value or b"", app.app.schemas)
                    if answer != app.answer_of(question):
                        yield f"{event_id} has {answer}"
        for event_id in self._asked:
            if found[event_id] != [f"{AGENT}.completed"]:
                yield f"{event_id} ended as {found[event_id]}"
        for read in self.book.of("quarantine"):
            yield f"{read.record.partition.topic} has a record of {read.header('ce_id')}"

    def _models(self) -> dict[str, str]:
        """Return calls of models by question: a model is told no key, but each question asks it once."""
        return {
            self._number(read.header("ce_correlationid")): key
            for key, reads in self.book.asks.items()
            for read in reads
            if getattr(read.message, "name", "") == _MODEL
        }

    def _number(self, event_id: str) -> str:
        question = self._asked.get(event_id)
        return "" if question is None else str(question.number)

    def _topic(self, name: str) -> str:
        return f"{self._namespace}.{name}.v1"

    def _places(self) -> list[TopicPartition]:
        topics = self._admin.list_topics(timeout=CALL_S_MAX).topics
        return [
            TopicPartition(name, number)
            for name, topic in topics.items()
            if name.startswith(f"{self._namespace}.")
            for number in topic.partitions
        ]

    def _records(self) -> list[Record]:
        """Read everything up to its present end."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": uuid.uuid4().hex,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
            }
        )
        places = self._places()
        consumer.assign([TopicPartition(place.topic, place.partition, 0) for place in places])
        found: list[Record] = []
        at_end: set[Partition] = set()
        until = time.monotonic() + READ_S_MAX
        while len(at_end) < len(places):
            assert time.monotonic() < until, "the topics could not be read to their ends"
            for message in consumer.consume(5_000, 0.2):
                place, error = Partition(message.topic(), message.partition()), message.error()
                if error is not None:
                    assert error.code() == KafkaError._PARTITION_EOF, error
                    at_end.add(place)
                    continue
                found.append(
                    Record(
                        partition=place,
                        offset=message.offset(),
                        time_ms=message.timestamp()[1],
                        key=message.key(),
                        value=message.value(),
                        headers=tuple(message.headers() or ()),
                    )
                )
        consumer.close()
        return found

    def _unfinished(self) -> Iterator[Partition]:
        """Yield the partitions that readers of what is committed cannot read to the end."""
        ends = self._ends(IsolationLevel.READ_UNCOMMITTED)
        stable = self._ends(IsolationLevel.READ_COMMITTED)
        yield from (place for place, end in ends.items() if stable[place] < end)

    def _ends(self, level: IsolationLevel) -> dict[Partition, int]:
        futures = self._admin.list_offsets(
            {place: OffsetSpec.latest() for place in self._places()},
            isolation_level=level,
            request_timeout=CALL_S_MAX,
        )
        return {
            Partition(place.topic, place.partition): future.result(CALL_S_MAX).offset
            for place, future in futures.items()
        }

    def _offsets(self, group: str) -> dict[int, tuple[int, frozenset[int]]]:
        """Return next offsets and what is done beyond them, by partition."""
        full = f"{self._namespace}.{group}"
        future = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(full)], require_stable=True, request_timeout=CALL_S_MAX
        )[full]
        return {
            place.partition: (place.offset, doneset.decode(place.offset, place.metadata or ""))
            for place in future.result(CALL_S_MAX).topic_partitions
        }
