"""A span as people and tests look at it, from whichever store."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

# The older conventions, which opentelemetry-instrumentation-grpc keeps to, name a status code by its number.
CODES: Mapping[Any, str] = {code.value[0]: code.name for code in grpc.StatusCode}


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened at one time during a span, such as an exception."""

    name: str
    attributes: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """
    One side of a call, or a part of it.

    Ids are lower-case hex, `parent_id` is empty for a root; times are nanoseconds since 1970.
    `kind` is `server`, `client`, `internal`, …; `status` is `unset`, `ok` or `error`.
    """

    service: str
    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    start: int
    end: int
    status: str = "unset"
    description: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    resource: Mapping[str, Any] = field(default_factory=dict)
    events: Sequence[Event] = ()

    @property
    def code(self) -> str:
        """The gRPC status code's name, however it is named; empty for a span that is no call."""
        name = self.attributes.get("rpc.status_code")
        number = self.attributes.get("rpc.grpc.status_code", "")
        return str(name or CODES.get(number, number))


def spans_of(request: ExportTraceServiceRequest) -> Iterator[Span]:
    """Yield the spans of an OTLP request."""
    for resource_spans in request.resource_spans:
        resource = attributes_of(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield span_of(span, resource)


def span_of(span: OtlpSpan, resource: Mapping[str, Any]) -> Span:
    """Return an OTLP span, of the given resource, as a `Span`."""
    return Span(
        service=str(resource.get("service.name", "")),
        name=span.name,
        kind=OtlpSpan.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        start=span.start_time_unix_nano,
        end=span.end_time_unix_nano,
        status=Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
        description=span.status.message,
        attributes=attributes_of(span.attributes),
        resource=resource,
        events=tuple(Event(name=e.name, attributes=attributes_of(e.attributes)) for e in span.events),
    )


def attributes_of(attributes: Sequence[KeyValue]) -> dict[str, Any]:
    """Return OTLP attributes as Python values."""
    return {attribute.key: value_of(attribute.value) for attribute in attributes}


def value_of(value: AnyValue) -> Any:
    """Return one OTLP value as a Python value."""
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [value_of(item) for item in value.array_value.values]
    return getattr(value, kind) if kind else None
