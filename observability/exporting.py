"""Sends spans on: the tracer provider that the environment describes, and what is known of spans that are lost."""

from __future__ import annotations

import itertools
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any, Final

from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

BATCH_SIZE: Final = 256
"""Spans per export unless OTEL_BSP_MAX_EXPORT_BATCH_SIZE is set: encoding 512 holds the interpreter for 13 ms."""
QUEUE_SIZE: Final = 2048

_logger = logging.getLogger("observability")
# They tell of every batch that fails; SpanDelivery tells once.
_CHATTY: Final = (
    "opentelemetry.exporter.otlp.proto.grpc.exporter",
    "opentelemetry.exporter.otlp.proto.http.trace_exporter",
    "opentelemetry.exporter.http.transport",
    "opentelemetry.sdk._shared_internal",
)


class SpanDelivery(SpanExporter):
    """
    An exporter around the one that sends, which says once when spans stop arriving and once when they do again.

    `failures` counts the batches that failed, `lost` their spans, `handed` all spans that it was given.
    """

    def __init__(self, exporter: SpanExporter, endpoint: str) -> None:
        self.failures = 0
        self.lost = 0
        self.handed = 0
        self.delivered = 0
        self._exporter = exporter
        self._endpoint = endpoint
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send a batch; what it raises counts as a failure."""
        self.handed += len(spans)
        try:
            result = self._exporter.export(spans)
        except Exception:  # noqa: BLE001 - whatever an exporter raises, its spans are lost
            result = SpanExportResult.FAILURE
        if result is SpanExportResult.SUCCESS:
            self.delivered += len(spans)
            if self._failing:
                _logger.info("spans are exported again", extra={"endpoint_url": self._endpoint})
        else:
            self.failures += 1
            self.lost += len(spans)
            if not self._failing:
                _logger.warning("spans cannot be exported and are lost", extra={"endpoint_url": self._endpoint})
        self._failing = result is not SpanExportResult.SUCCESS
        return result

    def shutdown(self) -> None:
        """Close the connection."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what waits."""
        return self._exporter.force_flush(timeout_millis)


def _at_once() -> None:
    """Do nothing: no span waits to be ended."""


class CountingProcessor(BatchSpanProcessor):
    """
    A batch span processor that knows how many spans its full queue dropped.

    A span is dropped only while the queue is full, so what was ended, less what was handed on and what fits into
    the queue, has been dropped; the largest such number is the total. `before_flush` lets spans end that wait to.
    """

    def __init__(self, delivery: SpanDelivery, queue_size: int, batch_size: int) -> None:
        self.before_flush: Callable[[], None] = _at_once
        self._delivery = delivery
        self._queue_size = queue_size
        self._ended = itertools.count(1)
        self._overflow = 0
        super().__init__(delivery, max_queue_size=queue_size, max_export_batch_size=batch_size)

    def on_end(self, span: ReadableSpan) -> None:
        """Queue a span that has ended."""
        if span.context is None or not span.context.trace_flags.sampled:
            return
        overflow = next(self._ended) - self._delivery.handed - self._queue_size
        self._overflow = max(self._overflow, overflow)
        super().on_end(span)

    def force_flush(self, timeout_millis: int | None = None) -> bool:
        """Send what waits, and what waits to be told."""
        self.before_flush()
        return super().force_flush(timeout_millis)

    @property
    def dropped(self) -> int:
        """Spans that the full queue dropped or that a failed export lost."""
        return self._overflow + self._delivery.lost


class Tracing:
    """The provider that spans come from, and its end; `processor` and `delivery` are None where nothing is sent."""

    def __init__(self, provider: trace.TracerProvider, *, owned: bool = False) -> None:
        self.provider = provider
        self.processor: CountingProcessor | None = None
        self.delivery: SpanDelivery | None = None
        self._owned = owned

    def before_flush(self, settle: Callable[[], None]) -> None:
        """Do this before the provider sends what waits: there are spans that wait to be ended."""
        if self.processor is not None:
            self.processor.before_flush = settle

    def close(self, seconds: float) -> None:
        """Send the spans that wait, for this long at most."""
        if self._owned:
            # In a thread that may be left behind: a provider's own shutdown has no bound (opentelemetry-python#4568).
            thread = threading.Thread(target=self._shutdown, name="observability-shutdown", daemon=True)
            thread.start()
            thread.join(seconds)

    def _shutdown(self) -> None:
        try:
            if isinstance(self.provider, TracerProvider):
                self.provider.shutdown()
        except Exception:
            _logger.exception("the tracer provider's shutdown failed")


def service_attributes(name: str, version: str | None) -> dict[str, str]:
    """Tell service.name and service.version: the environment's, else these."""
    found = Resource.create({}).attributes
    environment = os.environ.get("OTEL_RESOURCE_ATTRIBUTES", "")
    attributes = {"service.name": name}
    if os.environ.get("OTEL_SERVICE_NAME") or "service.name=" in environment.replace(" ", ""):
        attributes["service.name"] = str(found["service.name"])
    version = str(found.get("service.version", "")) or version
    return {**attributes, "service.version": version} if version else attributes


def configure_tracing(attributes: dict[str, str]) -> Tracing:
    """
    Make the tracer provider that the environment describes, or take the global one where there is one already.

    Call it within standard_settings, which leaves bad values out.
    """
    present = trace.get_tracer_provider()
    if not isinstance(present, trace.ProxyTracerProvider):
        return Tracing(present)
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return Tracing(trace.NoOpTracerProvider())
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    provider = TracerProvider(resource=Resource.create(dict(attributes)), shutdown_on_exit=False)
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
    if _otlp("PROTOCOL", "grpc").lower() == "http/protobuf":
        exporter = _http_exporter()
        if exporter is not None:
            return SpanDelivery(exporter, _otlp("ENDPOINT", "http://localhost:4318"))
        _logger.warning(
            "OTEL_EXPORTER_OTLP_PROTOCOL='http/protobuf' needs the extra http, which is not installed: grpc is used"
        )
    from .encoding import CachingExporter  # noqa: PLC0415 - see below

    return SpanDelivery(CachingExporter(), _otlp("ENDPOINT", "http://localhost:4317"))


def _http_exporter() -> Any:
    # Each exporter is imported where it is used: together they take longer than the client's own call.
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    except ImportError:
        return None
    return OTLPSpanExporter()
