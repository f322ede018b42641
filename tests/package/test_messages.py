"""Observers that see messages: each one once, in order, before the call's end, on both sides of both stacks."""

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import (
    AioServerInterceptor,
    Call,
    ClientInterceptor,
    LifecycleObserver,
    ObservedChannel,
    Outcome,
    ServerInterceptor,
)
from tests.support.aio_ways import EACH_WAY, aio_observed
from tests.support.recorder import PATIENCE
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
)

REQUESTS = {
    "unary": [b"a"],
    "client_stream": [b"a", b"b", b"c"],
    "server_stream": [b"a"],
    "bidi_stream": [b"a", b"b", b"c"],
}
EACH_ARITY = pytest.mark.parametrize("arity", ARITIES)
Event = tuple[str, Any]


class Messages(LifecycleObserver):
    """Keeps what happens to a call: its messages, with what is counted by then, and its end."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._ended: list[list[Event]] = []

    def on_start(self, _call: Call) -> list[Event]:
        """Keep nothing yet."""
        return []

    def on_message_sent(self, call: Call, state: list[Event], message: Any) -> None:
        """Keep it."""
        assert call.sent == len([kind for kind, _ in state if kind == "sent"]) + 1
        state.append(("sent", message))

    def on_message_received(self, call: Call, state: list[Event], message: Any) -> None:
        """Keep it."""
        assert call.received == len([kind for kind, _ in state if kind == "received"]) + 1
        state.append(("received", message))

    def on_end(self, _call: Call, state: list[Event], outcome: Outcome) -> None:
        """Keep the end."""
        state.append(("end", outcome.code.name))
        with self._changed:
            self._ended.append(state)
            self._changed.notify_all()

    def seen(self) -> dict[str, list[Any]]:
        """Return the messages of the one call by their direction, its code, and what came last, once it has ended."""
        with self._changed:
            assert self._changed.wait_for(lambda: self._ended, PATIENCE)
            [events] = self._ended
        kinds = ("sent", "received", "end")
        return {**{each: [what for kind, what in events if kind == each] for each in kinds}, "last": [events[-1][0]]}


def expected(side: str, arity: str) -> dict[str, list[Any]]:
    """Return what is to be seen of a call that echoes."""
    sent, received = (REQUESTS, RESPONSES) if side == "client" else (RESPONSES, REQUESTS)
    return {"sent": sent[arity], "received": received[arity], "end": ["OK"], "last": ["end"]}


SYNC_READ: dict[str, Callable[[Any, str], Any]] = {
    "call": lambda callable_, arity: callable_(requests(arity), timeout=10),
    "with_call": lambda callable_, arity: callable_.with_call(requests(arity), timeout=10)[0],
    "future": lambda callable_, arity: callable_.future(requests(arity), timeout=10).result(),
    "iterate": lambda callable_, arity: list(callable_(requests(arity), timeout=10)),
}
SYNC_WAYS = [(arity, read) for arity in ARITIES for read in SYNC_READ if (arity in STREAMS) == (read == "iterate")]
SYNC_CHANNELS: dict[str, Callable[[grpc.Channel, Messages], grpc.Channel]] = {
    "interceptor": lambda channel, observer: grpc.intercept_channel(channel, ClientInterceptor(observer)),
    "channel": ObservedChannel,
}


@EACH_ARITY
def test_server(arity: str) -> None:
    """A grpc.server's observers see each request and each response, and then the end."""
    messages = Messages()
    with connected(ServerInterceptor(messages), **{arity: ECHOES[arity]}) as channel:
        SYNC_READ["iterate" if arity in STREAMS else "call"](method(channel, arity), arity)

        assert expected("server", arity) == messages.seen()


@pytest.mark.parametrize(("arity", "read"), SYNC_WAYS)
@pytest.mark.parametrize("way", SYNC_CHANNELS)
def test_client(way: str, arity: str, read: str) -> None:
    """So do a sync channel's, however it is observed and its calls are read."""
    messages = Messages()
    with connected(**{arity: ECHOES[arity]}) as channel:
        SYNC_READ[read](method(SYNC_CHANNELS[way](channel, messages), arity), arity)

        assert expected("client", arity) == messages.seen()


@pytest.mark.parametrize("way", SYNC_CHANNELS)
def test_response_of_a_future_that_nobody_asks(way: str) -> None:
    """The response of a future is seen before its end, though its caller asks for nothing but the code."""
    messages = Messages()
    with connected(unary=ECHOES["unary"]) as channel:
        future = method(SYNC_CHANNELS[way](channel, messages), "unary").future(b"a", timeout=10)

        assert grpc.StatusCode.OK is future.code()
        assert expected("client", "unary") == messages.seen()
        assert b"a" == future.result()
        assert expected("client", "unary") == messages.seen()


async def read_and_write(requests_: AsyncIterator[bytes], context: Any) -> None:
    """Echo by reading and writing."""
    del requests_
    while (request := await context.read()) is not grpc.aio.EOF:
        await context.write(request)


AIO_BEHAVIORS = [
    *((arity, AIO_ECHOES[arity]) for arity in ARITIES),
    *((arity, ECHOES[arity]) for arity in ARITIES if arity not in ("client_stream", "bidi_stream")),  # blocking ones
    ("bidi_stream", read_and_write),
]


@pytest.mark.parametrize(("arity", "behavior"), AIO_BEHAVIORS)
def test_aio_server(arity: str, behavior: Any) -> None:
    """A grpc.aio.server's observers see them too, whatever kind of handler there is."""

    async def run() -> None:
        messages = Messages()
        async with aio_connected(AioServerInterceptor(messages), **{arity: behavior}) as channel:
            await AIO_READ["iterate" if arity in STREAMS else "await"](method(channel, arity), arity)

            assert expected("server", arity) == await asyncio.to_thread(messages.seen)

    asyncio.run(run())


async def aio_await(callable_: Any, arity: str) -> Any:
    """Wait for the response."""
    return await callable_(requests(arity), timeout=10)


async def aio_iterate(callable_: Any, arity: str) -> list[Any]:
    """Iterate the responses."""
    return [response async for response in callable_(requests(arity), timeout=10)]


async def aio_by_hand(callable_: Any, arity: str) -> list[Any]:
    """Write the requests, and read the responses."""
    if arity == "server_stream":
        call = callable_(b"a", timeout=10)
    else:
        call = callable_(timeout=10)
        for request in REQUESTS[arity]:
            await call.write(request)
        await call.done_writing()
    if arity == "client_stream":
        return [await call]
    found = []
    while (response := await call.read()) is not grpc.aio.EOF:
        found.append(response)
    return found


AIO_READ: dict[str, Callable[[Any, str], Awaitable[Any]]] = {
    "await": aio_await,
    "iterate": aio_iterate,
    "by hand": aio_by_hand,
}
AIO_WAYS = [
    *((arity, "iterate" if arity in STREAMS else "await") for arity in ARITIES),
    *((arity, "by hand") for arity in ARITIES if arity != "unary"),
]


@pytest.mark.parametrize(("arity", "read"), AIO_WAYS)
@EACH_WAY
def test_aio_client(way: str, arity: str, read: str) -> None:
    """So do an asyncio channel's."""

    async def run() -> None:
        messages = Messages()
        async with aio_observed(way, messages, **{arity: AIO_ECHOES[arity]}) as channel:
            await AIO_READ[read](method(channel, arity), arity)

            assert expected("client", arity) == await asyncio.to_thread(messages.seen)

    asyncio.run(run())


@EACH_WAY
def test_response_of_an_aio_call_whose_code_comes_first(way: str) -> None:
    """The response of a unary call is seen before its end, though its caller asks for the code before it."""

    async def run() -> None:
        messages = Messages()
        async with aio_observed(way, messages, unary=AIO_ECHOES["unary"]) as channel:
            call = method(channel, "unary")(b"a", timeout=10)

            assert grpc.StatusCode.OK is await call.code()
            assert expected("client", "unary") == await asyncio.to_thread(messages.seen)
            assert b"a" == await call
            assert expected("client", "unary") == messages.seen()

    asyncio.run(run())


@pytest.mark.parametrize("side", ["server", "client"])
def test_call_that_fails(side: str) -> None:
    """Of a call that fails, its request alone is seen."""
    messages = Messages()
    server = [ServerInterceptor(messages)] if side == "server" else []
    client = [ClientInterceptor(messages)] if side == "client" else []

    def refuse(_request: bytes, context: grpc.ServicerContext) -> None:
        context.abort(grpc.StatusCode.NOT_FOUND, "no bread")

    with connected(*server, client=client, unary=refuse) as channel:
        with pytest.raises(grpc.RpcError):
            method(channel, "unary")(b"a", timeout=10)
        direction = "received" if side == "server" else "sent"

        assert {"sent": [], "received": [], "end": ["NOT_FOUND"], "last": ["end"], direction: [b"a"]} == messages.seen()
