"""Stacked with other libraries' interceptors, results and outcomes stay right."""

import asyncio
import itertools
from collections.abc import Callable
from functools import partial
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import (
    AioHideExceptions,
    AioServerInterceptor,
    ClientInterceptor,
    HideExceptions,
    ServerInterceptor,
    aio_client_interceptors,
)
from observability.client.channel import ObservedChannel
from tests.support.aio_ways import aio_observed
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, aio_connected, connected, method, requests
from tests.support.third_party import (
    EXCEPTIONS,
    LIBRARIES,
    OPENTELEMETRY,
    PASSING,
    PROMETHEUS,
    SENTRY,
    Library,
)

pytestmark = pytest.mark.expects_errors("ValueError: no bread")  # the handlers' own
STATUSES = ("OK", "NOT_FOUND", "UNKNOWN", "UNIMPLEMENTED")
CASES = pytest.mark.parametrize(("status", "arity"), list(itertools.product(STATUSES, ARITIES)))
# Without unknown methods that take a stream: grpc.aio may end a call that is still being written as INTERNAL.
AIO_CASES = pytest.mark.parametrize(
    ("status", "arity"),
    [
        (status, arity)
        for status, arity in itertools.product(STATUSES, ARITIES)
        if status != "UNIMPLEMENTED" or arity in ("unary", "server_stream")
    ],
)
# Both ways to observe a sync channel.
OBSERVE: dict[str, Callable[[Recorder, grpc.Channel], grpc.Channel]] = {
    "interceptor": lambda recorder, channel: grpc.intercept_channel(channel, ClientInterceptor(*recorder.observers)),
    "channel": lambda recorder, channel: ObservedChannel(channel, *recorder.observers),
}
WAYS = pytest.mark.parametrize("way", OBSERVE)
PLACES = pytest.mark.parametrize("place", ["outside", "inside"])
Result = tuple[list[bytes], str]


def talk(channel: grpc.Channel, arity: str, status: str) -> Result:
    """Make a call; return its responses and the code that its caller gets."""
    call = method(channel, arity, "/nobody/knows" if status == "UNIMPLEMENTED" else None)
    responses: list[bytes] = []
    try:
        if arity in STREAMS:
            responses.extend(call(requests(arity), timeout=10))
        else:
            responses.append(call(requests(arity), timeout=10))
    except grpc.RpcError as error:
        return responses, error.code().name
    return responses, "OK"


async def aio_talk(channel: grpc.aio.Channel, arity: str, status: str) -> Result:
    """Do the same on asyncio."""
    call = method(channel, arity, "/nobody/knows" if status == "UNIMPLEMENTED" else None)(requests(arity), timeout=10)
    responses: list[bytes] = []
    try:
        if arity in STREAMS:
            async for response in call:
                responses.append(response)  # noqa: PERF401 - kept though the stream may fail
        else:
            responses.append(await call)
    except grpc.aio.AioRpcError as error:
        return responses, error.code().name
    return responses, "OK"


def served(arity: str, status: str, *interceptors: Any) -> Result:
    """Make a call of a server behind these interceptors."""
    with connected(*interceptors, **behaviors(status)) as channel:
        return talk(channel, arity, status)


async def aio_served(arity: str, status: str, *interceptors: Any, client: Any = ()) -> Result:
    """Do the same on asyncio."""
    async with aio_connected(*interceptors, client=client, **aio_behaviors(status)) as channel:
        return await aio_talk(channel, arity, status)


@CASES
@PLACES
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_server(library: Library, place: str, status: str, arity: str) -> None:
    """Beside another library's interceptor on a server, ours changes no result, and reports the caller's code."""
    recorder = Recorder()
    alone = served(arity, status, library.server())
    both = [ServerInterceptor(*recorder.observers), library.server()]
    together = served(arity, status, *(both if place == "outside" else both[::-1]))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@PLACES
@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_server], ids=str)
def test_aio_server(library: Library, place: str, status: str, arity: str) -> None:
    """On an asyncio server ours changes no result either, and reports the caller's code."""
    assert library.aio_server
    recorder = Recorder()
    alone = asyncio.run(aio_served(arity, status, library.aio_server()))
    both = [AioServerInterceptor(*recorder.observers), library.aio_server()]
    together = asyncio.run(aio_served(arity, status, *(both if place == "outside" else both[::-1])))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@CASES
@PLACES
@WAYS
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_client(library: Library, way: str, place: str, status: str, arity: str) -> None:
    """Beside another library's interceptor on a client, ours changes no result, and reports the caller's code."""
    recorder = Recorder()
    ours = partial(OBSERVE[way], recorder)
    with connected(**behaviors(status)) as channel:
        alone = talk(library.client(channel), arity, status)
        stacked = ours(library.client(channel)) if place == "outside" else library.client(ours(channel))
        together = talk(stacked, arity, status)
        recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@PLACES
@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_clients], ids=str)
def test_aio_client(library: Library, place: str, status: str, arity: str) -> None:
    """On an asyncio client ours changes no result either, and reports the caller's code."""
    assert library.aio_clients
    recorder = Recorder()
    ours = aio_client_interceptors(*recorder.observers)
    alone = asyncio.run(aio_served(arity, status, client=library.aio_clients()))
    stacked = [*ours, *library.aio_clients()] if place == "outside" else [*library.aio_clients(), *ours]
    together = asyncio.run(aio_served(arity, status, client=stacked))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_clients], ids=str)
def test_aio_channel(library: Library, status: str, arity: str) -> None:
    """The same holds for our asyncio channel around one with another library's interceptors."""
    assert library.aio_clients
    recorder, others = Recorder(), library.aio_clients

    async def observed() -> Result:
        async with aio_observed("channel", *recorder.observers, client=others(), **aio_behaviors(status)) as channel:
            return await aio_talk(channel, arity, status)

    alone = asyncio.run(aio_served(arity, status, client=others()))
    together = asyncio.run(observed())
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


OURS = "ours"
Order = tuple[Library | str, ...]
ENDS = pytest.mark.parametrize("status", ["OK", "NOT_FOUND"])


def orders(*libraries: Library) -> list[Order]:
    """Return the interceptors of these libraries and ours in every order, the innermost first."""
    return list(itertools.permutations((OURS, *libraries)))


@ENDS
@pytest.mark.parametrize("arity", ["unary", "bidi_stream"])
@pytest.mark.parametrize("by_grpc_interceptor", [PASSING, EXCEPTIONS], ids=str)
def test_every_order_on_a_server(by_grpc_interceptor: Library, arity: str, status: str) -> None:
    """With all of them at once, in whatever order, a call has its result and its outcome."""
    found = []
    for order in orders(OPENTELEMETRY, by_grpc_interceptor, PROMETHEUS, SENTRY):
        recorder = Recorder()
        ours = ServerInterceptor(*recorder.observers)
        parts = [part.server() if isinstance(part, Library) else ours for part in order]
        _, code = served(arity, status, *parts)
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, status, [status]) for order, _, _ in found] == found


@ENDS
@pytest.mark.parametrize("arity", ["unary", "bidi_stream"])
def test_every_order_on_an_aio_server(arity: str, status: str) -> None:
    """On an asyncio server, in whatever order, a call has its result and its outcome."""
    found = []
    for order in orders(OPENTELEMETRY, PASSING, EXCEPTIONS, SENTRY):
        recorder = Recorder()
        ours = AioServerInterceptor(*recorder.observers)
        libraries = (part.aio_server if isinstance(part, Library) else None for part in order)
        _, code = asyncio.run(aio_served(arity, status, *(factory() if factory else ours for factory in libraries)))
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, status, [status]) for order, _, _ in found] == found


def fits(order: Order, arity: str) -> bool:
    """
    Return whether the libraries' interceptors work with each other in this order, without us.

    py-grpc-prometheus makes a mere generator of a bidirectional call's responses, of which opentelemetry's
    interceptor, further out, asks what only a call has.
    """
    return arity != "bidi_stream" or order.index(OPENTELEMETRY) < order.index(PROMETHEUS)


@WAYS
@ENDS
@pytest.mark.parametrize("arity", ARITIES)
def test_every_order_on_a_client(way: str, arity: str, status: str) -> None:
    """On a client, in whatever order, a call has its result and its outcome."""
    found = []
    with connected(**behaviors(status)) as plain:
        for order in orders(OPENTELEMETRY, PASSING, PROMETHEUS, SENTRY):
            if not fits(order, arity):
                continue
            recorder = Recorder()
            ours = partial(OBSERVE[way], recorder)
            channel = plain
            for part in order:
                channel = part.client(channel) if isinstance(part, Library) else ours(channel)
            _, code = talk(channel, arity, status)
            recorder.wait_for()
            found.append((order, code, recorder.codes))

    assert [(order, status, [status]) for order, _, _ in found] == found


@ENDS
@pytest.mark.parametrize("arity", ARITIES)
def test_every_order_on_an_aio_client(arity: str, status: str) -> None:
    """On an asyncio client, in whatever order, a call has its result and its outcome."""
    found = []
    for order in orders(OPENTELEMETRY, SENTRY):
        recorder = Recorder()
        ours = aio_client_interceptors(*recorder.observers)
        factories = (part.aio_clients if isinstance(part, Library) else None for part in order)
        client = [interceptor for factory in factories for interceptor in (factory() if factory else ours)]
        _, code = asyncio.run(aio_served(arity, status, client=client))
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, status, [status]) for order, _, _ in found] == found


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_hidden_exceptions(stack: str, ours_first: bool) -> None:  # noqa: FBT001 - a parameter
    """HideExceptions beside ours, in either order: the caller gets UNKNOWN, and that is reported."""
    recorder = Recorder()
    if stack == "sync":
        parts: list[Any] = [ServerInterceptor(*recorder.observers), HideExceptions()]
        found = served("unary", "UNKNOWN", *(parts if ours_first else parts[::-1]))
    else:
        parts = [AioServerInterceptor(*recorder.observers), AioHideExceptions()]
        found = asyncio.run(aio_served("unary", "UNKNOWN", *(parts if ours_first else parts[::-1])))
    recorder.wait_for()

    assert ([], "UNKNOWN") == found
    assert ["UNKNOWN"] == recorder.codes


def test_ours_twice() -> None:
    """Ours may stand twice on one server: each reports the call, and both report the same."""
    one, two = Recorder(), Recorder()
    found = served("bidi_stream", "NOT_FOUND", ServerInterceptor(*one.observers), ServerInterceptor(*two.observers))
    one.wait_for()
    two.wait_for()

    assert "NOT_FOUND" == found[1]
    assert one.codes == two.codes == ["NOT_FOUND"]
