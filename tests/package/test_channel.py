"""`ObservedChannel` does what grpc's channel does with our interceptor, around whatever channel it stands."""

import contextlib
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from observability.client.channel import ObservedChannel
from protos.echo_pb2 import EchoRequest, EchoResponse
from protos.echo_pb2_grpc import EchoServiceServicer, EchoServiceStub, add_EchoServiceServicer_to_server
from tests.support.outcomes import behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import (
    ARITIES,
    ECHOES,
    NAMES,
    RESPONSES,
    SERVICE,
    STREAMS,
    connected,
    method,
    requests,
)

SINGLE: Final = ("call", "with_call", "future")
KINDS: Final = {
    "unary": grpc.UnaryUnaryMultiCallable,
    "client_stream": grpc.StreamUnaryMultiCallable,
    "server_stream": grpc.UnaryStreamMultiCallable,
    "bidi_stream": grpc.StreamStreamMultiCallable,
}
WAYS: Final = [(arity, way) for arity in ARITIES for way in (("iterate",) if arity in STREAMS else SINGLE)]
EVERY_WAY: Final = pytest.mark.parametrize(("arity", "way"), WAYS)
SENT: Final = {"unary": 1, "client_stream": 3, "server_stream": 1, "bidi_stream": 3}


class Through(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Another library's interceptor, which changes nothing, or raises what it is given."""

    def __init__(self, error: Exception | None = None) -> None:
        self._error = error

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Go on."""
        if self._error:
            raise self._error
        return continuation(client_call_details, request)

    intercept_unary_stream = intercept_unary_unary

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Go on."""
        return self.intercept_unary_unary(continuation, client_call_details, request_iterator)

    intercept_stream_stream = intercept_stream_unary


class Recorded(grpc.Channel):
    """A channel that records what is called on it; its callables raise this error, or what they are called with."""

    def __init__(self, error: BaseException | None = None) -> None:
        self._error = error
        self.made: list[Any] = []
        self.asked: list[Any] = []

    def _make(self, *arguments: Any) -> Any:
        self.made.append(arguments)
        return Calls(self._error)

    unary_unary: Any = _make
    unary_stream: Any = _make
    stream_unary: Any = _make
    stream_stream: Any = _make

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 - grpc's signature
        """Record it."""
        self.asked.append(("subscribe", callback, try_to_connect))

    def unsubscribe(self, callback: Any) -> None:
        """Record it."""
        self.asked.append(("unsubscribe", callback))

    def close(self) -> None:
        """Record it."""
        self.asked.append("close")


class CalledError(Exception):
    """Says what a callable has been called with."""


class Calls:
    """Raises this, or what it is called with, in each way."""

    def __init__(self, error: BaseException | None) -> None:
        self._error = error

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """Raise it."""
        raise self._error or CalledError("__call__", arguments, options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        """Raise it."""
        raise self._error or CalledError("with_call", arguments, options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        """Raise it."""
        raise self._error or CalledError("future", arguments, options)


def make(callable_: Any, way: str, request: Any, **options: Any) -> list[Any]:
    """Make a call; return its responses, read to the end."""
    return answers(way_to(callable_, way)(request, **options), way)


def way_to(callable_: Any, way: str) -> Any:
    """Return the method by which a call is made in this way."""
    return getattr(callable_, "__call__" if way in ("call", "iterate") else way)


def answers(result: Any, way: str) -> list[Any]:
    """Return the responses of what a call made in this way has returned, read to the end."""
    if way == "iterate":
        return list(result)
    if way == "future":
        return [result.result()]
    return [result[0] if way == "with_call" else result]


@EVERY_WAY
def test_call(arity: str, way: str) -> None:
    """A call in every way has its responses, and is reported once, with its code and the messages both ways."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        responses = make(method(ObservedChannel(plain, *recorder.observers), arity), way, requests(arity), timeout=10)
    recorder.wait_for()

    assert RESPONSES[arity] == responses
    assert [["OK"]] * 4 == recorder.everywhere("client")
    assert [(SENT[arity], len(responses))] == [(outcome.sent, outcome.received) for outcome in recorder.outcomes]
    assert [(arity, 10, None)] == [(call.type, call.deadline, call.peer) for call in recorder.calls]


@EVERY_WAY
def test_error(arity: str, way: str) -> None:
    """A call that fails raises what grpc's own raises, and is reported once with its code and details."""
    recorder, found = Recorder(), []
    with connected(**behaviors("NOT_FOUND")) as plain:
        for channel in (plain, ObservedChannel(plain, *recorder.observers)):
            with pytest.raises(grpc.RpcError) as raised:
                make(method(channel, arity), way, requests(arity), timeout=10)
            error = raised.value
            found.append((type(error).__module__, type(error).__qualname__, error.code(), error.details()))
    recorder.wait_for()

    assert found[0] == found[1]
    assert [["NOT_FOUND"]] * 4 == recorder.everywhere("client")
    assert ["as asked"] == [outcome.details for outcome in recorder.outcomes]


@EVERY_WAY
@pytest.mark.parametrize("error", [CalledError("no bread"), KeyboardInterrupt()], ids=["error", "interrupt"])
def test_what_is_raised_passes_through(arity: str, way: str, error: BaseException) -> None:
    """What the inner callable raises is what the caller gets: UNKNOWN if it is no call, CANCELLED if it interrupts."""
    recorder = Recorder()
    with pytest.raises(type(error)) as raised:
        make(method(ObservedChannel(Recorded(error), *recorder.observers), arity), way, requests(arity))

    assert raised.value is error
    assert ["UNKNOWN" if isinstance(error, Exception) else "CANCELLED"] == recorder.codes
    assert [error if isinstance(error, Exception) else None] == [outcome.error for outcome in recorder.outcomes]


@pytest.mark.parametrize("arity", ARITIES)
def test_cancel(arity: str) -> None:
    """A call that is cancelled is reported once, as CANCELLED."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        callable_ = method(ObservedChannel(plain, *recorder.observers), arity)
        call = (callable_ if arity in STREAMS else callable_.future)(requests(arity))
        call.cancel()
        recorder.wait_for()
        leave.set()

    assert call.cancelled()
    assert [["CANCELLED"]] * 4 == recorder.everywhere("client")


@pytest.mark.parametrize("arity", STREAMS)
@pytest.mark.parametrize("read", [0, 1])
def test_dropped_stream(arity: str, read: int) -> None:
    """A stream that is dropped, read or not, is CANCELLED, without the garbage collector."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        stream = method(ObservedChannel(plain, *recorder.observers), arity)(requests(arity))
        for _ in range(read):
            next(stream)
        gc.disable()
        try:
            del stream
            recorder.wait_for()
        finally:
            gc.enable()
            leave.set()

    assert ["CANCELLED"] == recorder.codes
    assert [read] == [outcome.received for outcome in recorder.outcomes]


def test_dropped_future() -> None:
    """A future that is dropped is CANCELLED too."""
    recorder, leave = Recorder(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as plain:
        method(ObservedChannel(plain, *recorder.observers), "unary").future(b"a")
        recorder.wait_for()
        leave.set()

    assert ["CANCELLED"] == recorder.codes


@EVERY_WAY
def test_suppressed(arity: str, way: str) -> None:
    """Under suppress_instrumentation a call goes through, is not reported, and sends no trace."""
    recorder = Recorder()
    seen: list[str] = []

    def recording(behavior: Any) -> Any:
        def recorded(request: Any, context: grpc.ServicerContext) -> Any:
            seen.extend(key for key, _ in context.invocation_metadata())
            return behavior(request, context)

        return recorded

    with connected(**{name: recording(behavior) for name, behavior in ECHOES.items()}) as plain:
        callable_ = method(ObservedChannel(plain, *recorder.observers), arity)
        with suppress_instrumentation():
            responses = make(callable_, way, requests(arity), timeout=10)
        make(callable_, way, requests(arity), timeout=10)

    assert RESPONSES[arity] == responses
    assert ["OK"] == recorder.codes
    assert 1 == seen.count("traceparent")


@EVERY_WAY
@pytest.mark.parametrize("observed", [True, False])
def test_options(arity: str, way: str, observed: bool) -> None:  # noqa: FBT001 - a parameter
    """The inner callable is called in the same way with what the caller gave, by place or name, and our metadata."""
    recorder, metadata = Recorder(), (("key", "value"),)
    credentials = grpc.access_token_call_credentials("bread")
    called = way_to(method(ObservedChannel(Recorded(), *recorder.observers), arity), way)
    given = (5, metadata, credentials, True, grpc.Compression.Gzip)
    names = ("timeout", "metadata", "credentials", "wait_for_ready", "compression")
    by_name = dict(zip(names, given, strict=True))
    found: list[Any] = []
    for arguments, options in ((given, {}), ((), by_name)):
        silent = contextlib.nullcontext() if observed else suppress_instrumentation()
        with silent, pytest.raises(CalledError) as raised:
            called(requests(arity), *arguments, **options)
        found.append(raised.value.args)

    for name, (request,), options in found:
        sent = options.pop("metadata")
        assert called.__name__ == name
        assert b"a" == (next(request) if SENT[arity] > 1 else request)
        assert metadata == (tuple(sent)[:1] if observed else sent)
        assert ["traceparent"] * observed == [key for key, _ in sent[1:]]
        assert {name: value for name, value in by_name.items() if name != "metadata"} == options
    assert (("key", "value"),) == metadata


@EVERY_WAY
def test_requests_by_name(arity: str, way: str) -> None:
    """The first argument has the name that grpc gives it."""
    name = "request_iterator" if SENT[arity] > 1 else "request"
    with connected(**ECHOES) as plain:
        called = way_to(method(ObservedChannel(plain, *Recorder().observers), arity), way)
        result = called(timeout=10, **{name: requests(arity)})
        responses = answers(result, way)

    assert RESPONSES[arity] == responses


@pytest.mark.parametrize("arity", ARITIES)
def test_callables(arity: str) -> None:
    """A callable is one of grpc's kind, made once, with what grpc's stubs give, by place or name."""
    inner = Recorded()
    channel = ObservedChannel(inner, *Recorder().observers)
    way = {"unary": "unary_unary", "client_stream": "stream_unary", "server_stream": "unary_stream"}
    make_one: Callable[..., Any] = getattr(channel, way.get(arity, "stream_stream"))
    kinds: Any = KINDS[arity]
    one = make_one("/a/B", request_serializer=bytes, response_deserializer=str, _registered_method=True)
    make_one("/a/B", bytes, str, True)  # noqa: FBT003 - as grpc's pipeline does
    make_one("/a/B")
    for _ in range(2):
        with pytest.raises(CalledError):
            one(requests(arity))

    assert isinstance(one, kinds)
    assert [("/a/B", bytes, str, True)] * 2 + [("/a/B", None, None)] == inner.made


@pytest.mark.parametrize("path", [f"/{SERVICE}/Unary", f"/{SERVICE}/Unary".encode()])
def test_method_path(path: Any) -> None:
    """A method's path may be bytes, as grpc lets it be."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        response = ObservedChannel(plain, *recorder.observers, target="here:1").unary_unary(path)(b"a", timeout=10)

    assert b"a" == response
    assert [(SERVICE, NAMES["unary"], "here:1")] == [(call.service, call.method, call.peer) for call in recorder.calls]


@pytest.mark.parametrize("order", [("unary", "client_stream"), ("client_stream", "unary")])
def test_one_path_in_two_arities(order: tuple[str, str]) -> None:
    """One path may be called in several arities, each of which sends what it is given."""
    recorder = Recorder()
    with connected(**ECHOES) as plain:
        channel = ObservedChannel(plain, *recorder.observers)
        path = f"/{SERVICE}/Unary"
        callables = {arity: method(channel, arity, path) for arity in order}
        found = [
            callables["unary"](b"a", timeout=10),
            callables["client_stream"](iter([b"a"]), timeout=10),
        ]

    assert [b"a"] * 2 == found
    assert [(1, 1)] * 2 == [(outcome.sent, outcome.received) for outcome in recorder.outcomes]


def test_channel_passes_on() -> None:
    """What is called on the channel itself is called on the one inside."""
    inner, listener = Recorded(), print
    channel = ObservedChannel(inner, *Recorder().observers)
    channel.subscribe(listener)
    channel.subscribe(listener, try_to_connect=True)
    channel.unsubscribe(listener)
    channel.close()
    with channel as entered:
        before = list(inner.asked)

    assert entered is channel
    assert [
        ("subscribe", listener, False),
        ("subscribe", listener, True),
        ("unsubscribe", listener),
        "close",
    ] == before
    assert [*before, "close"] == inner.asked


def test_ready_future() -> None:
    """What waits for grpc's own channel waits for it and it closes its own."""
    with connected(**ECHOES) as plain:
        with ObservedChannel(plain, *Recorder().observers) as channel:
            grpc.channel_ready_future(channel).result(10)
        with pytest.raises(ValueError, match="closed channel"):
            method(plain, "unary")(b"a", timeout=10)


def around(recorder: Recorder, channel: grpc.Channel) -> grpc.Channel:
    """Put grpc's pipeline around our channel."""
    return grpc.intercept_channel(ObservedChannel(channel, *recorder.observers), Through(), Through())


def inside(recorder: Recorder, channel: grpc.Channel) -> grpc.Channel:
    """Put it inside."""
    return ObservedChannel(grpc.intercept_channel(channel, Through(), Through()), *recorder.observers)


def both(recorder: Recorder, channel: grpc.Channel) -> grpc.Channel:
    """Put it on both sides, and a channel of ours without observers between."""
    return grpc.intercept_channel(ObservedChannel(inside(recorder, channel)), Through())


@EVERY_WAY
@pytest.mark.parametrize("stacked", [around, inside, both])
@pytest.mark.parametrize("status", ["OK", "NOT_FOUND"])
def test_with_interceptors(arity: str, way: str, stacked: Any, status: str) -> None:
    """It works with grpc.intercept_channel around it, inside it, and both."""
    recorder = Recorder()
    with connected(**behaviors(status)) as plain:
        callable_ = method(stacked(recorder, plain), arity)
        if status == "OK":
            assert b"done" == make(callable_, way, requests(arity), timeout=10)[-1]
        else:
            with pytest.raises(grpc.RpcError) as raised:
                make(callable_, way, requests(arity), timeout=10)
            assert grpc.StatusCode.NOT_FOUND is raised.value.code()
    recorder.wait_for()

    assert [[status]] * 4 == recorder.everywhere("client")
    assert [SENT[arity]] == [outcome.sent for outcome in recorder.outcomes]


@EVERY_WAY
def test_interceptor_that_raises(arity: str, way: str) -> None:
    """What an interceptor inside raises is the caller's, and reported once as UNKNOWN with it."""
    recorder, error = Recorder(), CalledError("no bread")
    with connected(**ECHOES) as plain:
        channel = ObservedChannel(grpc.intercept_channel(plain, Through(error)), *recorder.observers)
        with pytest.raises(CalledError) as raised:
            make(method(channel, arity), way, requests(arity))

    assert raised.value is error
    assert [(grpc.StatusCode.UNKNOWN, error)] == [(outcome.code, outcome.error) for outcome in recorder.outcomes]


class Echo(EchoServiceServicer):
    """A service of generated code."""

    def Echo(self, request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:  # noqa: N802 - an RPC
        """Answer."""
        del context
        return EchoResponse(echo=request.msg)

    EchoRepeat: Any = None
    EchoJoin: Any = None
    EchoChat: Any = None


@pytest.fixture
def echo() -> Iterator[grpc.Channel]:
    """Serve it; gives a channel to it."""
    with ThreadPoolExecutor(2) as pool:
        server = grpc.server(pool)
        add_EchoServiceServicer_to_server(Echo(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield channel
        server.stop(None).wait()


@pytest.mark.parametrize(
    "stacked", [lambda recorder, channel: ObservedChannel(channel, *recorder.observers), around, inside]
)
def test_generated_stub(stacked: Any, echo: grpc.Channel) -> None:
    """Generated code works on it, whose methods are registered."""
    recorder = Recorder()
    response = EchoServiceStub(stacked(recorder, echo)).Echo(EchoRequest(msg="a"), timeout=10)

    assert "a" == response.echo
    assert [("echo.v1.EchoService", "Echo")] == [(call.service, call.method) for call in recorder.calls]
    assert ["OK"] == recorder.codes
