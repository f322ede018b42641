"""What one call's telemetry told: its log lines, its metrics and its spans, of both sides."""

import os
import threading
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import grpc
import structlog
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from observability import Telemetry

PATIENCE = 15.0
"""Seconds that a test waits for what must come; it fails after them."""

_globals = threading.Lock()


class Span(NamedTuple):
    """What a span says of its call."""

    code: str
    status: str
    exceptions: int


class Observers(NamedTuple):
    """What one side's log and metrics say of its call: each list and count has one entry where it was reported once."""

    lines: list[tuple[str, str]]
    started: float
    handled: dict[str, float]
    observed: dict[str, float]
    in_flight: float
    running: float


class Record:
    """Keeps what the telemetry of one call tells; nothing global."""

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []
        self.registry = CollectorRegistry()
        self._told = threading.Condition()
        self._exporter = InMemorySpanExporter()
        self._provider = TracerProvider(shutdown_on_exit=False)
        self._provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def telemetry(self, engine: str) -> Telemetry:
        """Start telemetry that tells this record, with the native or the contrib engine for its spans."""
        with _globals, _global_provider(self._provider), _variable("OBSERVABILITY_TRACES", engine), _structlog(self):
            return Telemetry.start("conformance", registry=self.registry, serve_metrics=False, logging=False)

    def __call__(self, _logger: Any, _level: str, fields: MutableMapping[str, Any]) -> dict[str, Any]:
        """Keep a line; be structlog's only processor."""
        with self._told:
            self.lines.append(dict(fields))
            self._told.notify_all()
        raise structlog.DropEvent

    def wait(self, *kinds: str) -> None:
        """Wait until these sides have told the call's end, or for too long."""
        with self._told:
            self._told.wait_for(lambda: set(kinds) <= {line["kind"] for line in self.lines}, PATIENCE)

    def signals(self, kind: str) -> Observers:
        """Return what the log and the metrics of one side say."""
        return Observers(
            lines=[(line["code"], line["level"]) for line in self.lines if line["kind"] == kind],
            started=sum(self._values(f"grpc_{kind}_started_total").values()),
            handled=self._values(f"grpc_{kind}_handled_total"),
            observed=self._values(f"grpc_{kind}_handling_seconds_count"),
            in_flight=sum(self._values(f"grpc_{kind}_in_flight").values()),
            running=sum(self._values(f"grpc_{kind}_handlers_running").values()),
        )

    def spans(self, kind: str) -> list[Span]:
        """Return what the spans of one side say."""
        return [
            Span(_code(span), span.status.status_code.name, sum(event.name == "exception" for event in span.events))
            for span in self._spans(kind)
        ]

    def everything(self, kind: str) -> tuple[Observers, list[Span]]:
        """Return what all signals of one side say."""
        return self.signals(kind), self.spans(kind)

    def line(self, kind: str) -> dict[str, Any]:
        """Return the one line of one side."""
        [line] = [line for line in self.lines if line["kind"] == kind]
        return line

    def messages(self, kind: str) -> tuple[float, float]:
        """Return how many messages one side has sent and received."""
        sent, received = (self._values(f"grpc_{kind}_msg_{way}_total") for way in ("sent", "received"))
        return sum(sent.values()), sum(received.values())

    def durations(self, kind: str) -> list[float]:
        """Return how long the call took, in ms, by each signal of one side."""
        total = sum(self._values(f"grpc_{kind}_handling_seconds_sum").values())
        lengths = [((span.end_time or 0) - (span.start_time or 0)) / 1e6 for span in self._spans(kind)]
        lines = [line["latency_ms"] for line in self.lines if line["kind"] == kind]
        return [total * 1000, *lengths, *lines]

    def ancestry(self) -> list[tuple[str, str, str | None]]:
        """Return the trace, the span and the parent of the client's span, then of the server's, in hex."""
        return [
            (
                trace.format_trace_id(span.context.trace_id),
                trace.format_span_id(span.context.span_id),
                span.parent and trace.format_span_id(span.parent.span_id),
            )
            for kind in ("client", "server")
            for span in self._spans(kind)
        ]

    def _spans(self, kind: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.kind.name.lower() == kind]

    def _values(self, name: str) -> dict[str, float]:
        """Return the samples of this name that are not zero, by their code."""
        return {
            sample.labels.get("grpc_code", ""): sample.value
            for metric in self.registry.collect()
            for sample in metric.samples
            if sample.name == name and sample.value
        }


def _code(span: ReadableSpan) -> str:
    """Read a span's gRPC code: a name by the conventions of 1.45, a number before."""
    attributes = span.attributes or {}
    number = attributes.get("rpc.grpc.status_code")
    names = {code.value[0]: code.name for code in grpc.StatusCode}
    return str(attributes.get("rpc.status_code") or names.get(number))  # type: ignore[arg-type]  # any type of value


@contextmanager
def _global_provider(provider: TracerProvider) -> Iterator[None]:
    """Let this be the provider that is set already, as for an application with one of its own."""
    before, trace._TRACER_PROVIDER = trace._TRACER_PROVIDER, provider
    try:
        yield
    finally:
        trace._TRACER_PROVIDER = before


@contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]
        if before is not None:
            os.environ[name] = before


@contextmanager
def _structlog(processor: Any) -> Iterator[None]:
    before = structlog.get_config()
    structlog.configure(processors=[processor], wrapper_class=structlog.make_filtering_bound_logger(0))
    try:
        yield
    finally:
        structlog.configure(**before)
