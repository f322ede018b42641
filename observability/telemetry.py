"""From the environment to the three signals, and their bounded end."""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from typing import TYPE_CHECKING, Any, Final, Literal, Self, TextIO, overload

import grpc
import grpc.aio
import prometheus_client
import structlog

from .address import is_reachable
from .calls.batch_reporter import BatchReporter
from .client.aio_channel import AioObservedChannel
from .client.aio_interceptors import aio_client_interceptors
from .client.channel import ObservedChannel
from .logs.observer import log_observer
from .logs.setup import call_logger, configure_logging
from .metrics.collectors import check_multiprocess
from .metrics.endpoint import MetricsEndpoint
from .metrics.observer import add_pre_scrape_hook, measure_calls
from .metrics.self_metrics import report_losses
from .metrics.workers import measure_workers
from .server.interceptors import AioServerInterceptor, ServerInterceptor
from .settings import (
    STANDARD,
    TRACING,
    SettingError,
    Settings,
    excluded_services,
    metrics_address,
    metrics_certificates,
    standard_settings,
)
from .threads.pool import WorkerPool
from .threads.process import at_fork, before_exit
from .traces.contrib import Contrib, adopt_current_span
from .traces.observer import default_filter, trace_calls, without_services
from .traces.provider import configure_tracing, service_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from types import TracebackType

    from prometheus_client.registry import CollectorRegistry

    from .calls.observer import Observer
    from .logs.limit import LineLimit
    from .logs.writer import LogWriter
    from .traces.provider import Tracing

_logger = logging.getLogger("observability")
_OPEN_METRICS: Final = (
    "/metrics without TLS, at an address beyond loopback: whoever reaches it, or is on the way, can read it"
)
_NOT_AROUND_AIO: Final = "for a grpc.aio channel that is made already: make it with aio_client_interceptors"


class Telemetry:
    """
    The three signals of one process, as the environment wants them; start it once.

    `tracing`, `registry`, `reporter` and `log_writer` are what it is made of: the last is None with logging=False.
    """

    def __init__(  # noqa: PLR0913 - what it is made of; start puts it together
        self,
        *,
        tracing: Tracing,
        registry: CollectorRegistry,
        log_writer: LogWriter | None,
        line_limit: LineLimit,
        reporter: BatchReporter,
        contrib: Contrib | None,
        flush_seconds: float,
    ) -> None:
        self.tracing = tracing
        self.registry = registry
        self.log_writer = log_writer
        self.services: tuple[str, ...] = ()
        self.metrics_address: str | None = None
        self.reporter = reporter
        self._line_limit = line_limit
        self._contrib = contrib
        self._flush_seconds = flush_seconds
        self._on_close = contextlib.ExitStack()
        self._endpoint: MetricsEndpoint | None = None
        self._on_close.callback(add_pre_scrape_hook(registry, reporter.flush))

    @classmethod
    def start(  # noqa: PLR0913 - the settings of a process, each by name
        cls,
        service_name: str,
        *,
        log_name: str | None = None,
        version: str | None = None,
        metrics_port: int | None = None,
        serve_metrics: bool = True,
        registry: CollectorRegistry = prometheus_client.REGISTRY,
        services: Iterable[str] = (),
        client_services: Iterable[str] = (),
        filter_: Callable[[Any], bool] | None = None,
        observers: Iterable[Observer] = (),
        logging: bool | Literal["calls"] = True,
        log_stream: TextIO | None = None,
        log_level: str | None = None,
        flush_seconds: float = 1.0,
    ) -> Self:
        """
        Set up logs, metrics and traces as the environment says, for a process called `service_name`.

        `log_name` is `service=` of its log lines, the service name unless given; `version` its service.version.
        `metrics_port` is where /metrics listens, 0 for a free port; the environment overrides it and the name, and
        without a port from either, or with serve_metrics=False, nothing listens. `registry` holds the metrics.
        The methods of `services` and `client_services`, full names, exist at zero. `filter_` is one of
        opentelemetry.instrumentation.grpc.filters; what it refuses has no span. `observers` are further ones, which
        see the ids of the span, and the end of each call after its line and counts. logging=False leaves structlog and
        `logging` as they are, and the calls' lines go to structlog's logger; with "calls" these are left too, and the
        calls' lines alone go to `log_stream`; else all lines do. That is stdout unless given, from `log_level` on where
        LOG_LEVEL is not set: through its `write`, unless it is a plain stream of UTF-8 over a file. `flush_seconds`
        bounds what close waits for.

        Raises SettingError for an invalid value of our own variables, files that do not do for TLS among them, and of
        PROMETHEUS_MULTIPROC_DIR, ListenError where the metrics port cannot be had, and ValueError for a service that no
        imported module defines.
        """
        settings = Settings.read(log_level=log_level if logging else None)
        check_multiprocess()
        name = log_name or service_name
        logger, writer = structlog.get_logger(), None
        if logging:
            stream = log_stream or sys.stdout
            if logging == "calls":
                logger, writer = call_logger(
                    name, log_format=settings.log_format, level=settings.log_level, stream=stream
                )
            else:
                writer = configure_logging(
                    name, log_format=settings.log_format, level=settings.log_level, stream=stream
                )
        services = tuple(services)
        with standard_settings(STANDARD if serve_metrics else TRACING):
            attributes = service_attributes(service_name, version)
            tracing = configure_tracing(attributes)
            wanted = without_services(filter_, excluded_services())
            contrib = Contrib(tracing.provider, wanted or default_filter()) if settings.is_contrib else None
            spans = adopt_current_span(contrib.filter) if contrib else trace_calls(tracing.provider, None, wanted)
            lines = log_observer(logger.bind(service=name), settings.log_calls, settings.log_baggage)
            reporter = BatchReporter(
                measure_calls(registry, services, client_services=client_services),
                lines,
                *observers,
                at_once=[spans],
            )
            telemetry = cls(
                tracing=tracing,
                registry=registry,
                log_writer=writer,
                line_limit=lines.limit,
                reporter=reporter,
                contrib=contrib,
                flush_seconds=flush_seconds,
            )
            telemetry.services = services
            telemetry._describe(attributes)
            if serve_metrics:
                telemetry.serve_metrics(metrics_port)
        at_fork(after_in_child=telemetry._leave_metrics)
        telemetry._on_close.callback(before_exit(telemetry.close))
        _running.append(telemetry)
        telemetry._on_close.callback(_running.remove, telemetry)
        return telemetry

    def server_interceptors(self) -> list[grpc.ServerInterceptor]:
        """Return what reports the calls of a grpc.server; put HideExceptions before it."""
        ours = ServerInterceptor(self.reporter)
        return [self._contrib.server(), ours] if self._contrib else [ours]

    def aio_server_interceptors(self) -> list[grpc.aio.ServerInterceptor]:
        """Return what reports the calls of a grpc.aio.server; put AioHideExceptions before it."""
        ours = AioServerInterceptor(self.reporter)
        return [self._contrib.aio_server(), ours] if self._contrib else [ours]

    def worker_pool(self, max_workers: int, name: str = "calls") -> WorkerPool:
        """
        Return a pool of threads for a grpc.server, or as migration_thread_pool for a grpc.aio.server.

        How many of its threads are busy is in `grpc_server_busy_workers` under this name, until close.
        """
        pool = WorkerPool(max_workers, name)
        self._on_close.callback(measure_workers(self.registry, name, pool))
        return pool

    @overload
    def intercept_channel(self, channel: grpc.Channel, *, target: str | None = None) -> grpc.Channel: ...
    @overload
    def intercept_channel(self, channel: grpc.aio.Channel, *, target: str | None = None) -> grpc.aio.Channel: ...
    def intercept_channel(self, channel: Any, *, target: str | None = None) -> Any:
        """
        Return this channel, of grpc or grpc.aio, its calls reported; `target` is its address, which grpc does not show.

        Raises SettingError for a channel of grpc.aio with OBSERVABILITY_TRACES=contrib: the official interceptors are
        for its making alone, as aio_client_interceptors gives them.
        """
        if isinstance(channel, grpc.aio.Channel):
            if self._contrib:
                raise SettingError("OBSERVABILITY_TRACES", "contrib", _NOT_AROUND_AIO)
            return AioObservedChannel(channel, self.reporter, target=target)
        ours = ObservedChannel(channel, self.reporter, target=target)
        return self._contrib.intercept_channel(ours) if self._contrib else ours

    def aio_client_interceptors(self, *, target: str | None = None) -> list[grpc.aio.ClientInterceptor]:
        """Return what reports the calls of a grpc.aio channel; `target` is its address."""
        ours = aio_client_interceptors(self.reporter, target=target)
        return [*self._contrib.aio_clients(), *ours] if self._contrib else ours

    def flush(self, seconds: float = 1.0) -> bool:
        """
        Report, send and write all that has ended until now, for this many seconds at most.

        Returns whether all of it is out; False also where spans were refused. A process that ends by os._exit or by a
        signal calls it, or each of its jobs does.
        """
        deadline = time.monotonic() + seconds
        out = self.reporter.flush(seconds)
        out &= self.tracing.flush(max(0.0, deadline - time.monotonic()))
        out &= self._line_limit.flush(max(0.0, deadline - time.monotonic()))
        if self.log_writer is not None:
            out &= self.log_writer.flush(max(0.0, deadline - time.monotonic()))
        return out

    def close(self) -> None:
        """
        Send and write what waits, for `flush_seconds` at most, and stop listening; again, it does nothing.

        Called at the end of the process, and of the processes forked from it, as far as they can do anything then.
        """
        with self._on_close.pop_all():
            deadline = time.monotonic() + self._flush_seconds
            self.reporter.close(self._flush_seconds)
            self.tracing.close(max(0.0, deadline - time.monotonic()))
            self._line_limit.flush(max(0.05, deadline - time.monotonic()))
            if self.log_writer is not None:
                self.log_writer.flush(max(0.05, deadline - time.monotonic()))

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def _describe(self, attributes: dict[str, str]) -> None:
        """Let /metrics name the service and its version, and report what telemetry itself has lost."""
        if self.registry.get_target_info() is None:
            self.registry.set_target_info({key.replace(".", "_"): value for key, value in attributes.items()})
        losses = report_losses(
            self.registry, self.tracing.processor, self.tracing.delivery, self.log_writer, self._line_limit
        )
        self._on_close.callback(losses)

    def serve_metrics(self, port: int | None) -> None:
        """
        Let /metrics listen at this port, unless the environment says another; without either, nowhere.

        Raises ListenError where it cannot be had, and SettingError for files that do not do for TLS.
        """
        host, wanted = metrics_address(port)
        if wanted is None:
            return
        certificates = metrics_certificates()
        endpoint = MetricsEndpoint(self.registry, host, wanted, certificates)
        self._endpoint = endpoint
        self.metrics_address = endpoint.address
        _logger.info("metrics", extra={"address": self.metrics_address})
        if certificates is None and is_reachable(self.metrics_address):
            _logger.warning(_OPEN_METRICS, extra={"address": self.metrics_address})
        self._on_close.callback(endpoint.close)

    def _leave_metrics(self) -> None:
        """Leave /metrics to the parent; a forked process's copy of its socket would keep the port."""
        if self._endpoint is not None:
            self._endpoint.close()
        self._endpoint = self.metrics_address = None


_running: Final[list[Telemetry]] = []


def running() -> Telemetry | None:
    """Return the telemetry that was started last and is not closed, or None."""
    return _running[-1] if _running else None
