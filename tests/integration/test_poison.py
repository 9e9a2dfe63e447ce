"""Fifty kinds of poison in every topic that takes foreign bytes: nobody waits, nothing is lost."""

from __future__ import annotations

import asyncio
import json
import os
import pathlib
import random
import socket
import statistics
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from tests.integration.poisoned import triage

from headwater.contracts.quarantine import quarantine_topic
from headwater.contracts.records import Draft, Headers, Partition, Record
from headwater.log.kafka import KafkaConfig, KafkaLog
from headwater.log.kafka_admin import KafkaAdmin

pytestmark = [pytest.mark.kafka, pytest.mark.timeout(300)]

ROOT = pathlib.Path(__file__).parents[2]
GOOD = triage.input.encode("a question")
TENANT = ("ce_tenantid", b"t")
Poison = tuple[bytes | None, bytes | None, Headers]


def kinds() -> dict[str, Poison]:
    """Return every kind: key, value, headers."""
    dice = random.Random(7)
    frame, datum = GOOD[:10], GOOD[10:]
    values: dict[str, bytes | None] = {
        "empty": b"", "tombstone": None, "text": b"rubbish", "json": b'{"question": "?"}',
        "nul": b"\0", "registry id": b"\0\0\0\0\7" + datum, "unknown fingerprint": b"\xc3\x01" + b"\7" * 8,
        "half a frame": GOOD[:5], "frame alone": frame, "a byte short": GOOD[:-1],
        "a byte long": GOOD + b"\0", "datum alone": datum, "negative length": frame + b"\x01",
        "huge length": frame + b"\xff\xff\xff\xff\x0f", "endless varint": frame + b"\xff" * 20,
        "no utf-8": frame + b"\x04\xff\xfe", "noise": dice.randbytes(1_000),
        "framed noise": frame + dice.randbytes(1_000), "much noise": dice.randbytes(200_000),
        "too large": b"x" * 600_000, "gzip": b"\x1f\x8b\x08" + b"\0" * 20,
        "container": b"Obj\x01" + b"\0" * 20,
        "protobuf": b"\x0a\x03abc", "xml": b"<task/>", "utf-16": "task".encode("utf-16"),
        "zeros": b"\0" * 1_000, "ones": b"\xff" * 1_000, "newline": b"\n", "pickle": b"\x80\x04K\x01.",
        "bson": b"\x05\0\0\0\0", "cbor": b"\xa1\x61a\x01", "twice": GOOD + GOOD,
        "deep json": b"[" * 5_000, "other magic": b"\xc3\x02" + GOOD[2:], "swapped": GOOD[::-1],
    }  # fmt: skip
    found: dict[str, Poison] = {name: (b"k", value, (TENANT,)) for name, value in values.items()}
    headers: dict[str, Headers] = {
        "no tenant": (), "empty tenant": (("ce_tenantid", b""),), "null tenant": (("ce_tenantid", None),),
        "loud tenant": (("ce_tenantid", b"LOUD"),), "tenant with a bell": (("ce_tenantid", b"t\a"),),
        "long tenant": (("ce_tenantid", b"t" * 65),), "long id": (TENANT, ("ce_id", b"i" * 300)),
        "id with a newline": (TENANT, ("ce_id", b"a\nb")), "id that is no text": (TENANT, ("ce_id", b"\xff")),
        "long source": (TENANT, ("ce_source", b"s" * 300)),
        "two ids": (TENANT, ("ce_id", b"1"), ("ce_id", b"2")), "two tenants": (TENANT, ("ce_tenantid", b"u")),
        "deadline in words": (TENANT, ("ce_deadline", b"tomorrow")),
        "deadline nowhere": (TENANT, ("ce_deadline", b"2030-01-01T00:00:00")),
        "deadline too late": (TENANT, ("ce_deadline", b"9999-12-31T23:59:59-23:00")),
        "many headers": (TENANT, *((f"h{n}", b"") for n in range(70))),
        "large headers": (TENANT, ("h", b"x" * 17_000)),
    }  # fmt: skip
    found |= {name: (b"k", GOOD, given) for name, given in headers.items()}
    found["long key"] = (b"k" * 2_000, GOOD, (TENANT,))
    lies = (TENANT, ("__dlq.errors.delivery.count", b"abc"), ("__dlq.errors.topic", b"\xff"))
    found["lies of ours"] = (None, b"rubbish", lies)
    return found


class Fleet:
    """Every role in one process on a real broker, with one partition a topic."""

    def __init__(self, bootstrap: str, where: pathlib.Path) -> None:
        self.namespace = f"p{uuid.uuid4().hex[:8]}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self._environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("HEADWATER_")},
            "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "0",
            "HEADWATER_APP": "tests.integration.poisoned:app", "HEADWATER_NAMESPACE": self.namespace,
            "HEADWATER_HTTP__PORT": str(port), "HEADWATER_URL": self.url,
            "HEADWATER_KAFKA__BOOTSTRAP": bootstrap, "HEADWATER_KAFKA__PARTITIONS": "1",
        }  # fmt: skip
        self.command("topics", "apply", "--yes")
        self._out = (where / "fleet.log").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "headwater.cli.main", "run", "--role", "all"],
            env={**self._environment, "HEADWATER_INSTANCE": "all-1"},
            cwd=ROOT, stdout=self._out, stderr=self._out,
        )  # fmt: skip
        self.log = KafkaLog(KafkaConfig(bootstrap=bootstrap))
        self.admin = KafkaAdmin(KafkaConfig(bootstrap=bootstrap))
        self._await_ready()

    def _await_ready(self) -> None:
        until = time.monotonic() + 60
        while True:
            assert self._process.poll() is None, "the fleet ended"
            try:
                with urllib.request.urlopen(f"{self.url}/readyz", timeout=5) as answer:  # noqa: S310 - our own
                    if answer.status == 200 and json.load(answer).get("claims", 0) >= 6:
                        return
            except (OSError, ValueError):
                pass
            assert time.monotonic() < until, "the fleet does not get ready"
            time.sleep(0.1)

    def command(self, *arguments: str) -> str:
        """Run one `headwater` command and return what it prints."""
        done = subprocess.run(
            [sys.executable, "-m", "headwater.cli.main", *arguments],
            env=self._environment, cwd=ROOT, capture_output=True, text=True, timeout=90, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def topic(self, kind: str, name: str) -> str:
        return f"{self.namespace}.{kind}.{name}.v1"

    def records(self, topic: str) -> list[Record]:
        reader = self.log.read({Partition(topic, 0): 0})
        found: list[Record] = []
        while not reader.at_end:
            found += reader.poll(records_max=1_000, wait_ms=200)
        reader.close()
        return found

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(60)
        self._out.close()
        self.log.close()


@pytest.fixture
def fleet(kafka: str, tmp_path: pathlib.Path) -> Iterator[Fleet]:
    found = Fleet(kafka, tmp_path)
    yield found
    found.close()


def latency(fleet: Fleet, write: Callable[[], Any], outcomes: Any) -> float:
    """Return how long a good task takes whose record comes behind what `write` writes."""
    own = uuid.uuid4().hex
    headers = (TENANT, ("ce_id", own.encode()))
    good = Draft(
        topic=fleet.topic("cmd", "triage"), key=b"k", value=GOOD, headers=headers, partition=0
    )

    async def both() -> None:
        await write()
        await fleet.log.append(good)

    asyncio.run(both())
    began = time.monotonic()
    while time.monotonic() < began + 30:
        for record in outcomes.poll(records_max=100, wait_ms=50):
            if record.header("ce_correlationid") == own.encode():
                return time.monotonic() - began
    raise AssertionError("a good task behind poison was not processed")


async def nothing() -> None:
    """Write nothing."""


def test_fifty_kinds_of_poison_stop_nobody(fleet: Fleet, say: Callable[[str], None]) -> None:
    """A good task behind each is processed in its usual time; each is kept, and replayed or discarded."""
    poison = kinds()
    assert len(poison) >= 50
    named = (("cmd", "triage"), ("inbox", "triage"), ("inbox", "admission"), ("inbox", "approvals"),
             ("req", "model"), ("req", "tool.tools"))  # fmt: skip
    topics = [fleet.topic(*one) for one in named]
    outcomes = fleet.log.read({Partition(fleet.topic("evt", "triage"), 0): 0})
    calm = [latency(fleet, nothing, outcomes) for _ in range(8)]
    slowest, which = 0.0, ""
    for name, (key, value, headers) in poison.items():

        async def write(key: Any = key, value: Any = value, headers: Headers = headers) -> None:
            for topic in topics:
                await fleet.log.append(
                    Draft(topic=topic, key=key, value=value, headers=headers, partition=0)
                )

        took = latency(fleet, write, outcomes)
        if took > slowest:
            slowest, which = took, name
    usual = statistics.median(calm)
    say(f"{len(poison)} kinds in {len(topics)} topics; slowest good task behind one: "
        f"{slowest:.2f} s ({which}), without poison {usual:.2f} s")  # fmt: skip
    assert slowest < max(1.0, 5 * max(calm)), which
    for topic in topics:
        kept = fleet.records(quarantine_topic(topic))
        for name, (key, value, headers) in poison.items():
            same = [of for of in kept if (of.key, of.value) == (key, value)
                    and of.headers[: len(headers)] == headers]  # fmt: skip
            assert same, f"{name} of {topic} is not kept as it came"
    command = fleet.topic("cmd", "triage")
    replayed = json.loads(
        fleet.command("quarantine", "replay", "--topic", command, "--yes", "-o", "json")
    )
    assert replayed["done"] == len(poison), replayed
    discarded = json.loads(fleet.command("quarantine", "discard", "--all", "--yes", "-o", "json"))
    assert discarded["done"] >= len(poison) * (len(topics) - 1), discarded
