"""
Requests that cannot be parsed: their calls end as without us, and cost neither the connection nor the server anything.

By itself grpc.server ends such a call twice, and then keeps it for ever, and with it one of the connection's streams.
"""

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import (
    AioHideExceptions,
    AioServerInterceptor,
    Call,
    HideExceptions,
    ServerInterceptor,
    current_call,
)
from tests.support.recorder import PATIENCE, Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    ECHOES,
    HANDLERS,
    NAMES,
    OLD_AIO,
    SERVICE,
    STREAMS,
    aio_serving,
    method,
    serving,
)
from tests.support.third_party import LIBRARIES, AioPassing, Library, Passing
from tests.support.without_us import REQUEST_STREAMS

Status = tuple[str, str | None]


def echo(stack: str, arity: str) -> Any:
    """Return a handler of this arity."""
    return (ECHOES if stack == "sync" else AIO_ECHOES)[arity]


PAIRS = [
    (stack, arity)
    for stack in ("sync", "aio")
    for arity in ARITIES
    if not (OLD_AIO and stack == "aio" and arity in REQUEST_STREAMS)
]
"""grpc.aio before 1.85 keeps the call of a request stream with rubbish in it, and a connection has but two."""
SERVERS = [
    *[pytest.param(stack, arity, echo(stack, arity), id=f"{stack}-{arity}") for stack, arity in PAIRS],
    *[
        pytest.param(stack, arity, ECHOES[arity], id=f"aio-blocking-{arity}")
        for stack, arity in PAIRS
        if stack == "aio"
    ],
]
RUBBISH = (b"rubbish", b"a")
FEW = (("grpc.max_concurrent_streams", 2),)
"""Streams of a connection, at most: with two calls that are never over it is of no use any more."""
OK: Status = ("OK", "")
INTERNAL: Status = ("INTERNAL", "Exception deserializing request!")
REFUSED: dict[str, Status] = {"sync": INTERNAL, "aio": ("UNKNOWN", "Unexpected <class 'ValueError'>: no bread")}
"""What grpc answers by itself, on each stack."""
# A handler on grpc.aio that does not catch what its requests raise has failed, as with any other exception.
RAISED = pytest.mark.expects_errors(r"raised by servicer method .*\[ValueError: no bread\]")


def parse(data: bytes) -> bytes | None:
    """Parse a request, unless it is rubbish; of nothing, make None."""
    if data == b"rubbish":
        raise ValueError("no bread")
    return None if data == b"nothing" else data


def call(channel: grpc.Channel, arity: str, *messages: bytes) -> Status:
    """Make a call with these requests, or with the first of them, and return how it ended."""
    request = iter(messages) if arity in REQUEST_STREAMS else messages[0]
    try:
        answer = method(channel, arity)(request, timeout=PATIENCE)
        _ = list(answer) if arity in STREAMS else answer
    except grpc.RpcError as error:
        return error.code().name, error.details()
    return OK


def calls(
    stack: str,
    arity: str,
    behavior: Any,
    *interceptors: Any,
    requests: list[tuple[bytes, ...]],
    parser: Any = parse,
) -> list[Status]:
    """Serve this behaviour, and make a call with each of these requests, over one connection; return how they ended."""
    handlers = {NAMES[arity]: HANDLERS[arity](behavior, parser)}
    how: Any = {"handlers": [grpc.method_handlers_generic_handler(SERVICE, handlers)], "options": FEW}

    def make(address: str) -> list[Status]:
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            return [call(channel, arity, *messages) for messages in requests]

    async def on_asyncio() -> list[Status]:
        async with aio_serving(*interceptors, **how) as address:
            return await asyncio.to_thread(make, address)

    if stack == "aio":
        return asyncio.run(on_asyncio())
    with serving(*interceptors, **how) as address:
        return make(address)


def observing(stack: str, recorder: Recorder) -> Any:
    """Return what observes calls on this stack."""
    return (ServerInterceptor if stack == "sync" else AioServerInterceptor)(*recorder.observers)


@RAISED
@pytest.mark.parametrize("hiding", [False, True])
@pytest.mark.parametrize(("stack", "arity", "behavior"), SERVERS)
def test_connection_goes_on(stack: str, arity: str, behavior: Any, *, hiding: bool) -> None:
    """
    After more such calls than a connection has streams it goes on, and each is reported with what its caller got.
    """
    recorder = Recorder()
    hide = [(HideExceptions if stack == "sync" else AioHideExceptions)()] if hiding else []
    got = calls(stack, arity, behavior, *hide, observing(stack, recorder), requests=[*[RUBBISH] * 5, (b"a",)])
    recorder.wait_for(6)
    hidden = hiding and stack == "aio" and arity in REQUEST_STREAMS  # as what the handler raises
    refused = ("UNKNOWN", "internal error") if hidden else REFUSED[stack]

    assert [*[refused] * 5, OK] == got
    assert [sorted(code for code, _ in got)] * 4 == recorder.everywhere()
    assert [0] * 5 + [1] == sorted(outcome.received for outcome in recorder.outcomes)
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


def test_handler_is_not_called() -> None:
    """
    A handler of one request is not called for one that cannot be parsed, and its caller is known.
    """
    recorder, called = Recorder(), []

    def behavior(request: bytes, _context: grpc.ServicerContext) -> None:
        called.append(request)

    got = calls("sync", "unary", behavior, observing("sync", recorder), requests=[RUBBISH])
    recorder.wait_for()
    [seen] = recorder.calls

    assert [INTERNAL] == got
    assert [] == called
    assert seen.queue_seconds is None
    assert str(seen.peer).startswith("ipv4:127.0.0.1:")
    assert seen.deadline == pytest.approx(PATIENCE, abs=1)
    assert [(INTERNAL[1], None)] == [(outcome.details, outcome.error) for outcome in recorder.outcomes]


class Reader:
    """A handler of grpc.server that reads its requests as far as they go, and then ends in its own way."""

    def __init__(self, end: Callable[[grpc.ServicerContext], Any]) -> None:
        self._end = end
        self.seen: list[object] = []

    def once(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Any:
        """Read, and end."""
        self.seen += [*requests, next(requests, "over"), context.is_active()]
        return self._end(context)

    def stream(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        """Do so in a stream, which answers more than once."""
        yield self.once(requests, context)
        self.seen.append("asked for more")

    def late(self, requests: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[Any]:
        """Do so with an answer to each request, and end the stream after it."""
        yield from requests
        self.seen += [context.is_active()]
        self._end(context)

    def sending(self, requests: Iterator[bytes], context: grpc.ServicerContext, send: Callable[[Any], None]) -> None:
        """Do so without blocking."""
        for request in requests:
            send(request)
        self.seen += [context.is_active()]
        send(self._end(context))
        send(None)


def abort(context: grpc.ServicerContext) -> None:
    """Abort the call."""
    context.abort(grpc.StatusCode.NOT_FOUND, "as asked")


def fail(_context: grpc.ServicerContext) -> None:
    """Raise."""
    raise ValueError("no bread")


def set_code(context: grpc.ServicerContext) -> bytes:
    """Set a code, and answer."""
    context.set_code(grpc.StatusCode.NOT_FOUND)
    return b"done"


ENDS = pytest.mark.parametrize("end", [lambda _context: b"done", lambda _context: None, abort, fail, set_code])


@pytest.mark.expects_errors(r"^observability: a handler has raised after the end of its call \[ValueError: no bread\]$")
@ENDS
@pytest.mark.parametrize("hiding", [False, True])
@pytest.mark.parametrize("kind", ["once", "stream", "late", "sending"])
def test_end_of_a_refused_stream(kind: str, end: Any, *, hiding: bool) -> None:
    """
    A handler sees its requests end where one cannot be parsed; however it then ends, the call has ended before, once.
    """
    recorder, reader = Recorder(), Reader(end)

    def behavior(*arguments: Any) -> Any:
        return getattr(reader, kind)(*arguments)

    if kind == "sending":
        behavior.experimental_non_blocking = True  # type: ignore[attr-defined]  # grpc's way to ask for it
    hide = [HideExceptions()] if hiding else []
    arity = "client_stream" if kind == "once" else "bidi_stream"
    got = calls("sync", arity, behavior, *hide, observing("sync", recorder), requests=[(b"a", b"rubbish", b"b")] * 5)
    recorder.wait_for(5)

    assert [INTERNAL] * 5 == got
    assert [["INTERNAL"] * 5] * 4 == recorder.everywhere()
    assert [1] * 5 == [outcome.received for outcome in recorder.outcomes]
    assert ([b"a", "over", False] if kind in ("once", "stream") else [False]) * 5 == reader.seen


@pytest.mark.parametrize("arity", ARITIES)
def test_parsed_to_none(arity: str) -> None:
    """
    A request of which parsing makes None is one that cannot be parsed, on grpc.server.
    """
    recorder = Recorder()
    got = calls("sync", arity, ECHOES[arity], observing("sync", recorder), requests=[(b"nothing",)] * 5)
    recorder.wait_for(5)

    assert [INTERNAL] * 5 == got
    assert [["INTERNAL"] * 5] * 4 == recorder.everywhere()


STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
EACH_ARITY = pytest.mark.parametrize("arity", ARITIES)


@pytest.mark.parametrize("library", LIBRARIES, ids=str)
@EACH_ARITY
def test_behind_other_libraries(library: Library, arity: str) -> None:
    """
    An interceptor that stands before ours passes on what it does not understand, and the call ends as it should.
    """
    recorder = Recorder()
    got = calls(
        "sync", arity, echo("sync", arity), library.server(), observing("sync", recorder), requests=[RUBBISH] * 5
    )
    recorder.wait_for(5)

    assert [INTERNAL] * 5 == got
    assert [["INTERNAL"] * 5] * 4 == recorder.everywhere()


@RAISED
@STACKS
@EACH_ARITY
def test_two_of_ours(stack: str, arity: str) -> None:
    """
    Two interceptors of ours, one behind the other, report the same of such a call.
    """
    outer, inner = Recorder(), Recorder()
    both = observing(stack, outer), observing(stack, inner)
    got = calls(stack, arity, echo(stack, arity), *both, requests=[RUBBISH, (b"a",)])
    for recorder in (outer, inner):
        recorder.wait_for(2)

    assert [REFUSED[stack], OK] == got
    for recorder in (outer, inner):
        assert [sorted(code for code, _ in got)] * 4 == recorder.everywhere()
        assert [0, 1] == sorted(outcome.received for outcome in recorder.outcomes)


def with_parser(handler: Any, parser: Any) -> Any:
    """Return this handler with another deserializer."""
    return handler._replace(request_deserializer=parser)


class Upper(grpc.ServerInterceptor):
    """Parses requests by itself, with what the handler has for it inside."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Replace the deserializer."""
        handler = continuation(handler_call_details)
        return with_parser(handler, lambda data: handler.request_deserializer(data).upper())


class AioUpper(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Replace the deserializer."""
        handler = await continuation(handler_call_details)
        return with_parser(handler, lambda data: handler.request_deserializer(data).upper())


@RAISED
@pytest.mark.parametrize(("stack", "arity"), PAIRS)
def test_deserializer_of_an_interceptor_behind_ours(stack: str, arity: str) -> None:
    """
    What an interceptor behind ours has put in place of a deserializer may raise as well.
    """
    recorder = Recorder()
    upper = Upper() if stack == "sync" else AioUpper()
    got = calls(stack, arity, echo(stack, arity), observing(stack, recorder), upper, requests=[*[RUBBISH] * 5, (b"a",)])
    recorder.wait_for(6)

    assert [*[REFUSED[stack]] * 5, OK] == got
    assert [sorted(code for code, _ in got)] * 4 == recorder.everywhere()


@STACKS
@EACH_ARITY
def test_no_deserializer(stack: str, arity: str) -> None:
    """
    A handler without a deserializer gets every request as it is.
    """
    recorder = Recorder()
    got = calls(stack, arity, echo(stack, arity), observing(stack, recorder), requests=[RUBBISH] * 5, parser=None)
    recorder.wait_for(5)

    assert [OK] * 5 == got
    assert [["OK"] * 5] * 4 == recorder.everywhere()


@RAISED
@STACKS
@EACH_ARITY
def test_current_call(stack: str, arity: str) -> None:
    """
    A handler has its own call after others that could not be parsed.
    """
    recorder = Recorder()
    seen: list[Call | None] = []

    def once(requests: Any, _context: Any) -> bytes:
        _ = requests if isinstance(requests, bytes) else list(requests)
        seen.append(current_call())
        return b"done"

    def stream(requests: Any, context: Any) -> Iterator[bytes]:
        yield once(requests, context)

    behavior = stream if arity in STREAMS else once
    got = calls(stack, arity, behavior, observing(stack, recorder), requests=[(b"rubbish",), (b"a",)])
    recorder.wait_for(2)

    assert OK == got[1]
    assert recorder.calls[recorder.codes.index("OK")] is seen[-1]


class Looking(Passing):
    """Looks into each request, as somebody does who validates them."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Look, and call the handler."""
        assert isinstance(request_or_iterator, bytes), "no bytes"
        return super().intercept(method, request_or_iterator, context, method_name)


class AioLooking(AioPassing):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Look, and call the handler."""
        assert isinstance(request_or_iterator, bytes), "no bytes"
        return await super().intercept(method, request_or_iterator, context, method_name)


@pytest.mark.expects_errors("AssertionError: no bytes")
@STACKS
def test_looked_into_before_ours(stack: str) -> None:
    """
    An interceptor before ours that fails at what stands for such a request gives the call its own status, unseen.
    """
    recorder = Recorder()
    looking = Looking() if stack == "sync" else AioLooking()
    got = calls(stack, "unary", echo(stack, "unary"), looking, observing(stack, recorder), requests=[RUBBISH] * 5)
    recorder.wait_for(5)

    assert {"UNKNOWN"} == {code for code, _ in got}
    assert [[REFUSED[stack][0]] * 5] * 4 == recorder.everywhere()


class Kept(grpc.ServerInterceptor):
    """Keeps the handler of a method's first call for all others."""

    def __init__(self) -> None:
        self._handler: Any = None

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the one that is kept."""
        self._handler = self._handler or continuation(handler_call_details)
        return self._handler


class AioKept(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    def __init__(self) -> None:
        self._handler: Any = None

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Return the one that is kept."""
        self._handler = self._handler or await continuation(handler_call_details)
        return self._handler


@STACKS
@pytest.mark.parametrize("arity", ["unary", "server_stream"])
def test_kept_handler(stack: str, arity: str) -> None:
    """
    Even where an interceptor before ours keeps a handler for other calls, it is not called for such a request.
    """
    recorder = Recorder()
    kept = Kept() if stack == "sync" else AioKept()
    got = calls(
        stack, arity, echo(stack, arity), kept, observing(stack, recorder), requests=[(b"a",), *[RUBBISH] * 5, (b"a",)]
    )
    recorder.wait_for(1)

    assert [OK, *[REFUSED[stack]] * 5, OK] == got
    assert ["OK"] == recorder.codes
