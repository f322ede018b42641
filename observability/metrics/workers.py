"""How many threads calls hold, of those that they may."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from prometheus_client.metrics_core import GaugeMetricFamily

from .shared import SharedCollector, add_source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

    from ..threads.pool import WorkerPool


class Workers(SharedCollector[tuple[str, "WorkerPool"]]):
    """A collector of `grpc_server_busy_workers` and `grpc_server_max_workers`, by the names of pools."""

    def collect(self) -> Iterator[Metric]:
        """Yield the gauges, as they are now."""
        busy: defaultdict[str, int] = defaultdict(int)
        maximum: defaultdict[str, int] = defaultdict(int)
        for name, pool in [*self.sources]:
            busy[name] += pool.busy_workers
            maximum[name] += pool.max_workers
        for metric, text, values in (
            ("busy_workers", "Threads that calls hold: their handlers run, or their requests have not come.", busy),
            ("max_workers", "Threads that calls may hold.", maximum),
        ):
            family = GaugeMetricFamily(f"grpc_server_{metric}", text, labels=["pool"])
            for name, value in values.items():
                family.add_metric([name], value)
            yield family


def measure_workers(registry: CollectorRegistry, name: str, pool: WorkerPool) -> Callable[[], None]:
    """Let this registry have the gauges of this pool, added to others of its name; return what ends it."""
    return add_source(registry, Workers, (name, pool))
