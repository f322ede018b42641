"""Context variables: what a call sets is seen within it, and nowhere else."""

import asyncio
import contextlib
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry import trace

from observability import (
    AioServerInterceptor,
    ClientInterceptor,
    ServerInterceptor,
    aio_client_interceptors,
    current_call,
)
from tests.support.recorder import Recorder
from tests.support.rpc import LOCAL, aio_connected, connected, echo, method, service

INVALID = trace.INVALID_SPAN_CONTEXT


def here() -> tuple[Any, int]:
    """Return the call and the span that are current here."""
    return current_call(), trace.get_current_span().get_span_context().span_id


def test_interleaved_streams() -> None:
    """Of two streams that one client reads in turn, each step sees its own call and span."""
    server = Recorder()
    seen: dict[bytes, list[Any]] = {b"one": [], b"two": []}

    def behavior(request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        for _ in range(5):
            seen[request].append(here())
            yield request

    with connected(ServerInterceptor(*server.observers), server_stream=behavior) as channel:
        streams = [method(channel, "server_stream")(request, timeout=10) for request in seen]
        for _ in zip(*streams, strict=True):
            pass
        server.wait_for(2)

    assert [1, 1] == [len(set(steps)) for steps in seen.values()]
    assert set(server.calls) == {steps[0][0] for steps in seen.values()}


def test_interleaved_streams_on_asyncio() -> None:
    """On asyncio each step sees its own call and span as well, with both streams in one event loop."""
    server = Recorder()
    seen: dict[bytes, list[Any]] = {b"one": [], b"two": []}

    async def behavior(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for _ in range(5):
            seen[request].append(here())
            yield request

    async def main() -> None:
        async with aio_connected(AioServerInterceptor(*server.observers), server_stream=behavior) as channel:
            one, two = (method(channel, "server_stream")(request, timeout=10) for request in seen)
            for _ in range(5):
                await one.read()
                await two.read()
            assert grpc.aio.EOF is await one.read()
            assert grpc.aio.EOF is await two.read()

    asyncio.run(main())

    assert [1, 1] == [len(set(steps)) for steps in seen.values()]
    assert set(server.calls) == {steps[0][0] for steps in seen.values()}


def test_reused_thread() -> None:
    """A pool's one thread knows nothing of the calls that it has served, and each call starts a new trace."""
    server = Recorder()
    with ThreadPoolExecutor(1) as pool:
        grpc_server = grpc.server(pool, [service(unary=echo)], [ServerInterceptor(*server.observers)])
        address = f"127.0.0.1:{grpc_server.add_insecure_port(LOCAL)}"
        grpc_server.start()
        with grpc.insecure_channel(address) as channel:
            for _ in range(3):
                method(channel, "unary")(b"a", timeout=10)
        server.wait_for(3)
        left = pool.submit(here).result(10)
        grpc_server.stop(None).wait()

    assert (None, INVALID.span_id) == left
    assert [None] * 3 == [span.parent for span in server.spans]
    assert 3 == len({call.trace_id for call in server.calls})


def test_clients_calls_leave_nothing_behind() -> None:
    """Interleaved and abandoned streams of a client leave its own context as it was."""
    client = Recorder()
    with connected(
        server_stream=lambda request, _context: iter([request] * 100),
        unary=echo,
        client=[ClientInterceptor(*client.observers)],
    ) as channel:
        streams = [method(channel, "server_stream")(b"a", timeout=10) for _ in range(3)]
        for stream in streams:
            next(stream)
        streams.pop().cancel()
        streams.clear()
        del stream
        between = here()
        method(channel, "unary")(b"a", timeout=10)
        client.wait_for(4)

    assert (None, INVALID.span_id) == between == here()
    assert [None] * 4 == [span.parent for span in client.spans]


def test_asyncio_calls_leave_nothing_behind() -> None:
    """On asyncio, too, a caller's context is as it was after its calls, and a server's loop's as well."""
    server, client = Recorder(), Recorder()

    async def main() -> tuple[Any, int]:
        interceptors = aio_client_interceptors(*client.observers)
        async with aio_connected(
            AioServerInterceptor(*server.observers), unary=echo, server_stream=count, client=interceptors
        ) as channel:
            await asyncio.gather(*(method(channel, "unary")(b"a", timeout=10) for _ in range(5)))
            stream = method(channel, "server_stream")(b"a", timeout=10)
            await stream.read()
            stream.cancel()
            await asyncio.to_thread(client.wait_for, 6)
            return here()

    async def count(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        while True:
            yield request

    assert (None, INVALID.span_id) == asyncio.run(main())
    assert [None] * 6 == [span.parent for span in client.spans]


@pytest.mark.parametrize("stack", ["sync", "aio"])
def test_generator_closed_elsewhere(caplog: pytest.LogCaptureFixture, stack: str) -> None:
    """A stream whose caller leaves early is closed in another context, without an error (otel-contrib#2357)."""
    server = Recorder()
    closed = threading.Event()

    def behavior(request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        context.add_callback(closed.set)
        while True:
            yield request

    async def aio_behavior(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        try:
            while True:
                yield request
                await asyncio.sleep(0)
        finally:
            closed.set()

    async def main() -> None:
        async with aio_connected(AioServerInterceptor(*server.observers), server_stream=aio_behavior) as channel:
            stream = method(channel, "server_stream")(b"a", timeout=10)
            await stream.read()
            stream.cancel()
            await asyncio.to_thread(closed.wait, 10)
            await asyncio.to_thread(server.wait_for)

    with caplog.at_level(logging.WARNING):
        if stack == "sync":
            with connected(ServerInterceptor(*server.observers), server_stream=behavior) as channel:
                stream = method(channel, "server_stream")(b"a", timeout=10)
                next(stream)
                stream.cancel()
                server.wait_for()
        else:
            asyncio.run(main())

    assert closed.wait(10)
    assert [] == [record for record in caplog.records if record.name.startswith(("opentelemetry", "asyncio"))]
    assert ["CANCELLED"] == server.codes


def test_handler_that_runs_on_after_its_call_sees_its_own() -> None:
    """A handler that outlives its call still sees it, whatever its thread's pool has begun meanwhile."""
    server = Recorder()
    entered, leave = threading.Event(), threading.Event()
    seen: list[Any] = []

    def behavior(request: bytes, _context: grpc.ServicerContext) -> bytes:
        if request == b"slow":
            entered.set()
            leave.wait(10)
        seen.append(here())
        return request

    with connected(ServerInterceptor(*server.observers), unary=behavior) as channel:
        slow = method(channel, "unary").future(b"slow", timeout=10)
        entered.wait(10)
        slow.cancel()
        server.wait_for(1)
        method(channel, "unary")(b"quick", timeout=10)
        server.wait_for(2)
        leave.set()

    assert [server.calls[1], server.calls[0]] == [call for call, _ in seen]
    assert 2 == len({span_id for _, span_id in seen})


def test_span_of_the_caller_stays_current_around_a_stream() -> None:
    """A stream that is read within a caller's span, and dropped after it, leaves that span's place alone."""
    client = Recorder()
    tracer = client.provider.get_tracer("app")
    with connected(
        server_stream=lambda request, _context: iter([request] * 3), client=[ClientInterceptor(*client.observers)]
    ) as channel:
        with tracer.start_as_current_span("job") as job:
            stream = method(channel, "server_stream")(b"a", timeout=10)
            next(stream)
            inside = trace.get_current_span()
        with contextlib.suppress(StopIteration):
            while True:
                next(stream)
        client.wait_for()

    assert job is inside
    assert (None, INVALID.span_id) == here()
