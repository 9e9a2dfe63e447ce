"""Spans: what happened, once it is committed, for those who record the trace.

Loops tell an observer about turns after their commit and about calls after their answer, so a
span is made once and never on replay. Ids are derived from positions and calls: a span's children
may be written before it is. A trace that nobody records costs a look at one byte.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from headwater.contracts.messages import Usage
from headwater.errors import SettingsError
from headwater.tracing import context
from headwater.tracing.port import Attribute, Carrier, Place, Tracing, Turned

_SCOPE = InstrumentationScope("headwater")
_RECORDED = TraceFlags(TraceFlags.SAMPLED)
_OK = Status(StatusCode.UNSET)


class Silent:
    """Tracing that nobody asked for."""

    def committed(self, decider: str, taken: Sequence[Turned], *, seconds: float) -> None:
        """Look away."""

    def turn(
        self,
        at: Place,
        meta: Carrier,
        name: str,
        started_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Attribute],
        *,
        span_id: bytes,
        error: str = "",
    ) -> None:
        """Look away."""

    def call(
        self,
        meta: Carrier,
        *,
        call_id: str,
        attempt: str,
        kind: str,
        name: str,
        started_ns: int,
        ended_ns: int,
        usage: Usage | None = None,
        error: str = "",
    ) -> None:
        """Look away."""

    def close(self) -> None:
        """Nothing is left."""


class Spans:
    """Tracing through an OpenTelemetry span processor.

    Args:
        processor: Gets every finished span; bounded, and exports on a thread of its own.
        resource: What this process is.
    """

    def __init__(self, processor: SpanProcessor, resource: Resource) -> None:
        self._processor = processor
        self._resource = resource

    def committed(self, decider: str, taken: Sequence[Turned], *, seconds: float) -> None:
        """Make a span of each turn whose trace is recorded.

        Args:
            decider: The decider's name.
            taken: The turns of one committed batch.
            seconds: How long the commit took.
        """
        for turned in taken:
            if context.sampled(turned.meta.traceparent):
                attributes = _of_message(decider, turned.message)
                attributes["headwater.sent"] = turned.sent
                attributes["headwater.commit_ms"] = round(seconds * 1000, 3)
                self.turn(
                    turned.at,
                    turned.meta,
                    decider,
                    turned.started_ns,
                    turned.ended_ns,
                    attributes,
                    span_id=turned.at.span_id,
                    error=turned.refused,
                )

    def turn(
        self,
        at: Place,
        meta: Carrier,
        name: str,
        started_ns: int,
        ended_ns: int,
        attributes: Mapping[str, Attribute],
        *,
        span_id: bytes,
        error: str = "",
    ) -> None:
        """Make a consumer's span of one record processed, by the messaging conventions.

        Args:
            at: Where the record is.
            meta: Whose it is, and its trace.
            name: Who processed it.
            started_ns: Wall clock.
            ended_ns: Wall clock.
            attributes: Further attributes.
            span_id: The span's id, 8 bytes.
            error: Class of the failure; empty for none.
        """
        self._record(
            f"process {at.topic}",
            meta,
            span_id,
            SpanKind.CONSUMER,
            started_ns,
            ended_ns,
            error,
            {
                "messaging.system": "kafka",
                "messaging.operation.name": "process",
                "messaging.operation.type": "process",
                "messaging.destination.name": at.topic,
                "messaging.destination.partition.id": str(at.number),
                "messaging.kafka.offset": at.offset,
                "messaging.message.id": meta.id,
                "headwater.process": name,
                "headwater.tenant": meta.tenant,
                **attributes,
            },
        )

    def call(
        self,
        meta: Carrier,
        *,
        call_id: str,
        attempt: str,
        kind: str,
        name: str,
        started_ns: int,
        ended_ns: int,
        usage: Usage | None = None,
        error: str = "",
    ) -> None:
        """Make a span of one attempt at a call, by the GenAI conventions.

        Args:
            meta: Whose it is, and its trace.
            call_id: `run/number`.
            attempt: Id of the attempt.
            kind: `model` or `tool`.
            name: The model's or tool's name in the app.
            started_ns: Wall clock.
            ended_ns: Wall clock.
            usage: Of a model's answer.
            error: Class of the failure; empty for none.
        """
        if not context.sampled(meta.traceparent):
            return
        model = kind == "model"
        attributes: dict[str, Attribute] = {
            "gen_ai.operation.name": "chat" if model else "execute_tool",
            "gen_ai.conversation.id": call_id.partition("/")[0],
            "headwater.tenant": meta.tenant,
            "headwater.attempt": attempt,
        }
        if model:
            attributes["gen_ai.request.model"] = name
        else:
            attributes["gen_ai.tool.name"] = name
            attributes["gen_ai.tool.call.id"] = call_id
            attributes["gen_ai.tool.type"] = "function"
        if usage is not None:
            if usage.model:
                provider, _, response = usage.model.rpartition(":")
                attributes["gen_ai.response.model"] = response
                if provider:
                    attributes["gen_ai.provider.name"] = provider
            attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
            attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            attributes["headwater.usd"] = usage.usd_nano / 1e9
        self._record(
            f"{attributes['gen_ai.operation.name']} {name}",
            meta,
            context.call_span_id(call_id, attempt),
            SpanKind.CLIENT if model else SpanKind.INTERNAL,
            started_ns,
            ended_ns,
            error,
            attributes,
        )

    def close(self) -> None:
        """Send what is left and stop."""
        self._processor.shutdown()

    def _record(
        self,
        name: str,
        meta: Carrier,
        span_id: bytes,
        kind: SpanKind,
        started_ns: int,
        ended_ns: int,
        error: str,
        attributes: dict[str, Attribute],
    ) -> None:
        ids = context.read(meta.traceparent)
        if ids is None or not context.sampled(meta.traceparent):
            return
        if error:
            attributes["error.type"] = error
        trace_id, parent_id = ids
        self._processor.on_end(
            ReadableSpan(
                name,
                context=SpanContext(
                    trace_id, int.from_bytes(span_id, "big"), is_remote=False, trace_flags=_RECORDED
                ),
                parent=SpanContext(trace_id, parent_id, is_remote=True, trace_flags=_RECORDED),
                resource=self._resource,
                attributes=attributes,
                kind=kind,
                status=Status(StatusCode.ERROR, error) if error else _OK,
                start_time=started_ns,
                end_time=ended_ns,
                instrumentation_scope=_SCOPE,
            )
        )


def wanted(environ: Mapping[str, str]) -> bool:
    """Whether the standard `OTEL_*` variables ask for traces over OTLP."""
    if environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporters = environ.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    if exporters:
        return "otlp" in [name.strip() for name in exporters.split(",")]
    return any(
        environ.get(name, "").strip()
        for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    )


def share(environ: Mapping[str, str]) -> float:
    """Return what share of traces that begin here is recorded, by `OTEL_TRACES_SAMPLER[_ARG]`.

    A task that brings a context of its own keeps its producer's decision.

    Args:
        environ: The environment.

    Raises:
        SettingsError: The sampler is unknown, or its argument no share; it names the variable.
    """
    if not wanted(environ):
        return 0.0
    sampler = environ.get("OTEL_TRACES_SAMPLER", "").strip().removeprefix("parentbased_")
    if sampler in ("", "always_on"):
        return 1.0
    if sampler == "always_off":
        return 0.0
    if sampler != "traceidratio":
        raise SettingsError(
            f"OTEL_TRACES_SAMPLER={sampler!r} is unknown: use always_on, always_off or traceidratio"
        )
    argument = environ.get("OTEL_TRACES_SAMPLER_ARG", "").strip() or "1"
    try:
        ratio = float(argument)
    except ValueError:
        ratio = -1.0
    if not 0 <= ratio <= 1:
        raise SettingsError(f"OTEL_TRACES_SAMPLER_ARG={argument!r} is not a share: use 0 to 1")
    return ratio


def connect(environ: Mapping[str, str], *, role: str, version: str, instance: str) -> Tracing:
    """Return tracing as the standard `OTEL_*` variables say: OTLP over HTTP, or silence.

    The exporter reads endpoint, headers, certificates, time limits and the batches' bounds from
    those variables itself, as everywhere else.

    Args:
        environ: The environment.
        role: The process's role, for its service name unless `OTEL_SERVICE_NAME` says otherwise.
        version: The app's version.
        instance: The process's instance.
    """
    if not wanted(environ):
        return Silent()
    attributes = {"service.version": version, "service.instance.id": instance}
    if not environ.get("OTEL_SERVICE_NAME", "").strip():
        attributes["service.name"] = f"headwater-{role}"
    return Spans(BatchSpanProcessor(OTLPSpanExporter()), Resource.create(attributes))


def _of_message(decider: str, message: Any) -> dict[str, Attribute]:
    """Return what a message says about itself; runs are named by the agents' conventions."""
    attributes: dict[str, Attribute] = {"headwater.message": type(message).__name__}
    family, _, agent = decider.partition(".")
    if family == "runs" and agent:
        attributes["gen_ai.operation.name"] = "invoke_agent"
        attributes["gen_ai.agent.name"] = agent
    run = getattr(message, "run", "")
    if run:
        attributes["gen_ai.conversation.id"] = run
    number = getattr(message, "number", None)
    if number is not None:
        attributes["headwater.call.number"] = number
    return attributes
