"""Lifetimes: a dropped stream is cancelled, and nothing of ours keeps a call alive."""

import asyncio
import contextlib
import gc
import queue
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import grpc.experimental
import pytest
import structlog
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from observability import (
    AioHideExceptions,
    AioServerInterceptor,
    Call,
    ClientInterceptor,
    HideExceptions,
    Observer,
    Outcome,
    ServerInterceptor,
    log_calls,
    measure_calls,
    trace_calls,
)
from tests.support.aio_ways import EACH_WAY, OURS, aio_observed
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, ECHOES, STREAMS, connected, method, requests

wrap_handler: Any = grpc.experimental.wrap_server_method_handler  # it has no types


class Endless:
    """Streams without end, sync and asyncio, which set events when they begin and when they are over."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.over = threading.Event()

    def sync(self, request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        """Answer for ever."""
        del request
        context.add_callback(self.over.set)
        self.begun.set()
        while not self.over.wait(0.001):
            yield b"more"

    async def aio(self, request: Any, _context: Any) -> AsyncIterator[bytes]:
        """Answer for ever."""
        del request
        self.begun.set()
        try:
            while True:
                yield b"more"
                await asyncio.sleep(0.001)
        finally:
            self.over.set()


@pytest.mark.parametrize("arity", STREAMS)
@pytest.mark.parametrize("read", [0, 1])
def test_dropped_stream_is_cancelled(arity: str, read: int) -> None:
    """Dropping a stream, never read or half read, cancels it on the wire at once, and records CANCELLED."""
    endless, client = Endless(), Recorder()
    with connected(client=[ClientInterceptor(*client.observers)], **{arity: endless.sync}) as channel:
        stream = method(channel, arity)(requests(arity))
        endless.begun.wait(5)
        for _ in range(read):
            next(stream)
        gc.disable()
        try:
            del stream
            over = endless.over.wait(5)
            client.wait_for()
        finally:
            gc.enable()

    assert over
    assert ["CANCELLED"] == client.codes


@EACH_WAY
@pytest.mark.parametrize("arity", STREAMS)
@pytest.mark.parametrize("read", [0, 1])
def test_dropped_aio_stream_is_cancelled(read: int, arity: str, way: str) -> None:
    """
    On asyncio it does so too, where grpc itself forgets to.

    At once on a channel of our own; through interceptors once the garbage has been collected.
    """
    endless, client = Endless(), Recorder()
    behaviors: dict[str, Any] = {arity: endless.aio}

    async def main() -> bool:
        async with aio_observed(way, *client.observers, **behaviors) as channel:
            stream = method(channel, arity)(requests(arity))
            await asyncio.to_thread(endless.begun.wait, 5)
            for _ in range(read):
                await stream.read()
            gc.disable()
            try:
                del stream
                if way == "interceptors":
                    gc.collect()
                return await asyncio.to_thread(endless.over.wait, 5)
            finally:
                gc.enable()

    assert asyncio.run(main())
    client.wait_for()
    assert ["CANCELLED"] == client.codes


class Remembered:
    """Stands for a call: it lives as long as the call does."""


class Memory:
    """An observer that gives each call something to carry, and sees when it is gone."""

    def __init__(self) -> None:
        self.carried: list[weakref.ref[Remembered]] = []

    def __call__(self, call: Call) -> Callable[[Outcome], None]:
        """Remember a call."""
        carried = Remembered()
        self.carried.append(weakref.ref(carried))
        call.annotate(carried=carried)
        return lambda _outcome: None

    def observers(self) -> list[Observer]:
        """Return itself behind the three observers, which keep nothing for a test to see."""
        logger = structlog.wrap_logger(None, processors=[drop])
        provider = TracerProvider(shutdown_on_exit=False)
        return [trace_calls(provider), measure_calls(CollectorRegistry()), log_calls(logger), self]

    def left(self, seconds: float = 5.0) -> int:
        """Wait until every call is gone; return how many are left."""
        deadline = time.monotonic() + seconds
        while (count := sum(reference() is not None for reference in self.carried)) and time.monotonic() < deadline:
            time.sleep(0.005)
        return count


def drop(*_args: Any) -> Any:
    """Log nothing."""
    raise structlog.DropEvent


def finish(call: Any, arity: str, how: str) -> None:
    """Use up a sync call in one of the ways that there are."""
    if arity in STREAMS:
        if how == "cancelled":
            next(call)
            call.cancel()
        elif how == "dropped":
            next(call)
        else:
            for _ in call:
                pass


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("how", ["read", "cancelled", "dropped"])
def test_no_cycle_keeps_a_sync_call(arity: str, how: str) -> None:
    """When a call is over, on either side, nothing keeps it alive: it goes without the garbage collector."""
    server, client = Memory(), Memory()
    interceptors = [HideExceptions(), ServerInterceptor(*server.observers())]
    with connected(*interceptors, client=[ClientInterceptor(*client.observers())], **ECHOES) as channel:
        for _ in range(3):
            call = method(channel, arity)(requests(arity), timeout=10)
            finish(call, arity, how)
            del call

        left = server.left(), client.left()

    assert (3, 3) == (len(server.carried), len(client.carried))
    assert (0, 0) == left


class Listening:
    """A handler that waits for requests without end, and a caller of it that sends one, and then no more."""

    def __init__(self) -> None:
        self.heard = threading.Semaphore(0)
        self.over = threading.Event()

    def handle(self, requests: Iterator[bytes], _context: Any) -> bytes:
        """Say of each request that it has come."""
        for _ in requests:
            self.heard.release()
        return b""

    def stream(self, requests: Iterator[bytes], context: Any) -> Iterator[bytes]:
        """Do so, and respond with a stream."""
        yield self.handle(requests, context)

    def requests(self) -> Iterator[bytes]:
        """Yield one request; the stream ends with the test."""
        yield b"a"
        self.over.wait()


class Seeing(grpc.ServerInterceptor):
    """Sees how the handlers behind it end."""

    def __init__(self) -> None:
        self.ends: queue.SimpleQueue[str] = queue.SimpleQueue()

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap one."""
        handler = continuation(handler_call_details)

        @contextlib.contextmanager
        def seen() -> Iterator[None]:
            try:
                yield
            except BaseException as error:
                self.ends.put("RpcError" if isinstance(error, grpc.RpcError) else repr(error))
                raise
            self.ends.put("returned")

        def wrap(behavior: Any) -> Any:
            def run(request: Any, context: Any) -> Any:
                with seen():
                    return behavior(request, context)

            def generate(request: Any, context: Any) -> Any:
                with seen():
                    yield from behavior(request, context)

            return generate if handler.response_streaming else run

        return wrap_handler(wrap, handler)


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_no_cycle_keeps_a_call_whose_caller_left(arity: str) -> None:
    """
    Nothing keeps a call whose handler waits for a request when its caller leaves: its connection has room again.

    An interceptor before ours sees such a handler end as without us: by an RpcError, or as if there were no more
    requests, of which grpc asks a generator for no response.
    """
    server, listening, seeing = Memory(), Listening(), Seeing()
    behavior: dict[str, Any] = {arity: listening.handle if arity == "client_stream" else listening.stream}
    interceptors = [seeing, HideExceptions(), ServerInterceptor(*server.observers())]
    with connected(*interceptors, **behavior) as channel:
        for _ in range(3):
            begin: Any = method(channel, arity)
            call = (begin.future if arity == "client_stream" else begin)(listening.requests(), timeout=10)
            assert listening.heard.acquire(timeout=5)
            call.cancel()
        left = server.left()
        listening.over.set()

    assert (3, 0) == (len(server.carried), left)
    assert {"RpcError", "returned", "GeneratorExit()"} >= {seeing.ends.get(timeout=5) for _ in range(3)}


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("arity", ["unary", "client_stream"])
@pytest.mark.parametrize("how", ["result", "with_call", "cancelled", "dropped"])
def test_no_cycle_keeps_a_future(arity: str, how: str) -> None:
    """Nothing keeps the call of a future either, however it ends."""
    client = Memory()
    with connected(client=[ClientInterceptor(*client.observers())], **ECHOES) as channel:
        for _ in range(3):
            if how == "with_call":
                method(channel, arity).with_call(requests(arity), timeout=10)
                continue
            future = method(channel, arity).future(requests(arity), timeout=10)
            if how == "result":
                future.result()
            if how == "cancelled":
                future.cancel()
            del future
        left = client.left()

    assert (3, 0) == (len(client.carried), left)


def crash(*_args: Any) -> Any:
    """Raise."""
    raise ValueError("no bread")


@pytest.mark.usefixtures("no_collection")
@pytest.mark.parametrize("how", ["crash", "abort", "unknown"])
def test_no_cycle_keeps_a_failed_call(how: str) -> None:
    """Nothing keeps a call that fails: its exception's stack trace does not."""
    server, client = Memory(), Memory()
    behavior = crash if how == "crash" else lambda _, context: context.abort(grpc.StatusCode.NOT_FOUND, "")
    interceptors = [HideExceptions(), ServerInterceptor(*server.observers())]
    with connected(*interceptors, client=[ClientInterceptor(*client.observers())], unary=behavior) as channel:
        for _ in range(3):
            fail_once(channel, "/nobody/knows" if how == "unknown" else None)
        left = server.left(), client.left()

    assert (0, 0) == left


def fail_once(channel: grpc.Channel, name: str | None) -> None:
    """Make a call that fails; its error is gone with this function's frame."""
    with pytest.raises(grpc.RpcError) as caught:
        method(channel, "unary", name)(b"a", timeout=10)
    caught.value.__traceback__ = None
    del caught


@EACH_WAY
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("how", ["read", "cancelled", "dropped"])
def test_no_reference_keeps_an_aio_call(how: str, arity: str, way: str) -> None:
    """On asyncio, whose own calls are cycles, nothing keeps a call alive once the garbage has been collected."""
    server, client = Memory(), Memory()

    async def talk(channel: grpc.aio.Channel) -> None:
        call = method(channel, arity)(requests(arity), timeout=10)
        if arity in STREAMS:
            await call.read()
        if how == "cancelled":
            call.cancel()
        elif how == "read" and arity in STREAMS:
            while await call.read() is not grpc.aio.EOF:
                pass
        elif how == "read":
            await call

    async def main() -> tuple[int, int]:
        interceptors = [AioHideExceptions(), AioServerInterceptor(*server.observers())]
        async with aio_observed(way, *client.observers(), server=interceptors, **AIO_ECHOES) as channel:
            for _ in range(3):
                await talk(channel)
            deadline = time.monotonic() + 5
            while server.left(0) + client.left(0) and time.monotonic() < deadline:
                await asyncio.sleep(0.01)
                gc.collect()
            return server.left(0), client.left(0)

    assert (0, 0) == asyncio.run(main())


@pytest.mark.parametrize("stack", ["sync", *OURS])
def test_memory_does_not_grow(stack: str) -> None:
    """After a thousand calls there are as many objects of ours as after a hundred."""
    observers = Memory().observers()[:-1]

    def run(count: int) -> int:
        interceptor = ServerInterceptor(*observers)
        with connected(interceptor, client=[ClientInterceptor(*observers)], **ECHOES) as channel:
            for _ in range(count):
                method(channel, "unary")(b"a", timeout=10)
        return ours()

    async def aio_run(count: int) -> int:
        async with aio_observed(stack, *observers, server=[AioServerInterceptor(*observers)], **AIO_ECHOES) as channel:
            for _ in range(count):
                await method(channel, "unary")(b"a", timeout=10)
        return ours()

    if stack == "sync":
        few, many = run(100), run(1000)
    else:
        few, many = asyncio.run(aio_run(100)), asyncio.run(aio_run(1000))

    assert many - few < 50


def ours() -> int:
    """Count the objects of ours that there are."""
    gc.collect()
    return len([thing for thing in gc.get_objects() if str(type(thing).__module__).startswith("observability")])
