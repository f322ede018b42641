"""The client's commands that look at the running stack, or make traffic for it."""

import os
import pty
import re

from client.processes import Service
from tests.stack.stack import Stack, call_echo, client
from tests.stack.waiting import eventually


def test_trace(stack: Stack) -> None:
    """`trace` prints a trace of a running Jaeger: every span, indented by its parent, with its code."""
    _, trace_id = call_echo("hello", service_b=stack.b.address, otlp=stack.jaeger.otlp)
    stack.jaeger.trace(trace_id, spans=4)
    shown = client("trace", trace_id, "--jaeger", stack.jaeger.url, otlp=stack.jaeger.otlp).stdout

    rows = re.findall(r"^(\W*)(client|service-[ab]) [→←] echo\.v1\.\S+ +(\S+)", shown, re.MULTILINE)
    assert ["client", "service-b", "service-b", "service-a"] == [service for _, service, _ in rows]
    assert [0, 3, 6, 9] == [len(branch) for branch, _, _ in rows]
    assert ["OK"] * 4 == [code for *_, code in rows]


def test_unknown_trace(stack: Stack) -> None:
    """`trace` says so when Jaeger has no such trace."""
    done = client("trace", "0" * 31 + "1", "--jaeger", stack.jaeger.url, otlp=stack.jaeger.otlp)

    assert 1 == done.returncode
    assert "no trace 00000000000000000000000000000001" in done.stderr


def test_link_on_a_terminal(stack: Stack) -> None:
    """On a terminal `call-echo` ends with the trace's link, and Jaeger has that trace."""
    said = on_a_terminal(stack.b, otlp=stack.jaeger.otlp)
    [trace_id] = re.findall(r"http://jaeger.example/trace/([0-9a-f]{32})", said)

    assert 4 == len(stack.jaeger.trace(trace_id, spans=4))


def test_no_link_without_a_collector(stack: Stack) -> None:
    """Without a collector there is no link to a trace that is nowhere."""
    assert "" == on_a_terminal(stack.b, otlp="http://127.0.0.1:1")


def test_load(stack: Stack) -> None:
    """`load` makes the calls that it says, and Prometheus sees them: those that fail as well."""
    counted = 'grpc_server_handled_total{job="service-b", grpc_method="CallEcho", grpc_code="INVALID_ARGUMENT"}'
    before = eventually(lambda: stack.prometheus.query(counted))
    options = ("--rps", "50", "--duration", "4s", "--errors", "10%", "--service-b", stack.b.address)
    done = client("load", *options, otlp=stack.jaeger.otlp)
    count = float(before[0]["value"][1]) + 20
    after = eventually(lambda: stack.prometheus.query(counted), lambda found: float(found[0]["value"][1]) >= count)

    assert 0 == done.returncode
    assert ["180"] == re.findall(r"OK +(\d+)", done.stdout)
    assert ["20"] == re.findall(r"INVALID_ARGUMENT +(\d+)", done.stdout)
    assert {"p50", "p95", "p99"} <= set(done.stdout.split())
    assert count <= float(after[0]["value"][1])


def on_a_terminal(b: Service, *, otlp: str) -> str:
    """Return what `call-echo` says on stderr when that is a terminal."""
    terminal, stderr = pty.openpty()
    try:
        done = client(
            *("call-echo", "--service-b", b.address, "--jaeger", "http://jaeger.example", "hello"),
            otlp=otlp,
            stderr=stderr,
        )
        assert 0 == done.returncode
        os.close(stderr)
        try:
            return os.read(terminal, 65_536).decode()
        except OSError:  # Linux's way to say that nobody writes there any more
            return ""
    finally:
        os.close(terminal)
