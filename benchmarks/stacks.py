"""What is put on a server or a channel: nothing, ours, or one of the peers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from prometheus_client import CollectorRegistry

from .echo import SERVICE

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .variants import Variant

NAME = "benchmark"


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
    from opentelemetry import trace  # noqa: PLC0415 - what a stack needs is loaded where it is measured alone

    from observability import Telemetry  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    telemetry = Telemetry.start(NAME, registry=registry, services=[SERVICE], client_services=[SERVICE])
    provider: Any = trace.get_tracer_provider()
    if variant.style == "sync":
        interceptors = telemetry.server_interceptors() if variant.side == "server" else []
    elif variant.side == "server":
        interceptors = telemetry.aio_server_interceptors()
    else:
        interceptors = telemetry.aio_client_interceptors(target=target)
    return Instruments(
        interceptors,
        lambda channel: telemetry.intercept_channel(channel, target=target),
        lambda: _handled(registry, variant),
        provider.force_flush,
    )


def _ours_metrics(variant: Variant, _target: str | None) -> Instruments:
    from observability import ServerInterceptor, measure_calls  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    interceptor = ServerInterceptor(measure_calls(registry, services=[SERVICE]))
    return Instruments([interceptor], handled=lambda: _handled(registry, variant))


def _official(variant: Variant, _target: str | None) -> Instruments:
    from opentelemetry.instrumentation import grpc as instrumentation  # noqa: PLC0415 - as above
    from opentelemetry.instrumentation.grpc import grpcext  # noqa: PLC0415 - as above

    provider = _provider()
    if variant.side == "server":
        make = (
            instrumentation.server_interceptor
            if variant.style == "sync"
            else instrumentation.aio_server_interceptor
        )
        return Instruments([make(tracer_provider=provider)], flush=provider.force_flush)
    if variant.style == "aio":
        return Instruments(
            instrumentation.aio_client_interceptors(tracer_provider=provider), flush=provider.force_flush
        )
    interceptor = instrumentation.client_interceptor(tracer_provider=provider)
    return Instruments(
        intercept_channel=lambda channel: grpcext.intercept_channel(channel, interceptor),
        flush=provider.force_flush,
    )


def _assembled(variant: Variant, target: str | None) -> Instruments:
    from py_grpc_prometheus.prometheus_server_interceptor import (  # type: ignore[import-untyped]  # it has none  # noqa: PLC0415 - as above
        PromServerInterceptor,
    )

    from .peers import CallLogger  # noqa: PLC0415 - as above

    registry = CollectorRegistry()
    official = _official(variant, target)
    metrics = PromServerInterceptor(enable_handling_time_histogram=True, registry=registry)
    return Instruments(
        [*official.interceptors, metrics, CallLogger(NAME)],
        handled=lambda: _handled(registry, variant),
        flush=official.flush,
    )


def _grpcio_observability(_variant: Variant, _target: str | None) -> Instruments:
    from grpc_observability import (  # type: ignore[import-not-found,unused-ignore]  # the benchmark's alone  # noqa: PLC0415 - as above
        OpenTelemetryPlugin,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - as above

    reader = InMemoryMetricReader()
    plugin = OpenTelemetryPlugin(meter_provider=MeterProvider(metric_readers=[reader]))
    plugin.register_global()

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
}


def _provider() -> TracerProvider:
    """Make what OpenTelemetry's own documentation shows: batches by OTLP/gRPC, all by its defaults."""
    provider = TracerProvider(resource=Resource.create({"service.name": NAME}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


def _handled(registry: CollectorRegistry, variant: Variant) -> int:
    name = f"grpc_{variant.side}_handled_total"
    return int(sum(s.value for metric in registry.collect() for s in metric.samples if s.name == name))
