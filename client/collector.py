"""A collector of spans in the client's own process: an OTLP/gRPC endpoint that keeps what it is sent."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from client.spans import Span, spans_of


class Collector(TraceServiceServicer):
    """
    Keeps every span that it is sent, in order of arrival, from `with` to its end.

    It listens on a free port unless `address` says otherwise; `endpoint` is what exporters need.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self._arrived = threading.Condition()
        self._spans: list[Span] = []
        self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
        add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # it has no types
        host = address.rpartition(":")[0]
        self.port = self._server.add_insecure_port(address)
        self.endpoint = f"http://{host}:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.stop(None).wait()

    def Export(  # noqa: N802 - the RPC's name
        self, request: ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Keep the spans of one batch."""
        with self._arrived:
            self._spans.extend(spans_of(request))
            self._arrived.notify_all()
        return ExportTraceServiceResponse()

    def spans(self, trace_id: str | None = None) -> list[Span]:
        """Return what arrived so far, of one trace or of all."""
        with self._arrived:
            return [span for span in self._spans if trace_id in {None, span.trace_id}]

    def wait_for(
        self, enough: int | Callable[[list[Span]], bool], *, trace_id: str | None = None, timeout: float = 5.0
    ) -> list[Span]:
        """
        Wait until so many spans of the trace have arrived, or until they satisfy `enough`; return them.

        After `timeout` seconds return what has arrived: what is missing shows in it.
        """
        satisfied = enough if callable(enough) else lambda spans: len(spans) >= enough
        with self._arrived:
            self._arrived.wait_for(lambda: satisfied(self.spans(trace_id)), timeout)
            return self.spans(trace_id)
