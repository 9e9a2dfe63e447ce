"""The book: everything a namespace wrote, read committed, and what the world outside saw of it."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from headwater.contracts.messages import (
    Answered,
    Ask,
    Control,
    Failed,
    Intent,
    Reply,
    Result,
    RunEvent,
    Spent,
    Start,
)
from headwater.contracts.records import Partition, Record
from headwater.contracts.replays import MARK
from headwater.core.decider import Timer
from headwater.core.envelope import Coder
from headwater.core.execution import AgentFunction, Cut
from headwater.core.keys import key_of
from headwater.core.messages import Key, RunId
from headwater.errors import PoisonError
from headwater.runs.rows import Entry, Opened

ENDINGS = ("completed", "failed", "cancelled")
ENDED = frozenset({*ENDINGS, "quarantined", "discarded"})


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """What the world outside saw: one effect of one try at a call, when it happened.

    Args:
        key: The idempotency key it came with: `run/number`.
        name: The tool or model.
        safety: What may be done again.
        holder: The process that did it, as its receipts name it; empty if nobody knows.
        at_ms: When, on the log's clock.
        began_ms: When the attempt was handed to the code that acts, after which nobody looks at the
            log again; by default when it acted.
        attempt: From 1: tries in place of one attempt count up.
        order_key: Of calls that must start in order.
        late: Whether the process stood still between its last look at the log and the act. No
            machine can take that back, and nobody promises it.
    """

    key: str
    name: str
    safety: str
    holder: str = ""
    at_ms: int
    attempt: int = 1
    order_key: str = ""
    began_ms: int | None = None
    late: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """A process died, was cut off from its group, or gave partitions up with calls under way.

    Args:
        who: Which process.
        at_ms: When.
    """

    who: str
    at_ms: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Gauge:
    """The most that something in memory grew to, and what it may grow to."""

    name: str
    most: int
    bound: int


class Read(NamedTuple):
    """A record and what it says; `message` is `None` for a tombstone and for what is not ours."""

    record: Record
    message: Any

    def header(self, name: str) -> str:
        """Return a header as text."""
        return (self.record.header(name) or b"").decode("utf-8", "replace")

    @property
    def replayed(self) -> bool:
        """Whether an operator sent it again: its headers are of the first time."""
        return self.record.header(MARK + "id") is not None

    @property
    def at(self) -> str:
        """Where the record is."""
        return f"{self.record.partition}@{self.record.offset}"


def _no_price(ask: Ask) -> Spent:
    return Spent()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Told:
    """A call of a story.

    Args:
        kind: What is called.
        name: Its name.
        arguments: As the callee's codec wrote them.
        digest: Of what they mean.
        outcome: What it is answered.
        sent: Whether it is sent; else it is answered at once.
    """

    kind: str
    name: str
    arguments: bytes
    digest: bytes
    outcome: Answered | Failed
    sent: bool = True


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What a run comes to where nothing goes wrong and nobody interferes.

    Args:
        status: How it ends.
        value: Its encoded result.
        error: Class of the error it fails with.
        calls: Its calls, by number.
    """

    status: str
    value: bytes = b""
    error: str = ""
    calls: Mapping[int, Told]


def _no_story(run: str, tenant: str, task: bytes, children: Mapping[str, str]) -> Iterable[Story]:
    return ()


@dataclasses.dataclass(kw_only=True)
class Book:
    """Everything a namespace wrote.

    Args:
        records: Every committed record, of any topic, in any order between partitions.
        codec: Reads messages and rows.
        namespace: Whose records.
        acts: What the world outside saw, in order.
        deaths: Who died or was cut off, when.
        offsets: (group, partition) to the group's next offset, where that is known.
        unfinished: Partitions whose readers wait for a transaction that has not ended.
        gauges: What was measured of memory.
        open: Task ids that may still be open: they wait for a person, and nobody came.
        killers: Task ids that nobody can take, each of which may stop its own key and no other.
        agents: Agents by name, for replays; none are replayed that are not named.
        writes: Whether a call that a journal has changes the world.
        ceiling: What a model call may cost at most.
        stories: (run, tenant, task, children by call) to what the run comes to without faults: one
            story, several where any may be, or none where that is not known.
        rested: Whether everything had time to settle.
        slack_ms: How far clocks may differ before something counts as after something else.
        skew_ms: How far processes' clocks may differ from the log's.
        blind_ms: How long before a call is made again its answer may have been noted unseen.
    """

    records: Iterable[Record]
    codec: Coder
    namespace: str
    acts: Sequence[Act] = ()
    deaths: Sequence[Death] = ()
    offsets: Mapping[tuple[str, Partition], int] = dataclasses.field(default_factory=dict)
    unfinished: Sequence[Partition] = ()
    gauges: Sequence[Gauge] = ()
    open: frozenset[str] = frozenset()
    killers: frozenset[str] = frozenset()
    agents: Mapping[str, AgentFunction] = dataclasses.field(default_factory=dict)
    writes: Callable[[Any], bool] = lambda made: made.kind != "model"
    ceiling: Callable[[Ask], Spent] = _no_price
    stories: Callable[[str, str, bytes, Mapping[str, str]], Iterable[Story]] = _no_story
    rested: bool = True
    slack_ms: int = 0
    skew_ms: int = 1_000
    blind_ms: int = 0

    @functools.cached_property
    def topics(self) -> dict[str, list[Read]]:
        """Records by topic, in order within each partition."""
        found: dict[str, list[Record]] = defaultdict(list)
        for record in self.records:
            found[record.partition.topic].append(record)
        return {
            topic: [
                Read(record, self._message(record))
                for record in sorted(records, key=lambda r: (r.partition.number, r.offset))
            ]
            for topic, records in found.items()
        }

    def of(self, kind: str, name: str = "") -> Iterator[Read]:
        """Yield the records of a kind's topics, of all or of one, in order within each partition."""
        start = f"{self.namespace}.{kind}.{name}"
        for topic, reads in self.topics.items():
            if topic.startswith(start) and (not name or topic[len(start) :].startswith(".v")):
                yield from reads

    def name_of(self, read: Read) -> str:
        """Return the name in a topic: `<ns>.<kind>.<name>.v<major>`."""
        rest = read.record.partition.topic.removeprefix(f"{self.namespace}.")
        return rest.partition(".")[2].rpartition(".v")[0]

    @functools.cached_property
    def life(self) -> dict[str, list[RunEvent]]:
        """Events by task, in order."""
        found: dict[str, list[RunEvent]] = defaultdict(list)
        for read in self.of("evt", "runs"):
            if isinstance(read.message, RunEvent):
                found[read.message.task_id].append(read.message)
        return found

    @functools.cached_property
    def asks(self) -> dict[str, list[Read]]:
        """Requests that runs sent, by call: `run/number`; children's starts included."""
        found: dict[str, list[Read]] = defaultdict(list)
        for read in (*self.of("req"), *self.of("inbox")):
            message = read.message
            if not read.header("ce_source").startswith("runs."):
                continue
            if isinstance(message, Ask):
                found[f"{message.run}/{message.number}"].append(read)
            elif isinstance(message, Start) and message.reply_to is not None:
                found[f"{message.reply_to.run}/{message.reply_to.number}"].append(read)
        return found

    @functools.cached_property
    def children(self) -> dict[str, str]:
        """The runs that runs began, by call."""
        return {
            call: reads[0].message.run
            for call, reads in self.asks.items()
            if isinstance(reads[0].message, Start)
        }

    @functools.cached_property
    def starts(self) -> dict[str, list[Read]]:
        """Starts by run."""
        found: dict[str, list[Read]] = defaultdict(list)
        for read in self.of("inbox"):
            if isinstance(read.message, Start):
                found[read.message.run].append(read)
        return found

    @functools.cached_property
    def inboxes(self) -> dict[str, list[Read]]:
        """What came for each run, in order."""
        found: dict[str, list[Read]] = defaultdict(list)
        for read in self.of("inbox"):
            found[(read.record.key or b"").decode("utf-8", "replace")].append(read)
        return found

    @functools.cached_property
    def replies(self) -> dict[str, list[Read]]:
        """Answers by call, in order."""
        found: dict[str, list[Read]] = defaultdict(list)
        for read in self.of("inbox"):
            if isinstance(read.message, Reply):
                found[f"{read.message.run}/{read.message.number}"].append(read)
        return found

    @functools.cached_property
    def said(self) -> dict[str, Control]:
        """What was said to admission, by id."""
        return {
            read.header("ce_id"): read.message
            for read in self.of("inbox", "admission")
            if isinstance(read.message, Control)
        }

    @functools.cached_property
    def outcomes(self) -> dict[str, list[Read]]:
        """Outcomes by run; what runs emit besides is left out."""
        found: dict[str, list[Read]] = defaultdict(list)
        for read in self.of("evt"):
            name = self.name_of(read)
            if read.header("ce_type") in {f"{name}.{ending}" for ending in ENDINGS}:
                found[read.header("ce_runid")].append(read)
        return found

    @functools.cached_property
    def intents(self) -> dict[str, list[Read]]:
        """Notes that a call begins, by call, in order."""
        return self._receipts(Intent, lambda intent: f"{intent.run}/{intent.number}")

    @functools.cached_property
    def results(self) -> dict[str, list[Read]]:
        """Notes of answers, by call, in order."""
        return self._receipts(Result, lambda result: f"{result.reply.run}/{result.reply.number}")

    @functools.cached_property
    def entries(self) -> dict[str, list[Entry]]:
        """Entries by run, in the order in which they were written."""
        found: dict[str, list[Entry]] = defaultdict(list)
        for read in self.of("state"):
            if isinstance(read.message, Entry):
                found[read.message.run].append(read.message)
        return found

    @functools.cached_property
    def opened(self) -> dict[str, Opened]:
        """How runs began, or continue, by run."""
        return {
            read.message.run: read.message
            for read in self.of("state")
            if isinstance(read.message, Opened)
        }

    def chapters(self, run: str) -> list[list[Entry]]:
        """Return a run's entries as written: a cut begins another chapter, as does a fresh journal."""
        opened = self.opened.get(run)
        fresh = 0 if opened is None else opened.journal
        found: list[list[Entry]] = [[]]
        for entry in self.entries.get(run, ()):
            again = entry.seq == 1 and fresh > 0 and bool(found[-1])
            fresh -= again
            if again or isinstance(entry.delivery, Cut):
                found.append([])
            found[-1].append(entry)
        return found

    def journal(self, run: str) -> list[Entry]:
        """Return the journal that a run has in the end: what was cut off or left behind is not in it.

        Of a fresh one that nothing was delivered to, or whose forerunner left no record, it is empty.
        """
        found: list[Entry] = []
        chapters = self.chapters(run)
        begun = sum(1 for one in chapters[1:] if not isinstance(one[0].delivery, Cut))
        if run in self.opened and begun < self.opened[run].journal:
            return []
        for chapter in chapters:
            if chapter:
                found = [entry for entry in found if entry.seq < chapter[0].seq] + chapter
        return found

    @functools.cached_property
    def rows(self) -> dict[str, dict[Key, Any]]:
        """The rows that are left, by kind and key."""
        newest: dict[tuple[str, int, bytes], Read] = {}
        for read in self.of("state"):
            place = read.record.partition
            newest[place.topic, place.number, read.record.key or b""] = read
        found: dict[str, dict[Key, Any]] = defaultdict(dict)
        for (_, _, key), read in newest.items():
            if read.record.value is not None:
                kind, parts = key_of(key)
                found[kind][parts] = read.message
        return found

    def timers(self) -> Iterator[Timer]:
        """Yield the timers that are left."""
        for row in self.rows["Timer"].values():
            if isinstance(row, Timer):
                yield row

    def is_child(self, run: str) -> bool:
        """Whether a run was asked for by another."""
        return any(read.message.reply_to is not None for read in self.starts.get(run, ()))

    def _receipts(self, kind: type, key: Callable[[Any], str]) -> dict[str, list[Read]]:
        found: dict[str, list[Read]] = defaultdict(list)
        for read in self.of("receipt"):
            if isinstance(read.message, kind):
                found[key(read.message)].append(read)
        return found

    def _message(self, record: Record) -> Any:
        if record.value is None:
            return None
        try:
            return self.codec.decode(record.value)
        except PoisonError:
            return None


def agent_of(run: str) -> str:
    """Return the agent in a run's id."""
    parsed = RunId.parse(run)
    return "" if parsed is None else parsed.agent
