"""The examples: an existing service, and what five lines make of it."""

import difflib
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from client.lines import fields
from client.processes import ROOT, environment
from protos.echo_pb2 import HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import HealthServiceServicer, HealthServiceStub, add_HealthServiceServicer_to_server
from tests.support.outputs import outputs
from tests.support.process import NOWHERE, sending
from tests.support.python import Popen
from tests.support.receiver import Receiver
from tests.support.rpc import LOCAL

EXAMPLES = ROOT / "examples"
PAIRS = [("gate.py", "gate_observed.py"), ("aio_gate.py", "aio_gate_observed.py")]
OBSERVED = [observed for _, observed in PAIRS]


class Behind(HealthServiceServicer):
    """The service behind the gate."""

    def Check(self, _request: HealthCheckRequest, _context: grpc.ServicerContext) -> HealthCheckResponse:  # noqa: N802
        """Be well."""
        return HealthCheckResponse(status="ok")


@pytest.fixture
def behind() -> Iterator[str]:
    """Give the address of the service behind."""
    server = grpc.server(ThreadPoolExecutor(2))
    add_HealthServiceServicer_to_server(Behind(), server)
    address = f"127.0.0.1:{server.add_insecure_port(LOCAL)}"
    server.start()
    yield address
    server.stop(None).wait()


class Example:
    """An example as a process."""

    def __init__(self, name: str, address: str, behind: str, endpoint: str, *more: str) -> None:
        variables = sending(endpoint, OTEL_EXPORTER_PROMETHEUS_PORT="0")
        self._process = Popen(
            [sys.executable, EXAMPLES / name, address, behind, *more],
            env=environment(GRPC_VERBOSITY="NONE", **variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.stdout, self.stderr = outputs(self._process)

    def address(self, event: str) -> str:
        """Return the address that its first line names."""
        [line] = self.stdout.wait_for(f" event={event} ") or [""]
        return fields(line)["address"]

    def end(self) -> int:
        """Ask it to end; return its exit status."""
        self._process.send_signal(signal.SIGTERM)
        try:
            return self._process.wait(10)
        finally:
            self._process.kill()
            self.stdout.wait_for_end()
            self.stderr.wait_for_end()


@contextmanager
def example(name: str, behind: str, *more: str, address: str = LOCAL, endpoint: str = NOWHERE) -> Iterator[Example]:
    """Run an example, with more arguments than the two addresses."""
    running = Example(name, address, behind, endpoint, *more)
    try:
        yield running
    finally:
        running.end()


def check(address: str, **metadata: str) -> str:
    """Ask for the gate's health."""
    with grpc.insecure_channel(address) as channel:
        stub = HealthServiceStub(channel)
        pairs = tuple(metadata.items())
        return stub.Check(HealthCheckRequest(), timeout=10, wait_for_ready=True, metadata=pairs).status


@pytest.mark.parametrize("name", [name for name, _ in PAIRS])
def test_service_as_it_was(name: str, behind: str) -> None:
    """The service without the package works, and writes nothing."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    with example(name, behind, address=address) as running:
        status = check(address)

    assert "ok" == status
    assert [] == running.stdout.lines()


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_five_lines(before: str, after: str) -> None:
    """Five lines make the difference, beside what the file says of itself."""
    plain, observed = ((EXAMPLES / name).read_text().splitlines()[1:] for name in (before, after))
    added = [line for line in difflib.ndiff(plain, observed) if line.startswith("+ ")]

    assert 5 == len(added)


@pytest.mark.parametrize("name", OBSERVED)
def test_observed_service(name: str, behind: str) -> None:
    """With them the call that it serves and the one that it makes are a line, a count and a span each, in one trace."""
    with Receiver() as receiver, example(name, behind, endpoint=receiver.endpoint) as running:
        status = check(running.address("listening"))
        lines = [fields(line) for line in running.stdout.wait_for("code=OK", count=2)]
        spans = receiver.wait_for(2)
        scrape = metrics(running.address("metrics"))

    assert "ok" == status
    assert {"client", "server"} == {line["kind"] for line in lines} == {span.kind for span in spans}
    assert 1 == len({line["trace_id"] for line in lines} | {span.trace_id for span in spans})
    assert {"server", "client"} == set(re.findall(r'grpc_(\w+)_handled_total\{grpc_code="OK",.*\} 1\.0', scrape))


def metrics(address: str) -> str:
    """Return what /metrics says."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://{address}/metrics", timeout=5) as response:
        return str(response.read().decode())


@pytest.mark.parametrize("name", OBSERVED)
def test_observed_service_hides_what_is_behind(name: str) -> None:
    """When the service behind is down, the caller learns that something is wrong, and the log says what."""
    with example(name, "127.0.0.1:1") as running:
        with pytest.raises(grpc.RpcError, match="internal error"):
            check(running.address("listening"))
        [line] = running.stdout.wait_for("kind=server")

    assert "UNKNOWN" == fields(line)["code"]
    assert "127.0.0.1:1" in fields(line)["error"]


@pytest.mark.parametrize("name", OBSERVED)
def test_observed_service_ends(name: str, behind: str) -> None:
    """SIGTERM ends it with status 0."""
    with example(name, behind) as running:
        running.address("listening")
        status = running.end()

    assert 0 == status


def test_slow_calls(tmp_path: Path, behind: str) -> None:
    """The example of slow calls notes the call that it serves and the one that it makes, if they are slow."""
    path = tmp_path / "slow"
    with example("slow_calls.py", behind, str(path), "0") as running:
        check(running.address("listening"))
        running.stdout.wait_for("code=OK", count=2)
        running.end()
    lines = [json.loads(line) for line in path.read_text("utf-8").splitlines()]

    assert {"client", "server"} == {line["kind"] for line in lines}
    assert 1 == len({line["trace_id"] for line in lines})


def test_tenants(behind: str) -> None:
    """The example of tenants counts the call that it serves by the tenant that it names."""
    with example("tenants.py", behind) as running:
        check(running.address("listening"), **{"x-tenant": "acme"})
        running.stdout.wait_for("kind=server")
        scrape = metrics(running.address("metrics"))

    assert ['tenant_calls_total{grpc_code="OK",tenant="acme"} 1.0'] == re.findall(
        r"^tenant_calls_total.*", scrape, re.MULTILINE
    )


def test_payloads(behind: str) -> None:
    """The example of payloads logs the messages of the method it is to, on both sides, beside their calls."""
    with example("payloads.py", behind) as running:
        check(running.address("listening"))
        calls = [fields(line) for line in running.stdout.wait_for("code=OK", count=2)]
        lines = [fields(line) for line in running.stdout.wait_for("event=payload", count=4)]

    assert {
        ("server", "received", ""),
        ("client", "sent", ""),
        ("client", "received", 'status: "ok"'),
        ("server", "sent", 'status: "ok"'),
    } == {(line["kind"], line["direction"], line["message"]) for line in lines}
    assert {line["span_id"] for line in calls} == {line["call_span_id"] for line in lines}
    assert {line["trace_id"] for line in calls} == {line["trace_id"] for line in lines if "trace_id" in line}
