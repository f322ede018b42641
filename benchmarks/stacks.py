"""What is put on a server or a channel: nothing, ours, or one of the peers."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation import grpc as _instrumentation
from opentelemetry.instrumentation.grpc import grpcext
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry
from py_grpc_prometheus.prometheus_server_interceptor import (  # type: ignore[import-untyped]  # it has none
    PromServerInterceptor,
)

from observability import LifecycleObserver, ServerInterceptor, Telemetry, measure_calls

from .echo import SERVICE
from .peers import CallLogger

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .variants import Variant

NAME = "benchmark"
_OFFICIAL: Any = _instrumentation
"""OpenTelemetry's package, whose functions have no types."""


def _as_it_is(channel: Any) -> Any:
    return channel


def _none() -> int:
    return 0


def _at_once() -> None:
    return


@dataclass(frozen=True, slots=True)
class Instruments:
    """A stack, built for one process."""

    interceptors: Sequence[Any] = ()
    """Of a server, or of an asyncio channel."""
    intercept_channel: Callable[[Any], Any] = _as_it_is
    """Puts the stack on a sync channel."""
    handled: Callable[[], int] = _none
    """How many calls its metrics say were handled."""
    flush: Callable[[], object] = _at_once
    """Sends what was not sent yet, and returns when the receiver has it."""


def build(variant: Variant, target: str | None = None) -> Instruments:
    """Build a variant's stack. `target` is what a client's channel leads to."""
    return _BUILDERS[variant.stack](variant, target)


def _bare(_variant: Variant, _target: str | None) -> Instruments:
    return Instruments()


def _ours(variant: Variant, target: str | None) -> Instruments:
    registry = CollectorRegistry()
    telemetry = Telemetry.start(NAME, registry=registry, services=[SERVICE], client_services=[SERVICE])
    provider: Any = trace.get_tracer_provider()
    interceptors: dict[str, Callable[[], Sequence[Any]]] = {
        "server sync": telemetry.server_interceptors,
        "server aio": telemetry.aio_server_interceptors,
        "client sync": list,
        "client aio": lambda: telemetry.aio_client_interceptors(target=target),
    }
    return Instruments(
        interceptors[f"{variant.side} {variant.style}"](),
        lambda channel: telemetry.intercept_channel(channel, target=target),
        lambda: _handled(registry, variant),
        provider.force_flush,
    )


_OFF: dict[str, dict[str, str]] = {
    "ours-counts": {"OTEL_TRACES_EXPORTER": "none", "OBSERVABILITY_LOG_CALLS": "failed"},
    "ours-lines": {"OTEL_TRACES_EXPORTER": "none"},
    "ours-spans": {"OBSERVABILITY_LOG_CALLS": "failed"},
}
"""What leaves signals out."""


def _ours_in_part(variant: Variant, target: str | None) -> Instruments:
    os.environ |= _OFF[variant.stack]  # of a process that builds nothing else
    return _ours(variant, target)


def _ours_with_nothing(_variant: Variant, _target: str | None) -> Instruments:
    return Instruments([ServerInterceptor(LifecycleObserver())])


def _ours_metrics(variant: Variant, _target: str | None) -> Instruments:
    registry = CollectorRegistry()
    interceptor = ServerInterceptor(measure_calls(registry, services=[SERVICE]))
    return Instruments([interceptor], handled=lambda: _handled(registry, variant))


def _official(variant: Variant, _target: str | None) -> Instruments:
    """Set up what OpenTelemetry's own documentation shows: batches by OTLP/gRPC, all by its defaults."""
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    interceptors: dict[str, Callable[[], Sequence[Any]]] = {
        "server sync": lambda: [_OFFICIAL.server_interceptor(tracer_provider=provider)],
        "server aio": lambda: [_OFFICIAL.aio_server_interceptor(tracer_provider=provider)],
        "client sync": list,
        "client aio": lambda: _OFFICIAL.aio_client_interceptors(tracer_provider=provider),
    }
    return Instruments(
        interceptors[f"{variant.side} {variant.style}"](),
        lambda channel: grpcext.intercept_channel(  # type: ignore[no-untyped-call]  # it has no types
            channel, _OFFICIAL.client_interceptor(tracer_provider=provider)
        ),
        flush=provider.force_flush,
    )


def _assembled(variant: Variant, target: str | None) -> Instruments:
    registry = CollectorRegistry()
    official = _official(variant, target)
    metrics = PromServerInterceptor(enable_handling_time_histogram=True, registry=registry)
    return Instruments(
        [*official.interceptors, metrics, CallLogger(NAME)],
        handled=lambda: _handled(registry, variant),
        flush=official.flush,
    )


def _grpcio_observability(_variant: Variant, _target: str | None) -> Instruments:
    # Loaded here alone: it comes with a core of grpc's own, and is not there but for the benchmark.
    from grpc_observability import (  # type: ignore[import-not-found,unused-ignore]  # as above  # noqa: PLC0415
        OpenTelemetryPlugin,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - as above

    reader = InMemoryMetricReader()
    OpenTelemetryPlugin(meter_provider=MeterProvider(metric_readers=[reader])).register_global()

    def handled() -> int:
        """Count the observations of the server's durations."""
        data = reader.get_metrics_data()
        metrics = [m for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics] if data else []
        points = [p for m in metrics if m.name == "grpc.server.call.duration" for p in m.data.data_points]
        return sum(getattr(point, "count", 0) for point in points)

    return Instruments(handled=handled)


_BUILDERS: dict[str, Callable[[Variant, str | None], Instruments]] = {
    "bare": _bare,
    "ours": _ours,
    "ours-metrics": _ours_metrics,
    "official": _official,
    "assembled": _assembled,
    "grpcio-observability": _grpcio_observability,
    "ours-nothing": _ours_with_nothing,
    **dict.fromkeys(_OFF, _ours_in_part),
}


def _handled(registry: CollectorRegistry, variant: Variant) -> int:
    name = f"grpc_{variant.side}_handled_total"
    return int(sum(s.value for metric in registry.collect() for s in metric.samples if s.name == name))
