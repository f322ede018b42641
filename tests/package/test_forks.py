"""Forks: what a child reports arrives, however it ends, what waits in its parent once, and neither waits for long."""

import json
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, NamedTuple

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from client.lines import fields
from client.spans import Span, spans_of
from observability.threads.process import _Methods
from tests.support import python
from tests.support.process import sending
from tests.support.programs.forking import OWN, WAYS
from tests.support.receiver import HungReceiver, Receiver
from tests.support.rpc import echo, serving


class Ended(NamedTuple):
    """What came of a process and its child."""

    status: int
    seconds: float
    lines: list[dict[str, str]]
    counts: dict[str, float]

    @property
    def events(self) -> list[str]:
        """What the application's own lines say, in order."""
        return sorted(line["event"] for line in self.lines if line.get("logger") == "forking")


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Serve what the processes call."""
    with serving(unary=echo, workers=8) as address:
        yield address


def run(way: str, address: str, folder: Path, variables: dict[str, str], **options: object) -> Ended:
    """Run the program `forking`; its processes keep their counts in this folder."""
    variables = {"PROMETHEUS_MULTIPROC_DIR": str(folder), "OTEL_BSP_SCHEDULE_DELAY": "60000", **variables}
    program = "tests.support.programs.forking"
    ended = python.run("-m", program, way, address, json.dumps(options), variables=variables)
    assert 0 == ended.returncode, ended.stderr
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]  # it has no types
    counts: Counter[str] = Counter()
    for metric in registry.collect():
        for sample in metric.samples:
            counts[sample.name] += sample.value  # type: ignore[assignment]  # a sum of floats
    status, seconds = json.loads(ended.stderr.splitlines()[-1])
    return Ended(status, seconds, [fields(line) for line in ended.stdout.splitlines()], counts)  # type: ignore[arg-type]


@pytest.mark.parametrize("way", WAYS)
def test_a_forked_process(way: str, address: str, tmp_path: Path) -> None:
    """
    The lines, spans and counts of a forked process arrive, and those that wait in its parent at the fork once.
    """
    with Receiver() as receiver:
        variables = sending(receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")
        ended = run(way, address, tmp_path, variables, metrics_port=0, flush_seconds=10)
        spans = receiver.wait_for(4)

    assert ["child 0", "child 1", "child 2", "parent"] == ended.events
    called = sorted(line["span_id"] for line in ended.lines if line.get("kind") == "client")
    assert called == sorted(span.span_id for span in spans)
    assert 4 == len(set(called))
    assert [4, 4, 0] == [
        ended.counts[f"grpc_client_{name}"] for name in ("started_total", "handled_total", "in_flight")
    ]


@pytest.mark.parametrize("way", OWN)
def test_a_process_that_starts_its_own_telemetry(way: str, address: str, tmp_path: Path) -> None:
    """
    What a child that has started telemetry itself reports arrives, in whatever way `multiprocessing` has started it.
    """
    with Receiver() as receiver:
        variables = sending(receiver.endpoint, OTEL_BSP_SCHEDULE_DELAY="60000")
        ended = run(way, address, tmp_path, variables, flush_seconds=10)
        spans = receiver.wait_for(3)

    assert (0, ["child 0", "child 1", "child 2"]) == (ended.status, ended.events)
    assert 3 == len(spans)
    assert 3 == ended.counts["grpc_client_handled_total"]


@pytest.mark.parametrize("way", ["multiprocessing", "os.fork", "a pool of billiard"])
def test_a_child_does_not_wait_for_a_collector(way: str, address: str, tmp_path: Path) -> None:
    """
    A forked process ends in time where its spans cannot be sent, and its lines and counts arrive.
    """
    with HungReceiver() as receiver:
        variables = sending(receiver.endpoint, timeout=60, OTEL_BSP_SCHEDULE_DELAY="60000")
        ended = run(way, address, tmp_path, variables, flush_seconds=0.3)

    assert ["child 0", "child 1", "child 2", "parent"] == ended.events
    assert 4 == ended.counts["grpc_client_handled_total"]
    assert ended.seconds < 10


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # connections are kept
    spans: list[Span]
    peers: set[Any]

    def do_POST(self) -> None:
        """Keep the spans that are posted, and where they come from."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.spans.extend(spans_of(ExportTraceServiceRequest.FromString(body)))
        self.peers.add(self.client_address)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_args: object) -> None:
        """Say nothing."""


def test_a_child_has_its_own_connections(address: str, tmp_path: Path) -> None:
    """
    Spans that are sent by HTTP before a fork and after it do not share a connection, and all arrive.
    """
    spans: list[Span] = []
    peers: set[Any] = set()
    handler = type("Handler", (_Handler,), {"spans": spans, "peers": peers})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        serving = Thread(target=server.serve_forever)
        serving.start()
        try:
            endpoint = f"http://127.0.0.1:{server.server_port}"
            variables = sending(endpoint, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf")
            run("multiprocessing", address, tmp_path, variables, flush_seconds=10, flushed=True)
        finally:
            server.shutdown()
            serving.join()

    assert 4 == len({span.span_id for span in spans}) == len(spans)
    assert 2 == len(peers)


def script(program: str, **variables: str) -> list[str]:
    """Run a program with these variables; return the lines that it and its children print."""
    variables = {"GRPC_VERBOSITY": "NONE", "OTEL_BSP_SCHEDULE_DELAY": "60000", **variables}
    ended = python.run("-c", python.NO_WARNINGS + program, variables=variables)
    assert (0, "") == (ended.returncode, ended.stderr)
    return ended.stdout.splitlines()


HELD = """
import os
import threading

from observability.threads import process

process._FORK_SECONDS = 10
held, forking = threading.Event(), threading.Event()


def hold():  # until somebody forks, who runs this before what the package does before a fork
    if threading.current_thread() is not threading.main_thread() and not forking.is_set():
        held.set()
        forking.wait(10)
"""
"""What the programs have in common in which a thread holds a lock when the process forks."""

HELD_BY_A_STREAM = """
from observability.logs.writer import LogWriter


class Stream:
    lock = threading.Lock()

    def write(self, text):
        with self.lock:
            hold()
            os.write(1, text.encode())


writer = LogWriter(Stream())
os.register_at_fork(before=forking.set)
writer.write_now("parent")
held.wait(10)
if os.fork():
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
writer.write("child")
os._exit(not writer.flush(10))
"""

HELD_BY_METRICS = """
import time

import grpc
from prometheus_client import CollectorRegistry, values


class Value(values.MutexValue):
    def inc(self, amount):
        with self._lock:
            hold()
            self._value += amount


values.ValueClass = Value
from observability import measure_calls
from observability.calls.observation import Observation
from observability.calls.method import method_at
from observability.calls.observers import Observers

registry = CollectorRegistry()
observers = Observers(measure_calls(registry))


def call():
    method = method_at("/test.v1.Words/Unary", "unary")
    Observation(method, "client", [], observers, time.perf_counter(), time.time_ns()).end(grpc.StatusCode.OK)


def count(name):
    labels = {"grpc_type": "unary", "grpc_service": "test.v1.Words", "grpc_method": "Unary"}
    return registry.get_sample_value("grpc_client_" + name, labels)


os.register_at_fork(before=forking.set)
thread = threading.Thread(target=call)
thread.start()
held.wait(10)
if os.fork():
    thread.join()
    os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
call()
print(count("started_total"), count("in_flight"), flush=True)
os._exit(0)
"""


def test_a_lock_of_a_stream_at_a_fork() -> None:
    """
    A fork waits for the line that is being written: a lock of its stream's own is free in the child.
    """
    assert ["parent", "child"] == script(HELD + HELD_BY_A_STREAM)


def test_a_lock_of_the_metrics_at_a_fork() -> None:
    """
    A fork waits for the call that is being counted: the locks of prometheus_client are free in the child.
    """
    assert ["1.0 0.0"] == script(HELD + HELD_BY_METRICS)


STUCK = """
import os
import time

from observability.logs.writer import LogWriter

reader, pipe = os.pipe()
writer = LogWriter(os.fdopen(pipe, "w"))
writer.write_now("x" * 1_000_000)
os.read(reader, 1)
start = time.monotonic()
if os.fork() == 0:
    os._exit(0)
print(time.monotonic() - start < 5, flush=True)
os.wait()
os._exit(0)
"""


def test_a_fork_where_nobody_reads_the_log() -> None:
    """
    A fork does not wait for a line that nobody reads.
    """
    assert ["True"] == script(STUCK)


IN_FLIGHT = """
import os
import sys
import time

import grpc
from prometheus_client import CollectorRegistry

from observability import measure_calls
from observability.calls.observation import Observation
from observability.calls.method import method_at
from observability.calls.observers import Observers

registry = CollectorRegistry()
observers = Observers(measure_calls(registry))


def start():
    method = method_at("/test.v1.Words/Unary", "unary")
    call = Observation(method, "server", [], observers, time.perf_counter(), time.time_ns())
    call.handler_started()
    return call


def going_on():
    labels = {"grpc_type": "unary", "grpc_service": "test.v1.Words", "grpc_method": "Unary"}
    return [registry.get_sample_value("grpc_server_" + name, labels) for name in ("in_flight", "handlers_running")]


start()
if SCRAPED:
    going_on()
start()
if os.fork():
    os.wait()
    print("parent", *going_on())
else:
    call = start()
    if SCRAPED:
        print("child", *going_on())
    call.handler_ended()
    call.end(grpc.StatusCode.OK)
    print("child", *going_on())
    sys.stdout.flush()
    os._exit(0)
"""


def test_calls_that_go_on_at_a_fork() -> None:
    """
    The calls that go on in a process when it forks do not go on in the child.
    """
    assert ["child 0.0 0.0", "parent 2.0 2.0"] == script(IN_FLIGHT.replace("SCRAPED", "False"))
    assert ["child 1.0 1.0", "child 0.0 0.0", "parent 2.0 2.0"] == script(IN_FLIGHT.replace("SCRAPED", "True"))


WAITING_SPANS = """
import os

from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observability.traces.provider import CountingProcessor, SpanDelivery

exporter = InMemorySpanExporter()
processor = CountingProcessor(SpanDelivery(exporter, "nowhere"), 10, 10)
provider = TracerProvider(shutdown_on_exit=False)
provider.add_span_processor(processor)
for number in range(9):
    provider.get_tracer("forking").start_span("parent").end()
child = not os.fork()
if child:
    for number in range(9):
        provider.get_tracer("forking").start_span("child").end()
else:
    os.wait()
processor.force_flush()
print(processor.dropped, {span.name for span in exporter.get_finished_spans()}, flush=True)
os._exit(0)
"""


def test_spans_that_wait_at_a_fork() -> None:
    """
    The spans that wait in a process when it forks are its own to send, and no loss to the child.
    """
    assert ["0 {'child'}", "0 {'parent'}"] == script(WAITING_SPANS)


PORT = """
import os
import socket

from observability import Telemetry

telemetry = Telemetry.start("forking", metrics_port=0)
host, _, port = telemetry.metrics_address.rpartition(":")
reader, writer = os.pipe()
if os.fork() == 0:
    os.read(reader, 1)
    os._exit(telemetry.metrics_address is not None)
telemetry.close()
socket.create_server((host, int(port))).close()
os.write(writer, b".")
os._exit(os.waitstatus_to_exitcode(os.wait()[1]))
"""


def test_the_metrics_port_is_the_parents() -> None:
    """
    A child does not listen for scrapes, nor keep its parent's port from the next one who wants it.
    """
    assert [] == [line for line in script(PORT) if "event=metrics" not in line]


EXPORTING = """
import os
import signal
import threading
import time

from opentelemetry import trace

from observability import Telemetry

telemetry = Telemetry.start("forking")
over = threading.Event()


def trace_on():
    while not over.is_set():
        trace.get_tracer("forking").start_span("parent").end()
        time.sleep(0.0005)


threading.Thread(target=trace_on).start()
hung = 0
for _ in range(30):
    time.sleep(0.01)
    child = os.fork()
    if child == 0:
        os._exit(0)
    deadline = time.monotonic() + 10
    while not (ended := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() < deadline:
        time.sleep(0.001)
    if not ended:
        hung += 1
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
over.set()
print(hung, flush=True)
os._exit(0)
"""


def test_forks_while_spans_are_sent() -> None:
    """
    Processes that are forked while spans are sent do not hang in gRPC, which a thread in its core makes them do.
    """
    with Receiver() as receiver:
        assert ["0"] == script(EXPORTING, GRPC_ENABLE_FORK_SUPPORT="1", **sending(receiver.endpoint))


class Counting:
    """Counts how often its method is called."""

    def __init__(self) -> None:
        self.calls = 0

    def count(self) -> None:
        """Count."""
        self.calls += 1


def test_objects_that_are_gone_are_forgotten() -> None:
    """
    Of objects that live no more no methods are kept for the next fork, but for a few; those of others are all called.
    """
    methods, lasting = _Methods(), [Counting() for _ in range(3)]
    for counting in lasting:
        methods.add(counting.count)
    for _ in range(1_000):
        methods.add(Counting().count)

    methods.call()

    assert [1] * 3 == [counting.calls for counting in lasting]
    assert 20 > len(methods._references)
