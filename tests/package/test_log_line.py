"""A call's log line: its keys in their order, what they hold, and at which level."""

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from opentelemetry import baggage
from opentelemetry.context import attach, detach
from opentelemetry.instrumentation import grpc as official
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from client.lines import fields
from observability import AioServerInterceptor, Call, ClientInterceptor, Outcome, ServerInterceptor
from observability.calls.method import kebab
from observability.logs.render import render_keyvalue
from tests.support.recorder import Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    ECHOES,
    SERVICE,
    STREAMS,
    aio_connected,
    as_asked,
    connected,
    echo,
    method,
    requests,
    serving,
)

COMMON = ["service", "endpoint", "status", "latency_ms", "level", "kind", "method", "code"]
# The server's own faults, by the RPC conventions; what else is no OK is the caller's.
ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}


def crash(_request: Any, _context: grpc.ServicerContext) -> Any:
    """Raise what a hostile request might make a handler raise."""
    raise ValueError('no "bread"\nservice=B')


def line_of(recorder: Recorder) -> dict[str, Any]:
    """Return the one call's fields, as they were given to the logger."""
    [line] = recorder.lines
    return {key: value for key, value in line.items() if key not in ("event", "called")}


def server_line(behavior: Any, *, timeout: float | None = None, **log: Any) -> dict[str, Any]:
    """Return the server's line of one unary call, rendered and read back."""
    server = Recorder(log=log)
    with connected(ServerInterceptor(*server.observers), unary=behavior) as ch:
        method(ch, "unary").future(b"a", timeout=timeout).exception()
        server.wait_for()
    return fields(render_keyvalue(line_of(server)))


def test_order_of_a_servers_line() -> None:
    """A server's line has the keys of the table, in its order."""
    line = server_line(echo, timeout=5)

    assert [*COMMON, "peer", "deadline_ms", "trace_id", "span_id"] == list(line)


@pytest.mark.expects_errors(r'ValueError: no "bread"')
def test_order_of_a_failed_line() -> None:
    """The error comes after the status, and the stack trace last."""
    line = server_line(crash, timeout=5)

    assert [*COMMON[:3], "error", *COMMON[3:], "peer", "deadline_ms", "trace_id", "span_id", "stacktrace"] == list(line)


def test_order_of_a_clients_line() -> None:
    """A client's line says nothing of peer and deadline."""
    client = Recorder()
    with serving(unary=echo) as address, grpc.insecure_channel(address) as plain:
        channel = grpc.intercept_channel(plain, ClientInterceptor(*client.observers, target=address))
        method(channel, "unary")(b"a", timeout=5)
        client.wait_for()

    assert [*COMMON, "trace_id", "span_id"] == list(line_of(client))


@pytest.mark.parametrize("arity", ARITIES)
def test_message_counts_of_a_stream(arity: str) -> None:
    """A stream's line counts its messages before the ids; a unary call's does not."""
    server = Recorder()
    with serving(ServerInterceptor(*server.observers), **{arity: ECHOES[arity]}) as address:
        with grpc.insecure_channel(address) as channel:
            answer = method(channel, arity)(requests(arity))
            _ = answer if arity not in STREAMS else list(answer)
        server.wait_for()
    line = line_of(server)

    expected = {"client_stream": (1, 3), "server_stream": (2, 1), "bidi_stream": (3, 3)}.get(arity)
    assert expected == (line.get("sent") and (line["sent"], line["received"]))
    if expected:
        assert ["sent", "received", "trace_id", "span_id"] == list(line)[-4:]


def test_values_of_a_call_that_succeeded() -> None:
    """A line says who served what for whom, in the words of the contract."""
    line = server_line(echo)

    assert {
        "service": "A",
        "endpoint": "/unary",
        "status": "ok",
        "level": "info",
        "kind": "server",
        "method": f"{SERVICE}/Unary",
        "code": "OK",
    } == {key: line[key] for key in COMMON if key != "latency_ms"}
    assert line["peer"].startswith("ipv4:127.0.0.1:")


def test_deadline_is_the_time_that_the_caller_gave() -> None:
    """deadline_ms is what the caller gave, in milliseconds, but for what the wire rounds and takes."""
    line = server_line(echo, timeout=5)

    assert 4500 < int(line["deadline_ms"]) < 5100


def test_no_deadline() -> None:
    """A caller without a deadline leaves deadline_ms out."""
    assert "deadline_ms" not in server_line(echo)


def test_latency_has_three_decimals() -> None:
    """latency_ms is written with three decimals, however round the number."""
    server = Recorder()
    with connected(ServerInterceptor(*server.observers), unary=echo) as ch:
        method(ch, "unary")(b"a")
        server.wait_for()
    [outcome] = server.outcomes

    assert f" latency_ms={outcome.seconds * 1000:.3f} " in render_keyvalue(line_of(server))
    assert " latency_ms=2.000 " in render_keyvalue(line_of(server) | {"latency_ms": 2.0})


def test_error_of_an_abort_names_code_and_details() -> None:
    """A status's error is StatusCode.NAME: details."""
    line = server_line(lambda _request, context: context.abort(grpc.StatusCode.NOT_FOUND, "no such word"))

    assert "StatusCode.NOT_FOUND: no such word" == line["error"]


@pytest.mark.expects_errors(r'ValueError: no "bread"')
def test_error_of_a_crash_names_type_and_message() -> None:
    """An uncaught exception's error is Type: message, and cannot forge a line."""
    line = server_line(crash)

    assert 'ValueError: no "bread"\nservice=B' == line["error"]
    assert "A" == line["service"]


@pytest.mark.expects_errors(r'ValueError: no "bread"')
def test_stacktrace_starts_at_the_handler() -> None:
    """The stack trace of an uncaught exception starts where the handler's own code does."""
    frames = [text for text in server_line(crash)["stacktrace"].splitlines() if text.startswith("  File")]

    assert 1 == len(frames)
    assert frames[0].endswith("in crash")


@pytest.mark.parametrize("details", ["plain", ""])
def test_error_is_always_quoted(details: str) -> None:
    """The error is quoted even where it is plain, so that one search finds every one."""
    text = render_keyvalue({"error": details})

    assert text.endswith(f'error="{details}"')


@pytest.mark.parametrize("name", ["/Nowhere", "/test.v1.Words/Nothing", "/a/b/c", "/nothing"])
def test_unknown_method(name: str) -> None:
    """A call of an unknown method has the endpoint /unknown, and its own name quoted."""
    server = Recorder()
    with connected(ServerInterceptor(*server.observers), unary=echo) as ch:
        method(ch, "unary", name).future(b"a").exception()
        server.wait_for()
    line = line_of(server)

    assert ("/unknown", "UNIMPLEMENTED", "error") == (line["endpoint"], line["code"], line["level"])
    assert f' method="{line["method"]}" ' in render_keyvalue(line)
    assert name.strip("/") == line["method"].strip("/")


HOSTILE_PATHS = [
    "/a\nb/c",
    "/a\r\n2026-02-04 10:00:00,000 service=A/x",
    '/" code=OK forged="/x',
    "/\x1b[2J/x",
    "/\u2028\u202e/x",
    "/back\\slash/x",
    "/" + "x" * 5000 + "/y",
]


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=ascii)
def test_hostile_path(path: str) -> None:
    """A method path full of what breaks lines is one value of one line, truncated at 1,024 bytes."""
    server = Recorder()
    with connected(ServerInterceptor(*server.observers), unary=echo) as ch:
        method(ch, "unary", path).future(b"a").exception()
        server.wait_for()
    text = render_keyvalue(line_of(server))

    assert path[1:1025] == fields(text)["method"]
    assert "UNIMPLEMENTED" == fields(text)["code"]
    assert text.isprintable()


@pytest.mark.parametrize("code", grpc.StatusCode)
@pytest.mark.parametrize("side", ["server", "client"])
def test_level(side: str, code: grpc.StatusCode) -> None:
    """OK is info, a server's fault error, any other failure a warning; the same on both sides."""
    recorder = Recorder()
    interceptors = [ServerInterceptor(*recorder.observers)] if side == "server" else []
    with serving(*interceptors, unary=as_asked) as address, grpc.insecure_channel(address) as plain:
        intercepted = grpc.intercept_channel(plain, ClientInterceptor(*recorder.observers))
        channel = plain if side == "server" else intercepted
        method(channel, "unary").future(code.name.encode()).exception()
        recorder.wait_for()
    [line] = recorder.lines

    expected = "info" if code.name == "OK" else "error" if code.name in ERRORS else "warning"
    assert (expected, expected) == (line["level"], line["called"])
    assert ("ok" if code.name == "OK" else "error") == line["status"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("Echo", "echo"),
        ("CallEcho", "call-echo"),
        ("GetHTTPPage", "get-http-page"),
        ("GetV2Beta1", "get-v2-beta1"),
        ("snake_case", "snake-case"),
        ("already-kebab", "already-kebab"),
        ("", ""),
    ],
)
def test_endpoint_is_in_kebab_case(name: str, expected: str) -> None:
    """An endpoint is its method's name in kebab-case."""
    assert expected == kebab(name)


def test_health_checks_are_logged_at_debug() -> None:
    """A probe's call has its line at DEBUG, whatever its outcome."""
    server = Recorder()
    with connected(ServerInterceptor(*server.observers)) as channel:
        method(channel, "unary", "/grpc.health.v1.Health/Check").future(b"").exception()
        server.wait_for()

    assert ["debug"] == [line["level"] for line in server.lines]


@pytest.mark.parametrize(
    ("only", "expected"),
    [("all", ["OK", "NOT_FOUND"]), ("failed", ["NOT_FOUND"]), (60_000.0, ["NOT_FOUND"]), (0.0, ["OK", "NOT_FOUND"])],
)
def test_which_calls_have_a_line(only: str | float, expected: list[str]) -> None:
    """All calls have a line, or those that failed, or those that failed or took longer than so many milliseconds."""
    server = Recorder(log={"only": only})
    with connected(ServerInterceptor(*server.observers), unary=as_asked) as ch:
        for count, code in enumerate((b"OK", b"NOT_FOUND"), 1):
            method(ch, "unary").future(code).exception()
            server.wait_for(count)

    assert expected == [line["code"] for line in server.lines]


@pytest.mark.parametrize("side", ["server", "client"])
def test_baggage_by_name(side: str) -> None:
    """Baggage entries that are asked for are fields of the line, on both sides; others are not."""
    recorder = {side: Recorder(log={"baggage_keys": ["tenant", "user"]}) for side in ("server", "client")}
    token = attach(baggage.set_baggage("tenant", "acme corp", baggage.set_baggage("secret", "s3cret")))
    try:
        with connected(
            ServerInterceptor(*recorder["server"].observers),
            unary=echo,
            client=[ClientInterceptor(*recorder["client"].observers)],
        ) as channel:
            method(channel, "unary")(b"a")
            recorder[side].wait_for()
    finally:
        detach(token)
    line = line_of(recorder[side])

    assert {"tenant": "acme corp"} == {key: line[key] for key in ("tenant", "user", "secret") if key in line}
    assert "tenant" == list(line)[-1]


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_baggage_that_another_carries(stack: str) -> None:
    """Baggage that another interceptor brings to the handler alone is a field too."""
    recorder = Recorder(log={"baggage_keys": ["tenant"]}, trace={"propagator": TraceContextTextMapPropagator()})
    metadata = (("baggage", "tenant=acme"),)
    official_: Any = official  # it has no types

    async def call_aio() -> None:
        interceptors = [official_.aio_server_interceptor(recorder.provider), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, unary=AIO_ECHOES["unary"]) as channel:
            await method(channel, "unary")(b"a", metadata=metadata, timeout=10)

    if stack == "sync":
        with connected(
            official_.server_interceptor(recorder.provider), ServerInterceptor(*recorder.observers), unary=echo
        ) as channel:
            method(channel, "unary")(b"a", metadata=metadata, timeout=10)
    else:
        asyncio.run(call_aio())
    recorder.wait_for()

    assert "acme" == line_of(recorder)["tenant"]


def test_baggage_beside_other_fields() -> None:
    """Baggage leaves the fields that an observer before has added, and their values."""

    def observer(call: Call) -> Callable[[Outcome], None]:
        call.annotate(tenant="mine", zone="b")
        return lambda _outcome: None

    recorder = Recorder(log={"baggage_keys": ["tenant", "user"]}, extra=(observer,))
    with connected(ServerInterceptor(*recorder.observers), unary=echo) as channel:
        method(channel, "unary")(b"a", metadata=(("baggage", "tenant=acme,user=u1"),), timeout=10)
        recorder.wait_for()
    line = line_of(recorder)

    assert ("mine", "b", "u1") == (line["tenant"], line["zone"], line["user"])
