"""Prometheus metrics under go-grpc-middleware's names, a series per method, and the port to scrape them from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calls.observer import LifecycleObserver
from .collectors import (
    BUCKETS,
    CALL_STARTED,
    HANDLER_ENDED,
    HANDLER_STARTED,
    Metrics,
    Series,
    check_multiprocess,
    metrics_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import grpc
    from prometheus_client.registry import CollectorRegistry

    from ..calls.call import Call, Kind, Outcome
    from ..calls.observer import EndedCall, Observer


def measure_calls(
    registry: CollectorRegistry,
    services: Iterable[str] = (),
    buckets: Sequence[float] = BUCKETS,
    *,
    client_services: Iterable[str] = (),
) -> Observer:
    """
    Count and time every call in this registry; a second time on the same registry shares its metrics.

    The methods of `services`, full names found in the default descriptor pool, exist at zero before the first
    call, and those of `client_services` on the client's side: handled under every code, the histogram under OK,
    CANCELLED, INVALID_ARGUMENT, RESOURCE_EXHAUSTED and the server's own faults. `buckets` are upper bounds in seconds;
    the first measure_calls of a registry decides them. Raises ValueError for a service that no imported module defines,
    and SettingError, which is one, where PROMETHEUS_MULTIPROC_DIR is no folder that can be written.
    """
    check_multiprocess()
    metrics = metrics_of(registry, buckets)
    metrics["server"].preinitialize(services)
    metrics["client"].preinitialize(client_services)

    return MetricsObserver(metrics)


class MetricsObserver(LifecycleObserver):
    """Counts and times calls, each in the series of its method."""

    def __init__(self, metrics: dict[Kind, Metrics]) -> None:
        self._metrics = metrics

    def on_start(self, call: Call) -> Series:
        """Count the call as started; return the series of its method."""
        method = call.descriptor
        series: Series | None = method.extensions.get(self)
        if series is None:
            series = method.extensions[self] = self._metrics[call.kind].series(method)
        series.record(CALL_STARTED)
        return series

    def on_handler_start(self, _call: Call, state: Series) -> None:
        """Count the handler as running."""
        state.record(HANDLER_STARTED)

    def on_handler_end(self, _call: Call, state: Series) -> None:
        """Count it as running no more."""
        state.record(HANDLER_ENDED)

    def on_end(self, call: Call, state: Series, outcome: Outcome) -> None:
        """Count and time the call."""
        state.count(outcome.code, [(call, outcome)])

    def on_end_batch(self, ended: Sequence[EndedCall]) -> None:
        """Count and time many calls, those of one method and code together."""
        groups: dict[tuple[Series, grpc.StatusCode], list[tuple[Call, Outcome]]] = {}
        for call, series, outcome in ended:
            groups.setdefault((series, outcome.code), []).append((call, outcome))
        for (series, code), calls in groups.items():
            series.count(code, calls)


def add_pre_scrape_hook(registry: CollectorRegistry, hook: Callable[[], object]) -> Callable[[], None]:
    """Do this before each scrape of the calls' metrics; return what ends it."""
    hooks = metrics_of(registry)["server"].pre_scrape.hooks
    hooks.insert(0, hook)
    return lambda: hooks.remove(hook)
