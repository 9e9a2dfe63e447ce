"""Spans of what was committed."""

from __future__ import annotations

import dataclasses
import gzip
import http.server
import threading
import timeit
from collections.abc import Iterator

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from headwater.contracts.messages import Answered, Closed, Reply, Usage
from headwater.core.messages import Meta, Position
from headwater.errors import SettingsError
from headwater.runtime.committing import Taken
from headwater.tracing import context, spans

_SEEN = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
_UNSEEN = _SEEN[:-1] + b"0"
_AT = Position("topic-id", "hw.inbox.triage.v1", 3, 42)
_REPLY = Reply(run="triage.3.abc", number=7, attempt="a", outcome=Answered(value=b"1"))


def taken(traceparent: bytes, message: object = _REPLY, refused: str = "") -> Taken:
    return Taken(
        at=_AT,
        meta=Meta(id="m1", tenant="t1", traceparent=traceparent),
        message=message,
        started_ns=1_000,
        ended_ns=5_000,
        sent=2,
        refused=refused,
    )


@pytest.fixture
def exported() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def tracing(exported: InMemorySpanExporter) -> spans.Spans:
    return spans.Spans(SimpleSpanProcessor(exported), Resource({"service.name": "test"}))


def only(exported: InMemorySpanExporter) -> ReadableSpan:
    (span,) = exported.get_finished_spans()
    return span


def test_a_committed_turn_is_one_span_below_its_record(
    tracing: spans.Spans, exported: InMemorySpanExporter
) -> None:
    """The span has the turn's derived id, the record's trace and parent, and names run and agent."""
    tracing.committed("runs.triage", [taken(_SEEN)], seconds=0.01)
    span = only(exported)
    assert span.context is not None
    assert span.parent is not None
    assert span.context.span_id == int.from_bytes(_AT.derive(-1, size=8), "big")
    assert (span.context.trace_id, span.parent.span_id) == context.read(_SEEN)
    assert (span.name, span.kind) == ("process hw.inbox.triage.v1", SpanKind.CONSUMER)
    assert (span.start_time, span.end_time) == (1_000, 5_000)
    assert span.status.status_code is StatusCode.UNSET
    assert dict(span.attributes or {}) == {
        "messaging.system": "kafka",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.destination.name": "hw.inbox.triage.v1",
        "messaging.destination.partition.id": "3",
        "messaging.kafka.offset": 42,
        "messaging.message.id": "m1",
        "headwater.process": "runs.triage",
        "headwater.tenant": "t1",
        "headwater.message": "Reply",
        "headwater.sent": 2,
        "headwater.commit_ms": 10.0,
        "headwater.call.number": 7,
        "gen_ai.operation.name": "invoke_agent",
        "gen_ai.agent.name": "triage",
        "gen_ai.conversation.id": "triage.3.abc",
    }


def test_what_a_turn_sends_hangs_below_its_span(
    tracing: spans.Spans, exported: InMemorySpanExporter
) -> None:
    """One trace a task: the next hop's parent is this hop's span."""
    first = taken(_SEEN)
    second = dataclasses.replace(
        taken(context.below(_SEEN, first.at.span_id), Closed(slot="s")),
    )
    tracing.committed("runs.triage", [first], seconds=0)
    tracing.committed("admission", [second], seconds=0)
    one, two = exported.get_finished_spans()
    assert one.context is not None
    assert two.context is not None
    assert two.parent is not None
    assert two.parent.span_id == one.context.span_id
    assert two.context.trace_id == one.context.trace_id


def test_a_refused_turn_is_an_error(tracing: spans.Spans, exported: InMemorySpanExporter) -> None:
    """A quarantined record shows in its producer's trace, by the class of the refusal."""
    tracing.committed("intake", [taken(_SEEN, None, "unknown-schema")], seconds=0)
    span = only(exported)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["error.type"] == "unknown-schema"


@pytest.mark.parametrize("traceparent", [_UNSEEN, b"", b"garbage", _SEEN.replace(b"0af7", b"zzzz")])
def test_an_unrecorded_trace_makes_no_span(
    tracing: spans.Spans, exported: InMemorySpanExporter, traceparent: bytes
) -> None:
    """Nobody records it, so nothing is built."""
    tracing.committed("runs.triage", [taken(traceparent)], seconds=0)
    tracing.call(
        Meta(id="m", tenant="t", traceparent=traceparent),
        call_id="r/1",
        attempt="a",
        kind="tool",
        name="balance",
        started_ns=1,
        ended_ns=2,
    )
    assert exported.get_finished_spans() == ()


def test_a_model_call_is_a_chat_with_its_tokens_and_price(
    tracing: spans.Spans, exported: InMemorySpanExporter
) -> None:
    """GenAI conventions: operation, models, provider, tokens; the span's id is the attempt's."""
    tracing.call(
        Meta(id="m", tenant="t1", traceparent=_SEEN),
        call_id="triage.3.abc/2",
        attempt="x1",
        kind="model",
        name="small",
        started_ns=1,
        ended_ns=2,
        usage=Usage(
            model="openai:gpt-5-mini", input_tokens=10, output_tokens=4, usd_nano=2_500_000
        ),
    )
    span = only(exported)
    assert span.context is not None
    assert (span.name, span.kind) == ("chat small", SpanKind.CLIENT)
    assert span.context.span_id == int.from_bytes(
        context.call_span_id("triage.3.abc/2", "x1"), "big"
    )
    assert dict(span.attributes or {}) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.conversation.id": "triage.3.abc",
        "gen_ai.request.model": "small",
        "gen_ai.response.model": "gpt-5-mini",
        "gen_ai.provider.name": "openai",
        "gen_ai.usage.input_tokens": 10,
        "gen_ai.usage.output_tokens": 4,
        "headwater.usd": 0.0025,
        "headwater.tenant": "t1",
        "headwater.attempt": "x1",
    }


def test_a_failed_tool_call_is_an_error(
    tracing: spans.Spans, exported: InMemorySpanExporter
) -> None:
    """GenAI conventions for tools, and the error's class."""
    tracing.call(
        Meta(id="m", tenant="t1", traceparent=_SEEN),
        call_id="triage.3.abc/2",
        attempt="x1",
        kind="tool",
        name="balance",
        started_ns=1,
        ended_ns=2,
        error="ToolTimeout",
    )
    span = only(exported)
    assert (span.name, span.kind) == ("execute_tool balance", SpanKind.INTERNAL)
    assert span.status.status_code is StatusCode.ERROR
    assert (span.attributes or {})["gen_ai.tool.call.id"] == "triage.3.abc/2"
    assert (span.attributes or {})["error.type"] == "ToolTimeout"


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
        ({"OTEL_SDK_DISABLED": "true", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://x"}, False),
    ],
)
def test_the_standard_variables_decide(environ: dict[str, str], expected: bool) -> None:
    """OTLP when they say so, silence otherwise."""
    assert spans.wanted(environ) is expected
    if not expected:
        silent = spans.connect(environ, role="agents", version="1", instance="a")
        silent.committed("runs.triage", [taken(_SEEN)], seconds=0)
        silent.turn(_AT, taken(_SEEN).meta, "x", 1, 2, {}, span_id=b"\x01" * 8)
        silent.call(
            taken(_SEEN).meta,
            call_id="r/1",
            attempt="a",
            kind="tool",
            name="b",
            started_ns=1,
            ended_ns=2,
        )
        silent.close()
        assert isinstance(silent, spans.Silent)
        assert spans.share(environ) == 0.0


@pytest.mark.parametrize(
    ("sampler", "argument", "expected"),
    [
        ("", "", 1.0),
        ("parentbased_always_on", "", 1.0),
        ("always_off", "", 0.0),
        ("parentbased_traceidratio", "0.25", 0.25),
        ("traceidratio", "", 1.0),
    ],
)
def test_the_share_of_new_traces_follows_the_sampler(
    sampler: str, argument: str, expected: float
) -> None:
    """A producer's decision is kept; traces that begin here follow the standard sampler."""
    environ = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": argument,
    }
    assert spans.share(environ) == expected


@pytest.mark.parametrize(
    ("sampler", "argument", "named"),
    [
        ("jaeger_remote", "", "OTEL_TRACES_SAMPLER="),
        ("traceidratio", "2", "OTEL_TRACES_SAMPLER_ARG="),
        ("traceidratio", "much", "OTEL_TRACES_SAMPLER_ARG="),
    ],
)
def test_a_sampler_that_cannot_work_is_named(sampler: str, argument: str, named: str) -> None:
    """A setting that cannot work stops the start, naming the variable."""
    environ = {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_TRACES_SAMPLER": sampler,
        "OTEL_TRACES_SAMPLER_ARG": argument,
    }
    with pytest.raises(SettingsError, match=named):
        spans.share(environ)


@pytest.fixture
def collector() -> Iterator[tuple[str, list[ExportTraceServiceRequest]]]:
    got: list[ExportTraceServiceRequest] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            assert self.path == "/v1/traces"
            got.append(ExportTraceServiceRequest.FromString(body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - http.server fixes this name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", got
        server.shutdown()
        thread.join()


def test_spans_reach_a_collector_over_http(
    collector: tuple[str, list[ExportTraceServiceRequest]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the standard variables set, closing sends every span, with the process's resource."""
    url, got = collector
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": url, "OTEL_EXPORTER_OTLP_TIMEOUT": "300"}
    for name, value in environ.items():
        monkeypatch.setenv(name, value)
    tracing = spans.connect(environ, role="agents", version="1.2", instance="agents-0")
    tracing.committed("runs.triage", [taken(_SEEN), taken(_UNSEEN)], seconds=0)
    tracing.close()
    (request,) = got
    (resource_spans,) = request.resource_spans
    resource = {a.key: a.value.string_value for a in resource_spans.resource.attributes}
    assert resource["service.name"] == "headwater-agents"
    assert resource["service.instance.id"] == "agents-0"
    ((span,),) = [scope.spans for scope in resource_spans.scope_spans]
    assert span.trace_id.hex() == "0af7651916cd43dd8448eb211c80319c"
    assert span.span_id == _AT.derive(-1, size=8)


def test_an_unsampled_turn_costs_a_twentieth_of_a_recorded_one_at_most(
    tracing: spans.Spans,
) -> None:
    """Observing a committed turn nobody records stays far below the turn itself."""

    def took(traceparent: bytes) -> float:
        batch = [taken(traceparent)] * 200
        return timeit.timeit(lambda: tracing.committed("runs.triage", batch, seconds=0), number=1)

    unseen, seen = zip(*((took(_UNSEEN), took(_SEEN)) for _ in range(7)), strict=True)
    assert min(unseen) < min(seen) / 20
