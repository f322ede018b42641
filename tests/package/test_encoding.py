"""OTLP from cached pieces: the same as opentelemetry's own encoder makes of the same spans."""

import re
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
from opentelemetry.sdk.trace.id_generator import IdGenerator
from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState

from observability.traces.encodable import encodable
from observability.traces.encoding import CachingExporter, encode

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


class SameIds(IdGenerator):
    """Gives every span the same ids."""

    def generate_trace_id(self) -> int:
        """Return the one."""
        return 1

    def generate_span_id(self) -> int:
        """Return the one."""
        return 2


PLACES = (
    "value",
    "long value",
    "key",
    "list",
    "nested",
    "name",
    "status",
    "event",
    "event's value",
    "link's value",
    "scope",
    "scope's value",
    "resource",
)


def ended_span(place: str, value: Any) -> ReadableSpan:
    """Return a span that has this value in this place, and is else always the same."""
    at = {"good": "yes"}
    resource = Resource({"service.name": "a", **({"bad": value} if place == "resource" else {})})
    spans = Spans(resource=resource, id_generator=SameIds())
    tracer = spans.provider.get_tracer(
        value if place == "scope" else "app", attributes={"bad": value} if place == "scope's value" else None
    )
    attributes = {
        "value": {**at, "bad": value},
        "long value": {**at, "bad": value * 300},
        "key": {**at, value: 1},
        "list": {**at, "bad": [value, value]},
        "nested": {**at, "bad": {value: [{"bad": value}]}},
    }.get(place, at)
    links = [Link(REMOTE, {**at, "bad": value})] if place == "link's value" else []
    span = tracer.start_span(value if place == "name" else "good", attributes=attributes, links=links, start_time=1)
    if place == "status":
        span.set_status(Status(StatusCode.ERROR, value))
    if place.startswith("event"):
        span.add_event(value if place == "event" else "good", {**at, "bad": value if "value" in place else 1}, 2)
    span.end(3)
    return spans.ended[0]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\ud800b", "a\ufffdb"), ("\udc00", "\ufffd"), ("\ud83d\ude00", "\U0001f600"), ("ß\udcff", "ß\ufffd")],
    ids=ascii,
)
def test_text_that_is_no_unicode(caplog: pytest.LogCaptureFixture, place: str, text: str, shown: str) -> None:
    """
    A span with a lone surrogate anywhere arrives whole, U+FFFD in its place, by both protocols and without a warning.
    """
    span, expected = ended_span(place, text), encode_spans([ended_span(place, shown)])

    assert expected == encode([span])
    assert expected == encode_spans([encodable(span)])
    # An older version takes no mapping as an attribute, and says so when it is set.
    assert [] == [record for record in caplog.records if record.name != "opentelemetry.attributes"]


@given(some.text(some.characters(exclude_categories=())), some.text(some.characters(exclude_categories=())))
def test_any_text(key: str, value: str) -> None:
    """
    Any text can be encoded; what Unicode knows is left as it is, and each lone surrogate is one U+FFFD.
    """
    spans = Spans(id_generator=SameIds())
    spans.end(attributes={f"k{key}": value, "list": [value]}, start_time=1)
    [span] = encode(spans.ended).resource_spans[0].scope_spans[0].spans
    found = {attribute.key: attribute.value for attribute in span.attributes}
    expected = LONE.sub("\ufffd", joined(value))

    assert {LONE.sub("\ufffd", joined(f"k{key}")), "list"} == set(found)
    assert {expected} == {value.string_value for name, value in found.items() if name != "list"}
    assert [expected] == [item.string_value for item in found["list"].array_value.values]


LONE = re.compile("[\ud800-\udfff]")


def joined(text: str) -> str:
    """Return a text in which two surrogates that belong together are the character that they mean."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")


@pytest.mark.parametrize("place", ["value", "list", "event's value", "link's value", "resource", "scope's value"])
@pytest.mark.parametrize("number", [2**63, -(2**63) - 1, 10**100])
def test_number_that_is_too_large(caplog: pytest.LogCaptureFixture, place: str, number: int) -> None:
    """
    A whole number that has no place in 64 bits arrives as text, as OpenTelemetry's specification has it.
    """
    span, expected = ended_span(place, number), encode_spans([ended_span(place, str(number))])

    assert expected == encode([span])
    assert expected == encode_spans([encodable(span)])
    # An older version takes no mapping as an attribute, and says so when it is set.
    assert [] == [record for record in caplog.records if record.name != "opentelemetry.attributes"]


def test_number_that_cannot_be_printed() -> None:
    """
    A number that is too large even for text costs nothing but itself.
    """
    [span] = encode([ended_span("value", 10**5000)]).resource_spans[0].scope_spans[0].spans

    assert "<unprintable int>" == span.attributes[1].value.string_value


def test_what_can_be_encoded_is_the_span_itself() -> None:
    """
    A span that can be encoded is not copied, whatever it has.
    """
    spans = [ended_span(place, "ß") for place in PLACES]

    assert all(encodable(span) is span for span in spans)


def test_exporter_uses_it() -> None:
    """The exporter still asks for its data where ours gives it: a version that no longer does would be slower."""
    assert "_translate_data" in vars(CachingExporter.__mro__[1])
