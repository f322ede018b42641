"""What the telemetry of calls reports, kept where a test can look at it: log lines, metrics and spans of both sides."""

import functools
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

import grpc
import structlog
from opentelemetry import trace as opentelemetry_trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry
from prometheus_client.samples import Sample

from observability import Call, Observer, Outcome, Telemetry, log_calls, measure_calls, trace_calls

PATIENCE: Final = 15.0
"""Seconds that a test waits for what must come; it fails after them."""
_CODES: Final = {code.value[0]: code.name for code in grpc.StatusCode}
_globals = threading.Lock()


@functools.cache
def resource() -> Resource:
    """Return that of all recorders' spans: to detect it starts threads, and says what is wrong in the environment."""
    return Resource.create()


class Span(NamedTuple):
    """What a span says of its call."""

    code: str
    status: str
    exceptions: int


class Side(NamedTuple):
    """What one side reports of its calls: each list and count has one entry for a call that was reported once."""

    lines: list[tuple[str, str]]
    started: float
    handled: dict[str, int]
    observed: dict[str, int]
    in_flight: float
    running: float
    spans: list[Span]


class Recorder:
    """
    The log lines, spans, metrics, calls and outcomes of one side or both; nothing global.

    `observers` report to it; the options are those of the three observers. Or telemetry does that is started with
    `telemetry`, but for calls and outcomes. `wait_for(2)` waits for the ends of two calls, which a server's may be a
    little after its caller's.
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        *,
        trace: dict[str, Any] | None = None,
        measure: dict[str, Any] | None = None,
        log: dict[str, Any] | None = None,
        registry: CollectorRegistry | None = None,
        sampler: Any = None,
        extra: tuple[Observer, ...] = (),
    ) -> None:
        self.calls: list[Call] = []
        self.outcomes: list[Outcome] = []
        self.lines: list[dict[str, Any]] = []
        self.registry = registry or CollectorRegistry()
        self._reported = threading.Condition()
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, resource=resource(), shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        logger = structlog.wrap_logger(None, processors=[self._keep_line]).bind(service="A")
        self.observers: list[Observer] = [
            *extra,
            trace_calls(self.provider, **trace or {}),
            measure_calls(self.registry, **measure or {}),
            log_calls(logger, **log or {}),
            self._keep_call,
        ]

    def telemetry(self, engine: str) -> Telemetry:
        """Start telemetry that reports to this recorder, with the native or the contrib engine for its spans."""
        with (
            _globals,
            _global_provider(self.provider),
            _variable("OBSERVABILITY_TRACES", engine),
            _structlog(self._keep_line),
        ):
            return Telemetry.start("recorded", registry=self.registry, serve_metrics=False, logging=False)

    def wait_for(self, count: int = 1) -> None:
        """Wait until this many calls have ended; TimeoutError if they never do."""
        if not self._wait(lambda: len(self.outcomes) >= count):
            raise TimeoutError(f"{len(self.outcomes)} of {count} calls have ended: {self.codes}")

    def wait_for_lines(self, *sides: str) -> bool:
        """Wait until each of these sides has a line, or for too long; return whether they have."""
        return self._wait(lambda: {*sides} <= {line["kind"] for line in self.lines})

    def _wait(self, done: Callable[[], bool]) -> bool:
        with self._reported:
            return self._reported.wait_for(done, PATIENCE)

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._spans.get_finished_spans()

    @property
    def codes(self) -> list[str]:
        """The codes of the calls that have ended."""
        return [outcome.code.name for outcome in self.outcomes]

    def everywhere(self, side: str = "server") -> list[list[str]]:
        """Return the codes of this side's ended calls as lines, counts, observations and spans have them."""
        seen = self.side(side)
        return [
            sorted(code for code, _ in seen.lines),
            sorted(Counter(seen.handled).elements()),
            sorted(Counter(seen.observed).elements()),
            sorted(span.code for span in seen.spans),
        ]

    def side(self, side: str) -> Side:
        """Return what all signals of one side say."""
        names = ("started_total", "handled_total", "handling_seconds_count", "in_flight", "handlers_running")
        samples = [sample for sample in self._samples(*(f"grpc_{side}_{name}" for name in names)) if sample.value]

        def total(name: str) -> float:
            return sum(sample.value for sample in samples if sample.name == f"grpc_{side}_{name}")

        def by_code(name: str) -> dict[str, int]:
            codes = Counter[str]()
            for sample in samples:
                if sample.name == f"grpc_{side}_{name}":
                    codes[sample.labels["grpc_code"]] += int(sample.value)
            return dict(codes)

        return Side(
            lines=[(line["code"], line["level"]) for line in self._lines_of(side)],
            started=total("started_total"),
            handled=by_code("handled_total"),
            observed=by_code("handling_seconds_count"),
            in_flight=total("in_flight"),
            running=total("handlers_running"),
            spans=[_span(span) for span in self._spans_of(side)],
        )

    def line(self, side: str) -> dict[str, Any]:
        """Return the one line of one side."""
        [line] = self._lines_of(side)
        return line

    def messages(self, side: str) -> tuple[float, float]:
        """Return how many messages one side has sent and received."""
        return self.total(f"grpc_{side}_msg_sent_total"), self.total(f"grpc_{side}_msg_received_total")

    def durations(self, side: str) -> list[float]:
        """Return how long the one call of a side took, in ms: by its metrics, its span and its line."""
        return [
            self.total(f"grpc_{side}_handling_seconds_sum") * 1000,
            *(((span.end_time or 0) - (span.start_time or 0)) / 1e6 for span in self._spans_of(side)),
            *(line["latency_ms"] for line in self._lines_of(side)),
        ]

    def ancestry(self) -> list[tuple[str, str, str | None]]:
        """Return the trace, the span and the parent of the client's span, then of the server's, in hex."""
        return [
            (
                opentelemetry_trace.format_trace_id(span.context.trace_id),
                opentelemetry_trace.format_span_id(span.context.span_id),
                span.parent and opentelemetry_trace.format_span_id(span.parent.span_id),
            )
            for side in ("client", "server")
            for span in self._spans_of(side)
        ]

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value, or None where there is no such series."""
        return next((sample.value for sample in self._samples(name) if sample.labels == labels), None)

    def total(self, name: str) -> float:
        """Return the sum of a sample's values over all its series."""
        return sum(sample.value for sample in self._samples(name))

    def _samples(self, *names: str) -> Iterator[Sample]:
        """Yield the samples of these names; the other metrics are not collected, which takes longer than a call."""
        for metric in self.registry.restricted_registry(names).collect():
            yield from metric.samples

    def _lines_of(self, side: str) -> list[dict[str, Any]]:
        return [line for line in self.lines if line["kind"] == side]

    def _spans_of(self, side: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind.name.lower() == side]

    def _keep_line(self, _logger: Any, level: str, fields: Any) -> Any:
        with self._reported:
            self.lines.append({**fields, "called": level})
            self._reported.notify_all()
        raise structlog.DropEvent

    def _keep_call(self, call: Call) -> Any:
        self.calls.append(call)

        def finish(outcome: Outcome) -> None:
            with self._reported:
                self.outcomes.append(outcome)
                self._reported.notify_all()

        return finish


def _span(span: ReadableSpan) -> Span:
    """Read a span, whose gRPC code is a name by the conventions of 1.45, a number before."""
    attributes = span.attributes or {}
    number: Any = attributes.get("rpc.grpc.status_code")
    code = str(attributes.get("rpc.status_code") or _CODES.get(number))
    return Span(code, span.status.status_code.name, sum(event.name == "exception" for event in span.events))


@contextmanager
def _global_provider(provider: TracerProvider) -> Iterator[None]:
    """Let this be the provider that is set already, as for an application with one of its own."""
    before, opentelemetry_trace._TRACER_PROVIDER = opentelemetry_trace._TRACER_PROVIDER, provider
    try:
        yield
    finally:
        opentelemetry_trace._TRACER_PROVIDER = before


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
