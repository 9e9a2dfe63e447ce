"""A model for an agent of pydantic-ai inside a headwater agent: its requests are calls of the run.

headwater's wire to models carries text and answers in a type, and no tools of another framework. So the
tools are described in words, and the model answers with a `Step`: what to call next, or the answer.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from typing import Any

import pydantic
from pydantic_ai.messages import (
    ModelMessage,
    ModelRequest,
    ModelResponse,
    RetryPromptPart,
    SystemPromptPart,
    TextPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import Model, ModelRequestParameters
from pydantic_ai.settings import ModelSettings
from pydantic_ai.usage import RequestUsage

import headwater


class ToolCall(pydantic.BaseModel):
    """One tool to call."""

    tool: str
    arguments: dict[str, Any]


class Step(pydantic.BaseModel):
    """What the model does next: it calls tools, or it answers."""

    calls: list[ToolCall] = []
    answer: str = ""


class Through(Model):
    """A model of pydantic-ai that asks a model of headwater.

    Args:
        small: What `app.model` returned.
    """

    def __init__(self, small: headwater.Model) -> None:
        super().__init__()
        self._small = small

    @property
    def model_name(self) -> str:
        """The name in the app."""
        return str(self._small.name)

    @property
    def system(self) -> str:
        """Who is asked."""
        return "headwater"

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """Ask once: a numbered call of the run, within its budget, and never bought again."""
        _, parameters = self.prepare_request(model_settings, model_request_parameters)
        reply = await self._small([rules(parameters), *map(told, messages)], output=Step, full=True)
        step = reply.output
        calls = [ToolCallPart(call.tool, call.arguments) for call in step.calls]
        return ModelResponse(
            parts=[*calls] or [TextPart(step.answer)],
            model_name=reply.model,
            usage=RequestUsage(input_tokens=reply.input_tokens, output_tokens=reply.output_tokens),
        )


def rules(parameters: ModelRequestParameters) -> ModelRequest:
    """Return what the model has to know: its tools, and how it answers."""
    tools = [
        {"tool": of.name, "what": of.description, "arguments": of.parameters_json_schema}
        for of in (*parameters.function_tools, *parameters.output_tools)
    ]
    ends = " or ".join(
        [
            *(f"a call of {of.name}" for of in parameters.output_tools),
            *(["`answer`, without calls"] if parameters.allow_text_output else []),
        ]
    )
    text = (
        f"You may call these tools: {json.dumps(tools)}. Call what you need; then end with {ends}."
    )
    return ModelRequest(parts=[SystemPromptPart(text)])


def told(message: ModelMessage) -> ModelMessage:
    """Return a message with calls and returns of tools as words, for the model has no such tools."""
    if isinstance(message, ModelResponse):
        return ModelResponse(parts=[TextPart(_said(message))])
    return dataclasses.replace(message, parts=[*_heard(message.parts)])


def _said(message: ModelResponse) -> str:
    calls = [ToolCall(tool=of.tool_name, arguments=of.args_as_dict()) for of in message.tool_calls]
    return Step(calls=calls, answer=message.text or "").model_dump_json()


def _heard(parts: Iterable[Any]) -> Iterable[Any]:
    for part in parts:
        match part:
            case ToolReturnPart():
                yield UserPromptPart(f"{part.tool_name} returned: {part.model_response_str()}")
            case RetryPromptPart():
                yield UserPromptPart(f"{part.tool_name or 'That'}: {part.model_response()}")
            case _:
                yield part
