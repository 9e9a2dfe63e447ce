"""Models: what an agent asks for text, or for an answer in a type."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pydantic

from headwater.core.prices import Price
from headwater.errors import ModelError
from headwater.sdk import wire
from headwater.sdk.calls import ask
from headwater.sdk.types import NANO, ModelReply

REPAIRS_MAX = 2
"""How often an answer that does not fit is sent back, each time as a new call in the budget."""


class Model:
    """A declared model.

    Args:
        name: Its name in this app.
        spec: A pydantic-ai model name (`openai:gpt-5-mini`), or a function of the settings that
            builds a pydantic-ai model. It is built only in the models role.
        settings: pydantic-ai model settings for every call.
        timeout_s: How long one call may take.
        price: What it costs, where no list knows it.
    """

    def __init__(
        self,
        name: str,
        spec: str | Callable[..., Any],
        *,
        settings: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        price: Price | None = None,
    ) -> None:
        self.name = name
        self.spec = spec
        self.price = price
        self.settings = settings or {}
        self.timeout_s = timeout_s

    def __call__(
        self,
        prompt: str | Sequence[Any],
        *,
        output: Any = str,
        settings: dict[str, Any] | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: bool = False,
    ) -> Coroutine[Any, Any, Any]:
        """Ask the model, from an agent.

        Args:
            prompt: Text, or pydantic-ai messages.
            output: The answer's type; anything pydantic can validate.
            settings: pydantic-ai model settings, over the model's own.
            timeout_s: How long the call may take.
            stream: Publish the answer piece by piece to whoever follows the run.
            full: Return a `ModelReply` instead of the answer alone.

        Raises:
            ModelError: The model failed, or would not answer in the type asked for.
            BudgetExceeded, Denied: Nothing was sent.
        """
        terms = {"max_tokens": wire.MAX_TOKENS, **self.settings, **(settings or {})}
        return self._ask(
            _messages(prompt), output, terms, timeout_s or self.timeout_s, stream, full
        )

    async def _ask(
        self,
        messages: list[dict[str, Any]],
        output: Any,
        settings: dict[str, Any],
        timeout_s: float | None,
        stream: bool,
        full: bool,
    ) -> Any:
        form = None if output is str else Form.of(output)
        spent = [0, 0, 0]
        for repair in range(REPAIRS_MAX + 1):
            request = wire.ModelAsk(
                messages=messages,
                settings=settings,
                output=None if form is None else form.schema,
                stream=stream,
            )
            arguments = request.model_dump_json(exclude_defaults=True).encode()
            value = await ask(
                "model",
                self.name,
                arguments,
                digest=wire.digest(request),
                timeout_s=timeout_s,
                ceiling={
                    "input_bytes": len(arguments),
                    "max_tokens": int(settings["max_tokens"]),
                },
            )
            answer = wire.ModelAnswer.model_validate_json(value)
            spent = [
                spent[0] + answer.input_tokens,
                spent[1] + answer.output_tokens,
                spent[2] + answer.usd_nano,
            ]
            messages = [*messages, answer.response]
            try:
                result = (
                    wire.text_of(answer.response) if form is None else form.read(answer.response)
                )
            except pydantic.ValidationError as error:
                if repair == REPAIRS_MAX:
                    raise ModelError(
                        f"model {self.name} answered {repair + 1} times in another form than "
                        f"{_name(output)}: {_words(error)}",
                        error="InvalidOutput",
                    ) from error
                messages = [*messages, wire.retry(_words(error))]
                continue
            if not full:
                return result
            return ModelReply(
                output=result,
                model=answer.model,
                input_tokens=spent[0],
                output_tokens=spent[1],
                usd=spent[2] / NANO,
                messages=messages,
            )
        raise AssertionError("the last repair returns or raises")


class Form:
    """A type an answer must have; what is no JSON object travels in one with the field `response`."""

    def __init__(self, type_: Any) -> None:
        adapter = pydantic.TypeAdapter(type_)
        schema = adapter.json_schema()
        self._wrapped = schema.get("type") != "object"
        if self._wrapped:
            model = pydantic.create_model("Answer", response=(type_, ...))
            adapter = pydantic.TypeAdapter(model)
            schema = adapter.json_schema()
        self._adapter = adapter
        self.schema: dict[str, Any] = schema

    @classmethod
    def of(cls, type_: Any) -> Form:
        """Return a type's form, made once."""
        return _form(type_)

    def read(self, response: dict[str, Any]) -> Any:
        """Read an answer.

        Raises:
            pydantic.ValidationError: It does not fit.
        """
        value = self._adapter.validate_json(wire.structured_of(response))
        return value.response if self._wrapped else value


@functools.cache
def _form(type_: Any) -> Form:
    return Form(type_)


def _messages(prompt: str | Sequence[Any]) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [wire.prompt(prompt)]
    found: list[dict[str, Any]] = []
    for message in prompt:
        if isinstance(message, str):
            found.append(wire.prompt(message))
        elif isinstance(message, dict):
            found.append(message)
        else:
            found.append(json.loads(_message_adapter().dump_json([message]))[0])
    return found


@functools.cache
def _message_adapter() -> Any:
    from pydantic_ai.messages import ModelMessagesTypeAdapter  # noqa: PLC0415 - heavy, and rarely needed

    return ModelMessagesTypeAdapter


def _words(error: pydantic.ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(str(part) for part in one['loc']) or 'answer'}: {one['msg']}"
        for one in error.errors(include_url=False, include_input=False)[:5]
    )


def _name(type_: Any) -> str:
    return getattr(type_, "__name__", str(type_))
