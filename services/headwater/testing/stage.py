"""A stage: every role of an app in this process, on a log in memory, each step by hand."""

from __future__ import annotations

import asyncio
import contextlib
import types
from collections.abc import Callable, Mapping
from typing import Any, Self

from headwater.assembly import Parts, Platform
from headwater.blobs.keeping import Keeping
from headwater.blobs.store import Store
from headwater.contracts.approvals import ApprovalEvent
from headwater.contracts.messages import RunEvent
from headwater.contracts.records import Partition
from headwater.errors import HeadwaterError
from headwater.log.local import LocalLog
from headwater.models.prices import snapshot
from headwater.runtime.deciding import Deciding
from headwater.runtime.pace import Pace
from headwater.runtime.performing import Performing
from headwater.runtime.restoring import Inline
from headwater.sdk.app import App
from headwater.sdk.models import Model
from headwater.sdk.tools import Tool
from headwater.testing.doubles import faked, scripted
from headwater.tools.lifespans import entered

START_MS = 1_767_225_600_000
"""When every test begins: 2026-01-01T00:00:00Z."""
ROUNDS_MAX = 100_000


class StillWaitingError(HeadwaterError):
    """A run has not ended, and nothing is under way that could end it."""


class Stage:
    """Moves every role until nothing moves, lets time pass, and reads back what the log has.

    Args:
        app: The app.
        models: Model to its script, or to a pydantic-ai model; models not named stay real.
        tools: Tool to the function that runs instead of it.
        partitions: Of every topic.
        parts: Anything else that assembly can set.
        log: The log; by default a new one.
        blobs: Whether there is a store of large values, in memory too.
    """

    def __init__(
        self,
        app: App,
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
            "pace": Pace(patience_ms=0),  # time passes when it is told to
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

    async def crash(self) -> None:
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

    def records(self, topic: str) -> list[Any]:
        """Return every record of a topic."""
        reader = self.log.read(self._starts(topic))
        found: list[Any] = []
        while not reader.at_end:
            found += reader.poll(records_max=10_000, wait_ms=0)
        return found

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


def _in_memory(app: App) -> Keeping:
    store = Store.at("memory:///", namespace=app.namespace)
    return Keeping(store, executor=Inline())


async def _no_time(seconds: float) -> None:
    """Let a call be tried again at once: a test has no time to lose."""
    await asyncio.sleep(0)
