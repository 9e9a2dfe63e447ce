"""An agent of pydantic-ai runs on the loop with nothing but a model adapter, and replays to the same."""

from __future__ import annotations

import json
from typing import Any

import pydantic
from pydantic_ai import Agent, RunContext
from pydantic_ai.messages import (
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelResponse,
    TextPart,
    ToolCallPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings

from headwater.contracts.messages import Answered
from headwater.core.execution import Answer, Begin, Delivery, Returned, Step
from headwater.durable.replay import Recorded, rebuild
from headwater.durable.running import Running, Session, current

_response = pydantic.TypeAdapter(ModelResponse)


class Asking(Model):
    """A model whose requests are calls of the run."""

    @property
    def model_name(self) -> str:
        return "scripted"

    @property
    def system(self) -> str:
        return "headwater"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        outcome = await current().ask(
            "model", "small", ModelMessagesTypeAdapter.dump_json(messages)
        )
        return _response.validate_json(outcome.value)


class Verdict(pydantic.BaseModel):
    amount: int
    reason: str


async def main(session: Session) -> bytes:
    agent = Agent(Asking(), output_type=Verdict, deps_type=str)

    @agent.tool
    async def balance(context: RunContext[str], account: str) -> str:
        """Balance of an account."""
        outcome = await current().ask("tool", "balance", account.encode())
        return f"{context.deps}: {outcome.value.decode()}"

    @agent.tool_plain
    def double(amount: int) -> int:
        """A blocking tool."""
        return 2 * amount

    result = await agent.run("How much?", deps="ana")
    return result.output.model_dump_json().encode()


def respond(*parts: Any) -> Answered:
    return Answered(value=_response.dump_json(ModelResponse(parts=list(parts))))


def test_agent_runs_with_parallel_tools_answered_out_of_order_and_replays() -> None:
    """Model requests and tools are numbered calls; a rebuilt run ends with the same value."""
    script: list[Delivery] = [
        Begin(),
        Answer(
            number=1,
            outcome=respond(
                ToolCallPart("balance", {"account": "1"}, tool_call_id="x"),
                ToolCallPart("balance", {"account": "2"}, tool_call_id="y"),
                ToolCallPart("double", {"amount": 4}, tool_call_id="z"),
            ),
        ),
        Answer(number=3, outcome=Answered(value=b"20")),
        Answer(number=2, outcome=Answered(value=b"10")),
        Answer(number=4, outcome=respond(TextPart("words instead of the type"))),
        Answer(
            number=5,
            outcome=respond(
                ToolCallPart("final_result", {"amount": 30, "reason": "both"}, tool_call_id="f")
            ),
        ),
    ]
    running = Running(main, seed="run")
    steps = [running.deliver(one, now_ms=place) for place, one in enumerate(script)]
    assert [[f"{call.kind} {call.name}" for call in step.asked] for step in steps] == [
        ["model small"],
        ["tool balance", "tool balance"],
        [],
        ["model small"],
        ["model small"],
        [],
    ]
    ended = steps[-1].ended
    assert isinstance(ended, Returned), ended
    assert json.loads(ended.value) == {"amount": 30, "reason": "both"}
    assert b"ana: 20" in steps[3].asked[0].arguments
    assert rebuilt(script, steps) == ended


def rebuilt(script: list[Delivery], steps: list[Step]) -> object:
    """Replay every prefix; the arguments of no call may change, run ids and times included."""
    for place in range(len(script)):
        running = Running(main, seed="run")
        entries = [
            Recorded(delivery=one, now_ms=at, calls=steps[at].asked)
            for at, one in enumerate(script[:place])
        ]
        assert rebuild(running, entries).numbers == ()
        step = running.deliver(script[place], now_ms=place)
        assert step == steps[place]
        running.close()
    return step.ended
