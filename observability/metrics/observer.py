"""Prometheus metrics under go-grpc-middleware's names, a series per method, and the port to scrape them from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..calls.observer import Signal
from .collectors import BUCKETS, ENTERED, LEFT, STARTED, Metrics, Series, check_multiprocess, metrics_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    import grpc
    from prometheus_client.registry import CollectorRegistry

    from ..calls.call import Call, Kind, Outcome
    from ..calls.observer import Observer
    from ..calls.observers import Ended


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
    metrics["server"].declare(services)
    metrics["client"].declare(client_services)

    return _Measured(metrics)


class _Measured(Signal):
    """Counts and times calls, each in the series of its method."""

    def __init__(self, metrics: dict[Kind, Metrics]) -> None:
        self._metrics = metrics

    def started(self, call: Call) -> Series:
        method = call.descriptor
        series: Series | None = method.notes.get(self)
        if series is None:
            series = method.notes[self] = self._metrics[call.kind].series(method)
        series.note(STARTED)
        return series

    def entered(self, _call: Call, state: Series) -> None:
        state.note(ENTERED)

    def left(self, _call: Call, state: Series) -> None:
        state.note(LEFT)

    def ended(self, call: Call, state: Series, outcome: Outcome) -> None:
        state.ended(outcome.code, [(call, outcome)])

    def all_ended(self, ended: Sequence[Ended]) -> None:
        groups: dict[tuple[Series, grpc.StatusCode], list[tuple[Call, Outcome]]] = {}
        for call, series, outcome in ended:
            groups.setdefault((series, outcome.code), []).append((call, outcome))
        for (series, code), calls in groups.items():
            series.ended(code, calls)


def before_scrapes(registry: CollectorRegistry, settle: Callable[[], None]) -> Callable[[], None]:
    """Do this before each scrape of the calls' metrics; return what ends it."""
    waiting = metrics_of(registry)["server"].settling.settle
    waiting.insert(0, settle)
    return lambda: waiting.remove(settle)
