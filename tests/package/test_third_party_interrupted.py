"""Living with others when a call is cut off: cancelled, out of time, or a stream that is dropped."""

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
from tests.support.third_party import NEIGHBOURS, OPENTELEMETRY, PROMETHEUS, SENTRY, Neighbour, intercepted

PATIENCE = 10.0
SOON = 0.2
CODES = {"cancel": "CANCELLED", "deadline": "DEADLINE_EXCEEDED", "drop": "CANCELLED"}
ENDS = [(how, arity) for how in CODES for arity in (STREAMS if how == "drop" else ARITIES)]


def beside(
    neighbours: Iterable[Neighbour], impossible: Callable[[Neighbour, str, str, str], bool] = lambda *_row: False
) -> pytest.MarkDecorator:
    """Let a test run beside each of these neighbours, outside and inside of it, with every end that is possible."""
    rows = [
        (neighbour, place, how, arity)
        for neighbour in neighbours
        for place in ("outside", "inside")
        for how, arity in ENDS
        if not impossible(neighbour, place, how, arity)
    ]
    return pytest.mark.parametrize(
        ("neighbour", "place", "how", "arity"), rows, ids=["-".join(map(str, row)) for row in rows]
    )


def interrupt(channel: grpc.Channel, how: str, arity: str, begun: threading.Event) -> None:
    """Make a call and cut it off; what a neighbour has made a mere generator of is dropped."""
    start = method(channel, arity)
    call = (start if arity in STREAMS else start.future)(
        requests(arity), timeout=SOON if how == "deadline" else PATIENCE
    )
    with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError, AttributeError):
        if arity in STREAMS:
            next(call)
        begun.wait(PATIENCE)
        if how == "deadline":
            _ = list(call) if arity in STREAMS else call.result()
        elif how == "cancel":
            call.cancel()


async def aio_interrupt(channel: grpc.aio.Channel, how: str, arity: str, begun: asyncio.Event) -> None:
    """Do the same on asyncio."""
    call = method(channel, arity)(requests(arity), timeout=SOON if how == "deadline" else PATIENCE)
    with contextlib.suppress(grpc.RpcError, asyncio.CancelledError):
        responses = aiter(call) if arity in STREAMS else None
        if responses:
            await anext(responses)
        await begun.wait()
        if how == "deadline":
            _ = [response async for response in responses] if responses else await call
        elif how == "cancel":
            call.cancel()


def cut_off(how: str, arity: str, recorder: Recorder, server: Any, client: Any = lambda channel: channel) -> None:
    """Cut off a call of a server and through a client with these interceptors, and wait until that is told."""
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


@beside(NEIGHBOURS)
def test_server(neighbour: Neighbour, place: str, how: str, arity: str) -> None:
    """Beside another's interceptor on a server, ours tells a call that is cut off as what it was."""
    recorder = Recorder()
    both = [ServerInterceptor(*recorder.observers), neighbour.server()]

    cut_off(how, arity, recorder, both if place == "outside" else both[::-1])

    assert [[CODES[how]]] * 4 == recorder.everywhere()


@beside(neighbour for neighbour in NEIGHBOURS if neighbour.aio_server)
def test_aio_server(neighbour: Neighbour, place: str, how: str, arity: str) -> None:
    """So it does on asyncio."""
    assert neighbour.aio_server
    recorder = Recorder()
    both = [AioServerInterceptor(*recorder.observers), neighbour.aio_server()]

    # Through interceptors of ours on the client, too: by itself grpc.aio never cancels a stream that is dropped.
    asyncio.run(
        aio_cut_off(how, arity, recorder, both if place == "outside" else both[::-1], aio_client_interceptors())
    )

    assert [[CODES[how]]] * 4 == recorder.everywhere()


def holds(neighbour: Neighbour, place: str, how: str, arity: str) -> bool:
    """
    Tell whether a neighbour keeps its caller from cutting a call off.

    Two wait for the call's end before its caller has it. One, outside ours, asks a stream to be told of its end, and
    grpc keeps a stream that is to tell somebody.
    """
    if how == "cancel":
        return arity == "unary" and neighbour in (PROMETHEUS, SENTRY)
    return (how, place, arity, neighbour) == ("drop", "inside", "bidi_stream", OPENTELEMETRY)


@beside(NEIGHBOURS, holds)
def test_client(neighbour: Neighbour, place: str, how: str, arity: str) -> None:
    """So it does on a client."""
    recorder = Recorder()
    ours = partial(intercepted, ClientInterceptor(*recorder.observers))

    cut_off(
        how,
        arity,
        recorder,
        (),
        lambda plain: ours(neighbour.client(plain)) if place == "outside" else neighbour.client(ours(plain)),
    )

    assert [[CODES[how]]] * 4 == recorder.everywhere("client")


def swallows(neighbour: Neighbour, place: str, how: str, arity: str) -> bool:
    """Return whether a neighbour, outside ours, awaits the answer in its interceptor: no cancellation gets through."""
    awaits = ("unary", "client_stream") if neighbour is OPENTELEMETRY else ("unary",)
    return place == "inside" and how == "cancel" and arity in awaits


@beside((neighbour for neighbour in NEIGHBOURS if neighbour.aio_clients), swallows)
def test_aio_client(neighbour: Neighbour, place: str, how: str, arity: str) -> None:
    """So it does on a client on asyncio."""
    assert neighbour.aio_clients
    recorder = Recorder()
    ours = aio_client_interceptors(*recorder.observers)
    client = [*ours, *neighbour.aio_clients()] if place == "outside" else [*neighbour.aio_clients(), *ours]

    asyncio.run(aio_cut_off(how, arity, recorder, (), client))

    assert [[CODES[how]]] * 4 == recorder.everywhere("client")
