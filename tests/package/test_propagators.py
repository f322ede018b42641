"""Whatever a propagator does, the call goes through as it does without, and has its spans."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.instrumentation.grpc import GrpcInstrumentorClient
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.sdk.trace import TracerProvider

from observability import (
    AioServerInterceptor,
    ClientInterceptor,
    ServerInterceptor,
    aio_client_interceptors,
)
from observability.client.aio_channel import AioObservedChannel
from observability.client.channel import ObservedChannel
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, ECHOES, RESPONSES, STREAMS, aio_serving, method, requests, serving

TRACE_ID, SPAN_ID = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
PLAIN = ("sent", "as it is")
UNSENDABLE = {
    "a space in the key": ("uberctx-user name", "x"),
    "an empty key": ("", "x"),
    "a key that is no text": (5, "x"),
    "a key beyond ASCII": ("schlüssel", "x"),
    "a colon": (":path", "x"),
    "a value beyond ASCII": ("key", "Grüße"),
    "a newline": ("key", "a\nb"),
    "a number": ("key", 5),
    "a lone surrogate": ("key", "\ud800"),
    "text for bytes": ("key-bin", "x"),
}
Call = Callable[[Recorder, str, str, Any], list[bytes]]


class Writing(TextMapPropagator):
    """Writes these pairs, and one that can be sent."""

    fields: set[str] = set()  # noqa: RUF012 - as its base has it

    def __init__(self, *pairs: tuple[Any, Any]) -> None:
        self._pairs = pairs

    def inject(self, carrier: Any, _context: Any = None, setter: Any = None) -> None:
        """Write."""
        for key, value in (*self._pairs, PLAIN):
            setter.set(carrier, key, value)

    def extract(self, _carrier: Any, context: Any = None, _getter: Any = None) -> Any:
        """Read nothing."""
        return context or Context()


class Failing(Writing):
    """Fails when it has written half, and when it reads."""

    def inject(self, *arguments: Any) -> None:
        """Write, and fail."""
        super().inject(*arguments)
        raise ValueError("no bread")

    def extract(self, *_arguments: Any) -> Any:
        """Fail."""
        raise ValueError("no bread")


def _all(call: Any, arity: str, metadata: Any) -> list[bytes]:
    answer = call(requests(arity), metadata=metadata, timeout=10)
    return list(answer) if arity in STREAMS else [answer]


def by_interceptor(recorder: Recorder, address: str, arity: str, metadata: Any) -> list[bytes]:
    """Call through grpc.intercept_channel."""
    with grpc.insecure_channel(address) as plain:
        channel = grpc.intercept_channel(plain, ClientInterceptor(*recorder.observers))
        return _all(method(channel, arity), arity, metadata)


def by_channel(recorder: Recorder, address: str, arity: str, metadata: Any) -> list[bytes]:
    """Call through our own channel."""
    with ObservedChannel(grpc.insecure_channel(address), *recorder.observers) as channel:
        return _all(method(channel, arity), arity, metadata)


async def _all_aio(channel: Any, arity: str, metadata: Any) -> list[bytes]:
    async with channel:
        call = method(channel, arity)(requests(arity), metadata=metadata, timeout=10)
        return [response async for response in call] if arity in STREAMS else [await call]


def by_aio_interceptors(recorder: Recorder, address: str, arity: str, metadata: Any) -> list[bytes]:
    """Call through the interceptors of an asyncio channel."""

    async def main() -> list[bytes]:
        interceptors = aio_client_interceptors(*recorder.observers)
        return await _all_aio(grpc.aio.insecure_channel(address, interceptors=interceptors), arity, metadata)

    return asyncio.run(main())


def by_aio_channel(recorder: Recorder, address: str, arity: str, metadata: Any) -> list[bytes]:
    """Call through our own asyncio channel."""

    async def main() -> list[bytes]:
        return await _all_aio(
            AioObservedChannel(grpc.aio.insecure_channel(address), *recorder.observers), arity, metadata
        )

    return asyncio.run(main())


WAYS = pytest.mark.parametrize("way", [by_interceptor, by_channel, by_aio_interceptors, by_aio_channel])


def served(
    way: Call, client: Recorder, arity: str = "unary", metadata: Any = None
) -> tuple[list[bytes], dict[str, Any]]:
    """Make a call in this way; return its responses, and the metadata that the server saw."""
    server = Recorder()
    with serving(ServerInterceptor(*server.observers), **ECHOES) as address:
        responses = way(client, address, arity, metadata)
        server.wait_for()
    client.wait_for()
    return responses, {key: value for key, value in server.calls[0].metadata if key != "user-agent"}


@WAYS
@pytest.mark.parametrize("arity", ARITIES)
def test_what_cannot_be_sent_is_left_out(way: Call, arity: str) -> None:
    """The call goes through with what can be sent of what a propagator writes, in each arity."""
    client = Recorder(trace={"propagator": Writing(*UNSENDABLE.values())})

    assert (RESPONSES[arity], {PLAIN[0]: PLAIN[1]}) == served(way, client, arity)
    assert ["OK"] == client.codes


@WAYS
@pytest.mark.parametrize("pair", UNSENDABLE.values(), ids=UNSENDABLE)
def test_what_cannot_be_sent_is_reported_once(way: Call, pair: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Of all that a propagator writes and gRPC cannot send, one warning names the first key, and the propagator."""
    client = Recorder(trace={"propagator": Writing(pair)})
    for _ in range(2):
        served(way, client)

    assert [f"Writing writes metadata that gRPC cannot send: {pair[0]!r} is left out"] == [
        record.getMessage() for record in caplog.records if record.name == "observability"
    ]


@WAYS
@pytest.mark.expects_errors("^observability: observer Failing failed")
def test_propagator_that_fails(way: Call) -> None:
    """Of a propagator that fails nothing is sent, the caller's own metadata is, and the call has its span."""
    client = Recorder(trace={"propagator": Failing()})
    responses, metadata = served(way, client, metadata=[("own", "1")])

    assert ([b"a"], {"own": "1"}, ["OK"]) == (responses, metadata, client.codes)
    assert [["OK"]] * 4 == client.everywhere("client")


@pytest.mark.expects_errors("^observability: observer Failing failed")
@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_propagator_that_fails_to_read(stack: str) -> None:
    """A server's call whose context cannot be read has its span."""
    server = Recorder(trace={"propagator": Failing()})

    async def main() -> None:
        async with (
            aio_serving(AioServerInterceptor(*server.observers), **AIO_ECHOES) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            await method(channel, "unary")(b"a", timeout=10)

    if stack == "aio":
        asyncio.run(main())
    else:
        with (
            serving(ServerInterceptor(*server.observers), **ECHOES) as address,
            grpc.insecure_channel(address) as plain,
        ):
            method(plain, "unary")(b"a", timeout=10)
    server.wait_for()

    assert [["OK"]] * 4 == server.everywhere()


@WAYS
def test_trace_in_the_metadata_goes_on(way: Call) -> None:
    """Without a current span, a call goes on with the trace that is in its metadata, as its child."""
    client = Recorder()
    _, metadata = served(way, client, metadata=[("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")])
    [span] = client.spans

    assert span.parent is not None
    assert (TRACE_ID, SPAN_ID) == (f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}")
    assert f"00-{TRACE_ID}-{span.context.span_id:016x}-{span.context.trace_flags:02x}" == metadata["traceparent"]


@WAYS
def test_current_span_goes_before_the_metadata(way: Call) -> None:
    """With a current span, a call is its child, whatever trace is in the metadata."""
    client = Recorder()
    with client.provider.get_tracer("test").start_as_current_span("job") as job:
        served(way, client, metadata=[("traceparent", f"00-{TRACE_ID}-{SPAN_ID}-01")])
    [span] = [span for span in client.spans if span.name != "job"]

    assert span.parent == job.get_span_context()


@pytest.mark.parametrize(
    ("way", "metadata"),
    [
        (by_interceptor, [("k", 5)]),
        (by_interceptor, [("k",)]),
        (by_interceptor, [5]),
        (by_channel, [("k", 5)]),
        (by_channel, [("k",)]),
        (by_channel, [5]),
        (by_aio_interceptors, [("k", 5)]),  # the others grpc.aio refuses before it asks an interceptor
        (by_aio_channel, [("k", 5)]),
        (by_aio_channel, [("k",)]),
        (by_aio_channel, [5]),
    ],
)
def test_invalid_metadata_of_the_caller(way: Call, metadata: Any) -> None:
    """Invalid metadata of the caller is refused by grpc, and the call has its line, counts and span."""
    client = Recorder()
    with serving(**ECHOES) as address, pytest.raises(Exception):  # noqa: B017, PT011 - grpc's own, of either stack
        way(client, address, "unary", metadata)
    client.wait_for()

    assert [["UNKNOWN"]] * 4 == client.everywhere("client")


@pytest.mark.parametrize("way", [by_interceptor, by_channel])
@pytest.mark.parametrize("outer", [False, True])
def test_beside_the_official_instrumentor(way: Call, outer: bool, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: FBT001
    """
    Beside the official client instrumentor, whose span the server sees, ours is in its trace under a span alone.

    Without a span around the call each begins its own trace.
    """
    client, server = Recorder(), Recorder()
    monkeypatch.setattr(trace, "_TRACER_PROVIDER", TracerProvider(shutdown_on_exit=False))  # it takes the global one
    instrumentor = GrpcInstrumentorClient()  # type: ignore[no-untyped-call]  # it has no types
    around = client.provider.get_tracer("test").start_as_current_span("job") if outer else contextlib.nullcontext()
    with serving(ServerInterceptor(*server.observers), **ECHOES) as address:
        instrumentor.instrument()
        try:
            with around:
                way(client, address, "unary", None)
        finally:
            instrumentor.uninstrument()
        server.wait_for()
    client.wait_for()

    assert outer is (client.calls[0].trace_id == server.calls[0].trace_id)
