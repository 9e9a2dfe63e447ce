"""What must hold after a run, read back by plain read-committed clients, each rule by its number."""

from __future__ import annotations

import collections
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import fastavro
from confluent_kafka import ConsumerGroupTopicPartitions, IsolationLevel, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from tests.chaos import app
from tests.chaos.world import ANSWERED, BEGUN, Deed
from tests.e2e import plain

from headwater.contracts.derive import shape_of
from headwater.contracts.messages import Ask, Intent, Reply, Result
from headwater.runs.rows import Entry
from headwater.runtime import doneset

AGENT = "clerk"
CONSUMED = (f"cmd.{AGENT}", "inbox.admission", f"inbox.{AGENT}", "req.model", "req.tool.desk")
GROUPS = {
    "intake": f"cmd.{AGENT}",
    "admission": "inbox.admission",
    f"runs.{AGENT}": f"inbox.{AGENT}",
    "models": "req.model",
    "tools.desk": "req.tool.desk",
}
READ = "digits"
CALL_S_MAX = 30.0
Records = list[dict[str, Any]]


def schemas() -> dict[str, Any]:
    """Return the schemas that the fleet writes with, by fingerprint."""
    shapes = [
        *app.app.shapes().values(),
        *(shape_of(kind) for kind in (Ask, Entry, Intent, Reply, Result)),
    ]
    return {shape.fingerprint.hex(): fastavro.parse_schema(shape.schema) for shape in shapes}


class Book:
    """Everything a run wrote, and everything it did to the world.

    Args:
        bootstrap: The cluster.
        namespace: The run's.
        asked: The questions, by event id.
        deeds: What happened outside.
        crashes: How often a process died or stood still for longer than its session.
    """

    def __init__(
        self,
        bootstrap: str,
        namespace: str,
        asked: Mapping[str, app.Question],
        deeds: Iterable[Deed],
        crashes: int,
    ) -> None:
        self._bootstrap, self._namespace = bootstrap, namespace
        self._asked = asked
        self._deeds = [*deeds]
        self._crashes = crashes
        self._schemas = schemas()
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        found = self._all()
        self.read = {name: found[name] for name in CONSUMED}
        self.outcomes = found[f"evt.{AGENT}"]
        self._receipts = found["receipt.model"] + found["receipt.tool.desk"]
        self._rows = found[f"state.runs.{AGENT}"]
        self._admitted = found["state.admission"]
        self._refused = [record for name in CONSUMED for record in found[f"quarantine.{name}"]]
        self._asks = [
            (record, self._datum(record))
            for record in self.read["req.model"] + self.read["req.tool.desk"]
        ]

    @property
    def records(self) -> int:
        """How many records the roles consumed."""
        return sum(len(records) for records in self.read.values())

    def violations(self) -> dict[str, list[str]]:
        """Return what does not hold, by rule; a rule that holds is not in it."""
        found = {
            "1 accounted": [*self._accounted()],
            "2 one outcome": [*self._one_outcome()],
            "3 nothing aborted is read": [*self._nothing_aborted()],
            "4 commits together": [*self._together()],
            "5 order": [*self._turns_in_order(), *self._starts_in_order()],
            "6 a deposed owner pays nothing": [*self._deposed()],
            "7 nothing hangs": [*self._hanging(), *self._undelivered()],
            "8 bought once": [*self._bought_again(), *self._repeated()],
        }
        return {rule: wrong for rule, wrong in found.items() if wrong}

    def at_rest(self) -> bool:
        """Whether every group has gone past what there is to read, and every slot is closed."""
        return not any(self._undelivered()) and not any(self._open_slots())

    def _accounted(self) -> Iterator[str]:
        ended = {record["headers"]["ce_correlationid"] for record in self.outcomes}
        for event_id in self._asked.keys() - ended:
            yield f"{event_id} has no outcome"
        for event_id in ended - self._asked.keys():
            yield f"{event_id} was never asked"
        for record in self._refused:
            yield f"{record['topic']} has {record['key']} of {record['headers'].get('ce_id')}"
        yield from self._open_slots()

    def _open_slots(self) -> Iterator[str]:
        last = {
            record["raw_key"]: record["value"]
            for record in self._admitted
            if record["key"].startswith("Slot\x00")
        }
        for key, value in last.items():
            if value is not None:
                yield f"slot {key!r} is open"

    def _one_outcome(self) -> Iterator[str]:
        runs = collections.Counter(record["key"] for record in self.outcomes)
        yield from (f"run {run} has {n} outcomes" for run, n in runs.items() if n != 1)
        tasks: dict[str, Records] = collections.defaultdict(list)
        for record in self.outcomes:
            tasks[record["headers"]["ce_correlationid"]].append(record)
        for event_id, records in tasks.items():
            if len(records) != 1:
                yield f"{event_id} has {len(records)} outcomes"
            question, kind = self._asked.get(event_id), records[0]["headers"]["ce_type"]
            if kind != f"{AGENT}.completed":
                yield f"{event_id} ended as {kind}"
            elif question is not None:
                answer = self._datum(records[0])
                if answer != app.answer_of(question).model_dump():
                    yield f"{event_id} has {answer}"

    def _nothing_aborted(self) -> Iterator[str]:
        """What is read was asked by a turn that is in its run's journal, and once."""
        sent = collections.Counter((ask["run"], ask["number"]) for _, ask in self._asks)
        asked = {
            (entry["run"], call["number"])
            for entry in self._entries()
            for call in entry["calls"]
            if call["denied"] is None
        }
        yield from (f"{call} was sent {n} times" for call, n in sent.items() if n != 1)
        yield from (f"{call} was sent, and no journal asked it" for call in sent.keys() - asked)
        yield from (f"{call} was asked, and never sent" for call in asked - sent.keys())

    def _together(self) -> Iterator[str]:
        """A turn's row is there if and only if what it read is: each record made one entry."""
        turns: dict[tuple[int, int], int] = collections.Counter(
            (int(entry["run"].split(".")[1]), entry["offset"]) for entry in self._entries()
        )
        yield from (f"record {place} made {n} entries" for place, n in turns.items() if n != 1)
        ends = collections.Counter(entry["run"] for entry in self._entries())
        for record in self.outcomes:
            if record["key"] not in ends:
                yield f"run {record['key']} ended, and has no journal"

    def _turns_in_order(self) -> Iterator[str]:
        seqs: dict[str, list[tuple[int, int]]] = collections.defaultdict(list)
        for entry in self._entries():
            seqs[entry["run"]].append((entry["seq"], entry["offset"]))
        for run, turns in seqs.items():
            if [seq for seq, _ in turns] != [*range(1, len(turns) + 1)]:
                yield f"run {run} took its turns as {turns}"
            if turns != sorted(turns, key=lambda turn: turn[1]):
                yield f"run {run} read its inbox as {turns}"

    def _starts_in_order(self) -> Iterator[str]:
        """Calls of one order key begin in the order of their requests."""
        begun: dict[str, int] = {}
        for at, deed in enumerate(self._deeds):
            if deed.event == BEGUN and deed.name == "file":
                begun.setdefault(deed.what, at)
        last: dict[tuple[str, str], tuple[int, str]] = {}
        for record, ask in self._asks:
            if ask["name"] != "file":
                continue
            number = self._number(record)
            key = (record["headers"]["ce_tenantid"], ask["order_key"])
            at = begun.get(number, -1)
            if at < 0:
                continue
            before, other = last.get(key, (-1, ""))
            if at < before:
                yield f"{number} began before {other}, of the same key {key}"
            last[key] = (at, number)

    def _deposed(self) -> Iterator[str]:
        """Nobody goes on with a call that somebody else has answered: one process answers it last."""
        answered: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
        for deed in self._deeds:
            if deed.event == ANSWERED and deed.name == "pay":
                answered[deed.name, deed.what].add(deed.pid)
        for call, pids in answered.items():
            if len(pids) > 1:
                yield f"{call} was answered by {len(pids)} processes"

    def _bought_again(self) -> Iterator[str]:
        """Nothing begins after its answer was in the log, as a receipt or as a reply."""
        calls = {
            (ask["run"], ask["number"]): (ask["name"], self._number(record))
            for record, ask in self._asks
        }
        durable: dict[tuple[str, str], int] = {}
        for record in self._receipts:
            receipt = self._datum(record)
            if "reply" in receipt:
                place = calls.get((receipt["reply"]["run"], receipt["reply"]["number"]))
                if place is not None:
                    durable[place] = min(durable.get(place, record["time_ms"]), record["time_ms"])
        for record in self.read[f"inbox.{AGENT}"]:
            if not record["headers"]["ce_type"].endswith("Reply"):
                continue
            reply = self._datum(record)
            place = calls.get((reply["run"], reply["number"]))
            if place is not None and place[0] != READ:
                durable[place] = min(durable.get(place, record["time_ms"]), record["time_ms"])
        for deed in self._deeds:
            at_ms = durable.get((deed.name, deed.what))
            if deed.event == BEGUN and at_ms is not None and deed.at_ms > at_ms:
                yield f"{deed.name} {deed.what} began {deed.at_ms - at_ms} ms after its answer was noted"

    def _repeated(self) -> Iterator[str]:
        begun = collections.Counter(
            (deed.name, deed.what) for deed in self._deeds if deed.event == BEGUN
        )
        for (name, what), n in begun.items():
            if name == "pay" and n > 1:
                yield f"pay {what} began {n} times"
            elif name != READ and n > 1 + self._crashes:
                yield f"{name} {what} began {n} times in {self._crashes} crashes"

    def _hanging(self) -> Iterator[str]:
        """No transaction is open: every partition can be read to its end."""
        for topic, ends in self._ends(IsolationLevel.READ_UNCOMMITTED).items():
            stable = self._ends(IsolationLevel.READ_COMMITTED, topic)[topic]
            for number, end in ends.items():
                if stable[number] != end:
                    yield f"{topic}[{number}] is stable to {stable[number]} of {end}"

    def _ends(self, level: IsolationLevel, only: str = "") -> dict[str, dict[int, int]]:
        topics = self._admin.list_topics(timeout=CALL_S_MAX).topics
        places = [
            TopicPartition(name, number)
            for name, topic in topics.items()
            if name.startswith(f"{self._namespace}.") and only in {"", name}
            for number in topic.partitions
        ]
        futures = self._admin.list_offsets(
            {place: OffsetSpec.latest() for place in places},
            isolation_level=level,
            request_timeout=CALL_S_MAX,
        )
        found: dict[str, dict[int, int]] = collections.defaultdict(dict)
        for place, future in futures.items():
            found[place.topic][place.partition] = future.result(CALL_S_MAX).offset
        return found

    def _undelivered(self) -> Iterator[str]:
        """Every record that can be read is behind its group's offset, or in the set beyond it."""
        for group, name in GROUPS.items():
            reached = self._reached(group)
            for record in self.read[name]:
                offset, done = reached[record["partition"]]
                if record["offset"] >= offset and record["offset"] not in done:
                    yield f"{group} has not done {record['partition']}@{record['offset']}"

    def _reached(self, group: str) -> dict[int, tuple[int, Collection[int]]]:
        full = f"{self._namespace}.{group}"
        future = self._admin.list_consumer_group_offsets(
            [ConsumerGroupTopicPartitions(full)],
            require_stable=True,
            request_timeout=CALL_S_MAX,
        )[full]
        return {
            place.partition: (place.offset, doneset.decode(place.offset, place.metadata or ""))
            for place in future.result(CALL_S_MAX).topic_partitions
        }

    def _entries(self) -> Iterator[dict[str, Any]]:
        for record in self._rows:
            if record["key"].startswith("Entry\x00") and record["value"] is not None:
                yield self._datum(record)

    def _number(self, record: Mapping[str, Any]) -> str:
        event_id = record["headers"]["ce_correlationid"]
        question = self._asked.get(event_id)
        return "" if question is None else str(question.number)

    def _datum(self, record: Mapping[str, Any]) -> Any:
        return plain.datum(record["value"], self._schemas)

    def _all(self) -> dict[str, Records]:
        """Read every topic that a rule asks for, in one go."""
        names = [
            *CONSUMED,
            *(f"quarantine.{name}" for name in CONSUMED),
            *(f"evt.{AGENT}", "receipt.model", "receipt.tool.desk"),
            *(f"state.runs.{AGENT}", "state.admission"),
        ]
        topics = {f"{self._namespace}.{name}.v1": name for name in names}
        found: dict[str, Records] = {name: [] for name in names}
        for record in plain.read(self._bootstrap, topics):
            found[topics[record["topic"]]].append(record)
        return found
