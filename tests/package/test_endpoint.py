"""/metrics as a server: its responses, and its limits for scrapers that are slow, invalid or too many."""

import contextlib
import gzip
import http.client
import logging
import os
import resource
import socket
import struct
import threading
import time
from collections.abc import Iterator
from typing import Any

import psutil
import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from observability import ListenError
from observability.metrics import endpoint
from observability.metrics.endpoint import CONNECTION_LIMIT, REQUEST_BYTES, MetricsEndpoint
from tests.support import python
from tests.support.connections import end_of

LOCAL = "127.0.0.1"
PAGE_BYTES = 8_000_000  # at least: more than what sockets hold of a response that nobody reads
OPENMETRICS = "application/openmetrics-text"
PLAIN = "text/plain; version=0.0.4; charset=utf-8"


class Failing:
    """A collector that raises until it is mended."""

    def __init__(self) -> None:
        self.fails = False

    def collect(self) -> Any:
        """Collect nothing."""
        if self.fails:
            raise OSError("no such device")
        return []


class Held:
    """A collector, of the metric `held`, that takes until `go_on`, once a test has cleared it."""

    def __init__(self) -> None:
        self.go_on = threading.Event()
        self.go_on.set()

    def describe(self) -> Any:
        """Name the metric."""
        return [GaugeMetricFamily("held", "Held.")]

    def collect(self) -> Any:
        """Collect it in time."""
        self.go_on.wait(20)
        return self.describe()


class Served:
    """An endpoint of a registry with a counter, a histogram with an exemplar, and a page of more than sockets hold."""

    def __init__(self, host: str = LOCAL) -> None:
        registry = CollectorRegistry()
        Counter("tea", "Cups.", registry=registry).inc(3)
        Histogram("heat", "Degrees.", registry=registry).observe(1, {"trace_id": "abc"})
        long = Counter("long", "x" * 1000, ["number"], registry=registry)
        for number in range(80):
            long.labels(f"{number:050000d}").inc()
        self.failing, self.held = Failing(), Held()
        registry.register(self.failing)
        registry.register(self.held)
        self.endpoint = MetricsEndpoint(registry, host, 0)
        self.address = (host.strip("[]"), int(self.endpoint.address.rpartition(":")[2]))

    def connect(self, sent: bytes = b"", *, small: bool = False) -> socket.socket:
        """Connect, and send this; a small connection holds little of a response."""
        family = socket.AF_INET6 if ":" in self.address[0] else socket.AF_INET
        connection = socket.socket(family)
        connection.settimeout(20)
        if small:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(self.address)
        connection.sendall(sent)
        return connection

    def request(
        self, path: str = "/metrics?name[]=tea_total", method: str = "GET", **headers: str
    ) -> tuple[http.client.HTTPResponse, bytes]:
        """Make a whole request; return the response and its body."""
        connection = http.client.HTTPConnection(*self.address, timeout=20)
        with contextlib.closing(connection):
            connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
            response = connection.getresponse()
            return response, response.read()


@pytest.fixture
def served() -> Iterator[Served]:
    """Serve until the end of the test."""
    served = Served()
    yield served
    served.held.go_on.set()
    served.endpoint.close()


def threads() -> int:
    """Count the threads of connections."""
    return len([thread for thread in threading.enumerate() if "process_request_thread" in thread.name])


@pytest.mark.parametrize("path", ["/metrics", "/metrics/", "/", "//metrics", "http://example.com/metrics"])
def test_paths(served: Served, path: str) -> None:
    """The page is at /metrics and at /, however a proxy writes it."""
    response, body = served.request(f"{path}?name[]=tea_total")

    assert (200, "text/plain; version=0.0.4; charset=utf-8") == (response.status, response.headers["Content-Type"])
    assert b"# HELP tea_total Cups.\n# TYPE tea_total counter\ntea_total 3.0\n" == body


@pytest.mark.parametrize("path", ["/healthz", "/favicon.ico", "/metrics/more", "/metricsmore", "*"])
def test_other_paths(served: Served, path: str) -> None:
    """Any other path is a 404, and the response says where to look."""
    response, body = served.request(path)

    assert (404, b"the metrics are at /metrics\n") == (response.status, body)


def test_head(served: Served) -> None:
    """HEAD is responded to as GET, without the page."""
    get, body = served.request()
    head, nothing = served.request(method="HEAD")

    assert (200, b"") == (head.status, nothing)
    assert str(len(body)) == get.headers["Content-Length"] == head.headers["Content-Length"]
    assert get.headers["Content-Type"] == head.headers["Content-Type"]


@pytest.mark.parametrize(("method", "status"), [("POST", 405), ("PUT", 405), ("BREW", 405), ("OPTIONS", 200)])
def test_other_methods(served: Served, method: str, status: int) -> None:
    """Any other method is not allowed, and the response names those that are."""
    response, _ = served.request(method=method)

    assert (status, "GET, HEAD, OPTIONS") == (response.status, response.headers["Allow"])


@pytest.mark.parametrize(
    "accept",
    [
        f"{OPENMETRICS}; version=abc",
        f"{OPENMETRICS};version=1..0",
        f'{OPENMETRICS}; version="1.0.0"',
        f"{OPENMETRICS}; version={'9' * 5000}",
        f"{OPENMETRICS}; version=1.0\x0b.0",
        "text/plain; version=abc",
        "application/json",
        ",;=,;;q=,",
        "\x80\xff",
    ],
)
def test_unknown_formats(served: Served, accept: str) -> None:
    """A scraper that asks for an unknown format gets the plain one, or what prometheus_client makes of it."""
    expected = PLAIN
    if accept.isprintable():
        with contextlib.suppress(TypeError, ValueError):
            _, expected = choose_encoder(accept)
    response, body = served.request(Accept=accept)

    assert (200, expected) == (response.status, response.headers["Content-Type"])
    assert b"\ntea_total 3.0\n" in body


def test_known_format_beside_an_unknown_one(served: Served) -> None:
    """Of several formats, the first that is known is taken."""
    response, body = served.request(Accept=f"{OPENMETRICS}; version=abc, {OPENMETRICS}; version=1.0.0;q=0.5, */*;q=0.1")

    assert response.headers["Content-Type"].startswith(f"{OPENMETRICS}; version=1.0.0;")
    assert body.endswith(b"# EOF\n")


def test_openmetrics_with_exemplars(served: Served) -> None:
    """A scraper that asks for OpenMetrics gets it, with the exemplars."""
    _, body = served.request("/metrics?name[]=heat_bucket", Accept=f"{OPENMETRICS}; version=1.0.0")

    (family,) = text_string_to_metric_families(body.decode())  # type: ignore[no-untyped-call]  # it has no types
    assert [{"trace_id": "abc"}] == [sample.exemplar.labels for sample in family.samples if sample.exemplar]


def test_gzip(served: Served) -> None:
    """A scraper that takes gzip gets it."""
    response, body = served.request(Accept_Encoding="gzip")

    assert "gzip" == response.headers["Content-Encoding"]
    assert gzip.decompress(body).endswith(b"\ntea_total 3.0\n")


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_ipv6(host: str) -> None:
    """An IPv6 address may have brackets, and has them in the address."""
    served = Served(host)
    response, _ = served.request()
    served.endpoint.close()

    assert 200 == response.status
    assert f"[::1]:{served.address[1]}" == served.endpoint.address


@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_used_port(host: str) -> None:
    """A port in use is a ListenError, which names an IPv6 address in brackets."""
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ListenError) as caught:
            MetricsEndpoint(CollectorRegistry(), host, port)

    assert f"cannot listen on [::1]:{port}: address already in use" == str(caught.value)


@pytest.mark.expects_errors("the metrics cannot be collected")
def test_collectors_that_raise(served: Served, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """A collector that raises is a 500, logged once until it has worked again, and writes nothing to stderr."""
    statuses = []
    for fails in (True, True, False, True):
        served.failing.fails = fails
        statuses.append(served.request("/metrics")[0].status)

    assert [500, 500, 200, 500] == statuses
    assert ["the metrics cannot be collected"] * 2 == [record.getMessage() for record in caplog.records]
    assert ("", "") == capfd.readouterr()


def test_silent_connections_are_bounded(served: Served) -> None:
    """Of 200 connections that say nothing, few are kept, each scrape is served, and no connection lasts."""
    silent = [served.connect() for _ in range(200)]
    response, _ = served.request()
    kept = threads()
    ends = [end_of(connection) for connection in silent]

    assert 200 == response.status
    assert kept <= CONNECTION_LIMIT
    assert [b""] * 200 == ends


@pytest.mark.parametrize(
    "sent", [b"", b"GET", b"GET /metrics HTTP/1.1\r\n", b"GET /metrics HTTP/1.1\r\nHost: x\r\nX: "]
)
def test_request_has_a_time(
    served: Served, sent: bytes, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capfd: Any
) -> None:
    """A request that is not whole in time is never responded to, and nothing is logged of it."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.3)
    caplog.set_level(logging.INFO)
    data = end_of(served.connect(sent))

    assert (b"", [], ("", "")) == (data, caplog.records, capfd.readouterr())


def test_request_that_goes_on_and_on(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """The time is the whole request's: it does not begin anew with each byte."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.3)
    start = time.monotonic()
    with served.connect(b"GET /metrics HTTP/1.1\r\nX: ") as connection, pytest.raises(ConnectionError):  # noqa: PT012 - which of them fails is a matter of chance
        while time.monotonic() - start < 20:
            connection.sendall(b"y")
            time.sleep(0.01)


def test_response_has_a_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scraper that does not take its response is cut off in time."""
    monkeypatch.setattr(endpoint, "RESPONSE_SECONDS", 0.3)
    before = threads()
    connection = served.connect(b"GET /metrics HTTP/1.0\r\n\r\n", small=True)
    connection.recv(1)
    deadline = time.monotonic() + 20
    while threads() > before and time.monotonic() < deadline:
        time.sleep(0.01)

    assert before == threads()
    assert len(end_of(connection)) < PAGE_BYTES


def test_slow_readers_keep_no_scrape_out(served: Served) -> None:
    """More connections than there may be, whose responses nobody takes, keep no scrape from its own."""
    slow = [served.connect(b"GET /metrics HTTP/1.0\r\n\r\n", small=True) for _ in range(2 * CONNECTION_LIMIT)]
    response, _ = served.request()
    for connection in slow:
        connection.close()

    assert 200 == response.status


def test_collection_has_its_time(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A collection takes as long as it needs, and what comes when there are too many of them waits its turn."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 0.3)
    served.held.go_on.clear()
    request = b"GET /metrics?name[]=held HTTP/1.0\r\n\r\n"
    scrapes = [served.connect(request) for _ in range(CONNECTION_LIMIT)]
    deadline = time.monotonic() + 20
    while threads() < CONNECTION_LIMIT and time.monotonic() < deadline:
        time.sleep(0.01)
    late = served.connect(request)
    time.sleep(1)  # longer than any time here, to no effect
    served.held.go_on.set()
    responses = [end_of(connection) for connection in [*scrapes, late]]

    assert [b"HTTP/1.0 200 OK"] * (CONNECTION_LIMIT + 1) == [data.partition(b"\r\n")[0] for data in responses]


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /" + b"x" * REQUEST_BYTES,
        b"GET /metrics HTTP/1.0\r\nX: " + b"x" * REQUEST_BYTES,
        b"GET /metrics HTTP/1.0\r\n" + b"X: x\r\n" * (REQUEST_BYTES // 6),
    ],
    ids=["line", "header", "headers"],
)
def test_request_has_a_size(served: Served, sent: bytes) -> None:
    """A request that is too long is refused before the rest of it arrives."""
    data = end_of(served.connect(sent))

    assert data.split()[1] in {b"414", b"431"}


def test_headers_of_five_megabytes(served: Served) -> None:
    """A connection that sends 5 MB of headers is closed before they are read."""
    connection = served.connect()
    with pytest.raises(ConnectionError):  # noqa: PT012 - which of them fails is a matter of chance
        connection.sendall(b"GET /metrics HTTP/1.0\r\n")
        for number in range(83):
            connection.sendall(b"X-%d: %s\r\n" % (number, b"x" * 60_000))
        connection.sendall(b"\r\n")
    connection.close()


@pytest.mark.parametrize(
    "sent", [b"", b"\r\n", b"HELO\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\n", b"PRI * HTTP/2.0\r\n\r\n"]
)
def test_what_is_no_request(served: Served, sent: bytes, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """What is no HTTP request is refused or cut off, and nothing is logged of it."""
    caplog.set_level(logging.INFO)
    connection = served.connect(sent)
    connection.shutdown(socket.SHUT_WR)
    end_of(connection)

    assert ([], ("", "")) == (caplog.records, capfd.readouterr())
    assert 200 == served.request()[0].status


@pytest.mark.parametrize(
    "sent", [b"GET /metrics HTTP/1.0\r\n", b"GET /metrics HTTP/1.0\r\n\r\n"], ids=["request", "response"]
)
def test_reset(served: Served, sent: bytes, caplog: pytest.LogCaptureFixture, capfd: Any) -> None:
    """Nothing is logged of a connection that its scraper resets, before or after its request."""
    caplog.set_level(logging.INFO)
    connection = served.connect(sent, small=True)
    if sent.endswith(b"\r\n\r\n"):
        connection.recv(1)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
    deadline = time.monotonic() + 20
    while threads() and time.monotonic() < deadline:
        time.sleep(0.01)

    assert 200 == served.request()[0].status
    assert ([], ("", "")) == (caplog.records, capfd.readouterr())


def test_close_ends_connections(served: Served) -> None:
    """Nothing goes on after close: no connection, no thread, and the port is free."""
    idle = served.connect(b"GET")
    reading = served.connect(b"GET /metrics HTTP/1.0\r\n\r\n", small=True)
    reading.recv(1)
    served.endpoint.close()

    assert b"" == end_of(idle)
    assert len(end_of(reading)) < PAGE_BYTES
    with socket.create_server(served.address):
        pass


def test_close_in_a_forked_process() -> None:
    """A forked process that closes its copy waits for nobody, and its parent serves on."""
    program = """
import os, socket, urllib.request
from prometheus_client import CollectorRegistry
from observability.metrics.endpoint import MetricsEndpoint

endpoint = MetricsEndpoint(CollectorRegistry(), "127.0.0.1", 0)
opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
half = socket.create_connection(("127.0.0.1", int(endpoint.address.rpartition(":")[2])), 20)
half.sendall(b"GET /metrics HTTP/1.0\\r\\n")
assert opener.open(f"http://{endpoint.address}/metrics", timeout=20).status == 200  # accepted after it
child = os.fork()
if not child:
    endpoint.close()
    os._exit(3)
print(os.waitpid(child, 0)[1] >> 8, opener.open(f"http://{endpoint.address}/metrics", timeout=20).status)
half.sendall(b"\\r\\n")
print(half.recv(15).decode())
"""
    result = python.run("-c", python.NO_WARNINGS + program)

    assert ("3 200\nHTTP/1.0 200 OK\n", "") == (result.stdout, result.stderr)


@contextlib.contextmanager
def no_file_descriptor() -> Iterator[None]:
    """Take every file descriptor that there is meanwhile."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (psutil.Process().num_fds() + 20, before[1]))
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        yield
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_without_file_descriptors(served: Served) -> None:
    """Without a file descriptor for a connection, it waits, and no thread spins meanwhile."""
    waiting = socket.socket()
    waiting.settimeout(20)
    with no_file_descriptor():
        waiting.connect(served.address)
        waiting.sendall(b"GET /metrics?name[]=tea_total HTTP/1.0\r\n\r\n")
        cpu = time.process_time()
        time.sleep(1)
        worked = time.process_time() - cpu

    assert worked < 0.3
    assert end_of(waiting).startswith(b"HTTP/1.0 200 OK")


def test_file_descriptors_of_silent_connections(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where those who say nothing have the file descriptors, the oldest of them makes way for a scrape."""
    monkeypatch.setattr(endpoint, "REQUEST_SECONDS", 60)
    silent = [served.connect() for _ in range(2)]
    scrape = socket.socket()
    scrape.settimeout(20)
    deadline = time.monotonic() + 20
    while threads() < len(silent) and time.monotonic() < deadline:
        time.sleep(0.01)
    with no_file_descriptor():
        scrape.connect(served.address)
        scrape.sendall(b"GET /metrics?name[]=tea_total HTTP/1.0\r\n\r\n")
        page = end_of(scrape)
    first, second = silent

    assert page.startswith(b"HTTP/1.0 200 OK")
    assert b"" == end_of(first)
    second.sendall(b"GET /metrics?name[]=tea_total HTTP/1.0\r\n\r\n")
    assert end_of(second).startswith(b"HTTP/1.0 200 OK")
