"""With a collector, without, or with one that comes and goes: calls are served all the same."""

import statistics
import time

import grpc

from client.lines import fields
from client.processes import Service
from protos.echo_pb2 import EchoRequest
from protos.echo_pb2_grpc import EchoServiceStub
from tests.ports import free_ports
from tests.receiver import HungReceiver, Receiver

# Spans are sent every 50 ms, and given up after a second.
QUICKLY = {"OTEL_BSP_SCHEDULE_DELAY": "50", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}


def make_calls(service: Service, count: int) -> float:
    """Make this many calls, one after another; return what the median one took, in seconds."""
    with grpc.insecure_channel(service.address) as channel:
        stub = EchoServiceStub(channel)
        times = []
        for _ in range(count):
            start = time.perf_counter()
            stub.Echo(EchoRequest(msg="hello"), timeout=5)
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def test_no_collector_is_one_line() -> None:
    """Without a collector a service says so once, not once per batch."""
    nobody = "http://127.0.0.1:1"
    with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=nobody, **QUICKLY) as service:
        for _ in range(5):
            make_calls(service, 200)
            assert service.stdout.wait_for("level=warning")
        service.stop()
        told = [fields(line) for line in service.stdout.wait_for_end() if " endpoint=" not in line]

        assert [] == service.stderr.wait_for_end()
    assert ["metrics", "listening", "spans cannot be exported and are lost", "stopped"] == [
        line["event"] for line in told
    ]


def test_no_collector_makes_no_call_slower() -> None:
    """Calls take no longer without a collector, or with a hung one, than with one that takes their spans."""
    with Receiver() as receiver, HungReceiver() as hung:
        endpoints = (receiver.endpoint, "http://127.0.0.1:1", hung.endpoint)
        times = []
        for endpoint in endpoints:
            with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=endpoint, **QUICKLY) as service:
                make_calls(service, 100)
                times.append(min(make_calls(service, 100) for _ in range(5)))

    with_collector, without, with_hung = times
    assert without < 1.5 * with_collector
    assert with_hung < 1.5 * with_collector


def test_spans_flow_again() -> None:
    """When the collector comes, spans flow, and that is told once too."""
    [port] = free_ports(1)
    with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=f"http://127.0.0.1:{port}", **QUICKLY) as service:
        make_calls(service, 1)
        assert service.stdout.wait_for("spans cannot be exported")
        with Receiver(f"127.0.0.1:{port}") as second:
            deadline = time.monotonic() + 20
            while not second.spans() and time.monotonic() < deadline:
                make_calls(service, 1)
                second.wait_for(1, timeout=0.2)

            assert second.spans()
            assert service.stdout.wait_for("spans are exported again")
