"""The running stack, and a person's calls through it."""

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from client.lines import fields
from client.processes import ROOT, Service, environment
from tests.stack.jaeger import Jaeger, JaegerSpan
from tests.stack.prometheus import Prometheus

CALL_ECHO, ECHO = "echo.v1.CallEchoService/CallEcho", "echo.v1.EchoService/Echo"
HELLO = {"service_b": "ok", "service_a": {"echo": "hello"}}
WHOLE_TRACE = [
    JaegerSpan("client", "client", CALL_ECHO, "OK", ""),
    JaegerSpan("service-b", "server", CALL_ECHO, "OK", "client client"),
    JaegerSpan("service-b", "client", ECHO, "OK", "service-b server"),
    JaegerSpan("service-a", "server", ECHO, "OK", "service-b client"),
]


@dataclass(frozen=True, slots=True)
class Stack:
    """What runs."""

    jaeger: Jaeger
    prometheus: Prometheus
    a: Service
    b: Service


def targets(a: Service, b: Service) -> dict[str, str]:
    """Return where both services' metrics are, by what Prometheus's own files call them."""
    where = {"service-a:9464": a, "service-b:9465": b}
    return {
        name: service.metrics_url.removeprefix("http://").removesuffix("/metrics") for name, service in where.items()
    }


def client(
    *arguments: str, otlp: str, stderr: int = subprocess.PIPE, variables: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run `python client …` as a person does; its spans go to an OTLP endpoint."""
    return subprocess.run(
        [sys.executable, "client", *arguments],
        cwd=ROOT,
        env=environment(OTEL_EXPORTER_OTLP_ENDPOINT=otlp, **variables),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        encoding="utf-8",
        check=False,
    )


def call_echo(
    message: str, *, service_b: str, otlp: str, variables: Mapping[str, str] = {}
) -> tuple[dict[str, Any], str]:
    """Call `python client call-echo`; return its answer and its trace id."""
    done = client("call-echo", "--verbose", "--service-b", service_b, message, otlp=otlp, variables=variables)
    [line] = [line for line in done.stderr.splitlines() if " kind=client " in line]
    return json.loads(done.stdout), fields(line)["trace_id"]
