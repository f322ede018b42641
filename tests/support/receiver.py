"""
Collectors for tests: OTLP endpoints that take spans, refuse them, or never answer.

`with Receiver() as receiver` listens on a free port; `receiver.endpoint` is what
`OTEL_EXPORTER_OTLP_ENDPOINT` needs. Then `receiver.wait_for(4, trace_id=…)` waits for four spans of a
trace, and `receiver.spans()` returns what has arrived, as `client.spans.Span`.
"""

import socketserver
import ssl
import tempfile
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import add_TraceServiceServicer_to_server

from client.collector import Collector
from client.spans import Event, Span, spans_of
from tests.support.certificate import CERTIFICATE, KEY

__all__ = [
    "AnsweringReceiver",
    "Event",
    "HttpAnswer",
    "HttpReceiver",
    "HungReceiver",
    "Proxy",
    "Receiver",
    "Span",
    "partial_success",
]

Receiver = Collector


class HungReceiver(Collector):
    """An endpoint that takes every batch and does not answer before its end."""

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


def partial_success(rejected: int, message: str) -> ExportTraceServiceResponse:
    """Return the answer of a collector that has not taken all, or has something to say."""
    response = ExportTraceServiceResponse()
    response.partial_success.rejected_spans = rejected
    response.partial_success.error_message = message
    return response


class AnsweringReceiver(Collector):
    """
    Answers each batch as `answer` says: with a response, or with a code and its text.

    With `secure` it speaks TLS, with a self-signed certificate.
    """

    def __init__(
        self, answer: ExportTraceServiceResponse | tuple[grpc.StatusCode, str] | None = None, *, secure: bool = False
    ) -> None:
        super().__init__()
        self.answer = answer or ExportTraceServiceResponse()
        self.batches = 0
        if secure:
            self._server = grpc.server(ThreadPoolExecutor(4), options=[("grpc.so_reuseport", 0)])
            add_TraceServiceServicer_to_server(self, self._server)  # type: ignore[no-untyped-call]  # it has no types
            credentials = grpc.ssl_server_credentials([(KEY.encode(), CERTIFICATE.encode())])
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
            self.endpoint = f"https://127.0.0.1:{self.port}"

    def Export(  # noqa: N802 - the RPC's name
        self, request: ExportTraceServiceRequest, context: grpc.ServicerContext
    ) -> ExportTraceServiceResponse:
        """Keep the spans of one batch, and answer as asked."""
        super().Export(request, context)
        with self._arrived:
            self.batches += 1
            self._arrived.notify_all()
        if isinstance(self.answer, tuple):
            context.abort(*self.answer)
        return self.answer


@dataclass(frozen=True)
class HttpAnswer:
    """What an OTLP/HTTP collector answers."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0


class _Listening:
    """A server in threads of this process, from `with` to its end."""

    def __init__(self, server: socketserver.BaseServer) -> None:
        self._server = server
        self.port = cast("tuple[str, int]", server.server_address)[1]

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


class HttpReceiver(_Listening):
    """An OTLP/HTTP endpoint that answers as `answer` says; with `secure` as AnsweringReceiver's."""

    def __init__(self, answer: HttpAnswer | None = None, *, secure: bool = False) -> None:
        self.answer = answer or HttpAnswer()
        self.paths: list[str] = []
        self._spans: list[Span] = []
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self._take))
        server.daemon_threads = True
        if secure:
            server.socket = _server_context().wrap_socket(server.socket, server_side=True)
        super().__init__(server)
        self.endpoint = f"{'https' if secure else 'http'}://127.0.0.1:{self.port}"

    def spans(self) -> list[Span]:
        """Return what arrived so far."""
        return list(self._spans)

    def _take(self, path: str, body: bytes) -> HttpAnswer:
        self._spans += spans_of(ExportTraceServiceRequest.FromString(body))
        self.paths.append(path)
        return self.answer


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "localhost.pem")
        path.write_text(KEY + CERTIFICATE)
        context.load_cert_chain(path)
    return context


def _handler(take: Callable[[str, bytes], HttpAnswer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            answer = take(self.path, self.rfile.read(int(self.headers["Content-Length"])))
            threading.Event().wait(answer.seconds)
            self.send_response(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, *_args: Any) -> None:
            pass

    return Handler


class Proxy(_Listening):
    """A proxy that keeps what it is asked for, and refuses it."""

    def __init__(self) -> None:
        asked: list[str] = []

        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asked.append(self.rfile.readline().decode().strip())
                length = 0
                while line := self.rfile.readline().decode().strip().lower():
                    length = int(line.removeprefix("content-length:")) if line.startswith("content-length:") else length
                self.rfile.read(length)
                self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        self.asked = asked
        server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        super().__init__(server)
