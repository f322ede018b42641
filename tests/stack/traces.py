"""Calls' traces as the client and both services would send them, each by itself, in whatever number is needed."""

import random
import time
from dataclasses import dataclass

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import TraceServiceStub
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import ResourceSpans, ScopeSpans, Span, Status

SERVICES = ("client", "service-b", "service-a")
# Who has each span of a call, in which kind; each is the next one's parent.
SIDES = (
    ("client", Span.SPAN_KIND_CLIENT),
    ("service-b", Span.SPAN_KIND_SERVER),
    ("service-b", Span.SPAN_KIND_CLIENT),
    ("service-a", Span.SPAN_KIND_SERVER),
)
MILLISECOND = 1_000_000  # nanoseconds
AT_ONCE = 250  # traces whose spans are in one request of each service


@dataclass(frozen=True, slots=True)
class Trace:
    """The trace of one call through B to A."""

    id: str
    milliseconds: int = 2
    """How long the call took."""
    failed_at: int | None = None
    """Which of its spans has the status ERROR."""

    def spans(self, service: str, start: int) -> list[Span]:
        """Return the spans that a service has of it, of which the first of all starts at `start` nanoseconds."""
        return [
            Span(
                trace_id=bytes.fromhex(self.id),
                span_id=bytes([number + 1] * 8),
                parent_span_id=bytes([number] * 8) if number else b"",
                name="echo.v1.EchoService/Echo",
                kind=kind,
                start_time_unix_nano=start,
                end_time_unix_nano=start + self.milliseconds * MILLISECOND,
                status=Status(code=Status.STATUS_CODE_ERROR if number == self.failed_at else Status.STATUS_CODE_UNSET),
            )
            for number, (owner, kind) in enumerate(SIDES)
            if owner == service
        ]


def made_up(seed: int, *, plain: int = 0, slow: int = 0, failed: int = 0) -> list[Trace]:
    """
    Return so many traces of each kind, in any order, with ids that depend on the seed alone.

    The slow ones took 250 ms or longer, the others less; in those that failed it was any of the four spans.
    """
    numbers = random.Random(seed)  # noqa: S311 - the same each time, which is what it is for
    traces = [Trace(f"{numbers.getrandbits(128):032x}", numbers.randrange(250)) for _ in range(plain)]
    traces += [Trace(f"{numbers.getrandbits(128):032x}", numbers.randrange(250, 2000)) for _ in range(slow)]
    traces += [
        Trace(f"{numbers.getrandbits(128):032x}", numbers.randrange(250), number % len(SIDES))
        for number in range(failed)
    ]
    numbers.shuffle(traces)
    return traces


def send(traces: list[Trace], endpoint: str) -> list[grpc.StatusCode]:
    """Send these traces to an OTLP endpoint, each service its spans, in any order; return how each request ended."""
    codes = []
    with grpc.insecure_channel(endpoint.removeprefix("http://")) as channel:
        export = TraceServiceStub(channel).Export  # type: ignore[no-untyped-call]  # it has no types
        for first in range(0, len(traces), AT_ONCE):
            start = time.time_ns()
            for service in random.sample(SERVICES, len(SERVICES)):
                try:
                    export(_request(service, traces[first : first + AT_ONCE], start), timeout=30)
                except grpc.RpcError as error:
                    codes.append(error.code())
                else:
                    codes.append(grpc.StatusCode.OK)
    return codes


def _request(service: str, traces: list[Trace], start: int) -> ExportTraceServiceRequest:
    resource = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=service))])
    spans = [span for trace in traces for span in trace.spans(service, start)]
    return ExportTraceServiceRequest(
        resource_spans=[ResourceSpans(resource=resource, scope_spans=[ScopeSpans(spans=spans)])]
    )
