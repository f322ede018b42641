"""What the three observers report of calls, kept for a test to look at."""

import threading
from typing import Any

import structlog
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry

from observability import Call, Observer, Outcome, log_calls, measure_calls, trace_calls


class Recorder:
    """
    The log lines, spans, metrics, calls and outcomes of one side.

    `observers` report them; the options are those of the three observers. `wait_for(2)` waits for the ends of two
    calls, which a server's may be a little after its caller's.
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
        self._ended = threading.Condition()
        self._spans = InMemorySpanExporter()
        self.provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._spans))
        logger = structlog.wrap_logger(None, processors=[self._keep_line]).bind(service="A")
        self.observers: list[Observer] = [
            *extra,
            trace_calls(self.provider, **trace or {}),
            measure_calls(self.registry, **measure or {}),
            log_calls(logger, **log or {}),
            self._keep_call,
        ]

    @property
    def spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that have ended."""
        return self._spans.get_finished_spans()

    @property
    def codes(self) -> list[str]:
        """The codes of the calls that have ended."""
        return [outcome.code.name for outcome in self.outcomes]

    def wait_for(self, count: int = 1) -> None:
        """Wait until this many calls have ended; TimeoutError if they never do."""
        with self._ended:
            if not self._ended.wait_for(lambda: len(self.outcomes) >= count, 5):
                raise TimeoutError(f"{len(self.outcomes)} of {count} calls have ended: {self.codes}")

    def everywhere(self, side: str = "server") -> list[list[str]]:
        """Return the codes of this side's ended calls as lines, counts, observations and spans have them."""
        samples = [sample for metric in self.registry.collect() for sample in metric.samples]
        return [
            sorted(line["code"] for line in self.lines if line["kind"] == side),
            *(
                sorted(
                    code
                    for sample in samples
                    if sample.name == f"grpc_{side}_{name}"
                    for code in [sample.labels["grpc_code"]] * int(sample.value)
                )
                for name in ("handled_total", "handling_seconds_count")
            ),
            sorted(str((span.attributes or {})["rpc.status_code"]) for span in self._of(side)),
        ]

    def _of(self, side: str) -> list[ReadableSpan]:
        return [span for span in self.spans if span.kind.name.lower() == side]

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value, or None where there is no such series."""
        return self.registry.get_sample_value(name, labels)

    def total(self, name: str) -> float:
        """Return the sum of a sample's values over all its series."""
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return sum(sample.value for sample in samples if sample.name == name)

    def _keep_line(self, _logger: Any, level: str, fields: Any) -> Any:
        self.lines.append({**fields, "called": level})
        raise structlog.DropEvent

    def _keep_call(self, call: Call) -> Any:
        self.calls.append(call)

        def finish(outcome: Outcome) -> None:
            with self._ended:
                self.outcomes.append(outcome)
                self._ended.notify_all()

        return finish
