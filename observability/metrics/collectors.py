"""The metrics of one side on one registry, and the series of each method."""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import grpc
import prometheus_client
from google.protobuf import descriptor_pool
from opentelemetry.trace import TraceFlags
from prometheus_client import values

from ..calls.method import METHOD_LIMIT, arity
from ..calls.status import SERVER_FAULTS
from ..settings import SettingError
from ..threads.finalizers import finalizers
from ..threads.process import ForkLock, at_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from prometheus_client.metrics_core import Metric
    from prometheus_client.registry import CollectorRegistry

    from ..calls.call import Call, Kind, Outcome
    from ..calls.method import Method

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""Upper bounds of the latency histograms' buckets, in seconds."""
# A histogram is 17 series a code. These are what grpc itself ends calls with, and what most services refuse with.
LIKELY_CODES: Final = SERVER_FAULTS | {
    grpc.StatusCode.OK,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INVALID_ARGUMENT,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
}
"""The codes under which a declared method's latency exists at zero, so that rate() sees the first such call."""
CALL_STARTED: Final = 0
HANDLER_STARTED: Final = 1
HANDLER_ENDED: Final = 2
APPLY_AFTER: Final = 100
"""
How many starts, and starts and ends of handlers, wait before they are added to a metric, unless a scrape comes.

In multiprocess mode, where a scrape may ask another process, none waits.
"""
_FOLDERS: Final = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""The variables that turn on prometheus_client's multiprocess mode; it takes the first."""
_LABELS: Final = ("grpc_type", "grpc_service", "grpc_method")
_UNKNOWN: Final = ("unary", "unknown", "unknown")
_FINALIZERS_SECONDS: Final = 0.5


class WithoutCreated:
    """
    A metric as a collector that leaves out the `_created` series.

    They say when a series began, but Prometheus 3 reads them behind a feature flag alone, and else keeps each as a
    series more. What is declared begins at zero instead.

    `fold` adds to the metric what has been noted for it.
    """

    def __init__(self, metric: prometheus_client.metrics.MetricWrapperBase, apply_pending: Callable[[], None]) -> None:
        self._metric = metric
        self._apply_pending = apply_pending

    def describe(self) -> Iterable[Metric]:
        """Return the names that are taken."""
        return self._metric.describe()

    def collect(self) -> Iterator[Metric]:
        """Give the samples; a scrape may ask for this metric alone (`?name[]=`)."""
        self._apply_pending()
        for metric in self._metric.collect():
            metric.samples = [sample for sample in metric.samples if not sample.name.endswith("_created")]
            yield metric


class _PreScrape:
    """A collector without samples, registered before the others: what is to be done before a scrape."""

    def __init__(self) -> None:
        self.hooks: list[Callable[[], object]] = []

    def describe(self) -> Iterable[Metric]:
        """Return no names: it has no samples."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """Do what is to be done."""
        finalizers.flush(_FINALIZERS_SECONDS)
        for hook in self.hooks:
            hook()
        return ()


class Series:
    """The children of one method on one side."""

    def __init__(self, metrics: Metrics, labels: tuple[str, str, str]) -> None:
        self._metrics = metrics
        self._labels = labels
        self._outcomes: dict[grpc.StatusCode, tuple[Any, Any]] = {}
        self.started = metrics.started.labels(*labels)
        self.received = metrics.received.labels(*labels)
        self.sent = metrics.sent.labels(*labels)
        self.in_flight = metrics.in_flight.labels(*labels)
        self._moves: deque[int] = deque()
        self._inherited = False
        """Whether the gauges are still those of the process that this one was forked from."""
        self.record: Callable[[int], None] = self._record_at_once if metrics.multiprocess else self._moves.append
        """Note that a call started, or its handler started or ended: what happens on a call's way costs the most."""
        if metrics.kind == "server":
            self.queue = metrics.queue.labels(*labels)
            self.running = metrics.running.labels(*labels)

    def _record_at_once(self, what: int) -> None:
        self._moves.append(what)
        self.apply_pending()

    def apply_pending(self) -> None:
        """Add what was noted to the metrics: before each look at them, and when it has become much."""
        with self._metrics.lock:
            if self._inherited:
                self._begin()
            moves = [self._moves.popleft() for _ in range(len(self._moves))]
            if not moves:
                return
            started = moves.count(CALL_STARTED)
            self.started.inc(started)
            self.in_flight.inc(started)
            if self._metrics.kind == "server":
                self.running.inc(moves.count(HANDLER_STARTED) - moves.count(HANDLER_ENDED))

    def count(self, code: grpc.StatusCode, calls: list[tuple[Call, Outcome]]) -> None:
        """Count and time calls that ended with this code, oldest first."""
        with self._metrics.lock:
            self._count(code, calls)

    def _count(self, code: grpc.StatusCode, calls: list[tuple[Call, Outcome]]) -> None:
        if self._inherited:
            self._begin()
        handled, handling = self._outcome(code)
        self.in_flight.dec(len(calls))
        handled.inc(len(calls))
        self.received.inc(sum(outcome.received for _, outcome in calls))
        self.sent.inc(sum(outcome.sent for _, outcome in calls))
        # Of the exemplars in a bucket only the newest is kept.
        buckets = [bisect_left(self._metrics.buckets, outcome.seconds) for _, outcome in calls]
        newest = {bucket: call for bucket, (call, _) in zip(buckets, calls, strict=True) if _is_sampled(call)}
        for bucket, (call, outcome) in zip(buckets, calls, strict=True):
            if call.queue_seconds is not None:
                self.queue.observe(call.queue_seconds)
            exemplar = None
            if newest.get(bucket) is call:
                exemplar = {"trace_id": call.trace_id, "span_id": call.span_id}
            handling.observe(outcome.seconds, exemplar)
        if len(self._moves) > APPLY_AFTER:
            self.apply_pending()

    def _outcome(self, code: grpc.StatusCode) -> tuple[Any, Any]:
        """Return the counter and the histogram of this method's calls that end with this code."""
        pair = self._outcomes.get(code)
        if pair is None:
            labels = (*self._labels, code.name)
            pair = self._metrics.handled.labels(*labels), self._metrics.handling.labels(*labels)
            self._outcomes[code] = pair
        return pair

    def preinitialize(self) -> None:
        """Let the series exist at zero: handled under every code, the histogram under the likely ones."""
        for code in grpc.StatusCode:
            if code in LIKELY_CODES:
                self._outcome(code)
            else:
                self._metrics.handled.labels(*self._labels, code.name)

    def forked(self) -> None:
        """Let no call go on here: those of the process that this one was forked from go on there."""
        self._moves.clear()
        self._inherited = True

    def _begin(self) -> None:
        self._inherited = False
        self.in_flight.set(0)
        if self._metrics.kind == "server":
            self.running.set(0)


class Metrics:
    """
    One side's metrics on one registry, and the series of its methods: the declared, and 1,000 more.

    `lock` is held while they change: no fork then finds prometheus_client's locks held by us.
    """

    def __init__(self, registry: CollectorRegistry, kind: Kind, buckets: Sequence[float]) -> None:
        self.kind = kind
        self.buckets = sorted(buckets)
        self.multiprocess = _is_multiprocess()
        self.lock = ForkLock()
        self._series: dict[tuple[str, str, str], Series] = {}
        self._remaining_series = METHOD_LIMIT
        self.pre_scrape = _PreScrape()
        registry.register(self.pre_scrape)

        def register(metric: Any) -> Any:
            registry.register(WithoutCreated(metric, self._apply_pending))
            return metric

        def counter(name: str, text: str, labels: tuple[str, ...] = _LABELS) -> Any:
            return register(prometheus_client.Counter(f"grpc_{kind}_{name}", text, labels, registry=None))

        def histogram(name: str, text: str, labels: tuple[str, ...] = _LABELS) -> Any:
            return register(
                prometheus_client.Histogram(f"grpc_{kind}_{name}", text, labels, registry=None, buckets=buckets)
            )

        def gauge(name: str, text: str) -> Any:
            # Of processes that live: what a process was doing when it was killed is not going on.
            return register(
                prometheus_client.Gauge(
                    f"grpc_{kind}_{name}", text, _LABELS, registry=None, multiprocess_mode="livesum"
                )
            )

        coded = (*_LABELS, "grpc_code")
        self.started = counter("started", "Calls started.")
        self.handled = counter("handled", "Calls ended, by their status code.", coded)
        self.handling = histogram("handling_seconds", "From a call's first sight to its true end.", coded)
        self.received = counter("msg_received", "Messages handed to the application.")
        self.sent = counter("msg_sent", "Messages handed to grpc.")
        self.in_flight = gauge("in_flight", "Calls going on.")
        if kind == "server":
            self.queue = histogram("queue_seconds", "From a call's first sight to its handler's start.")
            self.running = gauge("handlers_running", "Handlers running; one may outlive its call.")
        at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        if not self.multiprocess:  # where each process begins with its own values
            for series in self._series.values():
                series.forked()

    def _apply_pending(self) -> None:
        for series in [*self._series.values()]:
            series.apply_pending()

    def preinitialize(self, services: Iterable[str]) -> None:
        """Let the methods of these services exist at zero, and always under their own names."""
        for name in services:
            for labels in _methods_of(name):
                with self.lock:
                    series = self._series.get(labels)
                    if series is None:
                        series = self._series[labels] = Series(self, labels)
                series.preinitialize()

    def series(self, method: Method) -> Series:
        """Find a method's series; what is unknown or too many shares one."""
        labels = (method.type, method.service, method.name) if method.registered else _UNKNOWN
        return self._series.get(labels) or self._add(labels)

    def _add(self, labels: tuple[str, str, str]) -> Series:
        with self.lock:
            if labels not in self._series and labels != _UNKNOWN:
                if not self._remaining_series:
                    labels = _UNKNOWN
                else:
                    self._remaining_series -= 1
            if labels not in self._series:
                # A lone surrogate in a label would break every scrape.
                clean = [label.encode("utf-8", "replace").decode() for label in labels]
                self._series[labels] = Series(self, (clean[0], clean[1], clean[2]))
            return self._series[labels]


def _is_multiprocess() -> bool:
    """Return whether prometheus_client keeps values in files, for all processes: it decides so when imported."""
    return bool(getattr(values.ValueClass, "_multiprocess", False))


def check_multiprocess() -> None:
    """Raise SettingError where prometheus_client is to keep its values in a folder that cannot be written."""
    if not _is_multiprocess():
        return
    import tempfile  # noqa: PLC0415 - only where it is needed

    name = next((name for name in _FOLDERS if name in os.environ), _FOLDERS[0])
    folder = os.environ.get(name, "")
    with contextlib.suppress(OSError):
        if folder:
            tempfile.TemporaryFile(dir=folder).close()
            return
    raise SettingError(name, folder, "a folder that can be written")


def _methods_of(service: str) -> Iterator[tuple[str, str, str]]:
    try:
        found = descriptor_pool.Default().FindServiceByName(service)
    except KeyError:
        raise ValueError(f"service {service!r} is not known: import its _pb2 module first") from None
    for method in found.methods:
        type_ = arity(request_streaming=method.client_streaming, response_streaming=method.server_streaming)
        yield type_, service, method.name


_KINDS: Final[tuple[Kind, Kind]] = ("server", "client")
_registries: weakref.WeakKeyDictionary[CollectorRegistry, dict[Kind, Metrics]] = weakref.WeakKeyDictionary()
_registries_lock: Final = threading.Lock()


def _is_sampled(call: Call) -> bool:
    return call.span_context is not None and bool(call.span_context.trace_flags & TraceFlags.SAMPLED)


def metrics_of(registry: CollectorRegistry, buckets: Sequence[float] = BUCKETS) -> dict[Kind, Metrics]:
    """Return both sides' metrics on this registry; the first call decides their buckets."""
    with _registries_lock:
        metrics = _registries.get(registry)
        if metrics is None:
            metrics = {kind: Metrics(registry, kind, buckets) for kind in _KINDS}
            _registries[registry] = metrics
        return metrics
