"""Spans: what each says of its call, and how the context is propagated from caller to server."""

import asyncio
import contextlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from hypothesis import given
from hypothesis import strategies as some
from opentelemetry import baggage, propagate, trace
from opentelemetry import context as contexts
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.context import Context, attach, detach
from opentelemetry.instrumentation.grpc import filters
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ParentBased
from opentelemetry.trace import SpanKind, StatusCode

from observability import (
    AioHideExceptions,
    AioServerInterceptor,
    ClientInterceptor,
    ServerInterceptor,
    aio_client_interceptors,
    trace_calls,
)
from observability.traces.propagation import fast_extract
from tests.support.recorder import Recorder
from tests.support.rpc import (
    ARITIES,
    ECHOES,
    NAMES,
    SERVICE,
    STREAMS,
    aio_connected,
    aio_serving,
    as_asked,
    connected,
    echo,
    method,
    requests,
    serving,
)

# Codes for which a server's span has an error status, by the RPC conventions; a client's has for all but OK.
SERVER_ERRORS = {"UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"}
TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
TRACEPARENT = f"00-{TRACE_ID}-{SPAN_ID}-01"


def crash(_request: bytes, _context: grpc.ServicerContext) -> bytes:
    """Raise."""
    raise ValueError("no bread")


class Pair:
    """A server and a client, both observed."""

    def __init__(self, server: Recorder | None = None, client: Recorder | None = None) -> None:
        self.server = server or Recorder()
        self.client = client or Recorder()

    def call(
        self,
        arity: str = "unary",
        *,
        request: Any = None,
        name: str | None = None,
        metadata: Any = None,
        **behaviors: Any,
    ) -> None:
        """Make one call and see both its ends."""
        interceptor = ServerInterceptor(*self.server.observers)
        with (
            serving(interceptor, **behaviors or ECHOES) as address,
            grpc.insecure_channel(address) as plain,
        ):
            self.address = address
            channel = grpc.intercept_channel(plain, ClientInterceptor(*self.client.observers, target=address))
            callable_ = method(channel, arity, name)
            request = requests(arity) if request is None else request
            if arity not in STREAMS:
                callable_.future(request, metadata=metadata, timeout=10).exception()
            else:
                _ = list(callable_(request, metadata=metadata, timeout=10))
            self.client.wait_for()
            self.server.wait_for()

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        """The one span of each side."""
        [server], [client] = self.server.spans, self.client.spans
        return {"server": server, "client": client}


def attributes(span: ReadableSpan) -> dict[str, Any]:
    """Return a span's attributes."""
    return dict(span.attributes or {})


@pytest.mark.parametrize("arity", ARITIES)
def test_names_kinds_and_attributes(arity: str) -> None:
    """Each side's span has the name, kind and attributes of the RPC conventions, and no others."""
    pair = Pair()
    pair.call(arity)
    name = f"{SERVICE}/{NAMES[arity]}"
    common = {"rpc.system.name": "grpc", "rpc.method": name, "rpc.status_code": "OK"}
    server, client = pair.spans["server"], pair.spans["client"]
    port = attributes(server).pop("network.peer.port")

    assert [(name, SpanKind.SERVER), (name, SpanKind.CLIENT)] == [(s.name, s.kind) for s in (server, client)]
    assert {**common, "network.peer.address": "127.0.0.1", "network.peer.port": port} == attributes(server)
    assert isinstance(port, int)
    host, port_ = pair.address.split(":")
    assert {**common, "server.address": host, "server.port": int(port_)} == attributes(client)


@pytest.mark.parametrize("side", ["server", "client"])
@pytest.mark.parametrize("code", grpc.StatusCode)
def test_every_code(side: str, code: grpc.StatusCode) -> None:
    """A client's span is an error for every code but OK, a server's for its own faults; error.type goes with it."""
    pair = Pair()
    pair.call(request=code.name.encode(), unary=as_asked)
    span = pair.spans[side]

    failed = code.name in SERVER_ERRORS if side == "server" else code.name != "OK"
    assert code.name == attributes(span)["rpc.status_code"]
    assert (StatusCode.ERROR if failed else StatusCode.UNSET) == span.status.status_code
    assert ("as asked" if failed else None) == span.status.description
    assert (code.name if failed else None) == attributes(span).get("error.type")
    assert () == span.events


@pytest.mark.expects_errors("ValueError: no bread")
def test_exception_is_recorded_once() -> None:
    """An uncaught exception is one event of the server's span: type, message and stack trace."""
    pair = Pair()
    pair.call(unary=crash)
    [event] = pair.spans["server"].events
    recorded = dict(event.attributes or {})

    assert ("exception", "ValueError", "no bread") == (
        event.name,
        recorded["exception.type"],
        recorded["exception.message"],
    )
    assert str(recorded["exception.stacktrace"]).endswith("ValueError: no bread\n")
    assert pair.spans["server"].end_time == event.timestamp
    assert "no bread" == pair.spans["server"].status.description
    assert () == pair.spans["client"].events


class UnprintableError(Exception):
    """Cannot be printed."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


def test_exception_that_cannot_be_printed() -> None:
    """An exception whose text raises ends its span like any other, and names its type."""

    def behavior(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        raise UnprintableError

    server = Recorder()
    aio_call(behavior, server)

    [event] = server.spans[0].events
    assert f"{__name__}.UnprintableError" == (event.attributes or {})["exception.type"]
    assert "UNKNOWN" == attributes(server.spans[0])["error.type"]


def aio_call(behavior: Callable[..., Any], server: Recorder, client: Recorder | None = None) -> None:
    """Make one unary call on asyncio."""

    async def main() -> None:
        interceptors = aio_client_interceptors(*client.observers) if client else []
        async with aio_connected(
            AioHideExceptions(), AioServerInterceptor(*server.observers), unary=behavior, client=interceptors
        ) as channel:
            with contextlib.suppress(grpc.RpcError):
                await method(channel, "unary")(b"a", timeout=10)

    asyncio.run(main())
    server.wait_for()


def test_message_of_an_exception_is_bounded() -> None:
    """A huge exception makes no huge span: its message, its stack trace and the description are truncated."""

    def behavior(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        raise ValueError("x" * 1_000_000)

    server = Recorder()
    aio_call(behavior, server)

    assert len(server.spans[0].to_json()) < 20_000


@pytest.mark.parametrize("name", ["/nobody.v1.Knows/This", "/nobody", f"/{SERVICE}/Nothing"])
def test_unknown_method(name: str) -> None:
    """A call of an unknown method is _OTHER on the server, under the original name, and its own on the client."""
    pair = Pair()
    pair.call(name=name)
    server, client = pair.spans["server"], pair.spans["client"]
    original = name.strip("/")

    assert {
        "rpc.system.name": "grpc",
        "rpc.method": "_OTHER",
        "rpc.method_original": original,
        "rpc.status_code": "UNIMPLEMENTED",
        "error.type": "UNIMPLEMENTED",
    } == attributes(server)
    assert ("grpc", original) == (server.name, client.name)
    assert original == attributes(client)["rpc.method"]


@pytest.mark.parametrize("side", ["server", "client"])
def test_span_is_as_long_as_the_call(side: str) -> None:
    """A span's start and end are the call's own, to the microsecond."""
    pair = Pair()
    pair.call("bidi_stream")
    span = pair.spans[side]
    [outcome] = (pair.server if side == "server" else pair.client).outcomes

    assert span.start_time is not None
    assert span.end_time is not None
    assert outcome.seconds == pytest.approx((span.end_time - span.start_time) / 1e9, abs=1e-6)


@pytest.mark.parametrize("arity", ARITIES)
def test_server_span_is_the_clients_child(arity: str) -> None:
    """The server's span is the client's child, in one trace."""
    pair = Pair()
    pair.call(arity)
    server, client = pair.spans["server"], pair.spans["client"]

    assert server.parent is not None
    assert client.context.span_id == server.parent.span_id
    assert client.context.trace_id == server.context.trace_id
    assert client.parent is None


def test_client_span_is_the_current_spans_child_and_does_not_become_current() -> None:
    """A client's span is a child of the current span, and does not become the current one."""
    pair = Pair()
    with pair.client.provider.get_tracer("app").start_as_current_span("job") as job:
        pair.call()
        after = trace.get_current_span()
    [client] = [span for span in pair.client.spans if span.name != "job"]

    assert client.parent is not None
    assert job.get_span_context().span_id == client.parent.span_id
    assert job is after


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_baggage_reaches_the_handler(stack: str) -> None:
    """W3C baggage of the caller's context is in the handler's."""
    seen: list[Any] = []

    def behavior(request: bytes, _context: Any) -> bytes:
        seen.append(baggage.get_all())
        return request

    token = attach(baggage.set_baggage("tenant", "acme"))
    try:
        if stack == "sync":
            Pair().call(unary=behavior)
        else:
            aio_call(behavior, Recorder(), Recorder())
    finally:
        detach(token)

    assert [{"tenant": "acme"}] == [dict(found) for found in seen]


BAD_TRACEPARENTS: list[str] = [
    "",
    "nonsense",
    TRACEPARENT.upper(),
    TRACEPARENT.replace("00-", "ff-", 1),
    f"00-{'0' * 32}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{'0' * 16}-01",
    f"00-{TRACE_ID[:-1]}-{SPAN_ID}-01",
    f"00-{TRACE_ID}-{SPAN_ID}",
    f"00-{TRACE_ID}-{SPAN_ID}-01-more",
    f"00-{TRACE_ID}-{SPAN_ID}-zz",
    "-".join(["00"] * 100),
    "x" * 2000,
]


@pytest.mark.parametrize("header", BAD_TRACEPARENTS, ids=lambda header: header[:60])
def test_malformed_traceparent_starts_a_trace(header: str) -> None:
    """A malformed traceparent gives the server a new trace, and costs nothing else."""
    server = Recorder()
    call_with([("traceparent", header)], server)

    assert server.spans[0].parent is None
    assert ["OK"] == server.codes


@pytest.mark.parametrize("header", [TRACEPARENT, f"cc-{TRACE_ID}-{SPAN_ID}-01-what-the-future-holds"])
def test_traceparent(header: str) -> None:
    """A valid traceparent, of a later version too, is the parent."""
    server = Recorder()
    call_with([("traceparent", header)], server)
    parent = server.spans[0].parent

    assert parent is not None
    assert (TRACE_ID, SPAN_ID) == (f"{parent.trace_id:032x}", f"{parent.span_id:016x}")


@pytest.mark.parametrize(
    "metadata",
    [
        [("traceparent", "nonsense"), ("traceparent", TRACEPARENT)],  # grpc keeps the last
        [("tracestate", "a=1"), ("traceparent", TRACEPARENT), ("tracestate", "=,=")],
        [("traceparent", TRACEPARENT), ("picture-bin", b"\x00\xff")],
        [("traceparent", TRACEPARENT), ("baggage", "=;,")],
        [("traceparent", TRACEPARENT), ("baggage", "x" * 6000)],
    ],
    ids=["twice", "bad tracestate", "bytes", "bad baggage", "long baggage"],
)
def test_invalid_headers_beside_a_valid_traceparent(metadata: Any) -> None:
    """A second traceparent, bytes, and invalid baggage or tracestate beside a valid traceparent cost nothing."""
    server = Recorder()
    call_with(metadata, server)
    parent = server.spans[0].parent

    assert parent is not None
    assert TRACE_ID == f"{parent.trace_id:032x}"


def call_with(metadata: Any, server: Recorder) -> None:
    """Make one unary call with this metadata, from a client without telemetry."""
    with connected(ServerInterceptor(*server.observers), unary=echo) as channel:
        method(channel, "unary")(b"a", metadata=metadata, timeout=10)
        server.wait_for()


METADATA = (("key", "one"), ("key", "two"), ("picture-bin", b"\x00\xff"), ("picture-bin", b"more"))


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_metadata_survives(stack: str) -> None:
    """Duplicate keys and bytes values of the caller's metadata reach the server, in their order."""
    seen: list[Any] = []

    def behavior(request: bytes, context: Any) -> bytes:
        seen.append([tuple(pair) for pair in context.invocation_metadata() if pair[0] in ("key", "picture-bin")])
        return request

    async def main() -> None:
        async with (
            aio_serving(AioServerInterceptor(*Recorder().observers), unary=behavior) as address,
            grpc.aio.insecure_channel(address, interceptors=aio_client_interceptors(*Recorder().observers)) as channel,
        ):
            await method(channel, "unary")(b"a", metadata=grpc.aio.Metadata(*METADATA))

    if stack == "sync":
        Pair().call(metadata=METADATA, unary=behavior)
    else:
        asyncio.run(main())

    assert [list(METADATA)] == seen


HEX = some.text("0123456789abcdefF", min_size=0, max_size=33) | some.just("0" * 32) | some.just("0" * 16)
HEADERS = (
    some.builds("{}-{}-{}-{}".format, some.sampled_from(["00", "01", "ff"]), HEX, HEX, HEX)
    | some.from_regex(r"00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)
    | some.text(max_size=60)
)
KEYS = some.sampled_from(["traceparent", "tracestate", "baggage", "user-agent"])


@given(some.lists(some.tuples(KEYS, HEADERS), max_size=4))
def test_what_is_read_of_any_metadata(metadata: list[tuple[str, str]]) -> None:
    """What is read at once of a plain traceparent is what W3C's propagators read; the rest is left to them."""
    read = fast_extract(metadata, Context())
    carrier: dict[str, list[str]] = {}
    for key, value in metadata:
        carrier.setdefault(key, []).append(value)

    if read is not None:
        expected = propagate.get_global_textmap().extract(carrier)
        assert trace.get_current_span(expected).get_span_context() == trace.get_current_span(read).get_span_context()
        assert baggage.get_all(expected) == baggage.get_all(read)
    else:
        assert carrier


def test_context_that_another_carries() -> None:
    """What an interceptor before ours has put into the context is in the handler's, beside the span."""
    seen: list[Any] = []

    class Carrying(grpc.ServerInterceptor):
        """Puts something into the handler's context."""

        def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
            contexts.attach(contexts.set_value("tenant", "acme"))
            return continuation(handler_call_details)

    def behavior(request: bytes, _context: grpc.ServicerContext) -> bytes:
        seen.append((contexts.get_value("tenant"), trace.get_current_span().get_span_context().is_valid))
        return request

    recorder = Recorder()
    with connected(Carrying(), ServerInterceptor(*recorder.observers), unary=behavior) as channel:
        method(channel, "unary")(b"a", timeout=10)

    assert [("acme", True)] == seen


def test_callers_own_traceparent_is_replaced() -> None:
    """A traceparent that is in the metadata already gives way to the client span's, and stays one."""
    seen: list[Any] = []

    def behavior(request: bytes, context: Any) -> bytes:
        seen.extend(value for key, value in context.invocation_metadata() if key == "traceparent")
        return request

    pair = Pair()
    pair.call(metadata=[("traceparent", TRACEPARENT)], unary=behavior)
    [call] = pair.client.calls

    assert [f"00-{call.trace_id}-{call.span_id}"] == [header.rpartition("-")[0] for header in seen]


def test_propagator_of_the_application() -> None:
    """trace_calls takes a propagator in place of the global one."""
    pair = Pair(client=Recorder(trace={"propagator": W3CBaggagePropagator()}))
    pair.call()

    assert pair.spans["server"].parent is None


class Curious(TextMapPropagator):
    """Reads every key that there is."""

    fields: set[str] = set()  # noqa: RUF012 - as its base has it

    def __init__(self) -> None:
        self.seen: list[str] = []

    def extract(self, carrier: Any, context: Any = None, getter: Any = None) -> Any:
        """Keep the keys."""
        self.seen += getter.keys(carrier)
        return context or Context()

    def inject(self, carrier: Any, context: Any = None, setter: Any = None) -> None:
        """Write nothing."""


def test_propagator_that_reads_every_key() -> None:
    """A propagator may ask for all keys of the metadata."""
    curious = Curious()
    server = Recorder(trace={"propagator": curious})
    call_with([("uberctx-tenant", "acme")], server)

    assert "uberctx-tenant" in curious.seen


def test_unsampled_call_is_propagated_and_reported() -> None:
    """A call that is not sampled has no span; its context is propagated, and it has its line and metrics."""
    pair = Pair(client=Recorder(sampler=ALWAYS_OFF), server=Recorder(sampler=ParentBased(ALWAYS_OFF)))
    pair.call()
    [client], [server] = pair.client.calls, pair.server.calls

    assert ((), ()) == (pair.client.spans, pair.server.spans)
    assert client.trace_id == server.trace_id
    assert client.span_id != server.span_id
    assert {client.trace_id} == {line["trace_id"] for line in pair.client.lines + pair.server.lines}
    assert 1 == pair.server.total("grpc_server_handled_total")


def test_no_provider() -> None:
    """A provider that makes no spans leaves the ids out."""
    server = Recorder()
    server.observers[0] = trace_calls(trace.NoOpTracerProvider())
    call_with((), server)
    [line] = server.lines

    assert "trace_id" not in line
    assert "span_id" not in line


def test_filter() -> None:
    """What the filter refuses has no span, and its caller's context is carried through it."""
    refused = {"filter_": filters.negate(filters.method_name("Unary"))}
    pair = Pair(server=Recorder(trace=refused))
    inner: list[trace.SpanContext] = []

    def behavior(request: bytes, _context: Any) -> bytes:
        inner.append(trace.get_current_span().get_span_context())
        return request

    pair.call(unary=behavior)

    assert () == pair.server.spans
    assert 1 == len(pair.server.lines)
    assert [pair.client.spans[0].context.span_id] == [context.span_id for context in inner]


def test_filter_sees_the_clients_calls_too() -> None:
    """A client's call that the filter refuses has no span; the current span's context goes on in its place."""
    pair = Pair(client=Recorder(trace={"filter_": filters.negate(filters.service_name(SERVICE))}))
    with pair.client.provider.get_tracer("app").start_as_current_span("job") as job:
        pair.call()

    parent = pair.server.spans[0].parent
    assert parent is not None
    assert job.get_span_context().span_id == parent.span_id


INFRASTRUCTURE = ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"]


@pytest.mark.parametrize("name", INFRASTRUCTURE)
def test_health_and_reflection_have_no_spans(name: str) -> None:
    """Health checks and reflection have no spans and no line above DEBUG, and are measured."""
    pair = Pair()
    pair.call(name=name)

    for recorder, side in ((pair.server, "server"), (pair.client, "client")):
        assert () == recorder.spans
        assert ["debug"] == [line["level"] for line in recorder.lines]
        assert 1 == recorder.total(f"grpc_{side}_handled_total")


def test_another_health_service_is_a_call_like_any_other() -> None:
    """A health service that is not grpc's own has its span."""
    pair = Pair()
    pair.call(name="/echo.v1.HealthService/Check")

    assert ["echo.v1.HealthService/Check"] == [span.name for span in pair.client.spans]


@pytest.mark.parametrize("arity", ARITIES)
def test_suppressed_client_is_silent(arity: str) -> None:
    """Under suppress_instrumentation a client's call has no line, no metric and no span, and goes through."""
    client = Recorder()
    with serving(**ECHOES) as address, grpc.insecure_channel(address) as plain, suppress_instrumentation():
        channel = grpc.intercept_channel(plain, ClientInterceptor(*client.observers))
        answer = method(channel, arity)(requests(arity))
        answer = answer if isinstance(answer, bytes) else list(answer)

    assert answer
    assert ([], ()) == (client.calls, client.spans)


@pytest.mark.parametrize("arity", ARITIES)
def test_suppressed_aio_client_is_silent(arity: str) -> None:
    """On asyncio it has none either."""
    client = Recorder()

    async def main() -> None:
        async with aio_serving(**ECHOES) as address:
            interceptors = aio_client_interceptors(*client.observers)
            async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
                call = method(channel, arity)(requests(arity))
                _ = await call if arity not in STREAMS else [message async for message in call]

    with suppress_instrumentation():
        asyncio.run(main())

    assert ([], ()) == (client.calls, client.spans)


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("localhost:8080", ("localhost", 8080)),
        ("echo.example.com:443", ("echo.example.com", 443)),
        ("10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("echo", ("echo", None)),
        ("my_host:80", ("my_host", 80)),
        ("dns:echo:8080", ("echo", 8080)),
        ("dns:///echo:8080", ("echo", 8080)),
        ("dns://8.8.8.8/echo:8080", ("echo", 8080)),
        ("dns://8.8.8.8:53/echo", ("echo", None)),
        ("ipv4:10.0.0.1:8080", ("10.0.0.1", 8080)),
        ("ipv6:[2001:db8::1]:8080", ("2001:db8::1", 8080)),
        ("[2001:db8::1]:8080", ("2001:db8::1", 8080)),
        ("[::1]", ("::1", None)),
        ("unix:/run/echo.sock", ("/run/echo.sock", None)),
        ("unix:///run/echo.sock", ("/run/echo.sock", None)),
        ("unix:relative.sock", ("relative.sock", None)),
        ("unix-abstract:echo", ("echo", None)),
        ("xds:///echo.v1", ("echo.v1", None)),
        ("ipv4:10.0.0.1:1,10.0.0.2:2", ("ipv4:10.0.0.1:1,10.0.0.2:2", None)),
        ("", ("", None)),
    ],
)
def test_target(target: str, expected: tuple[str, int | None]) -> None:
    """server.address and server.port are those of the channel's target, as grpc reads targets."""
    client = Recorder()
    with connected(unary=echo, client=[ClientInterceptor(*client.observers, target=target)]) as channel:
        method(channel, "unary")(b"a")
        client.wait_for()
    found = attributes(client.spans[0])

    assert expected == (found["server.address"], found.get("server.port"))


def test_no_target() -> None:
    """Without a target server.address and server.port are left out."""
    client = Recorder()
    with serving(unary=echo) as address, grpc.insecure_channel(address) as plain:
        method(grpc.intercept_channel(plain, ClientInterceptor(*client.observers)), "unary")(b"a")
        client.wait_for()

    assert [] == [key for key in attributes(client.spans[0]) if key.startswith("server.")]


@pytest.mark.parametrize(
    ("address", "expected"),
    [("127.0.0.1:0", ["127.0.0.1", True]), ("[::1]:0", ["::1", True]), ("unix:{}", [None, False])],
)
def test_peer(address: str, expected: list[Any], tmp_path: Path) -> None:
    """A server's span names its peer's address and port; a Unix socket's peer has neither."""
    server = Recorder()
    with (
        serving(ServerInterceptor(*server.observers), address=address.format(tmp_path / "socket"), unary=echo) as bound,
        grpc.insecure_channel(bound) as channel,
    ):
        method(channel, "unary")(b"a")
        server.wait_for()
    found = attributes(server.spans[0])

    assert expected == [found.get("network.peer.address"), isinstance(found.get("network.peer.port"), int)]
