"""Handlers and interceptors of odd shapes, on both servers: what comes of them is reported like any other outcome."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation

from observability import AioHideExceptions, AioServerInterceptor, ServerInterceptor, aio_client_interceptors
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, RESPONSES, aio_connected, connected, method, requests

from .messages import FIRST, UNPARSEABLE, UNSERIALISABLE, parse, serialize

STACKS = ("sync", "aio")


class Broken(grpc.ServerInterceptor):
    """An interceptor that fails every call."""

    def intercept_service(self, *_call: Any) -> Any:
        """Fail."""
        raise ValueError("secret")


class AioBroken(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    async def intercept_service(self, *_call: Any) -> Any:
        """Fail."""
        raise ValueError("secret")


def serve(stack: str, recorder: Recorder, arity: str, behavior: Any, *, broken: bool = False) -> str:
    """Serve one call with this behaviour, and return the code that its caller gets."""
    if stack == "sync":
        return _serve_sync(recorder, arity, behavior, [Broken()] if broken else [])
    return asyncio.run(_serve_aio(recorder, arity, behavior, [AioBroken()] if broken else []))


def _serve_sync(recorder: Recorder, arity: str, behavior: Any, further: list[Any]) -> str:
    with connected(ServerInterceptor(*recorder.observers), *further, **{arity: behavior}) as channel:
        try:
            list(method(channel, arity)(requests(arity), timeout=10) or ())
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
    return "OK"


async def _serve_aio(recorder: Recorder, arity: str, behavior: Any, further: list[Any]) -> str:
    async with aio_connected(AioServerInterceptor(*recorder.observers), *further, **{arity: behavior}) as channel:
        try:
            answer = method(channel, arity)(requests(arity), timeout=10)
            _ = [response async for response in answer] if arity == "server_stream" else await answer
        except grpc.aio.AioRpcError as error:
            return error.code().name
    return "OK"


def fails_at_once(_request: Any, _context: Any) -> Any:
    """Raise before there is an iterator."""
    raise ValueError("secret")


@pytest.mark.parametrize("stack", STACKS)
def test_streaming_handler_that_is_a_function(stack: str) -> None:
    """A handler that raises before it returns its responses is UNKNOWN, with its exception."""
    recorder = Recorder()

    assert ("UNKNOWN", ["UNKNOWN"]) == (serve(stack, recorder, "server_stream", fails_at_once), recorder.codes)
    assert [ValueError] == [type(outcome.error) for outcome in recorder.outcomes]


def test_none_ends_a_stream() -> None:
    """grpc.server takes None in a stream for its end, and so the call is OK."""
    recorder = Recorder()

    assert "OK" == serve("sync", recorder, "server_stream", lambda request, _context: iter([request, None, request]))
    assert [("OK", 1)] == [(line["code"], line["sent"]) for line in recorder.lines]


def sets(code: object) -> Any:
    """Return a blocking handler that sets this for a code."""

    def behavior(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_code(code)  # type: ignore[arg-type]  # it may be anything
        return request

    return behavior


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("code", [*range(18), -1, 5.0, "NOT_FOUND", (5, "not found")])
def test_code_that_is_a_number(stack: str, code: object) -> None:
    """A number is a code on grpc.aio.server alone, and not every one; what grpc makes of it is what is reported."""
    recorder = Recorder()
    got = serve(stack, recorder, "unary", sets(code))

    assert [got] == recorder.codes


def test_code_that_grpc_cannot_look_up() -> None:
    """What cannot even be looked up as a code leaves grpc.server's caller waiting, and the call is reported as that."""
    recorder = Recorder()
    with connected(ServerInterceptor(*recorder.observers), unary=sets([])) as channel:
        error = method(channel, "unary").future(b"a", timeout=0.25).exception()
        recorder.wait_for()

    assert (grpc.StatusCode.DEADLINE_EXCEEDED, ["DEADLINE_EXCEEDED"]) == (error.code(), recorder.codes)


def sets_ok_and_fails(_request: bytes, context: grpc.ServicerContext) -> bytes:
    """Say that all is well, then raise."""
    context.set_code(grpc.StatusCode.OK)
    raise ValueError("secret")


async def aio_sets_ok_and_fails(request: bytes, context: Any) -> bytes:
    """Do the same on asyncio."""
    return sets_ok_and_fails(request, context)


@pytest.mark.parametrize(
    ("stack", "behavior"),
    [("sync", sets_ok_and_fails), ("aio", sets_ok_and_fails), ("aio", aio_sets_ok_and_fails)],
)
def test_ok_before_an_exception(stack: str, behavior: Any) -> None:
    """OK that is set before an exception is sent by grpc.server, and is UNKNOWN on grpc.aio.server."""
    recorder = Recorder()
    got = serve(stack, recorder, "unary", behavior)
    recorder.wait_for()

    assert ["OK" if stack == "sync" else "UNKNOWN"] == [got] == recorder.codes
    assert [ValueError] == [type(outcome.error) for outcome in recorder.outcomes]


def unsendable(request: bytes, context: Any) -> bytes:
    """Set trailing metadata that cannot be handed to grpc's core."""
    context.set_trailing_metadata((("key-bin", "text"),))
    return request


async def aio_unsendable(request: bytes, context: Any) -> bytes:
    """Do the same on asyncio."""
    return unsendable(request, context)


async def aio_unsendable_text(request: bytes, context: Any) -> bytes:
    """Set a text that cannot be encoded."""
    context.set_details("\ud800")
    return request


@pytest.mark.parametrize("behavior", [aio_unsendable, aio_unsendable_text, unsendable])
def test_unsendable_status_on_asyncio(behavior: Any) -> None:
    """
    A status that grpc.aio cannot send is reported when the caller's deadline comes; without one, as UNKNOWN at once.

    Whether the caller leaves before, nobody says.
    """
    recorder = Recorder()

    async def ask(seconds: float | None) -> None:
        async with aio_connected(AioServerInterceptor(*recorder.observers), unary=behavior) as channel:
            count = len(recorder.outcomes) + 1
            call = method(channel, "unary")(b"a", timeout=seconds)
            if seconds:
                assert grpc.StatusCode.DEADLINE_EXCEEDED is await call.code()
            await asyncio.to_thread(recorder.wait_for, count)
            call.cancel()

    asyncio.run(ask(0.3))
    asyncio.run(ask(None))

    assert ["DEADLINE_EXCEEDED", "UNKNOWN"] == recorder.codes
    assert recorder.outcomes[0].seconds >= 0.25
    assert 0 == recorder.total("grpc_server_in_flight")


def test_unsendable_status_without_a_deadline() -> None:
    """A caller of grpc.server who waits in vain for such a status, until it leaves, is reported as that."""
    recorder, served = Recorder(), threading.Event()

    def behavior(request: bytes, context: grpc.ServicerContext) -> bytes:
        context.set_trailing_metadata((("key", 5),))  # type: ignore[arg-type]  # it is no text
        served.set()
        return request

    with connected(ServerInterceptor(*recorder.observers), unary=behavior) as channel:
        call = method(channel, "unary").future(b"a")
        served.wait(10)
        in_flight = recorder.total("grpc_server_in_flight")
        call.cancel()
        recorder.wait_for()

    assert (1, ["CANCELLED"]) == (in_flight, recorder.codes)


async def aio_leaves(_request: bytes, _context: Any) -> bytes:
    """Ask the process to end."""
    raise SystemExit(3)


async def aio_leaves_a_stream(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    """Do the same in the middle of a stream."""
    yield request
    raise SystemExit(3)


def leaves(_request: bytes, _context: Any) -> bytes:
    """Do the same in a blocking handler."""
    raise SystemExit(3)


@pytest.mark.parametrize(
    ("behavior", "arity", "code"),
    [
        (aio_leaves, "unary", "CANCELLED"),
        (aio_leaves_a_stream, "server_stream", "CANCELLED"),
        (leaves, "unary", "UNKNOWN"),
    ],
)
def test_exit_on_asyncio(behavior: Any, arity: str, code: str) -> None:
    """A SystemExit that nothing hides ends an asyncio server's event loop; the call is reported once, with it."""
    recorder = Recorder()

    with pytest.raises(SystemExit):
        asyncio.run(_serve_aio(recorder, arity, behavior, []))
    assert [(code, SystemExit)] == [(outcome.code.name, type(outcome.error)) for outcome in recorder.outcomes]
    assert [[code]] * 4 == recorder.everywhere()
    assert 0 == recorder.total("grpc_server_in_flight")


@pytest.mark.parametrize("hiding", [False, True])
def test_list_of_responses_on_asyncio(hiding: bool) -> None:  # noqa: FBT001 - a parameter
    """grpc.aio.server takes any iterable of a blocking handler's, and so do we."""
    recorder = Recorder()

    async def call() -> list[bytes]:
        interceptors = [*([AioHideExceptions()] if hiding else []), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, server_stream=lambda request, _context: [request] * 2) as channel:
            return [response async for response in method(channel, "server_stream")(b"a", timeout=10)]

    assert [b"a", b"a"] == asyncio.run(call())
    assert [("OK", 2)] == [(line["code"], line["sent"]) for line in recorder.lines]


async def reads_on(_messages: Any, context: Any) -> bytes:
    """Read by hand, over a request that cannot be parsed."""
    with contextlib.suppress(ValueError):
        while await context.read() is not grpc.aio.EOF:
            pass
    return b"done"


async def iterates_on(messages: AsyncIterator[bytes], _context: Any) -> bytes:
    """Read what comes before a request that cannot be parsed."""
    with contextlib.suppress(ValueError):
        _ = [message async for message in messages]
    return b"done"


def plainly_on(messages: Iterator[bytes], _context: Any) -> bytes:
    """Do the same in a blocking handler."""
    with contextlib.suppress(ValueError):
        _ = list(messages)
    return b"done"


async def writes_on(messages: Any, context: Any) -> None:
    """Write by hand, over a response that cannot be serialised."""
    _ = [message async for message in messages]
    with contextlib.suppress(TypeError):
        await context.write(UNSERIALISABLE)
    await context.write(b"done")


@pytest.mark.parametrize(
    ("behavior", "messages"),
    [
        (reads_on, [FIRST, UNPARSEABLE]),
        (iterates_on, [FIRST, UNPARSEABLE]),
        (plainly_on, [FIRST, UNPARSEABLE]),
        (writes_on, [FIRST]),
    ],
)
def test_handler_that_goes_on_after_a_bad_message(behavior: Any, messages: list[bytes]) -> None:
    """A handler on grpc.aio.server may catch what comes of a bad message, and answer: that is OK."""
    recorder = Recorder()
    make: Any = grpc.stream_stream_rpc_method_handler if behavior is writes_on else grpc.stream_unary_rpc_method_handler
    handler = grpc.method_handlers_generic_handler("odd", {"Method": make(behavior, parse, serialize)})

    async def call() -> bytes:
        async with aio_connected(AioServerInterceptor(*recorder.observers), handlers=[handler]) as channel:
            arity = "bidi_stream" if behavior is writes_on else "client_stream"
            call = method(channel, arity, "/odd/Method")(messages, timeout=10)
            answer: bytes = await (call.read() if behavior is writes_on else call)
            return answer

    assert b"done" == asyncio.run(call())
    recorder.wait_for()
    assert [("OK", "", None)] == [(outcome.code.name, outcome.details, outcome.error) for outcome in recorder.outcomes]


@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_list_of_requests_on_asyncio(arity: str) -> None:
    """A grpc.aio channel takes any iterable of requests, and so do we."""
    recorder = Recorder()

    async def call() -> list[bytes]:
        client = aio_client_interceptors(*recorder.observers)
        async with aio_connected(client=client, **{arity: AIO_ECHOES[arity]}) as channel:
            call = method(channel, arity)([b"a", b"b", b"c"], timeout=10)
            return [await call] if arity == "client_stream" else [response async for response in call]

    assert RESPONSES[arity] == asyncio.run(call())
    assert [("OK", 3)] == [(line["code"], line["sent"]) for line in recorder.lines]


@pytest.mark.parametrize("stack", STACKS)
def test_interceptor_that_fails(stack: str) -> None:
    """A call that an interceptor after ours fails is UNKNOWN, with that exception."""
    recorder = Recorder()

    assert ("UNKNOWN", ["UNKNOWN"]) == (serve(stack, recorder, "unary", fails_at_once, broken=True), recorder.codes)
    assert [ValueError] == [type(outcome.error) for outcome in recorder.outcomes]


@pytest.mark.parametrize("stack", STACKS)
def test_names_made_up_for_an_interceptor_that_fails(stack: str) -> None:
    """Where an interceptor after ours fails before there is a handler, a name that a caller makes up adds no series."""
    recorder = Recorder()

    async def call_aio(name: str) -> None:
        async with aio_connected(AioServerInterceptor(*recorder.observers), AioBroken()) as channel:
            await method(channel, "unary", name)(b"a", timeout=10).code()

    for name in ("/made.v1.Up/One", "/made.v1.Up/Two"):
        if stack == "sync":
            with connected(ServerInterceptor(*recorder.observers), Broken()) as channel:
                method(channel, "unary", name).future(b"a", timeout=10).exception()
        else:
            asyncio.run(call_aio(name))

    labels = {"grpc_type": "unary", "grpc_service": "unknown", "grpc_method": "unknown", "grpc_code": "UNKNOWN"}
    assert 2 == recorder.value("grpc_server_handled_total", **labels) == recorder.total("grpc_server_handled_total")


@pytest.mark.parametrize("stack", STACKS)
def test_known_method_of_an_interceptor_that_fails(stack: str) -> None:
    """A method that has been served before keeps its name there."""
    recorder = Recorder()
    arguments = (stack, recorder, "unary", lambda request, _context: request)

    assert ["OK", "UNKNOWN"] == [serve(*arguments, broken=broken) for broken in (False, True)]
    assert ["test.v1.Words/Unary"] * 2 == [line["method"] for line in recorder.lines]


class AioWaiting(grpc.aio.ServerInterceptor):
    """An interceptor that takes its time before there is a handler, or before it fails."""

    def __init__(self, *, fails: bool) -> None:
        self._fails = fails

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wait."""
        await asyncio.sleep(0.05)
        if self._fails:
            raise ValueError("secret")
        return await continuation(handler_call_details)


@pytest.mark.parametrize("fails", [False, True])
def test_span_lies_within_its_callers(fails: bool) -> None:  # noqa: FBT001 - a parameter
    """A server's span starts and ends within its caller's, though an interceptor after ours waits."""
    recorder = Recorder()

    async def call() -> None:
        interceptors = [AioServerInterceptor(*recorder.observers), AioWaiting(fails=fails)]
        client = aio_client_interceptors(*recorder.observers)
        async with aio_connected(*interceptors, client=client, unary=AIO_ECHOES["unary"]) as channel:
            await method(channel, "unary")(b"a", timeout=10).code()

    asyncio.run(call())
    recorder.wait_for(2)
    spans = {span.kind.name: (span.start_time or 0, span.end_time or 0) for span in recorder.spans}

    assert spans["CLIENT"][0] <= spans["SERVER"][0]
    assert spans["SERVER"][1] <= spans["CLIENT"][1]


@pytest.mark.parametrize("fails", [False, True])
def test_suppressed_aio_server(fails: bool) -> None:  # noqa: FBT001 - a parameter
    """A server that is started where instrumentation is suppressed reports nothing, nor where an interceptor fails."""
    recorder = Recorder()

    with suppress_instrumentation():
        got = serve("aio", recorder, "unary", lambda request, _context: request, broken=fails)

    assert ("UNKNOWN" if fails else "OK") == got
    assert [] == recorder.calls


class Refusing(grpc.aio.UnaryUnaryClientInterceptor):
    """A client's interceptor that refuses to make the call."""

    async def intercept_unary_unary(self, *_call: Any) -> Any:
        """Refuse."""
        raise ValueError("refused")


class Reading(grpc.aio.UnaryStreamClientInterceptor):
    """A client's interceptor that reads the responses itself."""

    async def intercept_unary_stream(
        self, continuation: Callable[..., Awaitable[Any]], client_call_details: Any, request: Any
    ) -> Any:
        """Read by hand."""
        call = await continuation(client_call_details, request)
        return self._read(call)

    async def _read(self, call: Any) -> Any:
        while (response := await call.read()) is not grpc.aio.EOF:
            yield response


async def _call(recorder: Recorder, arity: str, *, outside: Any = (), inside: Any = ()) -> Any:
    client = [*outside, *aio_client_interceptors(*recorder.observers), *inside]
    behaviors: dict[str, Any] = {
        "unary": lambda request, _context: request,
        "server_stream": lambda request, _context: iter([request]),
    }
    async with aio_connected(client=client, **behaviors) as channel:
        call = method(channel, arity)(requests(arity), timeout=10)
        return await call if arity == "unary" else [response async for response in call]


def test_aio_client_interceptor_that_refuses() -> None:
    """A call that a client's interceptor after ours does not make is UNKNOWN, with that exception."""
    recorder = Recorder()

    with pytest.raises(ValueError, match="refused"):
        asyncio.run(_call(recorder, "unary", inside=[Refusing()]))
    assert [("UNKNOWN", ValueError)] == [(outcome.code.name, type(outcome.error)) for outcome in recorder.outcomes]


def test_aio_client_interceptor_that_reads() -> None:
    """A stream that an interceptor before ours reads by hand ends as it does."""
    recorder = Recorder()

    assert [b"a"] == asyncio.run(_call(recorder, "server_stream", outside=[Reading()]))
    assert [("OK", 1)] == [(line["code"], line["received"]) for line in recorder.lines]
