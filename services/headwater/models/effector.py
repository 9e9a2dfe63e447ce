"""The effector of models: one request to a provider a call, through pydantic-ai's model layer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_ai import direct, exceptions
from pydantic_ai.messages import (
    ModelMessagesTypeAdapter,
    ModelResponse,
    PartDeltaEvent,
    PartStartEvent,
    TextPart,
    TextPartDelta,
)
from pydantic_ai.models import Model as ProviderModel
from pydantic_ai.models import ModelRequestParameters, infer_model
from pydantic_ai.settings import ModelSettings
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import RequestUsage

from headwater.contracts.messages import Ask, Failed, Usage
from headwater.core.blobs import Blobs, inline
from headwater.core.effector import UNKNOWN, Attempt, Call, Done
from headwater.core.prices import Prices
from headwater.durable.failure import redact
from headwater.errors import BlobLostError, PoisonError, SettingsError, TransientError
from headwater.models import history
from headwater.models.prices import billed
from headwater.sdk import wire
from headwater.sdk.models import Model

STREAM_CHARS_MIN = 32
"""Pieces of a streamed answer are joined to at least so many characters a token event."""
_PASSING_STATUS = frozenset({408, 409, 425, 429})
_SERVER_ERROR = 500


class Models:
    """Asks the app's models; each is built at its first call, once per process.

    Args:
        models: The app's models, by name.
        prices: What they cost.
        settings: Handed to models that are declared as functions.
        blobs: Where the parts of long conversations are; `None` for nowhere.
    """

    name = "model"

    def __init__(
        self,
        models: Mapping[str, Model],
        *,
        prices: Prices,
        settings: Any = None,
        blobs: Blobs | None = None,
    ) -> None:
        self._models = models
        self._prices = prices
        self._settings = settings
        self._blobs = blobs
        self._built: dict[str, ProviderModel] = {}

    async def perform(self, call: Call, ask: Ask, attempt: Attempt) -> Done | Failed:
        """Ask a model once.

        Raises:
            TransientError: The provider is away, overloaded, or limits the rate; or the store of blobs is.
            PoisonError: The request is not of the wire's form.
        """
        if ask.name not in self._models:
            known = ", ".join(sorted(self._models)) or "none"
            return Failed(error=UNKNOWN, detail=f"no model named {ask.name!r}; there are: {known}")
        try:
            request = wire.ModelAsk.model_validate_json(inline(ask.arguments))
            before = await history.messages(self._blobs, call.meta.tenant, request.history)
            messages = ModelMessagesTypeAdapter.validate_python([*before, *request.messages])
        except BlobLostError as error:
            return Failed(error="BlobLost", detail=str(error))
        except ValidationError as error:
            raise PoisonError(
                "invalid-request", f"model {ask.name}: {error.errors()[0]['msg']}"
            ) from error
        model = self._model(ask.name)
        settings = _settings(model, request)
        try:
            if request.stream:
                response = await _stream(model, messages, settings, _parameters(request), attempt)
            else:
                response = await direct.model_request(
                    model,
                    messages,
                    model_settings=settings,
                    model_request_parameters=_parameters(request),
                )
        except exceptions.ModelAPIError as error:
            if _passing(error):
                raise TransientError(
                    f"model {ask.name}{_place(model, error)}: {redact(str(error))}",
                    retry_after_s=max(0.0, error.retry_after or 0.0),
                ) from error
            return Failed(error="ModelError", detail=redact(str(error)))
        except (exceptions.UnexpectedModelBehavior, json.JSONDecodeError) as error:
            return Failed(error="ModelError", detail=redact(f"{type(error).__name__}: {error}"))
        return self._done(ask, before, response)

    def _done(self, ask: Ask, before: list[dict[str, Any]], response: ModelResponse) -> Done:
        if response.usage.unmeasured_requests:
            # Nobody counted, so the run is charged for a token a byte: never less than was used.
            size = len(ModelMessagesTypeAdapter.dump_json([response]))
            asked = len(inline(ask.arguments))
            asked += len(json.dumps(before, ensure_ascii=False).encode()) if before else 0
            response.usage = RequestUsage(input_tokens=asked, output_tokens=size)
        usage = Usage(
            model=response.model_name or "",
            input_tokens=response.usage.input_tokens,
            output_tokens=response.usage.output_tokens,
            usd_nano=billed(self._prices, ask.name, response),
        )
        answer = wire.ModelAnswer(
            response=json.loads(ModelMessagesTypeAdapter.dump_json([response]))[0],
            model=usage.model,
            input_tokens=usage.input_tokens,
            output_tokens=usage.output_tokens,
            usd_nano=usage.usd_nano,
        )
        return Done(value=answer.model_dump_json().encode(), usage=usage)

    def _model(self, name: str) -> ProviderModel:
        built = self._built.get(name)
        if built is None:
            spec: str | Callable[..., Any] = self._models[name].spec
            try:
                built = infer_model(spec if isinstance(spec, str) else spec(self._settings))
            except (exceptions.UserError, ImportError, ValueError) as error:
                raise SettingsError(f"model {name} cannot be built: {error}") from error
            self._built[name] = built
        return built


def _settings(model: ProviderModel, request: wire.ModelAsk) -> ModelSettings:
    """Return the author's settings; a provider's client that would try again itself is told not to.

    Otherwise each try in place would be several, and Retry-After be counted down twice.
    """
    once = {} if "max_retries" in model.unsupported_settings else {"max_retries": 0}
    return ModelSettings(**{**once, **request.settings})  # type: ignore[typeddict-item] # the author's own


def _parameters(request: wire.ModelAsk) -> ModelRequestParameters:
    if request.output is None:
        return ModelRequestParameters()
    tool = ToolDefinition(
        name=wire.OUTPUT_TOOL,
        parameters_json_schema=request.output,
        description="The answer.",
        kind="output",
    )
    return ModelRequestParameters(output_mode="tool", output_tools=[tool], allow_text_output=False)


async def _stream(
    model: ProviderModel,
    messages: list[Any],
    settings: ModelSettings,
    parameters: ModelRequestParameters,
    attempt: Attempt,
) -> ModelResponse:
    """Ask, and publish the text as it comes."""
    waiting = ""
    async with direct.model_request_stream(
        model, messages, model_settings=settings, model_request_parameters=parameters
    ) as streamed:
        async for event in streamed:
            if isinstance(event, PartStartEvent) and isinstance(event.part, TextPart):
                waiting += event.part.content
            elif isinstance(event, PartDeltaEvent) and isinstance(event.delta, TextPartDelta):
                waiting += event.delta.content_delta
            if len(waiting) >= STREAM_CHARS_MIN:
                await attempt.progress(waiting)
                waiting = ""
        if waiting:
            await attempt.progress(waiting)
        return streamed.get()


def _place(model: ProviderModel, error: exceptions.ModelAPIError) -> str:
    """Return where a provider is that did not answer; one that did says itself what is wrong."""
    if isinstance(error, exceptions.ModelHTTPError) or not model.base_url:
        return ""
    return f" at {redact(model.base_url)}"


def _passing(error: exceptions.ModelAPIError) -> bool:
    """Say whether the same request may succeed later.

    A quota used up is no limit of the rate, and nonsense was an answer, perhaps a paid one.
    """
    if isinstance(
        error, (exceptions.ModelRequestRejectedError, exceptions.ModelQuotaExceededError)
    ):
        return False
    if isinstance(error, exceptions.ModelHTTPError):
        return error.status_code in _PASSING_STATUS or error.status_code >= _SERVER_ERROR
    return not isinstance(error.__cause__, ValueError)
