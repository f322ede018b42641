"""What telemetry itself has lost, cut or failed at, as metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.metrics_core import CounterMetricFamily

from ..calls.errors import observer_errors
from ..calls.values import truncations
from .shared import SharedCollector, add_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Protocol

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

    class Drops(Protocol):
        """Whatever counts what it has dropped."""

        @property
        def dropped(self) -> int:
            """How many, since the process started."""

    class Counts(Protocol):
        """Whatever counts."""

        @property
        def count(self) -> int:
            """How many, since the process started."""

    class Exports(Protocol):
        """Whatever counts the exports that failed."""

        @property
        def failures(self) -> int:
            """How many, since the process started."""


class Losses(SharedCollector["tuple[Drops | None, Exports | None, Drops | None, Counts | None]"]):
    """A collector of `observability_…_total`: the sums of what its sources count."""

    def collect(self) -> Iterator[Metric]:
        """Yield the counters, as they are now; Prometheus's client calls this at a scrape."""
        sources = [*self.sources]
        for name, text, value in (
            (
                "spans_dropped",
                "Spans lost: the queue was full, their export failed, or the collector rejected them.",
                sum(spans.dropped for spans, *_ in sources if spans),
            ),
            (
                "span_export_failures",
                "Batches of spans that could not be exported.",
                sum(exports.failures for _, exports, *_ in sources if exports),
            ),
            (
                "log_lines_dropped",
                "Log lines that nobody took in time.",
                sum(lines.dropped for _, _, lines, _ in sources if lines),
            ),
            (
                "log_lines_limited",
                "Calls that never ran and have no log line each: one line a second has their number.",
                sum(limited.count for *_, limited in sources if limited),
            ),
            (
                "log_values_cut",
                "Values that were cut: in log lines to 1,024 bytes, stack traces, of spans too, to 8 KiB.",
                truncations.count,
            ),
            ("observer_errors", "Exceptions that observers of calls raised.", observer_errors.count),
        ):
            yield CounterMetricFamily(f"observability_{name}", text, value=value)


def report_losses(
    registry: CollectorRegistry,
    spans: Drops | None,
    exports: Exports | None,
    lines: Drops | None,
    limited: Counts | None,
) -> Callable[[], None]:
    """
    Let this registry have what these have lost, added to what others of the process have; return what ends it.

    What is None counts nothing.
    """
    return add_source(registry, Losses, (spans, exports, lines, limited))
