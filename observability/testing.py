"""For the tests of your own service: telemetry whose lines, counts and spans a test can look at, and nothing global."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self

import structlog
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from prometheus_client import CollectorRegistry

from .calls.batch_reporter import BatchReporter
from .calls.observer import LifecycleObserver
from .logs.observer import log_observer
from .metrics.observer import measure_calls
from .telemetry import Telemetry
from .traces.observer import trace_calls
from .traces.provider import Tracing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from opentelemetry.sdk.trace import ReadableSpan

    from .calls.call import Call, Outcome
    from .calls.observer import Observer

__all__ = ["RecordedTelemetry"]


class RecordedTelemetry:
    """
    Telemetry that keeps what it reports, from `with` to its end; each is separate, and there may be many at once.

    `telemetry` is to be given to the service in place of what Telemetry.start returns. It reads no variable of ours,
    sets nothing up for the process, listens nowhere and samples every call. `services`, `client_services`, `filter_`
    and `observers` are as for Telemetry.start; lines are kept from `log_level` on. `registry` and `tracer_provider`
    are for the application's own metrics and spans, which are kept too.

    What `lines`, `spans` and `total` return is complete: they wait until every call that has started is over, for
    `seconds` at most, since a server's call may end a little after its caller has the answer. A test that leaves calls
    going on says how many, with `going_on`: on both sides, where both are recorded.
    """

    def __init__(  # noqa: PLR0913 - each by name
        self,
        service_name: str = "test",
        *,
        services: Iterable[str] = (),
        client_services: Iterable[str] = (),
        filter_: Callable[[Any], bool] | None = None,
        observers: Iterable[Observer] = (),
        log_level: str = "info",
        seconds: float = 10.0,
    ) -> None:
        self.registry = CollectorRegistry()
        self.tracer_provider = TracerProvider(
            ALWAYS_ON, Resource({"service.name": service_name}), shutdown_on_exit=False
        )
        self._spans = InMemorySpanExporter()
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self._lines: list[dict[str, Any]] = []
        self._calls = _GoingOn()
        self._seconds = seconds
        wrapper = structlog.make_filtering_bound_logger(log_level)
        logger = structlog.wrap_logger(None, processors=[self._keep_line], wrapper_class=wrapper)
        lines = log_observer(logger.bind(service=service_name))
        reporter = BatchReporter(
            measure_calls(self.registry, services, client_services=client_services),
            lines,
            *observers,
            self._calls,  # last: what it sees ended is reported everywhere
            at_once=[trace_calls(self.tracer_provider, None, filter_)],
        )
        self.telemetry = Telemetry(
            tracing=Tracing(self.tracer_provider, owned=True),
            registry=self.registry,
            log_writer=None,
            line_limit=lines.limit,
            reporter=reporter,
            contrib=None,
            flush_seconds=seconds,
        )

    def lines(self, *, going_on: int = 0, **fields: Any) -> list[dict[str, Any]]:
        """
        Return the lines of calls, those with these fields, oldest first: each by its keys, numbers as numbers.

        Raises TimeoutError where more than `going_on` calls go on.
        """
        self._calls.wait(going_on, self._seconds)
        return [{**line} for line in self._lines if fields.items() <= line.items()]

    def spans(self, *, going_on: int = 0) -> list[ReadableSpan]:
        """
        Return the spans that have ended, oldest first.

        Raises TimeoutError where more than `going_on` calls go on.
        """
        self._calls.wait(going_on, self._seconds)
        return [*self._spans.get_finished_spans()]

    def total(self, name: str, *, going_on: int = 0, **labels: str) -> float:
        """
        Return the sum of the samples of this name that have these labels, such as grpc_server_handled_total.

        Raises TimeoutError where more than `going_on` calls go on.
        """
        self._calls.wait(going_on, self._seconds)
        samples = (sample for metric in self.registry.collect() for sample in metric.samples)
        return sum(
            sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close the telemetry."""
        self.telemetry.close()

    def _keep_line(self, _logger: Any, _level: str, fields: Any) -> Any:
        self._lines.append({key: value for key, value in fields.items() if key != "event"})
        raise structlog.DropEvent


class _GoingOn(LifecycleObserver):
    """Knows the calls that have started and are not reported yet."""

    def __init__(self) -> None:
        self._calls: list[Call] = []
        self._changed = threading.Condition()

    def on_start(self, call: Call) -> None:
        """Take in a call."""
        with self._changed:
            self._calls.append(call)

    def on_end(self, call: Call, _state: None, _outcome: Outcome) -> None:
        """Let it go."""
        with self._changed:
            self._calls.remove(call)
            self._changed.notify_all()

    def wait(self, going_on: int, seconds: float) -> None:
        """Wait until no more than so many go on."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self._calls) <= going_on, seconds):
                names = ", ".join(f"{call.kind} {call.service}/{call.method}" for call in self._calls)
                raise TimeoutError(f"{len(self._calls)} calls go on after {seconds:g} s, not {going_on}: {names}")
