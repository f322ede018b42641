"""Whatever stands in Service A's place, Service B answers in its budget, truthfully, and serves afterwards."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo, RequestInfo  # type: ignore[import-untyped]  # it has no stubs
from grpc_status import rpc_status

from client.answers import failure
from client.lines import fields
from client.processes import Service
from programs import tls
from protos.echo_pb2 import CallEchoRequest
from protos.echo_pb2_grpc import CallEchoServiceStub
from tests.faults.bad_peers import ECHO, INSIDE, PEERS
from tests.faults.conftest import Figure
from tests.faults.targets import Target, service_b
from tests.support.h2 import Peer, Wire, answering
from tests.support.ports import free_ports
from tests.system.conftest import run_client

BUDGET = 0.5  # seconds that A has
SLACK = 0.5  # seconds more until B's answer is here, on a busy machine
BACK = 2.0  # seconds until B reaches an A that is back, on such a machine
MORE_MEMORY = 20  # MB
AWAY = {"UNAVAILABLE", "DEADLINE_EXCEEDED"}
# What grpc logs by itself, with a stack trace, of a call that fails as it is to fail.
LOGGED_BY_GRPC = {"a message that cannot be parsed": "Exception deserializing message!"}
KINDS = ("client", "server")  # of B's sides in a call


@dataclass(frozen=True)
class Caller:
    """Service B, its stub, and the port at which it looks for A."""

    b: Target
    stub: CallEchoServiceStub
    port: int

    def call(self) -> Any:
        """Make a call; return its failure, which is both a grpc.RpcError and a grpc.Call, or None."""
        try:
            self.stub.CallEcho(CallEchoRequest(msg="hello"), timeout=5)
        except grpc.RpcError as error:
            return error
        return None

    def code(self) -> str:
        """Make a call; return its code."""
        error = self.call()
        return error.code().name if error else "OK"


@pytest.fixture(scope="module")
def caller() -> Iterator[Caller]:
    """Give a Service B whose A is whoever listens on a port."""
    [port] = free_ports(1)
    options = ("--service-a", f"127.0.0.1:{port}", "--service-a-timeout", str(BUDGET))
    with (
        Service("service-b", *options, OTEL_TRACES_EXPORTER="none") as b,
        grpc.insecure_channel(b.address) as channel,
    ):
        yield Caller(service_b(b), CallEchoServiceStub(channel), port)


@answering
def well(wire: Wire, stream: int) -> None:
    """Answer every call as A does."""
    wire.answer(stream, ECHO)


def wait_until(true: Callable[[], bool]) -> float:
    """Wait until something is true, for some seconds at most; return how long that took, in seconds."""
    start = time.monotonic()
    while not true() and time.monotonic() - start < 2 * BACK:
        time.sleep(0.02)
    return time.monotonic() - start


def connected(caller: Caller, peer: Peer) -> None:
    """Wait until B, which has found nobody at this port before, tries again and finds the peer."""
    wait_until(lambda: caller.code() != "OK" and bool(peer.connections))


@pytest.mark.parametrize("name", PEERS)
def test_bad_peer(caller: Caller, name: str, figure: Figure) -> None:
    """B's answer is in time, its code is right, its text is B's, it is reported once, and A can come back."""
    peer = PEERS[name]
    memory = caller.b.megabytes
    with Peer(peer.behave, port=caller.port) as bad:
        connected(caller, bad)
        before = {kind: caller.b.counts(kind) for kind in KINDS}
        start = time.monotonic()
        error = caller.call()
        took = time.monotonic() - start
        after = {kind: caller.b.counts(kind) for kind in KINDS}
    with Peer(well, port=caller.port):
        back = wait_until(lambda: caller.code() == "OK")

    code = error.code().name if error else "OK"
    figure("B's answer", f"{code} after {took * 1000:.0f} ms", f"in {BUDGET + SLACK} s")
    assert code in peer.codes
    assert took < BUDGET + SLACK
    assert back < BACK
    assert {kind: dict.fromkeys(counts, 1) for kind, counts in before.items()} == {
        kind: {signal: count - before[kind][signal] for signal, count in counts.items()}
        for kind, counts in after.items()
    }
    assert [] == [line for line in caller.b.complaints() if LOGGED_BY_GRPC.get(name, "\n") not in line]
    assert caller.b.megabytes - memory < MORE_MEMORY
    if error is not None:
        check_status(caller, error, code)


def check_status(caller: Caller, error: Any, code: str) -> None:
    """Check what B says of A's failure to its caller, to the person who called, and to those who read its log."""
    status = rpc_status.from_call(error)
    reason, request = ErrorInfo(), RequestInfo()
    assert status is not None
    assert status.details[0].Unpack(reason)
    assert status.details[1].Unpack(request)
    away = code in AWAY

    assert ("SERVICE_A_UNAVAILABLE" if away else "SERVICE_A_ERROR") == reason.reason
    assert {
        "service_b": "ok",
        "service_a": "unavailable" if away else "error",
        "error": f"StatusCode.{code}: {error.details()}",
    } == failure(error, "service_b", tls.Target(caller.b.address, {}, None))
    assert [] == [text for text in (INSIDE, "127.0.0.1") if text in str(status)]
    lines = caller.b.service.stdout.wait_for(request.request_id, " endpoint=", count=len(KINDS))
    assert sorted(KINDS) == sorted(fields(line)["kind"] for line in lines)


@pytest.mark.parametrize(
    ("name", "service_a"),
    [
        ("accepts and never speaks", "unavailable"),
        ("GOAWAY before the call, after it came", "unavailable"),
        ("RST_STREAM INTERNAL_ERROR", "error"),
        ("HTTP/2 401", "error"),
        ("status 'abc'", "error"),
    ],
)
def test_client(caller: Caller, name: str, service_a: str) -> None:
    """The client prints one object that says so, and exits with 1."""
    with Peer(PEERS[name].behave, port=caller.port) as bad:
        connected(caller, bad)
        result = run_client("call-echo", "hello", SERVICE_B_ADDRESS=caller.b.address)

    assert ("", 1) == (result.stderr, result.returncode)
    answer = json.loads(result.stdout)
    assert {"service_b": "ok", "service_a": service_a} == {key: answer[key] for key in answer if key != "error"}
    assert answer["error"].partition(":")[0].removeprefix("StatusCode.") in PEERS[name].codes
    assert INSIDE not in answer["error"]
