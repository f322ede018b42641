"""Sends spans on: the tracer provider that the environment describes, and its bounded end."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Final

from opentelemetry import metrics, trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from ..redaction import secrets_of_headers
from ..threads.worker import BatchWorker
from .answers import Answers
from .delivery import CountingProcessor, SpanDelivery
from .proxies import grpc_proxy, host_of, is_inner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.sdk.trace.export import SpanExporter

BATCH_SIZE: Final = 256
"""Spans per export unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE is set: encoding 512 holds the interpreter for 13 ms."""
QUEUE_SIZE: Final = 2048
_REQUESTS: Final = 16
_END_SECONDS: Final = 0.1

_logger = logging.getLogger("observability")
# They report every batch that fails, or a header in full; SpanDelivery reports once, and settings.py without secrets.
_NOISY_LOGGERS: Final = (
    "opentelemetry.exporter.otlp.common.http",
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.http.transport",
    "opentelemetry.sdk._shared_internal",
    "opentelemetry.util.re",
)


def _call_all(actions: Iterable[Callable[[], None]]) -> None:
    for action in actions:
        action()


class Tracing:
    """The provider that spans come from, and its end; `processor` and `delivery` are None where nothing is sent."""

    def __init__(self, provider: trace.TracerProvider, *, owned: bool = False) -> None:
        self.provider = provider
        self.processor: CountingProcessor | None = None
        self.delivery: SpanDelivery | None = None
        self._owned = owned
        self._waits = BatchWorker(_call_all, name="observability-delivery", delay=0.0, limit=_REQUESTS)

    def flush(self, seconds: float) -> bool:
        """Send the spans that wait, for this long at most; return whether none was refused, and none waits."""
        lost = self.delivery and self.delivery.lost
        return self._within(seconds, "force_flush") and lost == (self.delivery and self.delivery.lost)

    def close(self, seconds: float) -> None:
        """Send the spans that wait, for this long at most; the next time, do nothing."""
        if self._owned:
            self._owned = False
            if self.processor is not None:
                self.processor.begin_end()
            ended = self._within(seconds, "shutdown")
            if self.processor is not None:
                self.processor.end()
            if not ended:
                return
        self._waits.close(_END_SECONDS)

    def _within(self, seconds: float, method: str) -> bool:
        """
        Call this of the provider, and wait for so long at most; return whether it has returned.

        It has no bound itself (opentelemetry-python#4568), so it is called in a thread that may be left behind. That
        runs already: Python 3.12 starts none at the end of a process.
        """
        if not isinstance(self.provider, TracerProvider):
            return True
        returned = threading.Event()

        def call() -> None:
            try:
                getattr(self.provider, method)()
            except Exception:
                _logger.exception("the tracer provider's %s failed", method)
            returned.set()

        return self._waits.put(call) and returned.wait(seconds)


def service_attributes(name: str, version: str | None) -> dict[str, str]:
    """Return service.name and service.version: the environment's, else these."""
    found = OTELResourceDetector().detect().attributes
    name = str(found.get("service.name", "")).strip() or name
    version = str(found.get("service.version", "")).strip() or version
    return {"service.name": name, **({"service.version": version} if version else {})}


def configure_tracing(attributes: dict[str, str]) -> Tracing:
    """
    Make the tracer provider that the environment describes, or take the global one where there is one already.

    Call it within standard_settings, which leaves invalid values out.
    """
    present = trace.get_tracer_provider()
    if not isinstance(present, trace.ProxyTracerProvider):
        return Tracing(present)
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing(trace.NoOpTracerProvider())
    for name in _NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    # The one of now: to be asked for later, it would read a variable again that may have an invalid value.
    meters = metrics.get_meter_provider()
    resource = Resource.create(dict(attributes))
    provider = TracerProvider(resource=resource, shutdown_on_exit=False, meter_provider=meters)
    tracing = Tracing(provider, owned=True)
    wanted = {part.strip() for part in (os.environ.get("OTEL_TRACES_EXPORTER") or "otlp").lower().split(",")}
    if "none" not in wanted:
        if "console" in wanted:
            provider.add_span_processor(SimpleSpanProcessor(ConsoleSpanExporter(out=sys.stderr)))
        if "otlp" in wanted:
            tracing.delivery = _otlp_delivery()
            tracing.processor = _batching(tracing.delivery)
            provider.add_span_processor(tracing.processor)
    trace.set_tracer_provider(provider)
    return tracing


def _batching(delivery: SpanDelivery) -> CountingProcessor:
    queue_size = int(os.environ.get("OTEL_BSP_MAX_QUEUE_SIZE") or QUEUE_SIZE)
    batch_size = int(os.environ.get("OTEL_BSP_MAX_EXPORT_BATCH_SIZE") or min(BATCH_SIZE, queue_size))
    return CountingProcessor(delivery, queue_size, batch_size)


def _otlp(name: str, default: str) -> str:
    variables = (f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}")
    return next((value for variable in variables if (value := os.environ.get(variable))), default)


def _otlp_delivery() -> SpanDelivery:
    # Each exporter is imported where it is used: together they take longer than the client's own call.
    if _otlp("PROTOCOL", "grpc").lower() == "http/protobuf":
        try:
            from .otlp_http import HttpExporter, http_proxy  # noqa: PLC0415 - see above
        except ImportError:
            _logger.warning(
                "OTEL_EXPORTER_OTLP_PROTOCOL='http/protobuf' needs the extra http, which is not installed: grpc is used"
            )
        else:
            return _delivery(HttpExporter, "http://localhost:4318", http_proxy)
    from .otlp_grpc import GrpcExporter  # noqa: PLC0415 - see above

    return _delivery(GrpcExporter, "http://localhost:4317", lambda endpoint: grpc_proxy(host_of(endpoint)))


def _delivery(
    make_exporter: Callable[..., SpanExporter], default_endpoint: str, proxy_of: Callable[[str], str]
) -> SpanDelivery:
    endpoint = _otlp("ENDPOINT", default_endpoint)
    inner = is_inner(host_of(endpoint))
    answers = Answers()
    return SpanDelivery(
        make_exporter(answers, direct=inner),
        endpoint,
        answers=answers,
        proxy="" if inner else proxy_of(endpoint),
        secrets=secrets_of_headers(_otlp("HEADERS", "")),
    )
