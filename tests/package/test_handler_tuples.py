"""To other interceptors a handler is grpc's own named tuple, and its functions are the application's own."""

import asyncio
import functools
import inspect
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import grpc.experimental
import pytest

from observability import AioHideExceptions, AioServerInterceptor, HideExceptions, ServerInterceptor
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    ECHOES,
    RESPONSES,
    STREAMS,
    aio_connected,
    connected,
    method,
    requests,
    talk,
)

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
EACH_ARITY = pytest.mark.parametrize("arity", ARITIES)
wrap_handler: Any = grpc.experimental.wrap_server_method_handler  # it has no types
PLACES = pytest.mark.parametrize("place", ["before ours", "after ours"])
NAMES = {
    "unary": "unary_unary",
    "client_stream": "stream_unary",
    "server_stream": "unary_stream",
    "bidi_stream": "stream_stream",
}
Change = Callable[[Any], Any]
"""What an interceptor makes of a handler."""


class Changing(grpc.ServerInterceptor):
    """Changes every handler."""

    def __init__(self, change: Change) -> None:
        self._change = change

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Change one."""
        return self._change(continuation(handler_call_details))


class AioChanging(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    def __init__(self, change: Change) -> None:
        self._change = change

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Change one."""
        return self._change(await continuation(handler_call_details))


def changing(stack: str, change: Change) -> Any:
    """Return an interceptor of this stack that changes every handler."""
    return Changing(change) if stack == "sync" else AioChanging(change)


def ours(stack: str, kind: str, recorder: Recorder) -> list[Any]:
    """Return interceptors of ours: the one that observes, behind the one that hides if that is asked for."""
    if stack == "sync":
        return [*([HideExceptions()] if kind == "hiding" else []), ServerInterceptor(*recorder.observers)]
    return [*([AioHideExceptions()] if kind == "hiding" else []), AioServerInterceptor(*recorder.observers)]


def in_order(place: str, interceptor: Any, ours_: list[Any]) -> list[Any]:
    """Put an interceptor before ours, or after them."""
    return [interceptor, *ours_] if place == "before ours" else [*ours_, interceptor]


def wrapper(behavior: Any) -> Any:
    """Wrap a handler's function as people do: in one of the same kind."""
    if inspect.isasyncgenfunction(behavior):

        async def generate(request: Any, context: Any) -> AsyncIterator[Any]:
            async for response in behavior(request, context):
                yield response

        return generate
    if inspect.iscoroutinefunction(behavior):

        async def run(request: Any, context: Any) -> Any:
            return await behavior(request, context)

        return run

    def call(request: Any, context: Any) -> Any:
        return behavior(request, context)

    return call


@STACKS
@EACH_ARITY
@PLACES
@pytest.mark.parametrize("kind", ["observing", "hiding"])
def test_wrapped_as_grpc_does(stack: str, arity: str, place: str, kind: str) -> None:
    """grpc.experimental.wrap_server_method_handler wraps our handlers and what they wrap, and calls are observed."""
    recorder = Recorder()
    wrapping = changing(stack, functools.partial(wrap_handler, wrapper))
    interceptors = in_order(place, wrapping, ours(stack, kind, recorder))

    assert RESPONSES[arity] == talk(stack, arity, server=interceptors)
    recorder.wait_for()
    assert [["OK"]] * 4 == recorder.everywhere()
    assert [(len(RESPONSES[arity]), 3 if "stream" in NAMES[arity].split("_")[0] else 1)] == [
        (outcome.sent, outcome.received) for outcome in recorder.outcomes
    ]
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


@STACKS
@EACH_ARITY
@pytest.mark.parametrize("kind", ["observing", "hiding"])
def test_abort_in_a_wrapped_handler(stack: str, arity: str, kind: str) -> None:
    """A handler that is wrapped so before ours ends as it does."""
    recorder = Recorder()
    wrapping = changing(stack, functools.partial(wrap_handler, wrapper))
    made = behaviors("NOT_FOUND") if stack == "sync" else aio_behaviors("NOT_FOUND")

    with pytest.raises(grpc.RpcError) as raised:
        talk(stack, arity, server=[wrapping, *ours(stack, kind, recorder)], behavior=made[arity])
    recorder.wait_for()

    assert grpc.StatusCode.NOT_FOUND is raised.value.code()
    assert [["NOT_FOUND"]] * 4 == recorder.everywhere()


@STACKS
@EACH_ARITY
@PLACES
def test_serializer_in_place_of_ours(stack: str, arity: str, place: str) -> None:
    """A serialiser that _replace puts in the place of ours, and that does not call it, leaves the call what it is."""
    recorder = Recorder()
    shouting = changing(stack, lambda handler: handler._replace(response_serializer=bytes.upper))

    got = talk(stack, arity, server=in_order(place, shouting, ours(stack, "observing", recorder)))
    recorder.wait_for()

    assert [response.upper() for response in RESPONSES[arity]] == got
    assert [["OK"]] * 4 == recorder.everywhere()


def facts(handler: Any) -> Any:
    """Return what can be seen of a handler."""
    # Python's named tuples raise the former until 3.12, then the latter.
    with pytest.raises((ValueError, TypeError), match="unexpected field names") as raised:
        handler._replace(unary_urnary=None)
    request_streaming, response_streaming, *_ = handler
    return (
        isinstance(handler, grpc.RpcMethodHandler),
        bool(handler),
        len(handler),
        handler._fields,
        list(handler._asdict()),
        [part is None for part in handler][4:],
        handler[:2] == handler[0:2] == (request_streaming, response_streaming),
        handler[-1] is None,
        type(handler._replace()).__name__,
        repr(raised.value),
    )


@STACKS
@EACH_ARITY
@pytest.mark.parametrize("kind", ["observing", "hiding"])
def test_named_tuple(stack: str, arity: str, kind: str) -> None:
    """A handler can be unpacked, indexed and read by its fields, as one that grpc has made."""
    seen: list[Any] = []

    def see(handler: Any) -> Any:
        seen.append(facts(handler))
        return handler

    talk(stack, arity, server=[changing(stack, see)])
    talk(stack, arity, server=[changing(stack, see), *ours(stack, kind, Recorder())])

    assert seen[0] == seen[1]


def public(behavior: Any) -> Any:
    """Mark a function, as a decorator does."""
    behavior.is_public = True
    return behavior


class Servicer:
    """A handler of each kind, of which each says what it is and is marked."""

    @public
    def unary(self, request: bytes, _context: Any) -> bytes:
        """Answer once."""
        return request

    @public
    def server_stream(self, request: bytes, _context: Any) -> Iterator[bytes]:
        """Answer twice."""
        yield from [request] * 2

    @public
    async def aio_unary(self, request: bytes, _context: Any) -> bytes:
        """Answer once."""
        return request

    @public
    async def aio_server_stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        """Answer twice."""
        for _ in range(2):
            yield request


def attributes(behavior: Any) -> Any:
    """Return what can be seen of a handler's function, and of one that is made with functools.wraps around it."""

    @functools.wraps(behavior)
    def around(request: Any, context: Any) -> Any:
        return behavior(request, context)

    names = ("is_public", "__name__", "__qualname__", "__module__", "__doc__", "__dict__", "__annotations__")
    return (
        [getattr(behavior, name) for name in names],
        [getattr(around, name) for name in names[:-2]],
        getattr(behavior, "__self__", None),
        getattr(behavior, "__func__", None),
        hasattr(behavior, "is_private"),
        inspect.iscoroutinefunction(behavior),
        inspect.isasyncgenfunction(behavior),
        str(inspect.signature(behavior)),
    )


@pytest.mark.parametrize(
    ("stack", "arity", "name"),
    [
        ("sync", "unary", "unary"),
        ("sync", "server_stream", "server_stream"),
        ("aio", "unary", "aio_unary"),
        ("aio", "server_stream", "aio_server_stream"),
        ("aio", "unary", "unary"),
        ("aio", "server_stream", "server_stream"),
    ],
)
@pytest.mark.parametrize("kind", ["observing", "hiding"])
def test_attributes_of_the_applications_own_function(stack: str, arity: str, name: str, kind: str) -> None:
    """An interceptor before ours finds a decorator's mark, and whatever else the application's own function has."""
    servicer = Servicer()
    behavior = getattr(servicer, name)
    seen: list[Any] = []
    wrapped: list[Any] = []

    def see(handler: Any) -> Any:
        function = getattr(handler, NAMES[arity])
        seen.append(attributes(function))
        wrapped.append(inspect.unwrap(function))
        return handler

    talk(stack, arity, server=[changing(stack, see)], behavior=behavior)
    talk(stack, arity, server=[changing(stack, see), *ours(stack, kind, Recorder())], behavior=behavior)

    assert seen[0] == seen[1]
    assert [behavior, behavior] == wrapped


class Custom(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """A handler of another library's class."""

    request_streaming = response_streaming = False
    request_deserializer = response_serializer = None
    unary_stream = stream_unary = stream_stream = None
    scope = "admin"

    def __init__(self, behavior: Any) -> None:
        self.unary_unary = behavior


@STACKS
@pytest.mark.parametrize("kind", ["observing", "hiding"])
def test_attributes_of_a_handler_of_another_library(stack: str, kind: str) -> None:
    """It finds what a handler of another library's class has as well."""
    recorder, seen = Recorder(), []

    def see(handler: Any) -> Any:
        seen.append((handler.scope, hasattr(handler, "scopes")))
        return handler

    own = changing(stack, lambda _handler: Custom((ECHOES if stack == "sync" else AIO_ECHOES)["unary"]))

    assert [b"a"] == talk(stack, "unary", server=[changing(stack, see), *ours(stack, kind, recorder), own])
    recorder.wait_for()
    assert ([("admin", False)], ["OK"]) == (seen, recorder.codes)


class Kept:
    """Makes something of the first handler, and keeps it for all calls."""

    def __init__(self) -> None:
        self._handler: Any = None

    def __call__(self, handler: Any) -> Any:
        """Return what is kept."""
        self._handler = self._handler or handler._replace()
        return self._handler


def hold(together: threading.Barrier) -> dict[str, Any]:
    """Return a behaviour of each arity that waits for as many calls as the barrier is for."""

    def once(request: Any, _context: Any) -> bytes:
        answer = request if isinstance(request, bytes) else b" ".join(request)
        together.wait(10)
        return answer

    def stream(request: Any, _context: Any) -> Iterator[bytes]:
        answers = [request] * 2 if isinstance(request, bytes) else list(request)
        together.wait(10)
        yield from answers

    return {"unary": once, "client_stream": once, "server_stream": stream, "bidi_stream": stream}


@STACKS
@EACH_ARITY
def test_handler_kept_for_other_calls(stack: str, arity: str) -> None:
    """
    A handler that an interceptor before ours keeps from one call for others serves them all, at once as well.

    One call is reported with its end; of the others, whose handlers were not even looked at, nothing better is known
    than of those that grpc refuses. What is running is reported truly.
    """
    recorder, together = Recorder(), threading.Barrier(2)
    interceptors = [changing(stack, Kept()), *ours(stack, "observing", recorder)]

    def ask(channel: grpc.Channel) -> list[bytes]:
        calls = []
        for _ in range(2):
            start = method(channel, arity)
            calls.append((start if arity in STREAMS else start.future)(requests(arity), timeout=10))
        return [b"|".join(call) if arity in STREAMS else call.result() for call in calls]

    async def ask_aio() -> list[bytes]:
        async with aio_connected(*interceptors, **hold(together)) as channel:
            calls = [method(channel, arity)(requests(arity), timeout=10) for _ in range(2)]
            if arity in STREAMS:
                answers = [b"|".join([response async for response in call]) for call in calls]
            else:
                answers = [await call for call in calls]
            await asyncio.to_thread(recorder.wait_for, 2)  # a server that stops would cut off the tasks of both
            return answers

    if stack == "sync":
        with connected(*interceptors, **hold(together)) as channel:
            got = ask(channel)
    else:
        got = asyncio.run(ask_aio())
    recorder.wait_for(2)

    assert [b"|".join(RESPONSES[arity])] * 2 == got
    assert ["OK", "RESOURCE_EXHAUSTED"] == sorted(recorder.codes)
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


class Slow:
    """A context that says who is there once another call's handler runs; that call's own says it at once."""

    def __init__(self, inner: Any, starting: threading.Event, running: threading.Event) -> None:
        self._inner, self._starting, self._running = inner, starting, running

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def peer(self) -> Any:
        """Return who is there."""
        if not self._starting.is_set():
            self._starting.set()
            assert self._running.wait(10)
        return self._inner.peer()


@pytest.mark.parametrize("arity", ["unary", "client_stream"])
def test_handler_kept_for_a_call_that_comes_while_the_first_starts(arity: str) -> None:
    """So it is where the second call's thread runs the handler while the first one's is about to."""
    recorder, starting, running = Recorder(), threading.Event(), threading.Event()

    def wrap(behavior: Any) -> Any:
        return lambda request, context: behavior(request, Slow(context, starting, running))

    def run(request: Any, _context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else list(request)
        running.set()
        return b"done"

    async def ask() -> list[bytes]:
        slow = AioChanging(lambda handler: wrap_handler(wrap, handler))
        interceptors = [slow, AioChanging(Kept()), AioServerInterceptor(*recorder.observers)]
        behavior: dict[str, Any] = {arity: run}
        async with aio_connected(*interceptors, **behavior) as channel:
            first = method(channel, arity)(requests(arity), timeout=10)
            assert await asyncio.to_thread(starting.wait, 10)
            answers = [await method(channel, arity)(requests(arity), timeout=10), await first]
            await asyncio.to_thread(recorder.wait_for, 2)
            return answers

    assert [b"done"] * 2 == asyncio.run(ask())
    assert ["OK", "RESOURCE_EXHAUSTED"] == sorted(recorder.codes)
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")
