"""The calm: a task played alone, without log, processes or faults; what it comes to there it has to come to.

The agents' own code runs on the durable loop and is never replayed; the tools' own code answers at once.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Collection, Container, Iterable, Iterator, Mapping

from headwater.contracts.messages import Answered, Ask, Failed, ReplyTo
from headwater.core.effector import Attempt, Call, Done, Effector, Safety
from headwater.core.execution import (
    Answer,
    Asked,
    Begin,
    Continued,
    Delivery,
    Execution,
    Returned,
    RunInfo,
    Signal,
    Step,
    Tick,
)
from headwater.core.messages import Meta, RunId
from headwater.durable.failure import describe
from headwater.errors import TransientError
from headwater.models.effector import Models
from headwater.sdk.app import App
from headwater.testing.invariants.book import Story, Told
from headwater.testing.simulator import desk, outside
from headwater.testing.simulator.virtual import VirtualLoop
from headwater.tools.effector import Tools

TURNS_MAX = 200


def stories(
    run: str,
    tenant: str,
    task: bytes,
    *,
    versions: Iterable[str],
    children: Mapping[str, str],
    event_bytes_max: int,
    away: Container[str],
) -> Iterator[Story]:
    """Yield what a run may come to without faults: one story for each version that may have begun it.

    There is none of a task that rightly depends on time or on people. An irreversible call that the
    world was away for may have failed: nobody tries it again.

    Args:
        run: Its id, which its dice are seeded by.
        tenant: Whose.
        task: Its encoded input.
        versions: Those that there were.
        children: The ids that its children have, by call: their dice are seeded by them.
        event_bytes_max: A larger event cannot be written.
        away: Calls that the world outside was away for, and did not say that nothing happened.
    """
    for version in versions:
        app = desk.app_of(version)
        id_ = RunId.parse(run)
        assert id_ is not None, run
        if id_.agent == "desk" and desk.is_timed(
            app.agents["desk"].input.decode(task, app.schemas)
        ):
            return
        play = _Play(app, run, tenant, children, event_bytes_max)
        story = play.story(task)
        yield story
        lost = frozenset(
            number
            for number, told in story.calls.items()
            if f"{run}/{number}" in away and play.is_irreversible(told.name)
        )
        if lost:
            yield _Play(app, run, tenant, children, event_bytes_max, lost).story(task)


class _Play:
    """One run, alone."""

    def __init__(
        self,
        app: App,
        run: str,
        tenant: str,
        children: Mapping[str, str],
        event_bytes_max: int,
        lost: Collection[int] = (),
    ) -> None:
        parsed = RunId.parse(run)
        assert parsed is not None, run
        self._app = app
        self._id = parsed
        self._tenant = tenant
        self._children = children
        self._event_bytes_max = event_bytes_max
        self._lost = lost
        self._agent = app.agents[parsed.agent]
        self._calls: dict[int, Told] = {}
        self._waiting: deque[Delivery] = deque()
        self._now_ms = 0

    def story(self, task: bytes) -> Story:
        """Play it to its end."""
        journal, begin = 0, Begin()
        while True:
            execution = self._agent.begin(self._info(journal), task)
            execution.recall(above=max(self._calls, default=0))
            self._waiting = deque([begin])
            step = self._play(execution)
            execution.close()
            if step is None:
                return Story(status="failed", error="unwritable", calls=self._calls)
            ended = step.ended
            if isinstance(ended, Returned):
                return Story(status="completed", value=ended.value, calls=self._calls)
            if not isinstance(ended, Continued):
                assert ended is not None, "it was played to its end"
                return Story(status="failed", error=ended.error, calls=self._calls)
            task, journal, begin = ended.task, journal + 1, Begin(signals=ended.signals)

    def _play(self, execution: Execution) -> Step | None:
        """Deliver until it ends; `None` if a turn led to what cannot be written."""
        step = Step()
        for _ in range(TURNS_MAX):
            step = execution.deliver(self._next(step), now_ms=self._now_ms)
            if any(len(event.value) > self._event_bytes_max for event in step.emitted):
                return None
            for asked in step.asked:
                self._tell(asked)
            if step.ended is not None:
                return step
        raise AssertionError(f"{self._id} does not end")

    def _next(self, step: Step) -> Delivery:
        """Return what has come, or what is said or due once nothing comes."""
        if self._waiting:
            return self._waiting.popleft()
        if step.receiving:
            return Signal(name=desk.GO, value=desk.GONE)
        assert step.wake_ms is not None, f"{self._id} waits for nothing"
        self._now_ms = step.wake_ms
        return Tick()

    def is_irreversible(self, name: str) -> bool:
        """Say whether nobody may make a call again."""
        tool = self._app.tools.get(name)
        return tool is not None and tool.safety == "irreversible"

    def _tell(self, asked: Asked) -> None:
        steps = self._agent.limits.steps
        assert steps is not None, "the desk's agents have budgets"
        refused = asked.number > steps
        outcome: Answered | Failed
        if refused:
            outcome = Failed(error="BudgetExceeded", detail="")
        elif asked.number in self._lost:
            outcome = Failed(error=describe(TransientError())[0], detail="")
        else:
            outcome = Answered(value=self._answer(asked))
        self._waiting.append(Answer(number=asked.number, outcome=outcome))
        self._calls[asked.number] = Told(
            kind=asked.kind,
            name=asked.name,
            arguments=asked.arguments,
            digest=asked.digest,
            sent=not refused,
            outcome=outcome,
        )

    def _answer(self, asked: Asked) -> bytes:
        if asked.kind != "agent":
            return answer(self._app.version, asked.kind, asked.name, asked.arguments)
        never_begun = f"{asked.name}.0.{asked.number}"
        child = self._children.get(f"{self._id}/{asked.number}", never_begun)
        play = _Play(self._app, child, self._tenant, self._children, self._event_bytes_max)
        return play.story(asked.arguments).value

    def _info(self, journal: int) -> RunInfo:
        return RunInfo(
            run=str(self._id),
            task_id=str(self._id).rpartition(".")[2],
            tenant=self._tenant,
            actor="",
            correlation_id="",
            deadline_ms=None,
            limits=self._agent.limits,
            journal=journal,
        )


@functools.cache
def answer(version: str, kind: str, name: str, arguments: bytes) -> bytes:
    """Return what a model or a tool answers in a world where nothing goes wrong."""
    app = desk.app_of(version)
    ask = Ask(
        run="desk.0.calm",
        number=1,
        name=name,
        arguments=arguments,
        safety="read",
        not_after_ms=1 << 40,
        reply_to=ReplyTo(topic="", partition=0, run="desk.0.calm", number=1),
    )
    effector: Effector = (
        Models(app.models, prices=desk.PRICES)
        if kind == "model"
        else Tools(app.tools[name].service, app.tools)
    )
    loop = VirtualLoop(lambda: 0, lambda: True)
    try:
        done = loop.finish(_perform(effector, ask))
    finally:
        loop.close()
    assert isinstance(done, Done), f"{name} answered {done}"
    return done.value


async def _perform(effector: Effector, ask: Ask) -> object:
    call = Call(
        id=f"{ask.run}/{ask.number}",
        safety=Safety.READ,
        order_key="",
        not_after_ms=ask.not_after_ms,
        reply_to=ask.reply_to,
        meta=Meta(id="calm", tenant=""),
    )
    attempt = Attempt(id="calm", number=1, heartbeat=lambda _: None, progress=_silent)
    outside.calmly(call, attempt, ask.name)
    return await effector.perform(call, ask, attempt)


async def _silent(text: str) -> None:
    """Nobody listens."""
