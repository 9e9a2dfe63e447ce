"""The fleet: two processes of every role over one log, a few tasks, garbage, and people who interfere."""

from __future__ import annotations

import contextlib
import copy
import random
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from headwater.admission.quotas import Quotas
from headwater.assembly import Parts, Platform
from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts.messages import Control, RunEvent
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.execution import Cut
from headwater.core.versions import Versions
from headwater.errors import PoisonError
from headwater.log.local import LocalLog
from headwater.log.local_member import LocalMember
from headwater.log.port import Log
from headwater.runtime.lanes import Bounds
from headwater.runtime.noting import Lease
from headwater.runtime.pace import Pace
from headwater.runtime.performing import Performing
from headwater.runtime.restoring import Inline
from headwater.runtime.retrying import Retry
from headwater.testing.invariants import Book, Gauge, Story
from headwater.testing.simulator import calm, desk
from headwater.testing.simulator.feeding import Feeding
from headwater.testing.simulator.outside import Outside
from headwater.testing.simulator.people import People, reader
from headwater.testing.simulator.processes import Alive, Loop, Spec
from headwater.testing.simulator.roles import ROLES, Assembled, Stepped, Tap, assembled
from headwater.testing.simulator.storm import Storm

PARTITIONS = 2
LEASE_MS, SKEW_MS = 400, 60
EVENT_BYTES_MAX = 4_000
BY_REFERENCE = 8
"""One seed in so many has every value by reference."""
DRAINS_S = (30.0, 30.0, 0.05, 0.0)
"""How long a process that is told to end may take."""
HELD = {
    "quota": "held over quota",
    "version": "held for a later version",
    "NonDeterminismError": "held by older code",
}
"""Why runs are held, by how the reason begins."""
PACE = Pace(records_max=4, batch_ms_max=3_600_000, retry_ms_min=5, retry_ms_max=20, patience_ms=3)
BOUNDS = Bounds(
    calls_max=4,
    tenant_max=3,
    name_max=3,
    queued_max=4,
    poll_max=3,
    mark_ms_min=10,
    quiet_s_max=30.0,
)


class Fleet:
    """The world.

    Args:
        seed: Chooses tasks and interference.
        log: The log.
        storm: What may break.
        fed: Which of the inputs are fed; `None` for all.
    """

    lease_ms = LEASE_MS

    def __init__(
        self, seed: int, log: LocalLog, storm: Storm, *, fed: Collection[int] | None = None
    ) -> None:
        self.log = log
        self._storm = storm
        self._blobs = _by_reference() if seed % BY_REFERENCE == 0 else None
        self.outside = Outside(seed, storm, near=self._blobs is None)
        self.platform = self._platform(log, self._parts(storm.clock, "people"), desk.FIRST)
        self._versions: dict[str, str] = {}
        """Who has another version than the first."""
        self._rolled = False
        self._detour = random.Random(f"stages/{seed}").random() < 0.25  # noqa: PLR2004, S311 - a seeded world
        self._known = Versions()
        for need in self.platform.layout.needs(partitions=PARTITIONS, coordinators=PARTITIONS):
            small = need.name == self.platform.names.evt("desk")
            log.create(
                need.name,
                partitions=need.partitions,
                compacted=need.compacted,
                max_bytes=EVENT_BYTES_MAX if small else need.max_bytes,
            )
        self.groups = self.platform.layout.groups()
        for group, topics in self.groups.items():
            log.begin_group(group, topics)
        self.compacted: Sequence[str] = [
            topic for topic in sorted(log.topics()) if ".state." in topic or ".receipt." in topic
        ]
        self.specs: Sequence[Spec] = self._specs()
        self._history = reader(log, *self.compacted)
        self._kept: list[Record] = []
        self.counts: Counter[str] = Counter()
        """What was injected besides what the storm chose, how often."""
        self._most: dict[str, int] = {}
        self._feeding = Feeding(self.platform)
        self._people = People(self.platform, log, self.outside, self._feeding.questions)
        feed = self._feeding.feed(random.Random(f"fleet/{seed}"))  # noqa: S311 - a seeded world
        self.feed: Sequence[tuple[int, Draft]] = [
            (n, draft) for n, draft in enumerate(feed) if fed is None or n in fed
        ]

    # What the storm asks

    def look(self) -> None:
        """Measure what is in memory."""
        for process in self._storm.crowd.processes:
            loop = process.loop
            size = (
                loop.performing.busy + loop.performing.waiting
                if isinstance(loop, Stepped)
                else loop.backlog()
            )
            if size > self._most.get(process.spec.who, 0):
                self._most[process.spec.who] = size

    def roll(self, spec: Spec, dice: random.Random) -> tuple[str, Collection[str]]:
        """Have a process come back with the other version; now and then the second is taken back for all."""
        if not spec.versioned:
            return f"{spec.who} has but one version", [spec.who]
        self._rolled = True
        if self._versions.get(spec.who, desk.FIRST) == desk.FIRST:
            self._versions[spec.who] = desk.SECOND
            self.counts["rolled out"] += 1
            return f"{spec.who} is rolled out", [spec.who]
        self.counts["rolled back"] += 1
        if dice.getrandbits(1):
            self._versions[spec.who] = desk.FIRST
            return f"{spec.who} is rolled back", [spec.who]
        self._known = Versions(withdrawn=frozenset({desk.SECOND}))
        self.counts["a version taken back"] += 1
        back = [who for who, version in self._versions.items() if version == desk.SECOND]
        self._versions.clear()
        return "the second version is taken back", back

    def stages(self) -> Iterator[tuple[Collection[str], bool]]:
        """Have all come to one version, the second if any had it, some on a detour: it is taken back first.

        So code from before a patch meets runs that wait behind it for people.
        """
        if self._rolled and self._detour:
            yield self._all(desk.SECOND), False
            self._known = Versions(withdrawn=frozenset({desk.SECOND}))
            self.counts["a version taken back"] += 1
            self._people.begin_again(1)
            yield self._all(desk.FIRST), True
            self._people.begin_again()
        yield self._all(desk.SECOND) if self._rolled else (), True

    def _all(self, version: str) -> Collection[str]:
        """Have all start with a version from now on; return who has another."""
        versioned = [spec.who for spec in self.specs if spec.versioned]
        again = [who for who in versioned if self._versions.get(who, desk.FIRST) != version]
        self._versions = dict.fromkeys(versioned, version)
        return again

    def before_compaction(self) -> None:
        """Keep what compaction may take away."""
        while records := self._history.poll(records_max=100_000, wait_ms=0):
            self._kept += records

    def people(self) -> Sequence[Draft]:
        """Return what people say when nothing else happens."""
        return self._people.speak()

    def chatter(self, dice: random.Random) -> Draft | None:
        """Return what somebody says meanwhile, if anybody does."""
        return self._people.chatter(dice)

    # What came of it

    def book(self) -> Book:
        """Return everything that was written."""
        self.before_compaction()
        log, names = self.log, self.platform.names
        records = [*self._kept]
        for topic in sorted(log.topics()):
            if topic not in self.compacted and topic != names.evt("tokens"):
                records += reader(log, topic).poll(records_max=100_000, wait_ms=0)
        places = [
            (group, Partition(topic, n))
            for group, topics in self.groups.items()
            for topic in topics
            for n in range(log.partitions(topic))
        ]
        return Book(
            records=records,
            codec=self.platform.codec,
            namespace=names.namespace,
            acts=self.outside.acts,
            deaths=self._storm.crowd.deaths,
            offsets={(group, place): log.offset(group, place) or 0 for group, place in places},
            unfinished=[place for _, place in places if log.stable_end(place) < log.end(place)],
            gauges=[
                Gauge(name=f"what {who} has in hand", most=most, bound=_bound(who))
                for who, most in self._most.items()
            ],
            agents=desk.app_of(desk.SECOND if self._rolled else desk.FIRST).agents,
            ceiling=desk.ceiling,
            stories=self._stories,
            skew_ms=2 * SKEW_MS,
        )

    def problems(self, book: Book) -> Sequence[str]:
        """Return which runs nobody can go on with."""
        return [
            f"run {run} is held: {row.reason}"
            for (run,), row in book.rows["Run"].items()
            if row.state == "held"
        ]

    def seen(self, book: Book) -> Counter[str]:
        """Return what was injected besides what the storm chose, and what came of it, how often."""
        found = self.counts + self.outside.counts + self._feeding.counts + self._people.counts
        for read in book.of("evt", "runs"):
            event = read.message
            if isinstance(event, RunEvent) and event.status == "held":
                why = next((held for held in HELD if event.reason.startswith(held)), "")
                found[HELD.get(why, "held by people")] += 1
        entries = [entry for of in book.entries.values() for entry in of]
        found["patches used"] = sum(len(entry.patched) for entry in entries)
        found["resumed after a failure"] = sum(isinstance(e.delivery, Cut) for e in entries)
        found["put in quarantine"] = sum(1 for _ in book.of("quarantine"))
        found["asked of a person"] = self._people.asked
        return found

    def words(self) -> Sequence[str]:
        """Return what was fed, in words."""
        return [self._in_words(draft) for _, draft in self.feed]

    def _in_words(self, draft: Draft) -> str:
        name = draft.topic.removeprefix("sim.").removesuffix(".v1")
        with contextlib.suppress(PoisonError):
            message = self.platform.codec.decode(draft.value or b"")
            if isinstance(message, Control):
                return f"{name}: {message.verb} {message.target}"
            return f"{name}: a forged {type(message).__name__}"
        with contextlib.suppress(PoisonError):
            agent = self.platform.app.agents["desk"]
            return f"{name}: {agent.input.decode(draft.value or b'', self.platform.schemas)!r}"
        return f"{name}: garbage"

    # Parts

    def _platform(self, log: Log, parts: Parts, version: str) -> Assembled:
        platform = copy.copy(assembled(version))
        platform.log = log
        platform.parts = parts
        platform.outside, platform.storm = self.outside, self._storm
        return platform

    def _parts(self, clock: Callable[[], int], instance: str) -> Parts:
        return Parts(
            clock=clock,
            instance=instance,
            prices=desk.PRICES,
            quotas=Quotas(of={"t1": 2}),
            pace=PACE,
            bounds=BOUNDS,
            retry=Retry(total_s=60.0, wait_s_min=0.02, wait_s_max=0.2, jitter_s=0.0),
            lease=Lease(lease_ms=LEASE_MS, skew_ms=SKEW_MS, blind_ms=0),
            executions_max=3,
            blobs=self._blobs,
            versions=lambda: self._known,
        )

    def _specs(self) -> list[Spec]:
        return [
            Spec(
                f"sim.{role}/{instance}",
                self._starter(build, role, instance),
                _leave,
                calls=role.startswith(("models", "tools")),
                versioned=role.startswith("runs."),
            )
            for role, build in ROLES.items()
            for instance in ("a", "b")
        ]

    def _starter(
        self, build: Callable[[Platform], Any], role: str, instance: str
    ) -> Callable[[Alive], tuple[Loop, LocalMember]]:
        def start(process: Alive) -> tuple[Loop, LocalMember]:
            tap = Tap(self.log)
            version = self._versions.get(f"sim.{role}/{instance}", desk.FIRST)
            loop = build(self._platform(tap, self._parts(process.clock, instance), version))
            assert tap.member is not None, "every loop is a member"
            return Stepped(process, loop) if isinstance(loop, Performing) else loop, tap.member

        return start

    def _stories(
        self, run: str, tenant: str, task: bytes, children: Mapping[str, str]
    ) -> Iterator[Story]:
        """Yield what a run may come to without faults; its task is what was published."""
        published = self._feeding.published(run.rpartition(".")[2])
        versions = (desk.FIRST, desk.SECOND) if self._rolled else (desk.FIRST,)
        stories = calm.stories(
            run,
            tenant,
            task if published is None else published,
            versions=versions,
            children=children,
            event_bytes_max=EVENT_BYTES_MAX,
            away=self.outside.away,
        )
        for n, story in enumerate(stories):
            self.counts["runs compared with themselves alone"] += not n
            yield story


def _leave(process: Alive, dice: int) -> None:
    """Have a process end as SIGTERM has it end: (calls are given no time, little, or all they need)."""
    loop, leave = process.loop, bool(dice % 2)
    if isinstance(loop, Stepped):
        drain_s = DRAINS_S[dice // 2 % len(DRAINS_S)]
        process.hasty = drain_s < DRAINS_S[0]
        loop.leave(drain_s=drain_s, leave=leave)
        return
    loop.close(leave=leave)
    process.left = True


def _by_reference() -> Keeping:
    """Return a store that every value goes to, however small."""
    return Keeping(Store.at("memory:///", namespace="sim"), inline_bytes_max=-1, executor=Inline())


def _bound(who: str) -> int:
    effector = who.startswith(("sim.models", "sim.tools"))
    return PARTITIONS * (BOUNDS.queued_max + BOUNDS.poll_max) if effector else 2 * PACE.records_max
