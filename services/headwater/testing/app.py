"""An app in memory: no broker, no clock, every process in one, for users' tests."""

from __future__ import annotations

import asyncio
import contextlib
import json
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from headwater.assembly import Parts, Platform
from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts.approvals import ApprovalEvent, Decide, Verdict
from headwater.contracts.messages import CallNote, Control, Resume, RunEvent, RunFailed, Spent
from headwater.contracts.records import Draft, Partition
from headwater.contracts.wanted import Wanted
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta, digest, task_id
from headwater.errors import AgentError, HeadwaterError
from headwater.log.local import LocalLog
from headwater.models.prices import snapshot
from headwater.runtime.deciding import Deciding
from headwater.runtime.operating import Wish
from headwater.runtime.performing import Performing
from headwater.runtime.restoring import Inline
from headwater.sdk.agents import Agent
from headwater.sdk.app import App as SdkApp
from headwater.sdk.models import Model
from headwater.sdk.tools import Tool
from headwater.sdk.types import NANO
from headwater.testing.doubles import faked, scripted
from headwater.tools.lifespans import entered

START_MS = 1_767_225_600_000
"""When every test begins: 2026-01-01T00:00:00Z."""
ROUNDS_MAX = 100_000
TENANT = "default"
ENDED = frozenset({"completed", "failed", "cancelled", "discarded"})


class StillWaitingError(HeadwaterError):
    """A run has not ended, and nothing is under way that could end it."""


class Run:
    """A task that was started in a test.

    Attributes:
        task_id: The task's id.
        id: The run's id; empty while it is held.
    """

    def __init__(self, app: App, agent: Agent[Any, Any], tenant: str, task: str) -> None:
        self._app = app
        self._agent = agent
        self.tenant = tenant
        self.task_id = task

    @property
    def events(self) -> list[RunEvent]:
        """Its life so far, in order."""
        return [event for event in self._app.life() if event.task_id == self.task_id]

    @property
    def id(self) -> str:
        """The run's id; empty before it is placed."""
        return next((event.run for event in self.events if event.run), "")

    @property
    def status(self) -> str:
        """Where it is: `started`, `waiting`, `paused`, `completed`, and so on."""
        events = self.events
        return events[-1].status if events else "unknown"

    @property
    def calls(self) -> list[CallNote]:
        """What it asked for, in order."""
        found: dict[int, CallNote] = {}
        for event in self.events:
            for note in event.calls:
                found.setdefault(note.number, note)
        return [*found.values()]

    @property
    def approvals(self) -> list[ApprovalEvent]:
        """What people were asked and decided about it so far, in order."""
        return [event for event in self._app.decisions() if event.run == self.id]

    @property
    def asking(self) -> list[ApprovalEvent]:
        """What it waits for people to decide."""
        open_: dict[str, ApprovalEvent] = {}
        for event in self.approvals:
            if event.status == "asked":
                open_[event.approval] = event
            elif event.status != "refused":
                open_.pop(event.approval, None)
        return [*open_.values()]

    async def result(self) -> Any:
        """Let everything go on until nothing moves, and return the run's result: its last, if resumed.

        Raises:
            AgentError: It failed or was cancelled.
            StillWaitingError: It waits for a signal, or for time to pass.
        """
        await self._app.settle()
        for kind, value in reversed(self._app.outcomes(self._agent.name, self.id)):
            if self.status not in ENDED:
                break
            if kind.endswith(".completed"):
                return self._agent.output.decode(value, self._app.platform.schemas)
            if kind.endswith((".failed", ".cancelled")):
                failed = self._app.platform.codec.decode(value)
                assert isinstance(failed, RunFailed)
                raise AgentError(failed.detail, error=failed.error, call_id=failed.run)
        events = self.events
        reason = events[-1].reason if events else "it was refused: see quarantined()"
        raise StillWaitingError(
            f"run {self.id or self.task_id} is {self.status} and nothing moves"
            f"{': it waits for ' + reason if reason else ''}; "
            "signal it, or advance the clock past what it sleeps for"
        )


class App:
    """Runs an app on a log in memory, stepping every role by hand.

    Args:
        app: The app.
        models: Model to its script, or to a pydantic-ai model; models not named stay real.
        tools: Tool to the function that runs instead of it.
        partitions: Of every topic.
        parts: Anything else that assembly can set.
        blobs: Whether there is a store of large values, in memory too.

    Example:
        >>> import asyncio, headwater
        >>> bank = headwater.App("bank")
        >>> @bank.agent
        ... async def greet(ctx: headwater.Context, name: str) -> str:
        ...     return f"Hello, {name}"
        >>> async def main() -> str:
        ...     async with App(bank) as t:
        ...         return await (await t.start(greet, "Ana")).result()
        >>> asyncio.run(main())
        'Hello, Ana'
    """

    def __init__(
        self,
        app: SdkApp,
        *,
        models: Mapping[Model, Any] | None = None,
        tools: Mapping[Tool[Any, Any], Callable[..., Any]] | None = None,
        partitions: int = 2,
        parts: Mapping[str, Any] | None = None,
        log: LocalLog | None = None,
        blobs: bool = False,
    ) -> None:
        self.now_ms = START_MS
        self.app = app
        self._models = {
            model.name: scripted(model, script) for model, script in (models or {}).items()
        }
        self._tools = {tool.name: faked(tool, fake) for tool, fake in (tools or {}).items()}
        self.log = log or LocalLog(clock=lambda: self.now_ms)
        prices = snapshot(app.models | self._models)
        options = {
            "clock": lambda: self.now_ms,
            "sleep": _no_time,
            "prices": prices,
            "blobs": _in_memory(app) if blobs else None,
            **(parts or {}),
        }
        self.platform = Platform(app, self.log, Parts(**options))
        for need in self.platform.layout.needs(partitions=partitions, coordinators=partitions):
            self.log.create(
                need.name,
                partitions=need.partitions,
                compacted=need.compacted,
                max_bytes=need.max_bytes,
            )
        for group, topics in self.platform.layout.groups().items():
            self.log.begin_group(group, topics)
        self._deciding: list[Deciding] = []
        self._performing: list[Performing] = []
        self._stack = contextlib.AsyncExitStack()
        self._deps: Any = None
        self._life: list[RunEvent] = []
        self._started = 0
        self._envelope = self.platform.envelope("testing")
        self._reader = self.log.read(self._starts(self.platform.names.evt("runs")))

    async def __aenter__(self) -> Self:
        """Enter lifespans and start every role."""
        self._deps = await self._stack.enter_async_context(
            entered(self.app.lifespans.get("tools"), None)
        )
        self._build()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        """Stop every role and leave lifespans."""
        await self._end()
        await self._stack.aclose()

    async def start(
        self,
        agent: Agent[Any, Any],
        task: Any,
        *,
        tenant: str = TENANT,
        id: str | None = None,  # noqa: A002 - the producer's ce_id
        actor: str = "",
    ) -> Run:
        """Publish a task, as a producer would.

        Args:
            agent: For whom.
            task: The task.
            tenant: Whose it is.
            id: `ce_id`; the same again is the same task.
            actor: Who asks.
        """
        self._started += 1
        event = id if id is not None else f"test-{self._started}"
        headers = [("ce_id", event.encode()), ("ce_tenantid", tenant.encode())]
        if actor:
            headers.append(("ce_actorid", actor.encode()))
        await self.publish(agent, agent.input.encode(task), headers=tuple(headers))
        await self.settle()
        return Run(self, agent, tenant, task_id(tenant, agent.name, agent.name, event))

    async def publish(
        self,
        agent: Agent[Any, Any],
        value: bytes | None,
        *,
        headers: tuple[tuple[str, bytes], ...] = (),
        key: bytes | None = None,
    ) -> None:
        """Publish any bytes to an agent's command topic."""
        topic = self.platform.names.cmd(agent.name)
        await self.log.append(Draft(topic=topic, key=key, value=value, headers=headers))

    async def signal(self, run: Run, name: str, value: Any = None) -> None:
        """Send a signal."""
        await self._control(run, "signal", name=name, value=value)

    async def cancel(self, run: Run, reason: str = "") -> None:
        """Cancel a run."""
        await self._control(run, "cancel", reason=reason)

    async def pause(self, run: Run, reason: str = "") -> None:
        """Pause a run."""
        await self._control(run, "pause", reason=reason)

    async def resume(
        self,
        run: Run,
        reason: str = "",
        *,
        add_usd: float = 0,
        add_steps: int = 0,
        repeat_writes: bool = False,
    ) -> None:
        """Resume a run that is paused or held, or has failed.

        Args:
            run: The run.
            reason: Why.
            add_usd: Raises a failed run's limit of money, in US dollars.
            add_steps: Raises its limit of steps.
            repeat_writes: Whether the calls of its failing turn that changed the world may be made
                again; without it a resume that would make them again is refused, and the last of
                `run.events` names them.
        """
        added = Spent(steps=add_steps, usd_nano=round(add_usd * NANO))
        terms = Resume(added=added, repeat_writes=repeat_writes)
        await self._control(run, "resume", reason=reason, resume=terms)

    async def discard(self, run: Run, reason: str = "") -> None:
        """Drop a failed run."""
        await self._control(run, "discard", reason=reason)

    async def approve(
        self, run: Run, *, by: str, groups: Sequence[str] = ("*",), reason: str = ""
    ) -> None:
        """Approve what a run has waited for longest.

        Args:
            run: The run.
            by: Who decides.
            groups: Groups they are in; `*` is all.
            reason: Why.

        Raises:
            StillWaitingError: It waits for nobody.
        """
        await self.decide(run, "approve", by=by, groups=groups, reason=reason)

    async def deny(
        self, run: Run, *, by: str, groups: Sequence[str] = ("*",), reason: str = ""
    ) -> None:
        """Deny what a run has waited for longest; see `approve`."""
        await self.decide(run, "deny", by=by, groups=groups, reason=reason)

    async def decide(
        self,
        run: Run,
        verdict: Verdict,
        *,
        by: str,
        groups: Sequence[str] = ("*",),
        reason: str = "",
        value: Any = None,
        digest: bytes | None = None,
    ) -> None:
        """Decide what a run has waited for longest: also `happened`, `not-happened` and `give-up`.

        Args:
            run: The run.
            verdict: How.
            by: Who decides.
            groups: Groups they are in; `*` is all.
            reason: Why.
            value: For `happened`: what the tool returned.
            digest: Of the arguments that were looked at; by default those that were asked about.

        Raises:
            StillWaitingError: It waits for nobody.
        """
        await self.settle()
        if not run.asking:
            raise StillWaitingError(f"run {run.id or run.task_id} asks nobody: it is {run.status}")
        asked = run.asking[0]
        encoded = self.app.tools[asked.name].encode(value) if verdict == "happened" else b""
        message = Decide(
            approval=asked.approval,
            verdict=verdict,
            digest=asked.digest if digest is None else digest,
            groups=tuple(groups),
            reason=reason,
            value=encoded,
        )
        await self._send(message, self.platform.approvals_address(run.tenant), run.tenant, by)

    async def advance(self, *, days: float = 0, hours: float = 0, seconds: float = 0) -> None:
        """Let time pass, every timer firing at its own time."""
        until = self.now_ms + round((days * 86_400 + hours * 3_600 + seconds) * 1000)
        while True:
            await self.settle()
            dues = [due for loop in self._deciding if (due := loop.next_ms()) is not None]
            dues += [due for loop in self._performing if (due := loop.next_ms()) is not None]
            due = min(dues, default=until)
            if due >= until:
                break
            self.now_ms = max(self.now_ms + 1, due)
        self.now_ms = until
        self.log.wake()
        await self.settle()

    async def crash(self, run: Run | None = None) -> None:
        """Have every worker lose its memory; what the log has is all that is left."""
        for performing in self._performing:
            await performing.drain(0)
        self._build()
        await self.settle()

    async def settle(self) -> None:
        """Let every role go on until nothing moves."""
        quiet = 0
        for _ in range(ROUNDS_MAX):
            moved = sum(loop.step() for loop in self._deciding)
            for performing in self._performing:
                moved += await performing.step()
            await asyncio.sleep(0)
            busy = [performing for performing in self._performing if performing.busy]
            if busy and not moved:
                await busy[0].wait(0.05)
            restoring = any(loop.restoring for loop in self._deciding)
            quiet = 0 if moved or busy or restoring else quiet + 1
            if quiet > 2:  # noqa: PLR2004 - a poll may return claims first, and records after
                return
        raise StillWaitingError(f"the app still moves after {ROUNDS_MAX} rounds: is there a loop?")

    def life(self) -> list[RunEvent]:
        """Return what the life-cycle topic has so far."""
        while records := self._reader.poll(records_max=1_000, wait_ms=0):
            self._life += [self.platform.codec.decode(record.value or b"") for record in records]
        return self._life

    def decisions(self) -> list[ApprovalEvent]:
        """Return what people were asked and decided so far, in order."""
        records = self.records(self.platform.names.evt("approvals"))
        return [self.platform.codec.decode(record.value) for record in records]

    def outcomes(self, agent: str, run: str) -> list[tuple[str, bytes]]:
        """Return (type, value) of what a run published, in order."""
        return [
            ((record.header("ce_type") or b"").decode(), record.value or b"")
            for record in self.records(self.platform.names.evt(agent))
            if record.key == run.encode()
        ]

    def emitted(self, run: Run, type_: type) -> list[Any]:
        """Return the events of a type that a run emitted."""
        agent = run._agent  # noqa: SLF001 - the same module
        shape = agent.events.shape(type_)
        return [
            shape.decode(value, self.platform.schemas)
            for kind, value in self.outcomes(agent.name, run.id)
            if kind == type_.__name__
        ]

    def records(self, topic: str) -> list[Any]:
        """Return every record of a topic."""
        reader = self.log.read(self._starts(topic))
        found: list[Any] = []
        while not reader.at_end:
            found += reader.poll(records_max=10_000, wait_ms=0)
        return found

    def quarantined(self, agent: Agent[Any, Any]) -> list[Any]:
        """Return the records of an agent's command topic that were refused."""
        names = self.platform.names
        return self.records(names.of("quarantine", f"cmd.{agent.name}"))

    def dead_letters(self, agent: Agent[Any, Any]) -> list[Any]:
        """Return the dead letters of an agent's failed runs, oldest first."""
        return self.records(self.platform.names.dlq(agent.name))

    async def replay(self, agent: Agent[Any, Any], *, repeat_writes: bool = False) -> int:
        """Replay an agent's dead letters as new runs; return how many were, each once.

        Args:
            agent: Whose.
            repeat_writes: Whether those may be whose runs had changed the world.
        """
        operating = self.platform.operating(lambda run: None)
        wish = Wish(
            verb="replay",
            letters=True,
            topics=(self.platform.names.dlq(agent.name),),
            wanted=Wanted(),
            actor="test",
            repeat_writes=repeat_writes,
        )
        operation = operating.begin(wish)
        await asyncio.to_thread(operating.join, operation)
        await self.settle()
        state = operating.state(operation)
        assert state is not None
        if state["error"]:
            raise HeadwaterError(state["error"])
        return int(state["done"])

    async def _control(
        self,
        run: Run,
        verb: Any,
        *,
        name: str = "",
        value: Any = None,
        reason: str = "",
        resume: Resume | None = None,
    ) -> None:
        message = Control(
            target=run.id or run.task_id,
            verb=verb,
            name=name,
            value=_json(value),
            reason=reason,
            resume=resume,
        )
        await self._send(message, self.platform.admission_address(run.tenant), run.tenant, "test")

    async def _send(self, message: Any, to: Address, tenant: str, actor: str) -> None:
        self._started += 1
        meta = Meta(id=digest("test", self._started).hex(), tenant=tenant, actor=actor)
        await self.log.append(self._envelope.seal(Sent(message=message, to=to, meta=meta)))
        await self.settle()

    def _build(self) -> None:
        platform = self.platform
        self._deciding = [platform.intake(), platform.admission(), platform.approvals()]
        self._deciding += [platform.runs(agent) for agent in self.app.agents]
        tools = self.app.tools | self._tools
        self._performing = [
            platform.tools(service, self._deps, tools) for service in self.app.services()
        ]
        if self.app.models:
            self._performing.append(platform.models(self.app.models | self._models))

    async def _end(self) -> None:
        for performing in self._performing:
            await performing.drain(0)
            await performing.close()
        for loop in self._deciding:
            loop.close()
        self._reader.close()

    def _starts(self, topic: str) -> dict[Partition, int]:
        return {Partition(topic, number): 0 for number in range(self.log.partitions(topic))}


def _in_memory(app: SdkApp) -> Keeping:
    store = Store.at("memory:///", namespace=app.namespace)
    return Keeping(store, executor=Inline())


async def _no_time(seconds: float) -> None:
    """Let a call be tried again at once: a test has no time to lose."""
    await asyncio.sleep(0)


def _json(value: Any) -> bytes:
    dump = getattr(value, "model_dump", None)
    return json.dumps(dump(mode="json") if dump else value).encode()
