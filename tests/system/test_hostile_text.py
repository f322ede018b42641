"""Whatever a caller sends, a call is reported on one line, which says what was sent and parses."""

import re
import secrets
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # it has no stubs

from client.lines import fields
from programs.status import refuse
from protos.echo_pb2 import CallEchoRequest, EchoRequest, EchoResponse
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub
from tests.support.h2 import dial
from tests.support.process import Service
from tests.system.scripted import scripted_a

HOSTILE = {
    "forged-line": "x\n2026-01-01 00:00:00,000 service=A endpoint=/echo status=ok",
    "forged-key": 'x" code=OK error="',
    "backslashes": "\\n \\\\ \\u2028 \\",
    "escape-sequence": "\x1b[2J\x1b]0;owned\x07",
    "line-breakers": "a\rb\x0bc\x0cd\x85e\u2028f\u2029g",
    "bidirectional": "user\u202e\u2066 gnp.exe",
    "null": "a\x00b",
    "emoji": "👩‍🚀" * 10,
    "long": "ü" * 500_000,
}
# No control character, no line breaker and nothing that turns the direction of text.
HARMLESS = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]+")
IN_A_PATH = {name: text for name, text in HOSTILE.items() if name not in {"null", "long"}}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Give a Service A that puts its callers' baggage on its lines."""
    with Service(
        "service-a", "--max-msg-bytes", "2000000", "--max-request-bytes", "2000000", OBSERVABILITY_LOG_BAGGAGE="tenant"
    ) as service:
        yield service


class Traced:
    """A call to a service in a new trace, and the lines that the service logs of it."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._trace_id = secrets.token_hex(16)
        parent = f"00-{self._trace_id}-{secrets.token_hex(8)}-01"
        self.metadata = (("traceparent", parent),)
        self.raw_metadata = (b"traceparent", parent.encode())

    def lines(self, count: int) -> list[dict[str, str]]:
        """Wait for the call's lines; return their keys and values. No line of the log is forged."""
        lines = self._service.stdout.wait_for(self._trace_id, count=count)
        assert count == len(lines)
        everything = self._service.stdout.lines()
        assert all(HARMLESS.fullmatch(line) for line in everything)
        assert all({"trace_id", "event"} & fields(line).keys() for line in everything)
        return [fields(line) for line in lines]

    def line(self) -> dict[str, str]:
        """Wait for the call's one line; return its keys and values."""
        return self.lines(1)[0]


def refusal_of(call: Any) -> Any:
    """Make a call that fails; return its failure."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("name", HOSTILE)
def test_message(service: Service, name: str) -> None:
    """A hostile message is echoed, and its line is as any other."""
    traced = Traced(service)
    with grpc.insecure_channel(service.address) as channel:
        echo = EchoServiceStub(channel).Echo(EchoRequest(msg=HOSTILE[name]), timeout=5, metadata=traced.metadata).echo

    assert HOSTILE[name] == echo
    assert ("echo.v1.EchoService/Echo", "OK") == tuple(traced.line()[key] for key in ("method", "code"))


def test_message_that_is_no_text(service: Service) -> None:
    """A message with lone surrogates cannot be parsed, and is reported on one line."""
    traced = Traced(service)
    with grpc.insecure_channel(service.address) as channel:
        call: Any = channel.unary_unary("/echo.v1.EchoService/Echo")
        refused = refusal_of(lambda: call(b"\x0a\x03\xed\xa0\x80", timeout=5, metadata=traced.metadata))

    assert grpc.StatusCode.INTERNAL is refused.code()
    assert "INTERNAL" == traced.line()["code"]


@pytest.mark.parametrize("name", IN_A_PATH)
def test_method_path(service: Service, name: str) -> None:
    """A hostile method path is logged in quotes, as it was sent, and its endpoint is unknown."""
    path = f"echo.v1.EchoService/{IN_A_PATH[name]}"
    traced = Traced(service)
    with grpc.insecure_channel(service.address) as channel:
        call: Any = channel.unary_unary(f"/{path}")
        refused = refusal_of(lambda: call(b"", timeout=5, metadata=traced.metadata))

    line = traced.line()
    assert grpc.StatusCode.UNIMPLEMENTED is refused.code()
    assert ("/unknown", path, "UNIMPLEMENTED") == tuple(line[key] for key in ("endpoint", "method", "code"))


@pytest.mark.parametrize(
    ("name", "expected"),
    [(b"a\0b", "a\0b"), (b"a\r\nb", "a\r\nb"), (b"\xed\xa0\x80\xff", "\ufffd" * 4), (b"x" * 1_000_000, "x" * 1004)],
    ids=["null", "line-breaker", "no-text", "megabyte"],
)
def test_method_path_of_bytes(service: Service, name: bytes, expected: str) -> None:
    """A method path that no client of grpc's sends is logged on one line too, in its first 1,024 bytes."""
    traced = Traced(service)
    with dial(service.address) as wire:
        wire.call(b"/echo.v1.EchoService/" + name, traced.raw_metadata)
        line = traced.line()

    assert ("/unknown", f"echo.v1.EchoService/{expected}", "UNIMPLEMENTED") == tuple(
        line[key] for key in ("endpoint", "method", "code")
    )


@pytest.mark.expects_errors("Invalid encoding on")
@pytest.mark.parametrize(
    ("value", "tenant"),
    [
        (b"a%ED%A0%80b", "a\ufffd\ufffd\ufffdb"),
        (b"a%00%0D%0Ab", "a\0\r\nb"),
        (b"a\xed\xa0\x80b", None),
        (b"a\0b", None),
        (b"a\r\nservice=A", None),
    ],
    ids=["surrogate", "line-breaker", "raw-surrogate", "raw-null", "raw-line-breaker"],
)
def test_baggage_of_bytes(service: Service, value: bytes, tenant: str | None) -> None:
    """Metadata that no client of grpc's sends is logged on the call's one line as far as it is text, or not at all."""
    traced = Traced(service)
    with dial(service.address) as wire:
        wire.call("/echo.v1.EchoService/Echo", traced.raw_metadata, (b"baggage", b"tenant=" + value))
        line = traced.line()

    assert ("OK", tenant) == (line["code"], line.get("tenant"))


@pytest.mark.expects_errors("Invalid encoding on")
@pytest.mark.parametrize("key", [b"x-anything", b"tracestate", b"user-agent"])
def test_metadata_of_bytes(service: Service, key: bytes) -> None:
    """Metadata that is no text changes nothing of the call's one line, wherever it stands."""
    traced = Traced(service)
    with dial(service.address) as wire:
        wire.call("/echo.v1.EchoService/Echo", traced.raw_metadata, (key, b"a=\xed\xa0\x80\0\nb"))
        line = traced.line()

    assert ("/echo", "OK") == (line["endpoint"], line["code"])


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "long"])
def test_baggage(service: Service, name: str) -> None:
    """Hostile metadata that is put on the line comes back from it as it was sent."""
    traced = Traced(service)
    with grpc.insecure_channel(service.address) as channel:
        metadata = (*traced.metadata, ("baggage", f"tenant={quote(HOSTILE[name], safe='')}"))
        EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=5, metadata=metadata)

    assert HOSTILE[name].strip() == traced.line()["tenant"]


def test_metadata_of_a_megabyte(service: Service) -> None:
    """Metadata of a megabyte is refused, and the next call is served."""
    with grpc.insecure_channel(service.address) as channel:
        stub = EchoServiceStub(channel)
        refused = refusal_of(lambda: stub.Echo(EchoRequest(msg="x"), timeout=5, metadata=(("x", "y" * 1_000_000),)))
        echo = stub.Echo(EchoRequest(msg="hello"), timeout=5).echo

    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "hello") == (refused.code(), echo)


@pytest.fixture(scope="module")
def hostile_a() -> Iterator[Service]:
    """Give a Service B whose A refuses each message with the hostile text that it names."""

    def echo(request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:
        refuse(context, grpc.StatusCode.INVALID_ARGUMENT, HOSTILE[request.msg], BadRequest())

    with scripted_a(echo) as service_a, Service("service-b", "--service-a", service_a.address) as service_b:
        yield service_b


@pytest.mark.parametrize("name", [name for name in HOSTILE if name != "long"])
def test_status_text(hostile_a: Service, name: str) -> None:
    """A hostile text of a refusal is passed on as it is, and logged in quotes on both of B's lines."""
    traced = Traced(hostile_a)
    with grpc.insecure_channel(hostile_a.address) as channel:
        stub = CallEchoServiceStub(channel)
        request = CallEchoRequest(msg=name)
        refused = refusal_of(lambda: stub.CallEcho(request, timeout=5, metadata=traced.metadata))

    assert HOSTILE[name] == refused.details()
    assert [f"StatusCode.INVALID_ARGUMENT: {HOSTILE[name]}"] * 2 == [line["error"] for line in traced.lines(2)]


def test_status_text_of_a_megabyte(hostile_a: Service) -> None:
    """A status text that is too long for a status becomes another status, whose code B passes on and logs."""
    traced = Traced(hostile_a)
    with grpc.insecure_channel(hostile_a.address) as channel:
        stub = CallEchoServiceStub(channel)
        request = CallEchoRequest(msg="long")
        refused = refusal_of(lambda: stub.CallEcho(request, timeout=5, metadata=traced.metadata))

    assert [refused.code().name] * 2 == [line["code"] for line in traced.lines(2)]
