"""Stacked with other libraries' interceptors, results and outcomes stay right."""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
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
from tests.support.rpc import ARITIES, NAMES, STREAMS, aio_connected, connected, method, requests, service
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
SERVED = ("OK", "NOT_FOUND", "UNKNOWN")
STATUSES = (*SERVED, "UNIMPLEMENTED")
Case = tuple[str, str]
CASES: list[Case] = list(itertools.product(STATUSES, ARITIES))
# Without unknown methods that take a stream: grpc.aio may end a call that is still being written as INTERNAL.
AIO_CASES = [
    (status, arity) for status, arity in CASES if status != "UNIMPLEMENTED" or arity in ("unary", "server_stream")
]
# Both ways to observe a sync channel.
OBSERVE: dict[str, Callable[[Recorder, grpc.Channel], grpc.Channel]] = {
    "interceptor": lambda recorder, channel: grpc.intercept_channel(channel, ClientInterceptor(*recorder.observers)),
    "channel": lambda recorder, channel: ObservedChannel(channel, *recorder.observers),
}
WAYS = pytest.mark.parametrize("way", OBSERVE)
PLACES = pytest.mark.parametrize("place", ["outside", "inside"])
Result = tuple[list[bytes], str]


def services(of: Callable[[str], dict[str, Any]]) -> list[grpc.GenericRpcHandler]:
    """Return a service for each status, with a method of each arity that ends with it."""
    return [service(f"test.v1.{status}", **of(status)) for status in SERVED]


def start(channel: Any, status: str, arity: str) -> Any:
    """Start a call that ends with this status."""
    served = f"/test.v1.{status}/{NAMES[arity]}"
    return method(channel, arity, served if status in SERVED else "/nobody/knows")(requests(arity), timeout=10)


def talk(channel: grpc.Channel, status: str, arity: str) -> Result:
    """Make a call; return its responses and the code that its caller gets."""
    responses: list[bytes] = []
    try:
        if arity in STREAMS:
            responses.extend(start(channel, status, arity))
        else:
            responses.append(start(channel, status, arity))
    except grpc.RpcError as error:
        return responses, error.code().name
    return responses, "OK"


async def aio_talk(channel: grpc.aio.Channel, status: str, arity: str) -> Result:
    """Do the same on asyncio."""
    call = start(channel, status, arity)
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


def talks(channel: grpc.Channel, cases: Iterable[Case], recorder: Recorder | None = None) -> dict[Case, Result]:
    """Make a call of each case, each when the one before has been reported; return what came of them."""
    found: dict[Case, Result] = {}
    for case in cases:
        found[case] = talk(channel, *case)
        if recorder:
            recorder.wait_for(len(found))
    return found


async def aio_talks(
    channel: grpc.aio.Channel, cases: Iterable[Case], recorder: Recorder | None = None
) -> dict[Case, Result]:
    """Do the same on asyncio."""
    found: dict[Case, Result] = {}
    for case in cases:
        found[case] = await aio_talk(channel, *case)
        if recorder:
            await asyncio.to_thread(recorder.wait_for, len(found))
    return found


def served(cases: Iterable[Case], *interceptors: Any, recorder: Recorder | None = None) -> dict[Case, Result]:
    """Make these calls of a server behind these interceptors."""
    with connected(*interceptors, handlers=services(behaviors)) as channel:
        return talks(channel, cases, recorder)


async def aio_served(
    cases: Iterable[Case], *interceptors: Any, client: Any = (), recorder: Recorder | None = None
) -> dict[Case, Result]:
    """Do the same on asyncio."""
    async with aio_connected(*interceptors, client=client, handlers=services(aio_behaviors)) as channel:
        return await aio_talks(channel, cases, recorder)


def codes(results: dict[Case, Result]) -> list[str]:
    """Return the codes that the callers get."""
    return [code for _, code in results.values()]


@pytest.fixture(scope="module")
def plain() -> Iterator[grpc.Channel]:
    """Give a channel to a server without interceptors."""
    with connected(handlers=services(behaviors)) as channel:
        yield channel


@PLACES
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_server(library: Library, place: str) -> None:
    """Beside another library's interceptor on a server, ours changes no result, and reports the caller's code."""
    recorder = Recorder()
    alone = served(CASES, library.server())
    both = [ServerInterceptor(*recorder.observers), library.server()]
    together = served(CASES, *(both if place == "outside" else both[::-1]), recorder=recorder)

    assert alone == together
    assert codes(together) == recorder.codes


@PLACES
@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_server], ids=str)
def test_aio_server(library: Library, place: str) -> None:
    """On an asyncio server ours changes no result either, and reports the caller's code."""
    assert library.aio_server
    recorder = Recorder()
    alone = asyncio.run(aio_served(AIO_CASES, library.aio_server()))
    both = [AioServerInterceptor(*recorder.observers), library.aio_server()]
    stacked = both if place == "outside" else both[::-1]
    together = asyncio.run(aio_served(AIO_CASES, *stacked, recorder=recorder))

    assert alone == together
    assert codes(together) == recorder.codes


@PLACES
@WAYS
@pytest.mark.parametrize("library", LIBRARIES, ids=str)
def test_client(library: Library, way: str, place: str, plain: grpc.Channel) -> None:
    """Beside another library's interceptor on a client, ours changes no result, and reports the caller's code."""
    recorder = Recorder()
    ours = partial(OBSERVE[way], recorder)
    alone = talks(library.client(plain), CASES)
    stacked = ours(library.client(plain)) if place == "outside" else library.client(ours(plain))
    together = talks(stacked, CASES, recorder)

    assert alone == together
    assert codes(together) == recorder.codes


@PLACES
@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_clients], ids=str)
def test_aio_client(library: Library, place: str) -> None:
    """On an asyncio client ours changes no result either, and reports the caller's code."""
    assert library.aio_clients
    recorder = Recorder()
    ours = aio_client_interceptors(*recorder.observers)
    alone = asyncio.run(aio_served(AIO_CASES, client=library.aio_clients()))
    stacked = [*ours, *library.aio_clients()] if place == "outside" else [*library.aio_clients(), *ours]
    together = asyncio.run(aio_served(AIO_CASES, client=stacked, recorder=recorder))

    assert alone == together
    assert codes(together) == recorder.codes


@pytest.mark.parametrize("library", [library for library in LIBRARIES if library.aio_clients], ids=str)
def test_aio_channel(library: Library) -> None:
    """The same holds for our asyncio channel around one with another library's interceptors."""
    assert library.aio_clients
    recorder, others = Recorder(), library.aio_clients

    async def observed() -> dict[Case, Result]:
        handlers = services(aio_behaviors)
        async with aio_observed("channel", *recorder.observers, client=others(), handlers=handlers) as channel:
            return await aio_talks(channel, AIO_CASES, recorder)

    alone = asyncio.run(aio_served(AIO_CASES, client=others()))
    together = asyncio.run(observed())

    assert alone == together
    assert codes(together) == recorder.codes


UNKNOWN: Case = ("UNKNOWN", "unary")
OURS = "ours"
Order = tuple[Library | str, ...]
ENDS = ("OK", "NOT_FOUND")
OF_A_SERVER: list[Case] = list(itertools.product(ENDS, ("unary", "bidi_stream")))
OF_A_CLIENT: list[Case] = list(itertools.product(ENDS, ARITIES))


def orders(*libraries: Library) -> list[Order]:
    """Return the interceptors of these libraries and ours in every order, the innermost first."""
    return list(itertools.permutations((OURS, *libraries)))


def expected(cases: Iterable[Case]) -> list[list[str]]:
    """Return the codes that the callers get, and those that we report."""
    return [[status for status, _ in cases]] * 2


@pytest.mark.parametrize("by_grpc_interceptor", [PASSING, EXCEPTIONS], ids=str)
def test_every_order_on_a_server(by_grpc_interceptor: Library) -> None:
    """With all of them at once, in whatever order, a call has its result and its outcome."""
    every = orders(OPENTELEMETRY, by_grpc_interceptor, PROMETHEUS, SENTRY)
    found: dict[Order, list[list[str]]] = {}
    for order in every:
        recorder = Recorder()
        ours = ServerInterceptor(*recorder.observers)
        parts = [part.server() if isinstance(part, Library) else ours for part in order]
        results = served(OF_A_SERVER, *parts, recorder=recorder)
        found[order] = [codes(results), recorder.codes]

    assert {order: expected(OF_A_SERVER) for order in every} == found


def test_every_order_on_an_aio_server() -> None:
    """On an asyncio server, in whatever order, a call has its result and its outcome."""
    every = orders(OPENTELEMETRY, PASSING, EXCEPTIONS, SENTRY)
    found: dict[Order, list[list[str]]] = {}
    for order in every:
        recorder = Recorder()
        ours = AioServerInterceptor(*recorder.observers)
        libraries = (part.aio_server if isinstance(part, Library) else None for part in order)
        parts = [factory() if factory else ours for factory in libraries]
        results = asyncio.run(aio_served(OF_A_SERVER, *parts, recorder=recorder))
        found[order] = [codes(results), recorder.codes]

    assert {order: expected(OF_A_SERVER) for order in every} == found


def fitting(order: Order) -> list[Case]:
    """
    Return the cases in which the libraries' interceptors work with each other in this order, without us.

    py-grpc-prometheus makes a mere generator of a bidirectional call's responses, of which opentelemetry's
    interceptor, further out, asks what only a call has.
    """
    fits = order.index(OPENTELEMETRY) < order.index(PROMETHEUS)
    return [(status, arity) for status, arity in OF_A_CLIENT if fits or arity != "bidi_stream"]


@WAYS
def test_every_order_on_a_client(way: str, plain: grpc.Channel) -> None:
    """On a client, in whatever order, a call has its result and its outcome."""
    every = orders(OPENTELEMETRY, PASSING, PROMETHEUS, SENTRY)
    found: dict[Order, list[list[str]]] = {}
    for order in every:
        recorder = Recorder()
        ours = partial(OBSERVE[way], recorder)
        channel = plain
        for part in order:
            channel = part.client(channel) if isinstance(part, Library) else ours(channel)
        found[order] = [codes(talks(channel, fitting(order), recorder)), recorder.codes]

    assert {order: expected(fitting(order)) for order in every} == found


def test_every_order_on_an_aio_client() -> None:
    """On an asyncio client, in whatever order, a call has its result and its outcome."""
    every = orders(OPENTELEMETRY, SENTRY)
    found: dict[Order, list[list[str]]] = {}
    for order in every:
        recorder = Recorder()
        ours = aio_client_interceptors(*recorder.observers)
        factories = (part.aio_clients if isinstance(part, Library) else None for part in order)
        client = [interceptor for factory in factories for interceptor in (factory() if factory else ours)]
        results = asyncio.run(aio_served(OF_A_CLIENT, client=client, recorder=recorder))
        found[order] = [codes(results), recorder.codes]

    assert {order: expected(OF_A_CLIENT) for order in every} == found


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_hidden_exceptions(stack: str, ours_first: bool) -> None:  # noqa: FBT001 - a parameter
    """HideExceptions beside ours, in either order: the caller gets UNKNOWN, and that is reported."""
    recorder = Recorder()
    if stack == "sync":
        parts: list[Any] = [ServerInterceptor(*recorder.observers), HideExceptions()]
        found = served([UNKNOWN], *(parts if ours_first else parts[::-1]), recorder=recorder)
    else:
        parts = [AioServerInterceptor(*recorder.observers), AioHideExceptions()]
        found = asyncio.run(aio_served([UNKNOWN], *(parts if ours_first else parts[::-1]), recorder=recorder))

    assert {UNKNOWN: ([], "UNKNOWN")} == found
    assert ["UNKNOWN"] == recorder.codes


def test_ours_twice() -> None:
    """Ours may stand twice on one server: each reports the call, and both report the same."""
    one, two = Recorder(), Recorder()
    interceptors = ServerInterceptor(*one.observers), ServerInterceptor(*two.observers)
    found = served([("NOT_FOUND", "bidi_stream")], *interceptors, recorder=one)
    two.wait_for()

    assert ["NOT_FOUND"] == codes(found)
    assert one.codes == two.codes == ["NOT_FOUND"]
