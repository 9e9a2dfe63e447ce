"""Plain clients: a producer and a consumer that know Kafka and Avro and nothing of headwater."""

from __future__ import annotations

import collections
import io
import json
import pathlib
import time
import uuid
from collections.abc import Iterable
from typing import Any

import fastavro
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient
from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

SCHEMA = json.loads((pathlib.Path(__file__).parent / "question.avsc").read_text())
BOUND_S = 240.0
"""How long the cluster may take, on a machine that is busy."""
_PARSED = parse_schema(SCHEMA)
_FRAME = b"\xc3\x01" + bytes.fromhex(fingerprint(to_parsing_canonical_form(SCHEMA), "CRC-64-AVRO"))


def publish(bootstrap: str, topic: str, questions: Iterable[tuple[str, str]], tenants: int) -> None:
    """Publish (id, text) pairs, every seventh of them twice."""
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "enable.idempotence": True})
    for number, (event_id, text) in enumerate(questions):
        out = io.BytesIO()
        fastavro.schemaless_writer(out, _PARSED, {"text": text})
        headers = {
            "ce_id": event_id,
            "ce_source": "bank",
            "ce_tenantid": f"tenant-{number % tenants}",
        }
        for _ in range(2 if number % 7 == 0 else 1):
            producer.produce(topic, key=event_id, value=_FRAME + out.getvalue(), headers=headers)
        producer.poll(0)
    left = producer.flush(BOUND_S)
    assert left == 0, f"{left} questions were not published"


def read(bootstrap: str, topics: Iterable[str], *, committed: bool = True) -> list[dict[str, Any]]:
    """Return every record of some topics up to their present ends."""
    names = [*topics]
    admin = AdminClient({"bootstrap.servers": bootstrap})
    metadata = admin.list_topics(timeout=BOUND_S).topics
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": uuid.uuid4().hex,
            "isolation.level": "read_committed" if committed else "read_uncommitted",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            "enable.partition.eof": True,
        }
    )
    places = [TopicPartition(name, n, 0) for name in names for n in metadata[name].partitions]
    consumer.assign(places)
    at_end: set[tuple[str, int]] = set()
    found: list[dict[str, Any]] = []
    until = time.monotonic() + BOUND_S
    while len(at_end) < len(places):
        assert time.monotonic() < until, "the topics could not be read to their ends"
        for message in consumer.consume(5_000, 0.2):
            place = (message.topic(), message.partition())
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF, message.error()
                at_end.add(place)
                continue
            found.append(
                {
                    "topic": place[0],
                    "partition": place[1],
                    "offset": message.offset(),
                    "time_ms": message.timestamp()[1],
                    "key": (message.key() or b"").decode("utf-8", "replace"),
                    "raw_key": message.key() or b"",
                    "value": message.value(),
                    "headers": {
                        k: (v or b"").decode("utf-8", "replace") for k, v in message.headers() or ()
                    },
                }
            )
    consumer.close()
    return found


def datum(value: bytes, schemas: dict[str, Any]) -> Any:
    """Return a single-object datum, by the schema of its fingerprint."""
    return fastavro.schemaless_reader(io.BytesIO(value[10:]), schemas[value[2:10].hex()], None)


def by_key(records: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """Group records by key, in order."""
    groups: dict[str, list[dict[str, Any]]] = collections.defaultdict(list)
    for record in records:
        groups[record["key"]].append(record)
    return groups
