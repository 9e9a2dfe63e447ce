"""A world of the whole platform: tasks through intake, admission and runs, with tools, a model and a child.

The outcome is what users are promised: one outcome a task, equal whatever died on the way; no
request sent twice; every slot closed; nothing left in the rows but failed runs.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import dataclasses
import functools
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, FunctionModel

from headwater.admission.decider import Quotas
from headwater.admission.rows import Seen, Tenant
from headwater.assembly import Parts, Platform
from headwater.contracts.messages import Admit, Ask, Control, RunEvent, Start
from headwater.contracts.records import Draft, Partition, Record
from headwater.core.decider import Sent
from headwater.core.messages import Meta, task_id
from headwater.core.prices import Prices, usd_per_million
from headwater.errors import PoisonError
from headwater.log.local import LocalLog, LocalReader
from headwater.log.local_member import LocalMember
from headwater.log.port import Log
from headwater.runtime.pace import Pace
from headwater.runtime.performing import Performing
from headwater.sdk.app import App
from headwater.sdk.context import Context
from headwater.testing.seeded_storm import Clock, Loop, Spec

PARTITIONS = 2
TASKS = 6
SPINS_MAX = 200
"""Rounds of an effector's event loop within one step."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Noted:
    """An event that the desk publishes."""

    text: str


def fleet() -> App:
    """Return the app that is simulated."""
    app = App("fleet", namespace="sim", version="1")
    small = app.model(
        "small",
        lambda _: FunctionModel(_answer, model_name="simulated"),
        price=usd_per_million(input_usd=1, output_usd=1),
    )

    @app.tool(effect="read", service="bank")
    async def balance(account: str) -> int:
        return len(account) * 7

    @app.tool(effect="write", service="bank", order_key="card")
    async def block(card: str) -> str:
        return f"{card} is blocked"

    @app.agent
    async def clerk(ctx: Context, case: str) -> str:
        await asyncio.sleep(0.02)
        return f"{case}: {await balance(case)} {ctx.uuid()}"

    @app.agent
    async def desk(ctx: Context, question: str) -> str:
        owed, blocked = await asyncio.gather(balance(question), block(question))
        words = await small(question)
        ctx.emit(Noted(text=words))
        opinion = await clerk(question)
        await asyncio.sleep(0.05)
        kind = question.partition(" ")[0]
        if kind == "fail":
            raise ValueError(f"nobody can answer {question}")
        if kind == "ask":
            words += await ctx.receive("go")
        if kind == "wait":
            await ctx.receive("never")
        return f"{owed} {blocked} {words} {opinion} {ctx.uuid()} {ctx.random.random()}"

    return app


async def _answer(messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
    """Answer on the event loop itself: a thread would move at a time that no seed knows."""
    del info
    part = messages[-1].parts[0]
    assert isinstance(part, UserPromptPart)
    return ModelResponse(parts=[TextPart(f"about {part.content}")])


@functools.cache
def _assembled() -> Platform:
    return Platform(fleet(), LocalLog(), Parts(clock=Clock()))


def _platform(log: Log, parts: Parts) -> Platform:
    """Return the platform on another log: schemas are hashed once a process, not once a start."""
    platform = copy.copy(_assembled())
    platform.log = log
    platform.parts = parts
    return platform


class Tap:
    """A process's view of the log; it keeps the membership that the process's loop was given.

    Args:
        log: The log.
        owners: Wraps an owner; a control wraps it wrongly.
    """

    def __init__(self, log: LocalLog, owners: Callable[[Any], Any]) -> None:
        self._log = log
        self._owners = owners
        self.member: LocalMember | None = None

    def own(self, topics: Collection[str], *, group: str, instance: str) -> Any:
        """Join as a decider."""
        owner = self._log.own(topics, group=group, instance=instance)
        self.member = owner
        return self._owners(owner)

    def work(self, topics: Collection[str], *, group: str, instance: str) -> Any:
        """Join as an effector."""
        worker = self._log.work(topics, group=group, instance=instance)
        self.member = worker
        return worker

    def read(self, starts: Mapping[Partition, int]) -> LocalReader:
        """Read committed records."""
        return self._log.read(starts)

    async def append(self, draft: Draft) -> tuple[Partition, int]:
        """Write one record."""
        return await self._log.append(draft)

    def committed(self, group: str, partition: Partition) -> tuple[int, str]:
        """Return a group's offset."""
        return self._log.committed(group, partition)

    def offset_at(self, partition: Partition, time_ms: int) -> int:
        """Return the first offset appended at this time or later."""
        return self._log.offset_at(partition, time_ms)

    def topic_id(self, topic: str) -> str:
        """Return a topic's id."""
        return self._log.topic_id(topic)

    def partitions(self, topic: str) -> int:
        """Return how many partitions a topic has."""
        return self._log.partitions(topic)


class Stepped:
    """An effector's loop, stepped by hand on an event loop of its own.

    Args:
        performing: The loop.
    """

    def __init__(self, performing: Performing) -> None:
        self._performing = performing
        self._loop = asyncio.new_event_loop()

    def step(self, wait_ms: int = 0) -> int:
        """Take what came, and let what is under way go on; nothing here waits for real time."""
        done: int = self._run(self._step())
        return done

    def backlog(self) -> int:
        """Return how many requests are under way."""
        return self._performing.busy

    def next_ms(self) -> int | None:
        """Return when a call may go on that waits for another process's lease."""
        return self._performing.next_ms()

    def close(self) -> None:
        """Forget what is under way, as a death does."""
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        with contextlib.suppress(BaseException):  # the dead do not report
            self._run(asyncio.sleep(0))
        self._loop.close()

    async def _step(self) -> int:
        under_way = self._performing.busy
        came = await self._performing.step()
        for _ in range(SPINS_MAX):
            if not self._performing.busy:
                break
            await asyncio.sleep(0)
        return came + under_way

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._loop.run_until_complete(coroutine)


class Fleet:
    """The world: two processes of every role, a few tasks, and people who interfere.

    Args:
        seed: Chooses tasks and interference.
        log: The log.
        clock: Its time.
        owners: Wraps an owner; a control wraps it wrongly.
    """

    def __init__(
        self,
        seed: int,
        log: LocalLog,
        clock: Callable[[], int],
        *,
        owners: Callable[[Any], Any] = lambda owner: owner,
    ) -> None:
        self.log = log
        self._owners = owners
        self._prices = Prices(of={"small": usd_per_million(input_usd=1, output_usd=1)})
        self.platform = _platform(log, self._parts(clock, "watcher"))
        self.app = self.platform.app
        for need in self.platform.needs(partitions=PARTITIONS, coordinators=PARTITIONS):
            log.create(
                need.name,
                partitions=need.partitions,
                compacted=need.compacted,
                max_bytes=need.max_bytes,
            )
        groups = self.platform.groups()
        for group, topics in groups.items():
            log.begin_group(group, topics)
        self.inboxes: Sequence[tuple[str, str]] = [
            (group, topic) for group, topics in groups.items() for topic in topics
        ]
        names = self.platform.names
        self.compacted: Sequence[str] = [
            names.state(name) for name in ("admission", "runs.desk", "runs.clerk")
        ]
        roles: dict[str, Callable[[Platform], Any]] = {
            "intake": Platform.intake,
            "admission": Platform.admission,
            "runs.desk": lambda platform: platform.runs("desk"),
            "runs.clerk": lambda platform: platform.runs("clerk"),
            "models": lambda platform: Stepped(platform.models()),
            "tools.bank": lambda platform: Stepped(platform.tools("bank")),
        }
        self.specs: Sequence[Spec] = [
            Spec(
                f"sim.{role}/{instance}",
                self._starter(build, instance),
                freezes=not role.startswith(("models", "tools")),
            )
            for role, build in roles.items()
            for instance in ("a", "b")
        ]
        life = self.platform.names.evt("runs")
        self._view = log.read({Partition(life, n): 0 for n in range(PARTITIONS)})
        self._known: set[str] = set()
        self._targets: dict[bytes, str] = {}
        self.feed: Sequence[Draft] = self._tasks(random.Random(f"fleet/{seed}"))  # noqa: S311 - a seeded world

    def ready(self, draft: Draft) -> bool:
        """A person speaks to a task that the view shows."""
        for record in self._view.poll(records_max=100, wait_ms=0):
            event = self._decode(record)
            self._known.add(event.task_id)
        target = self._targets.get(draft.value or b"")
        return target is None or target in self._known

    def may_repeat(self, draft: Draft) -> bool:
        """A task and a reply may land twice; what a person says, and what is refused, is counted."""
        names = self.platform.names
        if draft.topic == names.cmd("desk"):
            return draft.value in self._repeatable
        return draft.topic.startswith("sim.inbox.") and draft.topic != names.inbox("admission")

    def outcome(self) -> dict[str, Any]:
        """Return outcomes, requests, life cycle, slots, leftovers and refusals."""
        names = self.platform.names
        found: dict[str, Any] = {}
        cancelled = set()
        for agent in ("desk", "clerk"):
            for record in self._records(names.evt(agent)):
                run = (record.header("ce_runid") or b"").decode()
                kind = (record.header("ce_type") or b"").decode()
                if kind.endswith(".cancelled"):
                    cancelled.add(run)
                value = b"" if kind.endswith(".cancelled") else record.value
                found.setdefault(f"outcome {run}", []).append((kind, value))
        lives: dict[str, Counter[str]] = {}
        for record in self._records(names.evt("runs")):
            event = self._decode(record)
            assert isinstance(event, RunEvent)
            if event.status in {"accepted", "started", "completed", "failed", "cancelled"}:
                lives.setdefault(event.run, Counter())[event.status] += 1
        # A cancelled run got as far as it got; its child may have never begun, and its notes not sent.
        dropped = {run for run in cancelled if run.startswith("clerk.")}
        children = self._children()
        dropped |= {child for child, parent in children.items() if parent in cancelled}
        for run, life in lives.items():
            if run not in dropped:
                found[f"life {run}"] = {"cancelled": 1} if run in cancelled else dict(life)
        for run in cancelled:
            found[f"outcome {run}"] = [
                entry for entry in found[f"outcome {run}"] if entry[0] != "Noted"
            ]
        for run in dropped:
            found.pop(f"outcome {run}", None)
        found["requests"] = self._requests(cancelled | dropped)
        found["rows"] = self._rows()
        for topic in sorted(self.log.topics()):
            if ".quarantine." in topic or ".dlq." in topic:
                found[topic] = sorted(self._kept(record) for record in self._records(topic))
        return found

    def _kept(self, record: Record) -> str:
        """Return what was put aside; where its task had been published is another in every history."""
        with contextlib.suppress(PoisonError):
            message = self._decode(record)
            if isinstance(message, Admit):
                return f"{message.agent} {message.task_id} {message.digest!r}"
        return f"{record.key!r} {record.value!r}"

    def _requests(self, partly: set[str]) -> dict[str, Any]:
        """Return what was asked of effectors and children; each call must have been sent once."""
        names = self.platform.names
        sent: Counter[tuple[str, int, str]] = Counter()
        for topic in (names.req("model"), names.req("tool.bank"), names.inbox("clerk")):
            for record in self._records(topic):
                message = self._decode(record)
                if isinstance(message, Ask):
                    sent[message.run, message.number, message.name] += 1
                elif isinstance(message, Start) and message.reply_to is not None:
                    sent[message.reply_to.run, message.reply_to.number, "clerk"] += 1
        return {
            "twice": [call for call, count in sent.items() if count > 1],
            "whole": sorted(call for call in sent if call[0] not in partly),
        }

    def _children(self) -> dict[str, str]:
        starts = [
            message
            for record in self._records(self.platform.names.inbox("clerk"))
            if isinstance(message := self._decode(record), Start)
        ]
        return {start.run: start.reply_to.run for start in starts if start.reply_to is not None}

    def _rows(self) -> dict[str, Any]:
        """Return what is left in the state topics, without times."""
        unlike = {"Tenant", "Seen", "Overrun"}  # a second attempt's bill is the crash's own
        left: dict[str, Any] = {}
        for topic in self.compacted:
            newest = {record.key: record for record in self._records(topic)}
            rows = [self._decode(record) for record in newest.values() if record.value is not None]
            kinds = Counter(type(row).__name__ for row in rows)
            tenants = [row for row in rows if isinstance(row, Tenant)]
            left[topic] = {
                "slots": sorted((row.tenant, row.slots, row.queued) for row in tenants),
                "seen": sorted(row.run for row in rows if isinstance(row, Seen)),
                "others": {kind: n for kind, n in kinds.items() if kind not in unlike},
            }
        return left

    def _tasks(self, choice: random.Random) -> list[Draft]:
        names = self.platform.names
        topic = names.cmd("desk")
        drafts: list[Draft] = []
        later: list[Draft] = []
        for number in range(TASKS):
            kind = choice.choice(["plain", "plain", "ask", "wait", "fail"])
            tenant = choice.choice(["t1", "t2"])
            text = f"{kind} question {number}"
            key, own = b"k%d" % number, f"task-{number}"
            headers = (
                ("ce_id", own.encode()),
                ("ce_source", b"sim"),
                ("ce_tenantid", tenant.encode()),
            )
            value = self.app.agents["desk"].input.encode(text)
            drafts.append(Draft(topic=topic, key=key, value=value, headers=headers))
            run = task_id(tenant, "desk", "sim", own)
            pauses = choice.random() < 0.3  # noqa: PLR2004 - some are paused for a while
            verbs = ["pause", "resume"] if pauses else []
            verbs += {"ask": ["signal"], "wait": ["cancel"]}.get(kind, [])
            later += [self._control(tenant, run, verb) for verb in verbs]
            if choice.random() < 0.2:  # noqa: PLR2004 - some come twice
                drafts.append(drafts[-1])
        bad = (("ce_id", b"bad"), ("ce_tenantid", b"t1"))
        drafts.append(Draft(topic=topic, key=b"bad", value=b"no avro", headers=bad))
        conflict = dataclasses.replace(
            drafts[0], value=self.app.agents["desk"].input.encode("plain but other")
        )
        self._repeatable = {draft.value for draft in drafts[:-1]}
        return [*drafts, conflict, *later]

    def _control(self, tenant: str, run: str, verb: Any) -> Draft:
        message = Control(target=run, verb=verb, name="go", value=b'" gone"', reason="simulated")
        meta = Meta(id=f"{run}/{verb}", tenant=tenant)
        to = self.platform.admission_address(tenant)
        draft = self.platform.envelope("people").seal(Sent(message=message, to=to, meta=meta))
        self._targets[draft.value or b""] = run
        return draft

    def _parts(self, clock: Callable[[], int], instance: str) -> Parts:
        return Parts(
            clock=clock,
            instance=instance,
            prices=self._prices,
            quotas=Quotas(of={"t1": 2}),
            pace=Pace(records_max=4, batch_ms_max=3_600_000, retry_ms_min=5, retry_ms_max=20),
        )

    def _starter(
        self, build: Callable[[Platform], Any], instance: str
    ) -> Callable[[Callable[[], int]], tuple[Loop, LocalMember]]:
        def start(clock: Callable[[], int]) -> tuple[Loop, LocalMember]:
            tap = Tap(self.log, self._owners)
            loop = build(_platform(tap, self._parts(clock, instance)))
            assert tap.member is not None, "every loop is a member"
            return loop, tap.member

        return start

    def _records(self, topic: str) -> Sequence[Record]:
        places = [Partition(topic, n) for n in range(self.log.partitions(topic))]
        return self.log.read(dict.fromkeys(places, 0)).poll(records_max=100_000, wait_ms=0)

    def _decode(self, record: Record) -> Any:
        return self.platform.codec.decode(record.value or b"")
