"""Beside other libraries' interceptors, calls that are cut off: cancelled, out of time, or dropped streams."""

import asyncio
import contextlib
import gc
import threading
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import AioServerInterceptor, ClientInterceptor, ServerInterceptor, aio_client_interceptors
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, aio_connected, connected, method, requests
from tests.support.third_party import LIBRARIES, OPENTELEMETRY, PROMETHEUS, SENTRY, Library, intercepted

PATIENCE = 10.0
SOON = 0.2
CODES = {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED", "drop": "CANCELLED"}
ENDS = [(how, arity) for how in CODES for arity in (STREAMS if how == "drop" else ARITIES)]


def beside(
    libraries: Iterable[Library], impossible: Callable[[Library, str, str, str], bool] = lambda *_row: False
) -> pytest.MarkDecorator:
    """Run a test beside each of these libraries, outside and inside of it, with every end that is possible."""
    rows = [
        (library, place, how, arity)
        for library in libraries
        for place in ("outside", "inside")
        for how, arity in ENDS
        if not impossible(library, place, how, arity)
    ]
    return pytest.mark.parametrize(
        ("library", "place", "how", "arity"), rows, ids=["-".join(map(str, row)) for row in rows]
    )


def interrupt(channel: grpc.Channel, how: str, arity: str, begun: threading.Event) -> None:
    """Make a call and cut it off; one that a library has wrapped in a mere generator is dropped."""
    start = method(channel, arity)
    call = (start if arity in STREAMS else start.future)(
        requests(arity), timeout=SOON if how == "deadline" else PATIENCE
    )
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError, AttributeError):
        if arity in STREAMS:
            next(call)
        if how == "deadline":  # which may come before the handler has begun
            _ = list(call) if arity in STREAMS else call.result()
            return
        begun.wait(PATIENCE)
        if how == "cancel":
            call.cancel()


async def aio_interrupt(channel: grpc.aio.Channel, how: str, arity: str, begun: asyncio.Event) -> None:
    """Do the same on asyncio."""
    call = method(channel, arity)(requests(arity), timeout=SOON if how == "deadline" else PATIENCE)
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        responses = aiter(call) if arity in STREAMS else None
        if responses:
            await anext(responses)
        if how == "deadline":
            _ = [response async for response in responses] if responses else await call
            return
        await begun.wait()
        if how == "cancel":
            call.cancel()


def cut_off(how: str, arity: str, recorder: Recorder, server: Any, client: Any = lambda channel: channel) -> None:
    """Cut off a call of a server and through a client with these interceptors, and wait until that is reported."""
    leave, begun = threading.Event(), threading.Event()
    with connected(*server, **{arity: behaviors("cancelled", leave, begun)[arity]}) as channel:
        grpc.channel_ready_future(channel).result(PATIENCE)  # before a deadline that a busy machine could miss
        interrupt(client(channel), how, arity, begun)
        recorder.wait_for()
        leave.set()


async def aio_cut_off(how: str, arity: str, recorder: Recorder, server: Any, client: Any = ()) -> None:
    """Do the same on asyncio, where nothing is over when the channel is closed."""
    begun = asyncio.Event()
    async with aio_connected(*server, client=client, **{arity: aio_behaviors("cancelled", begun)[arity]}) as channel:
        await channel.channel_ready()
        await aio_interrupt(channel, how, arity, begun)
        if how == "drop":
            gc.collect()
        await asyncio.to_thread(recorder.wait_for)


@beside(LIBRARIES)
def test_server(library: Library, place: str, how: str, arity: str) -> None:
    """Beside another library's interceptor on a server, ours reports how a call was cut off."""
    recorder = Recorder()
    both = [ServerInterceptor(*recorder.observers), library.server()]

    cut_off(how, arity, recorder, both if place == "outside" else both[::-1])

    assert [[CODES[how]]] * 4 == recorder.everywhere()


@beside(library for library in LIBRARIES if library.aio_server)
def test_aio_server(library: Library, place: str, how: str, arity: str) -> None:
    """The same holds on asyncio."""
    assert library.aio_server
    recorder = Recorder()
    both = [AioServerInterceptor(*recorder.observers), library.aio_server()]

    # Through interceptors of ours on the client, too: by itself grpc.aio never cancels a stream that is dropped.
    asyncio.run(
        aio_cut_off(how, arity, recorder, both if place == "outside" else both[::-1], aio_client_interceptors())
    )

    assert [[CODES[how]]] * 4 == recorder.everywhere()


def holds(library: Library, place: str, how: str, arity: str) -> bool:
    """
    Return whether a library keeps its caller from cutting a call off.

    Two wait for the call's end before its caller has it. One, outside ours, adds a done-callback to a stream, and grpc
    keeps a stream that has one.
    """
    if how == "cancel":
        return arity == "unary" and library in (PROMETHEUS, SENTRY)
    return (how, place, arity, library) == ("drop", "inside", "bidi_stream", OPENTELEMETRY)


@beside(LIBRARIES, holds)
def test_client(library: Library, place: str, how: str, arity: str) -> None:
    """The same holds on a client."""
    recorder = Recorder()
    ours = partial(intercepted, ClientInterceptor(*recorder.observers))

    cut_off(
        how,
        arity,
        recorder,
        (),
        lambda plain: ours(library.client(plain)) if place == "outside" else library.client(ours(plain)),
    )

    assert [[CODES[how]]] * 4 == recorder.everywhere("client")


def swallows(library: Library, place: str, how: str, arity: str) -> bool:
    """Return whether a library, outside ours, awaits the answer in its interceptor: no cancellation gets through."""
    awaits = ("unary", "client_stream") if library is OPENTELEMETRY else ("unary",)
    return place == "inside" and how == "cancel" and arity in awaits


@beside((library for library in LIBRARIES if library.aio_clients), swallows)
def test_aio_client(library: Library, place: str, how: str, arity: str) -> None:
    """The same holds on a client on asyncio."""
    assert library.aio_clients
    recorder = Recorder()
    ours = aio_client_interceptors(*recorder.observers)
    client = [*ours, *library.aio_clients()] if place == "outside" else [*library.aio_clients(), *ours]

    asyncio.run(aio_cut_off(how, arity, recorder, (), client))

    assert [[CODES[how]]] * 4 == recorder.everywhere("client")
