"""Models: what an agent asks for text, or for an answer in a type."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal, TypeVar, overload

import pydantic
from pydantic.errors import PydanticUserError

from headwater.core.prices import Price
from headwater.errors import ModelError, SettingsError
from headwater.sdk import wire
from headwater.sdk.calls import ask
from headwater.sdk.history import CUT_BYTES, HISTORY
from headwater.sdk.surface import check_timeout
from headwater.sdk.types import NANO, ModelReply

T = TypeVar("T")
Prompt = str | Sequence[Any]
ModelSettings = Mapping[str, Any]
REPAIRS_MAX = 2
"""How often an answer that does not fit is sent back, each time as a new call in the budget."""
_FORMS_MAX = 1_024
_FAULTS_MAX = 5


class Model:
    """A declared model.

    Args:
        name: Its name in this app.
        spec: A pydantic-ai model name (`openai:gpt-5-mini`), or a function of the settings that
            builds a pydantic-ai model. It is built only in the models role.
        settings: pydantic-ai model settings for every call.
        timeout_s: How long one call may take.
        price: What it costs, where no list knows it.

    Raises:
        SettingsError: A setting cannot work.
    """

    def __init__(
        self,
        name: str,
        spec: str | Callable[..., Any],
        *,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        price: Price | None = None,
    ) -> None:
        check_timeout(f"model {name}", timeout_s)
        if isinstance(spec, str) and not all(spec.partition(":")) and spec != "test":
            raise SettingsError(
                f"model {name}: {spec!r} is no PROVIDER:MODEL, for example openai:gpt-5-mini"
            )
        self.name = name
        self.spec = spec
        self.price = price
        self.settings = dict(settings or {})
        self.timeout_s = timeout_s
        self._terms(None)

    @overload
    def __call__(
        self,
        prompt: Prompt,
        *,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: Literal[False] = False,
    ) -> Coroutine[object, None, str]: ...
    @overload
    def __call__(
        self,
        prompt: Prompt,
        *,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: Literal[True],
    ) -> Coroutine[object, None, ModelReply[str]]: ...
    @overload
    def __call__(
        self,
        prompt: Prompt,
        *,
        output: type[T],
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: Literal[False] = False,
    ) -> Coroutine[object, None, T]: ...
    @overload
    def __call__(
        self,
        prompt: Prompt,
        *,
        output: type[T],
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: Literal[True],
    ) -> Coroutine[object, None, ModelReply[T]]: ...
    @overload
    def __call__(
        self,
        prompt: Prompt,
        *,
        output: Any,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: bool = False,
    ) -> Coroutine[object, None, Any]: ...
    def __call__(
        self,
        prompt: Prompt,
        *,
        output: Any = str,
        settings: ModelSettings | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
        full: bool = False,
    ) -> Coroutine[object, None, Any]:
        """Ask the model, from an agent.

        Args:
            prompt: Text, or a conversation: pydantic-ai messages, their JSON, or texts.
            output: The answer's type; anything pydantic can validate.
            settings: pydantic-ai model settings, over the model's own.
            timeout_s: How long the call may take; repairs have as long again.
            stream: Publish the answer piece by piece to whoever follows the run.
            full: Return a `ModelReply` instead of the answer alone.

        Raises:
            ModelError: The model failed, was too slow, or would not answer in the type asked for.
            BudgetExceeded, Denied: Nothing was sent.
            SettingsError: The type has no JSON schema, or a setting cannot work.
        """
        check_timeout(f"model {self.name}", timeout_s)
        conversation = _Conversation(
            model=self.name,
            form=None if output is str else Form.of(output),
            settings=self._terms(settings),
            timeout_s=self.timeout_s if timeout_s is None else timeout_s,
            stream=stream,
            messages=_messages(prompt),
        )
        return conversation.reply() if full else conversation.answer()

    def _terms(self, settings: ModelSettings | None) -> dict[str, Any]:
        """Return the settings of one call; without `max_tokens` nobody could say what it may cost."""
        terms = {"max_tokens": wire.MAX_TOKENS, **self.settings, **(settings or {})}
        most = terms["max_tokens"]
        if not isinstance(most, int) or most < 1:
            raise SettingsError(
                f"model {self.name}: max_tokens is a number of tokens over 0, not {most!r}"
            )
        return terms


class _Conversation:
    """One question and its repairs: each request is a numbered call of the run."""

    def __init__(
        self,
        *,
        model: str,
        form: Form | None,
        settings: dict[str, Any],
        timeout_s: float | None,
        stream: bool,
        messages: list[dict[str, Any]],
    ) -> None:
        self._model = model
        self._form = form
        self._settings = settings
        self._timeout_s = timeout_s
        self._stream = stream
        self._messages = messages
        self._answers: list[wire.ModelAnswer] = []

    async def answer(self) -> Any:
        """Ask until the answer fits, and return it."""
        repairs = 0
        while True:
            response = await self._request()
            if self._form is None:
                return wire.text_of(response)
            try:
                return self._form.read(response)
            except pydantic.ValidationError as error:
                words = _words(error)
                if repairs == REPAIRS_MAX:
                    raise ModelError(
                        f"model {self._model} answered {repairs + 1} times in another form than "
                        f"{self._form.name}: {words}",
                        error="InvalidOutput",
                    ) from error
            repairs += 1
            self._messages = [*self._messages, response, wire.retry(words, response)]

    async def reply(self) -> ModelReply[Any]:
        """Ask until the answer fits, and return it with what it took."""
        output = await self.answer()
        last = self._answers[-1]
        return ModelReply(
            output=output,
            model=last.model,
            input_tokens=sum(answer.input_tokens for answer in self._answers),
            output_tokens=sum(answer.output_tokens for answer in self._answers),
            usd=sum(answer.usd_nano for answer in self._answers) / NANO,
            messages=[*self._messages, *wire.closed(last.response)],
        )

    async def _request(self) -> dict[str, Any]:
        request = wire.ModelAsk(
            messages=self._messages,
            settings=self._settings,
            output=None if self._form is None else self._form.schema,
            stream=self._stream,
        )
        arguments = _dumped(request)
        input_bytes = len(arguments)
        nodes: dict[str, tuple[bytes, ...]] = {}
        if (history := HISTORY.get()) is not None and input_bytes > CUT_BYTES:
            cut = history.cut(self._messages)
            nodes = {"nodes": cut.nodes} if cut.nodes else {}
            short = {"messages": [*cut.messages], "history": cut.history}
            arguments = _dumped(request.model_copy(update=short))
        value = await ask(
            "model",
            self._model,
            arguments,
            digest=wire.digest(request),
            timeout_s=self._timeout_s,
            **nodes,
            ceiling={
                "input_bytes": input_bytes,
                "max_tokens": self._settings["max_tokens"],
                "model": self._model,
            },
        )
        self._answers.append(wire.ModelAnswer.model_validate_json(value))
        return self._answers[-1].response


class Form:
    """A type an answer must have; what is no JSON object travels in one with the field `response`.

    Raises:
        SettingsError: It has no JSON schema.
    """

    def __init__(self, type_: Any) -> None:
        self.name = getattr(type_, "__name__", str(type_))
        try:
            adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(type_)
            schema = adapter.json_schema()
            self._wrapped = schema.get("type") != "object"
            if self._wrapped:
                adapter = pydantic.TypeAdapter(
                    pydantic.create_model("Answer", response=(type_, ...))
                )
                schema = adapter.json_schema()
        except PydanticUserError as error:
            raise SettingsError(f"output={self.name}: no JSON schema: {error}") from error
        self._adapter = adapter
        self.schema: dict[str, Any] = schema

    @classmethod
    def of(cls, type_: Any) -> Form:
        """Return a type's form, made once where the type can be remembered."""
        try:
            return _form(type_)
        except TypeError:  # unhashable: Annotated with a pydantic Field
            return cls(type_)

    def read(self, response: dict[str, Any]) -> Any:
        """Read an answer.

        Raises:
            pydantic.ValidationError: It does not fit.
        """
        value = self._adapter.validate_json(wire.structured_of(response))
        return value.response if self._wrapped else value


@functools.lru_cache(maxsize=_FORMS_MAX)
def _form(type_: Any) -> Form:
    return Form(type_)


def _dumped(request: wire.ModelAsk) -> bytes:
    return request.model_dump_json(exclude_defaults=True).encode()


def _messages(prompt: Prompt) -> list[dict[str, Any]]:
    if isinstance(prompt, str):
        return [wire.prompt(prompt)]
    found: list[dict[str, Any]] = []
    for message in prompt:
        if isinstance(message, str):
            found.append(wire.prompt(message))
        elif isinstance(message, Mapping):
            found.append(dict(message))
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
        for one in error.errors(include_url=False, include_input=False)[:_FAULTS_MAX]
    )
