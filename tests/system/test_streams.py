"""Streams are reported as one call each, with the messages that went each way."""

from dataclasses import dataclass

import pytest

from client.lines import fields
from client.web import metrics
from tests.system.conftest import System


@dataclass(frozen=True)
class Stream:
    """A streaming command, and what A is to report of it."""

    arguments: tuple[str, ...]
    method: str
    type: str
    received: int
    sent: int
    stdin: str = ""


STREAMS = [
    Stream(("echo", "--repeat", "5", "hello"), "EchoRepeat", "server_stream", received=1, sent=5),
    Stream(("echo", "--join", "one", "two", "three"), "EchoJoin", "client_stream", received=3, sent=1),
    Stream(("chat",), "EchoChat", "bidi_stream", received=2, sent=2, stdin="one\ntwo\n"),
]


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.method)
def test_line_of_a_stream(system: System, stream: Stream) -> None:
    """A stream's line counts its messages, on A's side and, the other way round, on its caller's."""
    result = system.client(*stream.arguments, "--verbose", stdin=stream.stdin)
    trace_id = fields(result.stderr.strip())["trace_id"]
    (served,) = map(fields, system.a.stdout.wait_for(trace_id))
    caller = result.stderr if stream.method != "EchoChat" else system.b.stdout.wait_for(trace_id, " kind=client ")[0]
    called = fields(caller.strip())

    assert (f"echo.v1.EchoService/{stream.method}", "OK") == (served["method"], served["code"])
    assert (stream.sent, stream.received) == (int(served["sent"]), int(served["received"]))
    assert (stream.received, stream.sent) == (int(called["sent"]), int(called["received"]))


@pytest.mark.parametrize("stream", STREAMS, ids=lambda stream: stream.method)
def test_span_of_a_stream(system: System, stream: Stream) -> None:
    """A stream is one span per side, within its caller's; a server may see its end a little later."""
    result = system.client(*stream.arguments, "--verbose", stdin=stream.stdin)
    line = fields(result.stderr.strip())
    sides = 4 if stream.method == "EchoChat" else 2
    spans = system.receiver.wait_for(sides, trace_id=line["trace_id"])

    assert sides == len(spans)
    assert {"OK"} == {span.code for span in spans}
    (root,) = [span for span in spans if not span.parent_id]
    assert all(root.start <= span.start < root.end for span in spans)


def test_metrics_of_streams(own_system: System) -> None:
    """Each message of a stream is counted, and each stream handled once."""
    for stream in STREAMS:
        assert 0 == own_system.client(*stream.arguments, stdin=stream.stdin).returncode
    own_system.a.stdout.wait_for(" endpoint=", count=len(STREAMS))
    lines = set(metrics(own_system.a.metrics_url))

    for stream in STREAMS:
        method = f'grpc_method="{stream.method}",grpc_service="echo.v1.EchoService",grpc_type="{stream.type}"}}'
        assert {
            f"grpc_server_msg_received_total{{{method} {float(stream.received)}",
            f"grpc_server_msg_sent_total{{{method} {float(stream.sent)}",
            f'grpc_server_handled_total{{grpc_code="OK",{method} 1.0',
            f"grpc_server_in_flight{{{method} 0.0",
        } <= lines


def test_chat_of_many_lines(system: System) -> None:
    """A chat of thousands of lines is answered line by line, in order."""
    lines = [str(number) for number in range(3000)]
    result = system.client("chat", stdin="\n".join(lines))

    assert [f'{{"service_b": "ok", "service_a": {{"echo": "{line}"}}}}' for line in lines] == result.stdout.splitlines()
