"""OTLP from pieces that are kept: what opentelemetry's own encoder makes of the same spans."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.encoding import CachingExporter, encode

SCALARS = some.text(max_size=300) | some.integers(-(2**63), 2**63 - 1) | some.floats(allow_nan=False) | some.booleans()
REMOTE = SpanContext(2**127 + 1, 2**63 + 1, is_remote=True, trace_flags=TraceFlags(1))


class Spans:
    """A provider and the spans that it has ended."""

    def __init__(self, **options: Any) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False, **options)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def end(self, name: str = "echo.v1.EchoService/Echo", scope: str = "observability", **options: Any) -> trace.Span:
        """Start a span of a remote parent; end it."""
        parent = trace.set_span_in_context(trace.NonRecordingSpan(options.pop("parent", REMOTE)))
        attributes = options.pop("attributes", {"rpc.method": name})
        span = self.provider.get_tracer(scope).start_span(name, parent, attributes=attributes, **options)
        span.end()
        return span

    @property
    def ended(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._exporter.get_finished_spans()


@given(some.dictionaries(some.text(min_size=1, max_size=20), SCALARS, max_size=8), some.text(max_size=30))
def test_any_plain_span(attributes: dict[str, Any], name: str) -> None:
    """A span of any name, with attributes of any scalar value, is what opentelemetry makes of it."""
    spans = Spans()
    spans.end(name, attributes=attributes)

    assert encode_spans(spans.ended) == encode(spans.ended)


@pytest.mark.parametrize(
    "attributes",
    [
        {"a": 1, "b": True, "c": 1.0, "d": "1"},
        {"a": True, "b": 1},
        {"a": (1, 2), "b": (True, 1)},
        {"a": {"b": [1, None]}},
        {"a": None},
        {"a": b"\x00\xff"},
        {"a": -0.0},
        {"a": 0.0},
        {"a": "x" * 100_000},
    ],
    ids=repr,
)
def test_equal_values_of_different_types(attributes: dict[str, Any]) -> None:
    """Values that are equal and of different types stay apart, and what is no scalar is encoded as well."""
    spans = Spans()
    for _ in range(2):
        spans.end(attributes=attributes)
        spans.end(attributes=dict.fromkeys("abcd", 1))

    assert encode_spans(spans.ended) == encode(spans.ended)


def test_everything_else_that_a_span_may_have() -> None:
    """Events, links, a trace state, a status, other kinds, no parent, and dropped attributes are all there."""
    spans = Spans(span_limits=SpanLimits(max_span_attributes=1))
    spans.end(links=[Link(REMOTE, {"a": 1})])
    spans.end(parent=SpanContext(1, 2, is_remote=True, trace_state=TraceState([("k", "v")])))
    spans.end(parent=SpanContext(1, 2, is_remote=False))
    spans.end(parent=trace.INVALID_SPAN_CONTEXT)
    spans.end(attributes={"a": 1, "b": 2})
    for kind in SpanKind:
        spans.end(kind=kind)
    for status in (Status(StatusCode.OK), Status(StatusCode.ERROR, "broken"), Status(StatusCode.ERROR)):
        span = spans.provider.get_tracer("app").start_span("failed")
        span.add_event("exception", {"exception.type": "ValueError"})
        span.set_status(status)
        span.end()

    assert encode_spans(spans.ended) == encode(spans.ended)


def test_scopes_and_resources_stay_apart() -> None:
    """Spans of several tracers and resources go under their own."""
    one, other = Spans(resource=Resource({"service.name": "a"})), Spans(resource=Resource({"service.name": "b"}))
    for spans in (one, other):
        for scope in ("observability", "app", "observability"):
            spans.end(scope=scope)
    mixed = [span for pair in zip(one.ended, other.ended, strict=True) for span in pair]

    found = {
        (resource.resource.attributes[0].value.string_value, scope.scope.name): len(scope.spans)
        for resource in encode(mixed).resource_spans
        for scope in resource.scope_spans
    }

    assert {("a", "observability"): 2, ("a", "app"): 1, ("b", "observability"): 2, ("b", "app"): 1} == found


def test_text_that_is_no_unicode() -> None:
    """A lone surrogate in an attribute costs that attribute alone, as with opentelemetry's own."""
    spans = Spans()
    spans.end(attributes={"bad": "\ud800", "good": "yes"})

    assert encode_spans(spans.ended) == encode(spans.ended)


def test_exporter_uses_it() -> None:
    """The exporter still asks for its data where ours gives it: a version that no longer does would be slower."""
    assert "_translate_data" in vars(CachingExporter.__mro__[1])
