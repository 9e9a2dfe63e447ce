"""A host of one agent's run: it answers calls by hand."""

from __future__ import annotations

from typing import Any

from headwater.contracts.messages import Answered, Failed, InDoubt, Limits
from headwater.core.execution import (
    Answer,
    Asked,
    Begin,
    Cancel,
    Delivery,
    Raised,
    Returned,
    RunInfo,
    Signal,
    Step,
    Tick,
)
from headwater.sdk import wire
from headwater.sdk.agents import Agent

NOW_MS = 1_700_000_000_000
LIMITS = Limits(steps=7, tokens=9, usd_nano=500_000_000, wall_ms=60_000)


def info(run: str = "agent.0.t1", **terms: Any) -> RunInfo:
    given: dict[str, Any] = {
        "task_id": "t1", "tenant": "bank", "actor": "ana", "correlation_id": "c1",
        "deadline_ms": NOW_MS + 1_000, "limits": LIMITS,
    }  # fmt: skip
    return RunInfo(run=run, **(given | terms))


class Host:
    """One run of an agent, begun."""

    def __init__(self, agent: Agent[Any, Any], task: Any, **terms: Any) -> None:
        self.agent = agent
        self.now_ms = NOW_MS
        self.execution = agent.begin(info(**terms), agent.input.encode(task))
        self.steps: list[Step] = []
        self.deliver(Begin())

    def deliver(self, delivery: Delivery, *, after_s: float = 0) -> Step:
        self.now_ms += round(after_s * 1000)
        self.steps.append(self.execution.deliver(delivery, now_ms=self.now_ms))
        return self.steps[-1]

    @property
    def asked(self) -> list[Asked]:
        return [asked for step in self.steps for asked in step.asked]

    def answer(self, number: int, value: bytes) -> Step:
        return self.deliver(Answer(number=number, outcome=Answered(value=value)))

    def reply(self, number: int, response: dict[str, Any], **figures: Any) -> Step:
        answer = wire.ModelAnswer(response=response, **figures)
        return self.answer(number, answer.model_dump_json().encode())

    def fail(self, number: int, error: str, detail: str = "no") -> Step:
        return self.deliver(Answer(number=number, outcome=Failed(error=error, detail=detail)))

    def doubt(self, number: int) -> Step:
        return self.deliver(Answer(number=number, outcome=InDoubt(since_ms=1)))

    def signal(self, name: str, value: bytes) -> Step:
        return self.deliver(Signal(name=name, value=value))

    def cancel(self) -> Step:
        return self.deliver(Cancel(reason="enough"))

    def tick(self, after_s: float) -> Step:
        return self.deliver(Tick(), after_s=after_s)

    @property
    def result(self) -> Any:
        ended = self.steps[-1].ended
        assert isinstance(ended, Returned), ended
        return self.agent.output.decode(ended.value, self.agent.schemas)

    @property
    def raised(self) -> Raised:
        ended = self.steps[-1].ended
        assert isinstance(ended, Raised), ended
        return ended


def text(content: str) -> dict[str, Any]:
    """Return a model's answer in words."""
    return {"kind": "response", "parts": [{"part_kind": "text", "content": content}]}


def structured(args: Any, call_id: str = "c1") -> dict[str, Any]:
    """Return a model's answer by the output tool."""
    part = {
        "part_kind": "tool-call", "tool_name": wire.OUTPUT_TOOL, "args": args, "tool_call_id": call_id
    }  # fmt: skip
    return {"kind": "response", "parts": [part]}
