"""An app in memory: no broker, no clock, every process in one, for users' tests."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

from headwater.contracts.approvals import ApprovalEvent, Decide, Verdict
from headwater.contracts.messages import CallNote, Control, Resume, RunEvent, RunFailed, Spent
from headwater.contracts.records import Draft
from headwater.contracts.wanted import Wanted
from headwater.core.decider import Sent
from headwater.core.messages import Address, Meta, digest, task_id
from headwater.errors import AgentError, HeadwaterError
from headwater.runtime.operating import Wish
from headwater.sdk.agents import Agent
from headwater.sdk.types import NANO
from headwater.testing.stage import Stage, StillWaitingError

TENANT = "default"
ENDED = frozenset({"completed", "failed", "cancelled", "discarded"})


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


class App(Stage):
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
        add_tokens: int = 0,
        repeat_writes: bool = False,
    ) -> None:
        """Resume a run that is paused or held, or has failed.

        Args:
            run: The run.
            reason: Why.
            add_usd: Raises a failed run's limit of money, in US dollars.
            add_steps: Raises its limit of steps.
            add_tokens: Raises its limit of tokens.
            repeat_writes: Whether the calls of its failing turn that changed the world may be made
                again; without it a resume that would make them again is refused, and the last of
                `run.events` names them.
        """
        added = Spent(steps=add_steps, tokens=add_tokens, usd_nano=round(add_usd * NANO))
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

    def emitted(self, run: Run, type_: type) -> list[Any]:
        """Return the events of a type that a run emitted."""
        agent = run._agent  # noqa: SLF001 - the same module
        shape = agent.events.shape(type_)
        return [
            shape.decode(value, self.platform.schemas)
            for kind, value in self.outcomes(agent.name, run.id)
            if kind == type_.__name__
        ]

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


def _json(value: Any) -> bytes:
    dump = getattr(value, "model_dump", None)
    return json.dumps(dump(mode="json") if dump else value).encode()
