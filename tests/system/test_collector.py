"""With a collector, without, or with one that comes and goes: calls are served as ever."""

import signal
import statistics
import subprocess
import sys
import time

import grpc
import pytest

from client.lines import fields
from client.processes import ROOT, environment
from protos.echo_pb2 import EchoRequest
from protos.echo_pb2_grpc import EchoServiceStub
from tests.support.ports import free_ports
from tests.support.process import Service
from tests.support.receiver import AnsweringReceiver, HungReceiver, Proxy, Receiver
from tests.system.conftest import System

GIVEN_UP = "spans are given up at the end"
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
    """Without a collector a service logs so once, not once per batch."""
    nobody = "http://127.0.0.1:1"
    with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT=nobody, **QUICKLY) as service:
        for _ in range(5):
            make_calls(service, 200)
            assert service.stdout.wait_for("level=warning")
        service.stop()
        lines = [fields(line) for line in service.stdout.wait_for_end() if " endpoint=" not in line]

        assert [] == service.stderr.wait_for_end()
    # How many wait at the end, if any, is a matter of time.
    assert ["metrics", "listening", "spans cannot be exported and are lost", "stopped"] == [
        line["event"] for line in lines if line["event"] != GIVEN_UP
    ]
    assert [line["event"] for line in lines].count(GIVEN_UP) <= 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_what_is_given_up_at_the_end(number: signal.Signals) -> None:
    """
    Without a collector, a service that is ended logs in one line how many spans it gives up, and why; it exits with 0.
    """
    with Service("service-a", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:1") as service:
        make_calls(service, 5)
        service.signal(number)
        status = service.wait()
        lines = [fields(line) for line in service.stdout.wait_for_end() if " level=warning " in line]

    assert (0, [(GIVEN_UP, "5", "UNAVAILABLE")]) == (
        status,
        [(line["event"], line["spans"], line["code"]) for line in lines],
    )


@pytest.mark.parametrize("options", [[], ["--verbose"]])
def test_client_says_nothing_of_collectors(system: System, options: list[str]) -> None:
    """
    A collector that is missing, hung, or refuses its spans, is not the client's concern: it prints nothing of it.
    """
    refusal = (grpc.StatusCode.UNAUTHENTICATED, "token expired")
    with AnsweringReceiver(refusal) as refusing, HungReceiver() as hung:
        endpoints = ("http://127.0.0.1:1", refusing.endpoint, hung.endpoint)
        results = [
            system.client("echo", "hello", *options, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) for endpoint in endpoints
        ]

    assert ['{"echo": "hello"}\n'] * 3 == [result.stdout for result in results]
    assert [] == [line for result in results for line in result.stderr.splitlines() if " endpoint=" not in line]


def test_proxy_of_the_environment(system: System) -> None:
    """
    All that is inner goes past a proxy of the environment: a health check, B's calls to A, the client's, and spans.
    """
    with Proxy() as proxy, Receiver() as receiver:
        url = f"http://127.0.0.1:{proxy.port}"
        names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
        variables = {"no_grpc_proxy": "", **dict.fromkeys(names, url)}
        sending = {**variables, "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.endpoint, **QUICKLY}
        with Service("service-b", SERVICE_A_ADDRESS=system.a.address, **sending) as b:
            answer = system.client("call-echo", "hello", SERVICE_B_ADDRESS=b.address, **sending)
            health = subprocess.run(
                [sys.executable, "deploy/healthcheck.py", b.address],
                cwd=ROOT,
                env=environment(**variables),
                capture_output=True,
                encoding="utf-8",
                check=False,
                timeout=60,
            )
            spans = receiver.wait_for(3)

    assert '{"service_b": "ok", "service_a": {"echo": "hello"}}\n' == answer.stdout
    assert (0, "SERVING\n", "") == (health.returncode, health.stdout, health.stderr)
    assert [] == proxy.asked
    assert {("service-b", "server"), ("service-b", "client"), ("client", "client")} <= {
        (span.service, span.kind) for span in spans
    }


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
    """When the collector comes, spans flow, and that is reported once too."""
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
