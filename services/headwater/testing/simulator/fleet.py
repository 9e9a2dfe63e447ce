"""The fleet: two processes of every role over one log, a few tasks, garbage, and people who interfere."""

from __future__ import annotations

import contextlib
import copy
import random
from collections.abc import Callable, Collection, Sequence
from typing import Any

from headwater.admission.decider import Quotas
from headwater.assembly import Parts, Platform
from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts import replays
from headwater.contracts.approvals import ApprovalEvent, Decide
from headwater.contracts.messages import Ask, Control, ReplyTo, RunEvent, RunFailed
from headwater.contracts.quarantine import reason
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta, RunId, task_id
from headwater.core.prices import Prices
from headwater.errors import PoisonError
from headwater.log.local import LocalLog, LocalReader
from headwater.log.local_member import LocalMember
from headwater.log.port import Log
from headwater.runtime.lanes import Bounds
from headwater.runtime.noting import Lease
from headwater.runtime.pace import Pace
from headwater.runtime.performing import Performing
from headwater.runtime.restoring import Inline
from headwater.runtime.retrying import Retry
from headwater.testing.invariants import Book, Gauge
from headwater.testing.invariants.book import ENDED
from headwater.testing.simulator import desk
from headwater.testing.simulator.outside import Outside
from headwater.testing.simulator.processes import Alive, Loop, Spec
from headwater.testing.simulator.roles import ROLES, Assembled, Stepped, Tap, assembled
from headwater.testing.simulator.storm import Storm

PARTITIONS = 2
TASKS_MIN, TASKS_MAX = 2, 5
LEASE_MS, SKEW_MS = 400, 60
EVENT_BYTES_MAX = 4_000
BY_REFERENCE = 8
"""One seed in so many has every value by reference."""
FAILURES = {"fail": "ValueError", "huge": "unwritable"}
"""How tasks of a kind may fail; no other may."""
SAID_MAX = 6
"""How often people speak to one run before they give up."""
PACE = Pace(records_max=4, batch_ms_max=3_600_000, retry_ms_min=5, retry_ms_max=20)
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
        self._prices = Prices(of={"small": desk.PRICE})
        self.platform = self._platform(log, self._parts(storm.clock, "people"), "1")
        for need in self.platform.needs(partitions=PARTITIONS, coordinators=PARTITIONS):
            small = need.name == self.platform.names.evt("desk")
            log.create(
                need.name,
                partitions=need.partitions,
                compacted=need.compacted,
                max_bytes=EVENT_BYTES_MAX if small else need.max_bytes,
            )
        self.groups = self.platform.groups()
        for group, topics in self.groups.items():
            log.begin_group(group, topics)
        self.compacted: Sequence[str] = [
            topic for topic in sorted(log.topics()) if ".state." in topic or ".receipt." in topic
        ]
        self.specs: Sequence[Spec] = self._specs()
        self._history = self._reader(*self.compacted)
        self._kept: list[Record] = []
        self._life = self._reader(self.platform.names.evt("runs"))
        self._last: dict[str, RunEvent] = {}
        self._asked = self._reader(self.platform.names.evt("approvals"))
        self._petitions: dict[str, ApprovalEvent] = {}
        self._decided = 0
        aside = [topic for topic in sorted(log.topics()) if ".quarantine." in topic]
        self._letters = self._reader(*aside, self.platform.names.dlq("desk"))
        self._put_aside: list[Record] = []
        self._said: dict[str, int] = {}
        self._most: dict[str, int] = {}
        self._questions: dict[str, str] = {}
        """Question by task."""
        self._unsure: set[str] = set()
        feed = self._feed(random.Random(f"fleet/{seed}"))  # noqa: S311 - a seeded world
        self.feed: Sequence[tuple[int, Draft]] = [
            (n, draft) for n, draft in enumerate(feed) if fed is None or n in fed
        ]

    # What the storm asks

    def look(self) -> None:
        """Measure what is in memory."""
        for process in self._storm.processes:
            loop = process.loop
            size = (
                loop.performing.busy + loop.performing.waiting
                if isinstance(loop, Stepped)
                else loop.backlog()
            )
            if size > self._most.get(process.spec.who, 0):
                self._most[process.spec.who] = size

    def people(self) -> Sequence[Draft]:
        """Resume what is paused, answer what asks, cancel what waits for nothing."""
        said: list[Draft] = []
        for event in self._news():
            self._last[event.run or event.task_id] = event
        for target, event in self._last.items():
            verb = self._word(event)
            if verb and self._said.get(target, 0) < SAID_MAX:
                self._said[target] = self._said.get(target, 0) + 1
                said.append(self._control(event.tenant, target, verb))
        return [*said, *self._decisions(random.Random(f"people/{self._decided}"))]  # noqa: S311 - a seeded world

    def chatter(self, dice: random.Random) -> Draft | None:
        """Return what somebody says meanwhile: a decision, perhaps a wrong one, or a record once more."""
        if dice.random() < 0.3:  # noqa: PLR2004 - a third are operators
            return self._replay(dice)
        self._hear()
        known = [event for event in self._petitions.values() if event.status == "asked"]
        if not known:
            return None
        return self._decision(dice.choice(known), dice, honest=dice.random() < 0.7)  # noqa: PLR2004 - most

    def before_compaction(self) -> None:
        """Keep what compaction may take away."""
        while records := self._history.poll(records_max=100_000, wait_ms=0):
            self._kept += records

    # What came of it

    def book(self) -> Book:
        """Return everything that was written."""
        self.before_compaction()
        log, names = self.log, self.platform.names
        records = [*self._kept]
        for topic in sorted(log.topics()):
            if topic not in self.compacted and topic != names.evt("tokens"):
                records += self._reader(topic).poll(records_max=100_000, wait_ms=0)
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
            deaths=self._storm.deaths,
            offsets={(group, place): log.offset(group, place) or 0 for group, place in places},
            unfinished=[place for _, place in places if log.stable_end(place) < log.end(place)],
            gauges=[
                Gauge(name=f"what {who} has in hand", most=most, bound=_bound(who))
                for who, most in self._most.items()
            ],
            # Resumed after the log refused its turn, such a run waits for the answer in quarantine.
            open=frozenset(t for t, q in self._questions.items() if q.startswith("huge")),
            agents=self.platform.app.agents,
            skew_ms=2 * SKEW_MS,
        )

    def problems(self, book: Book) -> Sequence[str]:
        """Return which results are not what the desk had to come to."""
        found: list[str] = []
        output = self.platform.app.agents["desk"].output
        for run, reads in book.outcomes.items():
            task = run.rpartition(".")[2]
            question = "" if task in self._unsure else self._questions.get(task, "")
            kind = reads[-1].header("ce_type")
            failed = reads[-1].message
            allowed = FAILURES.get(question.partition(" ")[0])
            fails = question and isinstance(failed, RunFailed) and kind == "desk.failed"
            if fails and failed.error != allowed:
                found.append(f"{question!r} failed: {failed.error}: {failed.detail}")
            if not question or kind != "desk.completed" or self._blobs is not None:
                continue
            result = output.decode(reads[-1].record.value or b"", self.platform.schemas)
            if not result.startswith(desk.expected(question)):
                found.append(f"{question!r} came to {result!r}")
        found += [
            f"run {run} is held: {row.reason}"
            for (run,), row in book.rows["Run"].items()
            if row.state == "held"
        ]
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
            prices=self._prices,
            quotas=Quotas(of={"t1": 2}),
            pace=PACE,
            bounds=BOUNDS,
            retry=Retry(total_s=60.0, wait_s_min=0.02, wait_s_max=0.2, jitter_s=0.0),
            lease=Lease(lease_ms=LEASE_MS, skew_ms=SKEW_MS),
            executions_max=3,
            blobs=self._blobs,
        )

    def _specs(self) -> list[Spec]:
        return [
            Spec(f"sim.{role}/{instance}", self._starter(build, instance))
            for role, build in ROLES.items()
            for instance in ("a", "b")
        ]

    def _starter(
        self, build: Callable[[Platform], Any], instance: str
    ) -> Callable[[Alive], tuple[Loop, LocalMember]]:
        def start(process: Alive) -> tuple[Loop, LocalMember]:
            tap = Tap(self.log)
            loop = build(self._platform(tap, self._parts(process.clock, instance), "1"))
            assert tap.member is not None, "every loop is a member"
            return Stepped(process, loop) if isinstance(loop, Performing) else loop, tap.member

        return start

    def _reader(self, *topics: str) -> LocalReader:
        places = [
            Partition(topic, n) for topic in topics for n in range(self.log.partitions(topic))
        ]
        return self.log.read(dict.fromkeys(places, 0))

    def _news(self) -> list[RunEvent]:
        events = []
        for record in self._life.poll(records_max=10_000, wait_ms=0):
            with contextlib.suppress(Exception):
                event = self.platform.codec.decode(record.value or b"")
                if isinstance(event, RunEvent):
                    events.append(event)
        return events

    def _replay(self, dice: random.Random) -> Draft | None:
        """Send a record again that was put aside, or a dead letter as a new task."""
        kept = self._letters.poll(records_max=10_000, wait_ms=0)
        self._put_aside += kept
        if not self._put_aside:
            return None
        record, names = dice.choice(self._put_aside), self.platform.names
        why, replay = reason(record), f"replay-{dice.randrange(3)}"
        if record.partition.topic == names.dlq("desk"):
            anew = replays.Anew(
                replay=replay,
                topic=names.cmd("desk"),
                repeat_writes=bool(dice.getrandbits(1)),
            )
            sent = anew(record)
        else:
            sent = replays.back(
                record,
                why,
                replay=replay,
                topic=why.source.topic,
                partition=why.source.number,
                identity=f"{why.source}/{why.offset}",
            )
        return sent if isinstance(sent, Draft) else None

    def _hear(self) -> None:
        for record in self._asked.poll(records_max=10_000, wait_ms=0):
            event = self.platform.codec.decode(record.value or b"")
            if isinstance(event, ApprovalEvent) and event.status != "refused":
                self._petitions[event.approval] = event

    def _decisions(self, dice: random.Random) -> list[Draft]:
        """Decide what is still asked."""
        self._hear()
        return [
            self._decision(event, dice, honest=True)
            for event in self._petitions.values()
            if event.status == "asked"
        ]

    def _decision(self, event: ApprovalEvent, dice: random.Random, *, honest: bool) -> Draft:
        """Return a decision; one that is not honest is about something else, or from the wrong person."""
        self._decided += 1
        verdict: Any = dice.choice(["approve", "approve", "deny"])
        value = b""
        if event.about == "doubt":
            found = self.outside.done.get(f"{event.run}/{event.number}")
            verdict = "not-happened" if found is None else "happened"
            if found is not None:
                value = self.platform.app.tools[event.name].encode(found)
        wrong = "" if honest else dice.choice(["digest", "group", "verdict"])
        decide = Decide(
            approval=event.approval,
            verdict="give-up" if wrong == "verdict" and event.about != "doubt" else verdict,
            digest=b"another" if wrong == "digest" else event.digest,
            groups=("strangers",) if wrong == "group" else ("bosses", "*"),
            reason="simulated",
            value=value,
        )
        meta = Meta(id=f"decision/{self._decided}", tenant=event.tenant, actor="boss")
        to = self.platform.approvals_address(event.tenant)
        return self.platform.envelope("people").seal(Sent(message=decide, to=to, meta=meta))

    def _word(self, event: RunEvent) -> str:
        """Return what a person says to a run when nothing else happens."""
        if event.status == "paused":
            return "resume"
        if event.status in ENDED or event.status == "held" or event.parent:
            return ""
        kind = self._questions.get(event.task_id, "").partition(" ")[0]
        return {"ask": "signal", "wait": "cancel", "cleanup": "cancel"}.get(kind, "")

    def _feed(self, dice: random.Random) -> list[Draft]:
        """Return what comes from outside: tasks, some twice; words of people, some absurd; garbage."""
        drafts: list[Draft] = []
        for number in range(dice.randint(TASKS_MIN, TASKS_MAX)):
            drafts += self._task(dice, number)
        drafts += [self._garbage(dice) for _ in range(dice.randint(0, 3))]
        # Whatever is said comes at any time, before what it speaks of as well.
        for n in range(len(drafts) - 1, 0, -1):
            if dice.random() < 0.3:  # noqa: PLR2004 - a third comes out of turn
                other = dice.randrange(n + 1)
                drafts[n], drafts[other] = drafts[other], drafts[n]
        return drafts

    def _task(self, dice: random.Random, number: int) -> list[Draft]:
        question = f"{dice.choice(desk.KINDS)} {number}"
        tenant = dice.choice(["t1", "t1", "t2"])
        own = f"task-{number}"
        headers = (("ce_id", own.encode()), ("ce_source", b"sim"), ("ce_tenantid", tenant.encode()))
        topic = self.platform.names.cmd("desk")
        agent = self.platform.app.agents["desk"]

        def draft(text: str) -> Draft:
            value = agent.input.encode(text)
            return Draft(topic=topic, key=own.encode(), value=value, headers=headers)

        task = task_id(tenant, "desk", "sim", own)
        self._questions[task] = question
        drafts = [draft(question)]
        if dice.random() < 0.15:  # noqa: PLR2004 - some come twice
            drafts.append(draft(question))
        if dice.random() < 0.05:  # noqa: PLR2004 - a few twice, and not the same
            drafts.append(draft(f"plain {number}"))
            self._unsure.add(task)  # whichever came first
        for _ in range(dice.choice([0, 0, 0, 1, 1, 2, 3])):
            verb = dice.choice(
                ["pause", "pause", "resume", "signal", "signal", "cancel", "discard"]
            )
            target = task if dice.random() < 0.7 else str(RunId("desk", dice.randrange(2), task))  # noqa: PLR2004 - most
            whose = tenant if dice.random() < 0.95 else "t3"  # noqa: PLR2004 - a few are strangers
            said = self._control(whose, target, verb)
            drafts += [said, said] if dice.random() < 0.3 else [said]  # noqa: PLR2004 - some twice
        return drafts

    def _garbage(self, dice: random.Random) -> Draft:
        names = self.platform.names
        kind = dice.randrange(5)
        if kind == 0:
            headers = (("ce_id", b"bad"), ("ce_tenantid", b"t1"))
            return Draft(topic=names.cmd("desk"), key=b"bad", value=b"no avro", headers=headers)
        if kind == 1:
            return Draft(topic=names.cmd("desk"), key=b"bad", value=None)
        if kind == 2:  # noqa: PLR2004 - the third of five
            return Draft(topic=names.inbox("admission"), key=b"t1", value=b"\xc3\x01garbage...")
        if kind == 3:  # noqa: PLR2004 - the fourth of five
            return Draft(topic=names.inbox("desk"), key=b"desk.0.nobody", value=b"garbage")
        ask = Ask(
            run="desk.0.nobody",
            number=1,
            name="balance",
            arguments=b"garbage",
            safety="read",
            not_after_ms=1 << 50,
            reply_to=ReplyTo(topic=names.inbox("desk"), partition=0, run="desk.0.nobody", number=1),
        )
        to = Address(names.req("tool.bank"), "t1|balance|x")
        sent = Sent(message=ask, to=to, meta=Meta(id="forged", tenant="t1"))
        return self.platform.envelope("nobody").seal(sent)

    def _control(self, tenant: str, target: str, verb: Any) -> Draft:
        count = len(self._said) + sum(self._said.values())
        message = Control(target=target, verb=verb, name="go", value=b'"gone"', reason="simulated")
        meta = Meta(id=f"{target}/{verb}/{count}", tenant=tenant)
        to = self.platform.admission_address(tenant)
        return self.platform.envelope("people").seal(Sent(message=message, to=to, meta=meta))


def _by_reference() -> Keeping:
    """Return a store that every value goes to, however small."""
    return Keeping(Store.at("memory:///", namespace="sim"), inline_bytes_max=-1, executor=Inline())


def _bound(who: str) -> int:
    effector = who.startswith(("sim.models", "sim.tools"))
    return PARTITIONS * (BOUNDS.queued_max + BOUNDS.poll_max) if effector else 2 * PACE.records_max
