"""What telemetry itself has lost, cut or failed at, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily

from ..calls.errors import observer_errors
from ..calls.values import truncations

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Protocol

    from prometheus_client.metrics_core import Metric

    class Drops(Protocol):
        """Whatever counts what it has dropped."""

        @property
        def dropped(self) -> int:
            """How many, since the process started."""

    class Exports(Protocol):
        """Whatever counts the exports that failed."""

        @property
        def failures(self) -> int:
            """How many, since the process started."""


class Losses:
    """A collector of `observability_…_total`; what is None counts nothing, and stays at zero."""

    def __init__(self, spans: Drops | None, exports: Exports | None, lines: Drops | None) -> None:
        self._spans = spans
        self._exports = exports
        self._lines = lines

    def collect(self) -> Iterator[Metric]:
        """Yield the counters, as they are now; Prometheus's client calls this at a scrape."""
        for name, text, value in (
            (
                "spans_dropped",
                "Spans lost: the queue was full, their export failed, or the collector rejected them.",
                self._spans.dropped if self._spans else 0,
            ),
            (
                "span_export_failures",
                "Batches of spans that could not be exported.",
                self._exports.failures if self._exports else 0,
            ),
            ("log_lines_dropped", "Log lines that nobody took in time.", self._lines.dropped if self._lines else 0),
            (
                "log_values_cut",
                "Values that were cut: in log lines to 1,024 bytes, stack traces, of spans too, to 8 KiB.",
                truncations.count,
            ),
            ("observer_errors", "Exceptions that observers of calls raised.", observer_errors.count),
        ):
            yield CounterMetricFamily(f"observability_{name}", text, value=value)
