"""
Where tests have their spans sent: OTLP/gRPC endpoints, well and unwell.

``with Receiver() as receiver`` listens on a free port; ``receiver.endpoint`` is what
``OTEL_EXPORTER_OTLP_ENDPOINT`` needs. Then ``receiver.wait_for(4, trace_id=…)`` waits for four spans of a
trace, and ``receiver.spans()`` tells what has arrived. `client.spans.Span` says what a span is.
"""

import threading
from types import TracebackType

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from client.collector import Collector
from client.spans import Event, Span

__all__ = ["Event", "HungReceiver", "Receiver", "Span"]

Receiver = Collector


class HungReceiver(Collector):
    """Takes every batch and never answers, until its end."""

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        super().__init__(address)
        self._over = threading.Event()

    def Export(  # noqa: N802 - the RPC's name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Keep the spans of one batch, and leave its sender waiting."""
        response = super().Export(request, context)
        self._over.wait()
        return response

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        super().__exit__(kind, error, trace)
