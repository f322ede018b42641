"""What is reported of a call, in the three places: log lines, a trace, metrics."""

import json
import re
from dataclasses import dataclass
from subprocess import CompletedProcess

import pytest

from client.lines import fields
from client.web import metrics
from tests.support.receiver import Span
from tests.system.conftest import System, running_system

COMMON = ("service", "endpoint", "status", "latency_ms", "level", "kind", "method", "code")
IDS = ("trace_id", "span_id")
FAILED = ("service", "endpoint", "status", "error", "latency_ms", "level", "kind", "method", "code")


@dataclass(frozen=True)
class Reported:
    """One run of `call-echo --verbose`, with what every side reported of it, from the caller inwards."""

    answer: CompletedProcess[str]
    lines: list[str]
    spans: list[Span]

    @property
    def trace_id(self) -> str:
        """The trace of the call, as the client's log line names it."""
        return fields(self.lines[0])["trace_id"]


def reported(system: System, *, sides: int = 4) -> Reported:
    """Make a call, and wait until all sides have reported it."""
    answer = system.client("call-echo", "hello", "--verbose")
    (client_line,) = answer.stderr.splitlines()
    trace_id = fields(client_line)["trace_id"]
    b = sorted(system.b.stdout.wait_for(trace_id, count=2), key=lambda line: " kind=client " in line)
    a = system.a.stdout.wait_for(trace_id) if sides > 3 else []
    spans = system.receiver.wait_for(sides, trace_id=trace_id)
    return Reported(answer, [client_line, *b, *a], sorted(spans, key=lambda span: span.start))


@pytest.fixture(scope="module")
def success(system: System) -> Reported:
    """Give a call that succeeded."""
    return reported(system)


@pytest.fixture(scope="module")
def failure() -> Reported:
    """Give a call that failed because A was stopped."""
    with running_system() as system:
        system.a.stop()
        return reported(system, sides=3)


def test_each_side_has_a_line(success: Reported) -> None:
    """A call that passes through both services has one line per call and side, with the method it calls or serves."""
    keys = ("service", "kind", "endpoint", "method", "status", "level", "code")

    call_echo = ("/call-echo", "echo.v1.CallEchoService/CallEcho", "ok", "info", "OK")
    echo = ("/echo", "echo.v1.EchoService/Echo", "ok", "info", "OK")
    assert [
        ("client", "client", *call_echo),
        ("B", "server", *call_echo),
        ("B", "client", *echo),
        ("A", "server", *echo),
    ] == [tuple(fields(line)[key] for key in keys) for line in success.lines]


def test_keys_have_their_order(success: Reported) -> None:
    """The keys of a line stand in the order of the contract, a server's with the peer and the deadline."""
    client, b_server, b_client, a_server = (tuple(fields(line)) for line in success.lines)

    assert (*COMMON, *IDS) == client == b_client
    assert (*COMMON, "peer", "deadline_ms", *IDS) == b_server == a_server


def test_a_line_looks_as_promised(success: Reported) -> None:
    """A line of Service A is, to the letter, what the contract shows."""
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} service=A endpoint=/echo status=ok latency_ms=\d+\.\d{3} level=info "
        r"kind=server method=echo\.v1\.EchoService/Echo code=OK peer=ipv4:127\.0\.0\.1:\d+ deadline_ms=\d+ "
        r"trace_id=[0-9a-f]{32} span_id=[0-9a-f]{16}",
        success.lines[-1],
    )


def test_lines_of_a_failure(failure: Reported) -> None:
    """When A is stopped, each side's line is an error: the fixed text on B's own, grpc's words on B's call."""
    client, b_server, b_client = map(fields, failure.lines)

    fixed = "StatusCode.UNAVAILABLE: failed to connect to all addresses"
    assert (fixed, fixed) == (client["error"], b_server["error"])
    assert b_client["error"].startswith(f"{fixed}; last error: ")
    assert [("error", "error", "UNAVAILABLE")] * 3 == [
        (line["status"], line["level"], line["code"]) for line in (client, b_server, b_client)
    ]


def test_keys_of_a_failure(failure: Reported) -> None:
    """A failure's line has its error after its status, always quoted."""
    client, b_server, b_client = failure.lines

    assert (*FAILED, *IDS) == tuple(fields(client)) == tuple(fields(b_client))
    assert (*FAILED, "peer", "deadline_ms", *IDS) == tuple(fields(b_server))
    assert all(' error="StatusCode.UNAVAILABLE: ' in line for line in failure.lines)


def test_one_trace_of_four_spans(success: Reported) -> None:
    """A call is one trace: client → B → B's call → A, each the child of the one before."""
    assert [
        ("client", "client", "echo.v1.CallEchoService/CallEcho"),
        ("service-b", "server", "echo.v1.CallEchoService/CallEcho"),
        ("service-b", "client", "echo.v1.EchoService/Echo"),
        ("service-a", "server", "echo.v1.EchoService/Echo"),
    ] == [(span.service, span.kind, span.name) for span in success.spans]
    assert ["", *(span.span_id for span in success.spans[:-1])] == [span.parent_id for span in success.spans]


def test_spans_and_lines_name_each_other(success: Reported) -> None:
    """Each side's line has the ids of that side's span."""
    assert [(span.trace_id, span.span_id) for span in success.spans] == [
        (fields(line)["trace_id"], fields(line)["span_id"]) for line in success.lines
    ]


def test_attributes_of_spans(system: System, success: Reported) -> None:
    """Spans carry the stable RPC attributes: a client's the server's address, a server's its peer's."""
    client, b_server, b_client, a_server = (dict(span.attributes) for span in success.spans)
    peers = [b_server.pop("network.peer.port"), a_server.pop("network.peer.port")]

    def rpc(method: str) -> dict[str, str]:
        return {"rpc.system.name": "grpc", "rpc.method": method, "rpc.status_code": "OK"}

    b_host, b_port = system.b.address.split(":")
    a_host, a_port = system.a.address.split(":")
    call_echo, echo = rpc("echo.v1.CallEchoService/CallEcho"), rpc("echo.v1.EchoService/Echo")
    assert call_echo | {"server.address": b_host, "server.port": int(b_port)} == client
    assert call_echo | {"network.peer.address": "127.0.0.1"} == b_server
    assert echo | {"server.address": a_host, "server.port": int(a_port)} == b_client
    assert echo | {"network.peer.address": "127.0.0.1"} == a_server
    assert all(isinstance(port, int) for port in peers)


def test_spans_of_a_failure(failure: Reported) -> None:
    """When A is stopped, the trace has three spans, all errors, with the code as their type."""
    assert [("client", "error"), ("service-b", "error"), ("service-b", "error")] == [
        (span.service, span.status) for span in failure.spans
    ]
    assert [("UNAVAILABLE", "UNAVAILABLE")] * 3 == [
        (span.attributes["rpc.status_code"], span.attributes["error.type"]) for span in failure.spans
    ]


@pytest.mark.parametrize(("service", "method"), [("a", "Echo"), ("b", "CallEcho")])
def test_exemplar_names_the_trace(own_system: System, service: str, method: str) -> None:
    """The bucket that a call fell into names the call's trace, and its span on that side."""
    call = reported(own_system)
    url = getattr(own_system, service).metrics_url
    exemplar = f'trace_id="{call.trace_id}"'

    (bucket,) = [
        line for line in metrics(url) if line.startswith("grpc_server_handling_seconds_bucket{") and exemplar in line
    ]

    assert f'grpc_method="{method}"' in bucket
    assert any(f'span_id="{span.span_id}"' in bucket for span in call.spans)


def test_counts_of_one_call(own_system: System) -> None:
    """One call is started once, handled once, observed once, with one message each way, and is not in flight."""
    reported(own_system)
    labels = 'grpc_method="Echo",grpc_service="echo.v1.EchoService",grpc_type="unary"}'
    lines = metrics(own_system.a.metrics_url)

    found = {line.partition("{")[0]: float(line.split()[1]) for line in lines if line.split("#")[0].find(labels) > 0}

    assert {
        "grpc_server_started_total": 1,
        "grpc_server_msg_received_total": 1,
        "grpc_server_msg_sent_total": 1,
        "grpc_server_in_flight": 0,
    }.items() <= found.items()
    handled = 'grpc_server_handled_total{grpc_code="OK",' + labels + " 1.0"
    assert handled in lines


def test_metrics_exist_before_the_first_call(own_system: System) -> None:
    """Every method of a service's own is at zero from the start, and so is every code of it."""
    lines = metrics(own_system.a.metrics_url)
    handled = [line for line in lines if line.startswith("grpc_server_handled_total{")]

    assert 5 * 17 == len(handled)
    assert {"0.0"} == {line.split()[-1] for line in handled}


def test_service_is_named_by_target_info(system: System) -> None:
    """/metrics names the service."""
    for service, name in ((system.a, "service-a"), (system.b, "service-b")):
        (info,) = [line for line in metrics(service.metrics_url) if line.startswith("target_info{")]
        assert f'service_name="{name}"' in info


def test_json_lines() -> None:
    """LOG_FORMAT=json gives the same keys as JSON, the time first and in RFC 3339, numbers as numbers."""
    with running_system(LOG_FORMAT="json") as system:
        answer = system.client("call-echo", "hello", "--verbose", LOG_FORMAT="json")
        client = json.loads(answer.stderr)
        (text,) = system.a.stdout.wait_for(client["trace_id"])

    line = json.loads(text)
    assert ("time", *COMMON, "peer", "deadline_ms", *IDS) == tuple(line)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["time"])
    assert (float, int) == (type(line["latency_ms"]), type(line["deadline_ms"]))


def test_log_level_filters(own_system: System) -> None:
    """LOG_LEVEL of the client's environment lets a failure's line through without --verbose."""
    own_system.a.stop()

    answer = own_system.client("call-echo", "hello", LOG_LEVEL="warning")

    (line,) = answer.stderr.splitlines()
    assert ("client", "UNAVAILABLE") == (fields(line)["service"], fields(line)["code"])
