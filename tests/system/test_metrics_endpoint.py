"""/metrics under too many requests: the service's calls are served as ever, and so is the scraper."""

import contextlib
import resource
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import grpc
import psutil
import pytest

from client.web import get, metrics
from protos.echo_pb2 import EchoRequest
from protos.echo_pb2_grpc import EchoServiceStub
from tests.support.process import Service

HALF_SENT = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nX-Half: "
DESCRIPTORS = 64
FREE_DESCRIPTORS = 8


@contextlib.contextmanager
def open_connections(service: Service, count: int, sent: bytes) -> Iterator[list[socket.socket]]:
    """Open connections to a service's /metrics, and send this on each of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < 4096:  # which not everybody may open from the start
        resource.setrlimit(resource.RLIMIT_NOFILE, (4096 if hard == resource.RLIM_INFINITY else min(hard, 4096), hard))
    host, _, port = service.metrics_url.removeprefix("http://").removesuffix("/metrics").rpartition(":")
    with contextlib.ExitStack() as ends:
        connections = [ends.enter_context(socket.create_connection((host, int(port)), 20)) for _ in range(count)]
        for connection in connections:
            with contextlib.suppress(ConnectionError):  # it had to make way
                connection.sendall(sent)
        yield connections


def is_over(connection: socket.socket) -> bool:
    """Wait until the other side ends a connection on which nothing comes."""
    with contextlib.suppress(ConnectionError):
        return connection.recv(1) == b""
    return True


def echoes(service: Service, count: int) -> list[str]:
    """Make this many calls, each on a new connection."""
    answers = []
    for number in range(count):
        with grpc.insecure_channel(service.address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            answers.append(EchoServiceStub(channel).Echo(EchoRequest(msg=str(number)), timeout=5).echo)
    return answers


@pytest.mark.parametrize("sent", [HALF_SENT, b""], ids=["half-sent", "silent"])
def test_connections_leave_calls_their_file_descriptors(sent: bytes) -> None:
    """A service with 64 file descriptors serves its calls and a scrape beside 61 connections, and keeps none."""
    with Service("service-a", OTEL_TRACES_EXPORTER="none") as service:
        _ = service.address
        process = psutil.Process(service.pid)
        process.rlimit(psutil.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
        with open_connections(service, DESCRIPTORS - 3, sent) as connections:
            answers = echoes(service, 10)
            scrape = metrics(service.metrics_url)
            over = [is_over(connection) for connection in connections]
        errors = service.stderr.lines()

    assert [str(number) for number in range(10)] == answers
    assert "# EOF" == scrape[-1]
    assert [True] * (DESCRIPTORS - 3) == over
    assert [] == errors


def work(process: psutil.Process) -> float:
    """Return the CPU seconds that a process takes within a second."""
    before = sum(process.cpu_times()[:2])
    threading.Event().wait(1)
    return float(sum(process.cpu_times()[:2]) - before)


def test_connections_are_no_threads() -> None:
    """1,000 connections that say nothing are no 1,000 threads, no work, and change nothing for calls and scrapes."""
    with Service("service-a", OTEL_TRACES_EXPORTER="none") as service:
        echoes(service, 1)
        process = psutil.Process(service.pid)
        before = process.num_threads()
        with open_connections(service, 1_000, b""):
            scrape = metrics(service.metrics_url)  # which comes after all of them
            threads, worked = process.num_threads() - before, work(process)
            answers = echoes(service, 1)
        errors = service.stderr.lines()

    assert threads < 40
    assert worked < 0.3
    assert ["0"] == answers
    assert "# EOF" == scrape[-1]
    assert [] == errors


def test_connections_that_take_every_file_descriptor() -> None:
    """Where silent connections take every file descriptor, a service idles, answers calls, and each scrape gets one."""
    with (
        Service("service-a", OTEL_TRACES_EXPORTER="none") as service,
        grpc.insecure_channel(service.address) as channel,
    ):
        echo = EchoServiceStub(channel).Echo
        _ = echo(EchoRequest(msg="before"), timeout=5), service.metrics_url
        process = psutil.Process(service.pid)
        limit = process.num_fds() + FREE_DESCRIPTORS
        process.rlimit(psutil.RLIMIT_NOFILE, (limit, limit))
        with open_connections(service, 1_000, b""):
            scrapes = [metrics(service.metrics_url)[-1] for _ in range(10)]
            worked = work(process)
            answer = echo(EchoRequest(msg="after"), timeout=5).echo
        errors = service.stderr.lines()

    assert ["# EOF"] * 10 == scrapes
    assert worked < 0.3
    assert "after" == answer
    assert [] == errors


@pytest.mark.parametrize(
    "accept",
    ["application/openmetrics-text; version=abc", "application/openmetrics-text; version=1.x", "text/plain; version=?"],
)
def test_unknown_format(accept: str) -> None:
    """A scraper that asks for an unknown format gets the plain one, and stderr stays empty."""
    with Service("service-b", OTEL_TRACES_EXPORTER="none") as service:
        page = get(service.metrics_url, {"Accept": accept})
        errors = service.stderr.lines()

    assert page.startswith("# HELP ")
    assert "# EOF" not in page
    assert [] == errors


def test_path_that_is_none() -> None:
    """A probe that asks for a page which is not there gets a 404."""
    with Service("service-b", OTEL_TRACES_EXPORTER="none") as service, pytest.raises(urllib.error.HTTPError) as caught:
        get(service.metrics_url.replace("/metrics", "/healthz"))
    with caught.value as response:
        assert (404, b"the metrics are at /metrics\n") == (response.status, response.read())
