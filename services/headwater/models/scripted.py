"""Scripted models: answers written beforehand, for demos, tests and laptops without keys."""

from __future__ import annotations

import inspect
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Any

import pydantic
from pydantic_ai.messages import ModelMessage, ModelResponse, TextPart, ToolCallPart, UserPromptPart
from pydantic_ai.models.function import AgentInfo, DeltaToolCall, FunctionModel

Answer = str | dict[str, Any] | list[Any] | pydantic.BaseModel | int | float | bool | Exception
Function = Callable[[str], Answer | Awaitable[Answer]]
FullFunction = Callable[[list[ModelMessage], AgentInfo], Answer | Awaitable[Answer]]
Script = str | Sequence[Answer] | Mapping[str, Answer] | Function | FullFunction
_PIECE = 24


class Scripted:
    """A model that answers from a script; use it where `app.model` takes a model.

    Args:
        script: One answer for everything; a sequence, one answer a call, the last again and again;
            a mapping from a piece of the prompt to the answer (`""` for any other); or a function,
            async if you like, of the prompt, or of pydantic-ai's messages and `AgentInfo`. An
            exception is raised: `TransientError` stands for a provider that is away.

    Example:
        >>> Scripted({"card": "block it", "": "hello"}).answer("my card is gone")
        'block it'
    """

    def __init__(self, script: Script) -> None:
        self._script = script
        self._calls = 0

    def __call__(self, settings: Any = None) -> FunctionModel:
        """Build the model, as the models role does."""
        return FunctionModel(self._respond, stream_function=self._stream, model_name="scripted")

    def answer(self, prompt: str) -> Any:
        """Return the script's answer to a prompt, where it is none of messages.

        Raises:
            LookupError: A mapping has no answer for it.
        """
        script = self._script
        if isinstance(script, str):
            return script
        if isinstance(script, Mapping):
            for piece, answer in script.items():
                if piece and piece in prompt:
                    return answer
            if "" in script:
                return script[""]
            raise LookupError(f"the script has no answer for {prompt[:80]!r}")
        if isinstance(script, Sequence):
            self._calls += 1
            return script[min(self._calls, len(script)) - 1]
        return script(prompt)  # type: ignore[call-arg,arg-type] # the one of the two that takes a prompt

    async def _answer(self, messages: list[ModelMessage], info: AgentInfo) -> Answer:
        if callable(self._script) and len(inspect.signature(self._script).parameters) > 1:
            answer = self._script(messages, info)  # type: ignore[call-arg,arg-type] # the other one
        else:
            answer = self.answer(_prompt(messages))
        if inspect.isawaitable(answer):
            answer = await answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _respond(self, messages: list[ModelMessage], info: AgentInfo) -> ModelResponse:
        answer = await self._answer(messages, info)
        if info.output_tools:
            return ModelResponse(
                parts=[ToolCallPart(info.output_tools[0].name, _arguments(answer, info))]
            )
        return ModelResponse(parts=[TextPart(_text(answer))])

    async def _stream(
        self, messages: list[ModelMessage], info: AgentInfo
    ) -> AsyncIterator[str | dict[int, DeltaToolCall]]:
        answer = await self._answer(messages, info)
        if info.output_tools:
            name = info.output_tools[0].name
            yield {0: DeltaToolCall(name=name, json_args=json.dumps(_arguments(answer, info)))}
            return
        text = _text(answer)
        for start in range(0, len(text), _PIECE):
            yield text[start : start + _PIECE]


def _prompt(messages: list[ModelMessage]) -> str:
    """Return the text of the newest user's prompt."""
    for message in reversed(messages):
        for part in reversed(message.parts):
            if isinstance(part, UserPromptPart):
                return part.content if isinstance(part.content, str) else str(part.content)
    return ""


def _plain(answer: Answer) -> Any:
    return answer.model_dump(mode="json") if isinstance(answer, pydantic.BaseModel) else answer


def _text(answer: Answer) -> str:
    return answer if isinstance(answer, str) else json.dumps(_plain(answer))


def _arguments(answer: Answer, info: AgentInfo) -> dict[str, Any]:
    plain = _plain(answer)
    properties = info.output_tools[0].parameters_json_schema.get("properties", {})
    if [*properties] == ["response"] and not (isinstance(plain, dict) and "response" in plain):
        return {"response": plain}
    return plain if isinstance(plain, dict) else {"response": plain}
