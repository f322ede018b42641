"""Where spans are sent: an OTLP/gRPC endpoint that counts them, or one that takes every batch and never answers."""

from __future__ import annotations

import argparse
import os
import threading
from concurrent.futures import ThreadPoolExecutor

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)

from .process import pin
from .wire import Wire


class Receiver(TraceServiceServicer):
    """Counts the spans that arrive. One that is `hung` keeps every sender waiting until the end."""

    def __init__(self, *, hung: bool) -> None:
        self.spans = 0
        self.over = threading.Event()
        self._hung = hung
        self._lock = threading.Lock()

    def Export(  # noqa: N802 - the RPC's name
        self, request: ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Take one batch."""
        if self._hung:
            self.over.wait()
        with self._lock:
            self.spans += sum(len(s.spans) for r in request.resource_spans for s in r.scope_spans)
        return ExportTraceServiceResponse()


def main() -> None:
    """Receive until the benchmark has gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--wire", type=int, required=True)
    parser.add_argument("--hung", action="store_true")
    parser.add_argument("--core", type=int)
    options = parser.parse_args()
    pin(options.core)
    receiver = Receiver(hung=options.hung)
    server = grpc.server(ThreadPoolExecutor(16))
    add_TraceServiceServicer_to_server(receiver, server)  # type: ignore[no-untyped-call]  # generated
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    wire = Wire.inherited(options.wire)
    wire.send({"port": port})
    wire.answer({"spans": lambda: receiver.spans})
    os._exit(0)  # a client that still waits for an answer is about to end as well


if __name__ == "__main__":
    main()
