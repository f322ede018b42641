"""Serves /metrics: prometheus_client's page, from a server within limits of connections, time and size."""

from __future__ import annotations

import contextlib
import errno
import http.client
import logging
import math
import re
import socket
import ssl
import sys
import threading
import time
from dataclasses import dataclass
from http import HTTPStatus
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, BinaryIO, Final, Literal, TypeAlias, cast
from wsgiref.simple_server import ServerHandler, WSGIRequestHandler, WSGIServer

from prometheus_client import make_wsgi_app
from prometheus_client.exposition import choose_encoder

from ..address import ListenError, bare_host, host_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedIOBase
    from wsgiref.types import StartResponse, WSGIEnvironment

    from prometheus_client.registry import CollectorRegistry

    from ..certificates import Certificates

CONNECTION_LIMIT: Final = 16
"""How many connections there are at once; each has a thread."""
REQUEST_SECONDS: Final = 5.0
"""How long a scraper may take to send its request, from the connection on."""
RESPONSE_SECONDS: Final = 10.0
"""How long it may take to read the response; as long as Prometheus waits for a scrape by default."""
REQUEST_BYTES: Final = 16 * 1024
"""How long a request may be, with its headers."""

_Phase: TypeAlias = Literal["request", "collection", "response", "ended"]
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE_SECONDS: Final = 0.1
_PATHS: Final = ("", "/metrics")
_ORIGIN: Final = re.compile(r"https?://[^/]*", re.IGNORECASE)

_logger = logging.getLogger("observability")


class MetricsEndpoint:
    """
    /metrics of a registry, from its making until `close`; `address` is HOST:PORT.

    `host` is an address or a name of one, IPv6 with or without brackets; port 0 takes a free one. With certificates it
    has TLS, of 1.2 at least, and new ones are used from the next connection on. Raises ListenError where it cannot
    listen there.

    A scraper that is slow to send or to read is cut off in time; where there are too many, or no file descriptor is
    left, the oldest of them makes way for a new one. Nothing that a scraper does is written to stderr.
    """

    def __init__(
        self, registry: CollectorRegistry, host: str, port: int, certificates: Certificates | None = None
    ) -> None:
        host = bare_host(host)
        try:
            family, *_, where = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            self._server = _Server(family, where, _MetricsApp(registry), certificates)
        except OSError as error:
            raise ListenError(host_port(host, port), error) from error
        self.address = host_port(host, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, name="observability-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop listening, and end every connection; in a forked process, leave them to its parent."""
        if self._thread.is_alive():  # a forked process has no such thread
            with contextlib.suppress(OSError):
                # Wakes the loop, which looks up twice a second otherwise, and does so where this is not allowed.
                self._server.socket.shutdown(socket.SHUT_RDWR)
            self._server.shutdown()
            self._thread.join()
            self._server.cut_off_all()
        self._server.server_close()


class _MetricsApp:
    """prometheus_client's WSGI app at / and /metrics: with HEAD, and without a way to fail for what a scraper asks."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._app = make_wsgi_app(registry)
        self._failing = False

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Respond to one request."""
        status, headers, body = self._response(environ)
        start_response(status, [*headers, ("Content-Length", str(len(body)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]

    def _response(self, environ: WSGIEnvironment) -> tuple[str, list[tuple[str, str]], bytes]:
        if _ORIGIN.sub("", environ["PATH_INFO"], count=1).rstrip("/") not in _PATHS:
            return _text(HTTPStatus.NOT_FOUND, "the metrics are at /metrics")
        method = environ["REQUEST_METHOD"]
        request = {
            **environ,
            "REQUEST_METHOD": "GET" if method == "HEAD" else method,
            "PATH_INFO": "/metrics",
            "HTTP_ACCEPT": _readable(environ.get("HTTP_ACCEPT", "")),
        }
        head: list[Any] = []
        try:
            body = b"".join(self._app(request, lambda *status_and_headers: head.extend(status_and_headers)))
        except Exception:
            if not self._failing:
                _logger.exception("the metrics cannot be collected")
            self._failing = True
            return _text(HTTPStatus.INTERNAL_SERVER_ERROR, "the metrics cannot be collected: the log says why")
        self._failing = False
        status, headers = head
        return status, [(name, "GET, HEAD, OPTIONS" if name == "Allow" else value) for name, value in headers], body


def _text(status: HTTPStatus, text: str) -> tuple[str, list[tuple[str, str]], bytes]:
    return f"{status.value} {status.phrase}", [("Content-Type", "text/plain; charset=utf-8")], f"{text}\n".encode()


def _readable(accept: str) -> str:
    """Leave out the formats that prometheus_client cannot read: it fails for a version that is no number."""
    return ",".join(one for one in accept.split(",") if one.isprintable() and _is_readable(one))


def _is_readable(media_range: str) -> bool:
    try:
        choose_encoder(media_range)
    except Exception:  # noqa: BLE001 - whatever it cannot read
        return False
    return True


@dataclass(slots=True)
class _Connection:
    """How far a connection is, and when it is cut off (time.monotonic)."""

    phase: _Phase
    deadline: float


class _Server(ThreadingMixIn, WSGIServer):
    """A thread for each connection, and a bounded number of them, none of which lasts."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, family: socket.AddressFamily, where: Any, app: _MetricsApp, certificates: Certificates | None
    ) -> None:
        self.address_family = family
        self._certificates = certificates
        self._changed = threading.Condition()
        self._connections: dict[socket.socket, _Connection] = {}  # the oldest first
        super().__init__(where, _RequestHandler)
        self.set_app(app)

    def server_bind(self) -> None:
        """Bind, without the look-up of the host's name that HTTPServer does: it can take many seconds."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = self.socket.getsockname()[:2]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """
        Accept a connection, in place of a slow one if there are too many, or no file descriptor for one more.

        Raises OSError, for which the loop tries again, a moment later where none is slow.
        """
        if len(self._connections) >= CONNECTION_LIMIT and not self._make_room():
            raise BlockingIOError("no scraper is slow: this one waits")
        try:
            request, address = super().get_request()
        except OSError as error:
            if error.errno in _EXHAUSTED:
                self._make_room()
            raise
        if self._certificates is not None:
            context = self._certificates.current().context
            request = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
        with self._changed:
            self._connections[request] = _Connection("request", time.monotonic() + REQUEST_SECONDS)
        return request, address

    def _make_room(self) -> bool:
        """Cut off one connection; return whether there is one less within a moment."""
        with self._changed:
            before = len(self._connections)
            self._cut_off_one()
            return self._changed.wait_for(lambda: len(self._connections) < before, _PAUSE_SECONDS)

    def _cut_off_one(self) -> None:
        """Cut off the oldest connection without a whole request, else the oldest whose response is not taken."""
        for phase in ("request", "response"):
            for request, connection in self._connections.items():
                if connection.phase == phase:
                    _cut_off(request, connection)
                    return

    def enter(self, request: socket.socket, phase: _Phase, seconds: float) -> None:
        """Go on to the next phase of a connection, which may take so long."""
        with self._changed:
            if (connection := self._connections.get(request)) and connection.phase != "ended":
                connection.phase, connection.deadline = phase, time.monotonic() + seconds

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        super().shutdown_request(request)
        with self._changed:
            self._connections.pop(request, None)
            self._changed.notify_all()

    def service_actions(self) -> None:
        """Cut off who is too slow; the loop does so twice a second."""
        now = time.monotonic()
        with self._changed:
            for request, connection in self._connections.items():
                if connection.deadline < now:
                    _cut_off(request, connection)

    def cut_off_all(self) -> None:
        """End every connection."""
        with self._changed:
            for request, connection in self._connections.items():
                _cut_off(request, connection)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - socketserver's own
        """Say little of a connection that broke: it is the scraper's business."""
        _logger.debug("a connection to /metrics broke", exc_info=sys.exception())


def _cut_off(request: socket.socket, connection: _Connection) -> None:
    """End a connection: its thread, which waits for it, wakes up and closes it."""
    connection.phase, connection.deadline = "ended", math.inf
    with contextlib.suppress(OSError):
        # Of a socket with TLS too it is the connection alone: its own method would let the thread go on without TLS.
        socket.socket.shutdown(request, socket.SHUT_RDWR)


class _RequestHandler(WSGIRequestHandler):
    """Handles the one request of a connection."""

    server: _Server

    def handle(self) -> None:
        """Read the request, and respond."""
        if isinstance(self.connection, ssl.SSLSocket):
            self.connection.do_handshake()
        self.rfile = cast("BufferedIOBase", _RequestHead(self.rfile))
        self.requestline = self.request_version = self.command = ""
        try:
            self.raw_requestline = self.rfile.readline()
        except http.client.LineTooLong:
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
            return
        if not self.parse_request():  # which has sent an error
            return
        self.server.enter(self.connection, "collection", math.inf)
        input_, output = cast("BinaryIO", self.rfile), cast("BinaryIO", self.wfile)
        handler = _Response(input_, output, self.get_stderr(), self.get_environ())
        handler.request_handler = self
        handler.run(cast("Callable[..., Any]", self.server.get_app()))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name that http.server gives it
        """Say nothing of a request."""


class _RequestHead:
    """The lines of a request and its headers, which http.server bounds one by one, at 6.5 MB together."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = REQUEST_BYTES
        self.close = file.close

    def readline(self, _size: int = -1) -> bytes:
        """
        Read a whole line.

        Raises LineTooLong, which http.server answers, when they are too long together.
        """
        line = self._file.readline(self._left + 1)
        self._left -= len(line)
        if self._left < 0:
            raise http.client.LineTooLong("request")
        if not line.endswith(b"\n"):  # http.server would take what there is for the whole
            raise ConnectionError("the request ended too soon")
        return line


class _Response(ServerHandler):
    """Sends what the app responds."""

    request_handler: _RequestHandler

    def finish_response(self) -> None:
        """Send the response."""
        self.request_handler.server.enter(self.request_handler.connection, "response", RESPONSE_SECONDS)
        super().finish_response()

    def log_exception(self, exc_info: Any) -> None:
        """Say little of a response that could not be sent: the app itself never fails."""
        _logger.debug("a response of /metrics could not be sent", exc_info=exc_info)
