"""Living with others: stacked with other people's interceptors, results and outcomes stay right."""

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
    NEIGHBOURS,
    OPENTELEMETRY,
    PASSING,
    PROMETHEUS,
    SENTRY,
    Neighbour,
)

pytestmark = pytest.mark.expects_errors("ValueError: no bread")  # the handlers' own
ENDINGS = ("OK", "NOT_FOUND", "UNKNOWN", "UNIMPLEMENTED")
CASES = pytest.mark.parametrize(("ending", "arity"), list(itertools.product(ENDINGS, ARITIES)))
# Without unknown methods that take a stream: grpc.aio may call the end of a call that is still being written INTERNAL.
AIO_CASES = pytest.mark.parametrize(
    ("ending", "arity"),
    [
        (ending, arity)
        for ending, arity in itertools.product(ENDINGS, ARITIES)
        if ending != "UNIMPLEMENTED" or arity in ("unary", "server_stream")
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


def talk(channel: grpc.Channel, arity: str, ending: str) -> Result:
    """Make a call; return its responses and the code that its caller gets."""
    call = method(channel, arity, "/nobody/knows" if ending == "UNIMPLEMENTED" else None)
    responses: list[bytes] = []
    try:
        if arity in STREAMS:
            responses.extend(call(requests(arity), timeout=10))
        else:
            responses.append(call(requests(arity), timeout=10))
    except grpc.RpcError as error:
        return responses, error.code().name
    return responses, "OK"


async def aio_talk(channel: grpc.aio.Channel, arity: str, ending: str) -> Result:
    """Do the same on asyncio."""
    call = method(channel, arity, "/nobody/knows" if ending == "UNIMPLEMENTED" else None)(requests(arity), timeout=10)
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


def served(arity: str, ending: str, *interceptors: Any) -> Result:
    """Make a call of a server behind these interceptors."""
    with connected(*interceptors, **behaviors(ending)) as channel:
        return talk(channel, arity, ending)


async def aio_served(arity: str, ending: str, *interceptors: Any, client: Any = ()) -> Result:
    """Do the same on asyncio."""
    async with aio_connected(*interceptors, client=client, **aio_behaviors(ending)) as channel:
        return await aio_talk(channel, arity, ending)


@CASES
@PLACES
@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=str)
def test_server(neighbour: Neighbour, place: str, ending: str, arity: str) -> None:
    """Beside another's interceptor on a server, ours changes no result, and tells the code that the caller gets."""
    recorder = Recorder()
    alone = served(arity, ending, neighbour.server())
    both = [ServerInterceptor(*recorder.observers), neighbour.server()]
    together = served(arity, ending, *(both if place == "outside" else both[::-1]))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@PLACES
@pytest.mark.parametrize("neighbour", [neighbour for neighbour in NEIGHBOURS if neighbour.aio_server], ids=str)
def test_aio_server(neighbour: Neighbour, place: str, ending: str, arity: str) -> None:
    """So it is on asyncio."""
    assert neighbour.aio_server
    recorder = Recorder()
    alone = asyncio.run(aio_served(arity, ending, neighbour.aio_server()))
    both = [AioServerInterceptor(*recorder.observers), neighbour.aio_server()]
    together = asyncio.run(aio_served(arity, ending, *(both if place == "outside" else both[::-1])))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@CASES
@PLACES
@WAYS
@pytest.mark.parametrize("neighbour", NEIGHBOURS, ids=str)
def test_client(neighbour: Neighbour, way: str, place: str, ending: str, arity: str) -> None:
    """Beside another's interceptor on a client, ours changes no result, and tells the code that the caller gets."""
    recorder = Recorder()
    ours = partial(OBSERVE[way], recorder)
    with connected(**behaviors(ending)) as channel:
        alone = talk(neighbour.client(channel), arity, ending)
        stacked = ours(neighbour.client(channel)) if place == "outside" else neighbour.client(ours(channel))
        together = talk(stacked, arity, ending)
        recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@PLACES
@pytest.mark.parametrize("neighbour", [neighbour for neighbour in NEIGHBOURS if neighbour.aio_clients], ids=str)
def test_aio_client(neighbour: Neighbour, place: str, ending: str, arity: str) -> None:
    """So it is on asyncio."""
    assert neighbour.aio_clients
    recorder = Recorder()
    ours = aio_client_interceptors(*recorder.observers)
    alone = asyncio.run(aio_served(arity, ending, client=neighbour.aio_clients()))
    stacked = [*ours, *neighbour.aio_clients()] if place == "outside" else [*neighbour.aio_clients(), *ours]
    together = asyncio.run(aio_served(arity, ending, client=stacked))
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


@AIO_CASES
@pytest.mark.parametrize("neighbour", [neighbour for neighbour in NEIGHBOURS if neighbour.aio_clients], ids=str)
def test_aio_channel(neighbour: Neighbour, ending: str, arity: str) -> None:
    """So it is with an asyncio channel of our own around one with another's interceptors."""
    assert neighbour.aio_clients
    recorder, others = Recorder(), neighbour.aio_clients

    async def observed() -> Result:
        async with aio_observed("channel", *recorder.observers, client=others(), **aio_behaviors(ending)) as channel:
            return await aio_talk(channel, arity, ending)

    alone = asyncio.run(aio_served(arity, ending, client=others()))
    together = asyncio.run(observed())
    recorder.wait_for()

    assert alone == together
    assert [together[1]] == recorder.codes


OURS = "ours"
Order = tuple[Neighbour | str, ...]
ENDS = pytest.mark.parametrize("ending", ["OK", "NOT_FOUND"])


def orders(*neighbours: Neighbour) -> list[Order]:
    """Return these neighbours and ours in every order, the innermost first."""
    return list(itertools.permutations((OURS, *neighbours)))


@ENDS
@pytest.mark.parametrize("arity", ["unary", "bidi_stream"])
@pytest.mark.parametrize("by_grpc_interceptor", [PASSING, EXCEPTIONS], ids=str)
def test_every_order_on_a_server(by_grpc_interceptor: Neighbour, arity: str, ending: str) -> None:
    """With all of them at once, in whatever order, a call has its result and its outcome."""
    found = []
    for order in orders(OPENTELEMETRY, by_grpc_interceptor, PROMETHEUS, SENTRY):
        recorder = Recorder()
        ours = ServerInterceptor(*recorder.observers)
        parts = [part.server() if isinstance(part, Neighbour) else ours for part in order]
        _, code = served(arity, ending, *parts)
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, ending, [ending]) for order, _, _ in found] == found


@ENDS
@pytest.mark.parametrize("arity", ["unary", "bidi_stream"])
def test_every_order_on_an_aio_server(arity: str, ending: str) -> None:
    """So it is on asyncio."""
    found = []
    for order in orders(OPENTELEMETRY, PASSING, EXCEPTIONS, SENTRY):
        recorder = Recorder()
        ours = AioServerInterceptor(*recorder.observers)
        neighbours = (part.aio_server if isinstance(part, Neighbour) else None for part in order)
        _, code = asyncio.run(aio_served(arity, ending, *(factory() if factory else ours for factory in neighbours)))
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, ending, [ending]) for order, _, _ in found] == found


def fits(order: Order, arity: str) -> bool:
    """
    Tell whether the neighbours get on with each other in this order, without us.

    py-grpc-prometheus makes a mere generator of a bidirectional call's responses, of which opentelemetry's
    interceptor, further out, asks what only a call has.
    """
    return arity != "bidi_stream" or order.index(OPENTELEMETRY) < order.index(PROMETHEUS)


@WAYS
@ENDS
@pytest.mark.parametrize("arity", ARITIES)
def test_every_order_on_a_client(way: str, arity: str, ending: str) -> None:
    """So it is on a client."""
    found = []
    with connected(**behaviors(ending)) as plain:
        for order in orders(OPENTELEMETRY, PASSING, PROMETHEUS, SENTRY):
            if not fits(order, arity):
                continue
            recorder = Recorder()
            ours = partial(OBSERVE[way], recorder)
            channel = plain
            for part in order:
                channel = part.client(channel) if isinstance(part, Neighbour) else ours(channel)
            _, code = talk(channel, arity, ending)
            recorder.wait_for()
            found.append((order, code, recorder.codes))

    assert [(order, ending, [ending]) for order, _, _ in found] == found


@ENDS
@pytest.mark.parametrize("arity", ARITIES)
def test_every_order_on_an_aio_client(arity: str, ending: str) -> None:
    """So it is on a client on asyncio."""
    found = []
    for order in orders(OPENTELEMETRY, SENTRY):
        recorder = Recorder()
        ours = aio_client_interceptors(*recorder.observers)
        factories = (part.aio_clients if isinstance(part, Neighbour) else None for part in order)
        client = [interceptor for factory in factories for interceptor in (factory() if factory else ours)]
        _, code = asyncio.run(aio_served(arity, ending, client=client))
        recorder.wait_for()
        found.append((order, code, recorder.codes))

    assert [(order, ending, [ending]) for order, _, _ in found] == found


@pytest.mark.parametrize("stack", ["sync", "aio"])
@pytest.mark.parametrize("ours_first", [True, False])
def test_hidden_exceptions(stack: str, ours_first: bool) -> None:  # noqa: FBT001 - a parameter
    """HideExceptions beside ours, in either order: the caller gets UNKNOWN, and that is told."""
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
    """Ours may stand twice on one server: each tells the call, and both say the same."""
    one, two = Recorder(), Recorder()
    found = served("bidi_stream", "NOT_FOUND", ServerInterceptor(*one.observers), ServerInterceptor(*two.observers))
    one.wait_for()
    two.wait_for()

    assert "NOT_FOUND" == found[1]
    assert one.codes == two.codes == ["NOT_FOUND"]
