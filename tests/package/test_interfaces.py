"""A call through our interceptors has the interface of grpc's own, and gives the same answers."""

import asyncio
import gc
import inspect
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import TracebackType
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import ClientInterceptor, aio_client_interceptors
from observability.client.channel import ObservedChannel
from tests.support.aio_interceptors import THROUGH
from tests.support.outcomes import METADATA, aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, aio_connected, connected, method, requests

STATUSES = ("OK", "NOT_FOUND", "cancelled")
# Both ways to observe a sync channel.
OBSERVE: dict[str, Callable[[grpc.Channel], grpc.Channel]] = {
    "interceptor": lambda channel: grpc.intercept_channel(channel, ClientInterceptor(*Recorder().observers)),
    "channel": lambda channel: ObservedChannel(channel, *Recorder().observers),
}
WAYS = pytest.mark.parametrize("way", OBSERVE)
# What a sync call can be asked once it is over, and what else can be done with it.
QUESTIONS = (
    "code",
    "details",
    "initial_metadata",
    "trailing_metadata",
    "is_active",
    "time_remaining",
    "cancelled",
    "done",
    "running",
    "result",
    "exception",
    "traceback",
)
ACTIONS = ("add_callback", "add_done_callback", "cancel")
AIO_QUESTIONS = (
    "code",
    "details",
    "initial_metadata",
    "trailing_metadata",
    "time_remaining",
    "cancelled",
    "done",
    "wait_for_connection",
)
AIO_ACTIONS = ("add_done_callback", "cancel", "read", "write", "done_writing")


def plain(value: Any) -> Any:
    """Make answers of two calls comparable."""
    if isinstance(value, grpc.RpcError):
        return type(value).__mro__[-4:], value.code() if isinstance(value, grpc.Call) else None
    if isinstance(value, BaseException):
        return type(value)
    if isinstance(value, TracebackType):
        return "a traceback"
    return value


def questions(all_: tuple[str, ...], status: str) -> list[str]:
    """Leave out what has no certain answer: whether metadata has arrived when a call is cancelled."""
    return [question for question in all_ if (question, status) != ("initial_metadata", "cancelled")]


def ask(question: Callable[[], Any]) -> Any:
    """Return a question's answer, or the exception that it raises."""
    try:
        return plain(question())
    except Exception as error:  # noqa: BLE001 - it is the answer
        return plain(error)


async def aio_ask(question: Callable[[], Any]) -> Any:
    """Do the same on asyncio."""
    try:
        answer = question()
        return plain(await answer if inspect.isawaitable(answer) else answer)
    except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - it is the answer
        return plain(error)


def come_to_an_end(call: Any, arity: str, status: str) -> tuple[list[Any], Any]:
    """Read a call to its end, or cancel it; return what was read, and what cancelling returned."""
    read: list[Any] = [next(call)] if arity in STREAMS else []
    cancelled = call.cancel() if status == "cancelled" else None
    if arity in STREAMS:
        read.append(ask(lambda: next(call)))
        read.append(ask(lambda: next(call)))
    else:
        read.append(ask(call.result))
    return read, cancelled


def everything_about(channel: grpc.Channel, arity: str, status: str) -> dict[str, Any]:
    """Make a call of one kind, bring it to its end, and ask it everything."""
    callable_ = method(channel, arity)
    call = (callable_ if arity in STREAMS else callable_.future)(requests(arity), timeout=None)
    same: list[Any] = []
    over = threading.Event()

    def on_done(done: Any) -> None:
        same.append(done is call)
        over.set()

    call.add_done_callback(on_done)
    found: dict[str, Any] = {"read, cancelled": come_to_an_end(call, arity, status)}
    over.wait(5)
    return {
        **found,
        **{question: ask(getattr(call, question)) for question in questions(QUESTIONS, status)},
        "called back with itself": same,
        "add_callback": call.add_callback(lambda: None),
        "cancel again": call.cancel(),
        "types": [isinstance(call, type_) for type_ in (grpc.Call, grpc.Future, grpc.RpcContext)],
        "its own iterator": arity not in STREAMS or iter(call) is call,
    }


@WAYS
@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("status", STATUSES)
def test_sync_call(way: str, arity: str, status: str) -> None:
    """A sync call through our interceptor or channel answers every question as grpc's own does, however it ends."""
    leave = threading.Event()
    with connected(**behaviors(status, leave)) as channel:
        bare = everything_about(channel, arity, status)
        observed = everything_about(OBSERVE[way](channel), arity, status)
        leave.set()

    assert bare == observed


@pytest.mark.parametrize("class_", [grpc.RpcContext, grpc.Call, grpc.Future])
def test_every_method_of_a_sync_call_is_asked(class_: type) -> None:
    """These tests ask everything that grpc's classes of calls can be asked."""
    names = {name for name in vars(class_) if not name.startswith("_")}

    assert names <= {*QUESTIONS, *ACTIONS}


@WAYS
@pytest.mark.parametrize("arity", ARITIES)
def test_every_attribute_of_a_sync_call_is_there(way: str, arity: str) -> None:
    """A sync call through our interceptor or channel has every public attribute that grpc's own has."""
    leave = threading.Event()
    with connected(**behaviors("OK", leave)) as plain_channel:
        channel = OBSERVE[way](plain_channel)
        callables = (method(plain_channel, arity), method(channel, arity))
        ways = [callable_ if arity in STREAMS else callable_.future for callable_ in callables]
        bare, observed = (way(requests(arity)) for way in ways)
        missing = [name for name in dir(bare) if not name.startswith("_") and not hasattr(observed, name)]
        for call in (bare, observed):
            come_to_an_end(call, arity, "OK")

    assert [] == missing


@WAYS
@pytest.mark.parametrize("arity", ["unary", "client_stream"])
def test_with_call(way: str, arity: str) -> None:
    """with_call returns the response, and a call that has code and metadata."""
    with connected(**behaviors("OK", threading.Event())) as channel:
        response, call = method(OBSERVE[way](channel), arity).with_call(requests(arity))

    assert (b"done", grpc.StatusCode.OK) == (response, call.code())
    assert METADATA == tuple(call.trailing_metadata()) == tuple(call.initial_metadata())


@WAYS
@pytest.mark.parametrize("arity", ARITIES)
def test_sync_call_that_goes_on(way: str, arity: str) -> None:
    """A call that goes on says so, has its remaining time, and calls back at its end."""
    leave, over = threading.Event(), threading.Event()
    with connected(**behaviors("cancelled", leave)) as channel:
        callable_ = method(OBSERVE[way](channel), arity)
        call = (callable_ if arity in STREAMS else callable_.future)(requests(arity), timeout=60)
        states = [call.is_active(), call.running(), call.done(), call.cancelled()]
        remaining = call.time_remaining()
        registered = call.add_callback(over.set)
        call.cancel()
        called_back = over.wait(5)
        leave.set()

    assert [True, True, False, False] == states
    assert 0 < remaining <= 60
    assert (True, True) == (registered, called_back)


async def aio_everything_about(arity: str, status: str, interceptors: list[Any]) -> dict[str, Any]:
    """Make a call of one kind on asyncio, bring it to its end, and ask it everything."""
    begun = asyncio.Event()
    async with aio_connected(client=interceptors, **aio_behaviors(status, begun)) as channel:
        return await _aio_everything_about(channel, arity, status, begun)


async def _aio_everything_about(
    channel: grpc.aio.Channel, arity: str, status: str, begun: asyncio.Event
) -> dict[str, Any]:
    call = method(channel, arity)(requests(arity))
    same: list[Any] = []
    call.add_done_callback(lambda done: same.append(done is call))
    read = [await call.read()] if arity in STREAMS else []
    if status == "cancelled":
        await begun.wait()
        call.cancel()
    end: Callable[[], Awaitable[Any]] = call.read if arity in STREAMS else lambda: call
    read += [await aio_ask(end), await aio_ask(end)]
    await asyncio.sleep(0)
    return {
        "read": read,
        **{question: await aio_ask(getattr(call, question)) for question in questions(AIO_QUESTIONS, status)},
        "called back with itself": same,
        "cancel again": call.cancel(),
        "types": [isinstance(call, type_) for type_ in AIO_TYPES],
    }


AIO_TYPES = (
    grpc.aio.Call,
    grpc.aio.RpcContext,
    grpc.aio.UnaryUnaryCall,
    grpc.aio.UnaryStreamCall,
    grpc.aio.StreamUnaryCall,
    grpc.aio.StreamStreamCall,
)


@pytest.mark.parametrize("arity", ARITIES)
@pytest.mark.parametrize("status", STATUSES)
def test_aio_call(arity: str, status: str) -> None:
    """An asyncio call through our interceptors answers every question as through any other, however it ends."""
    others, observed = (
        asyncio.run(aio_everything_about(arity, status, interceptors))
        for interceptors in (THROUGH, aio_client_interceptors(*Recorder().observers))
    )

    assert others == observed


@pytest.mark.parametrize("class_", AIO_TYPES)
def test_every_method_of_an_aio_call_is_asked(class_: type) -> None:
    """These tests ask everything that grpc.aio's classes of calls can be asked."""
    names = {name for name in dir(class_) if not name.startswith("_")}

    assert names <= {*AIO_QUESTIONS, *AIO_ACTIONS}


@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_writing_by_hand(arity: str) -> None:
    """A request stream may be written by hand: write, done_writing, read."""
    client = Recorder()

    async def joined(messages: AsyncIterator[bytes], _context: Any) -> bytes:
        return b" ".join([message async for message in messages])

    async def each(messages: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        async for message in messages:
            yield message

    async def main() -> list[bytes]:
        interceptors = aio_client_interceptors(*client.observers)
        async with aio_connected(client=interceptors, client_stream=joined, bidi_stream=each) as channel:
            call = method(channel, arity)()
            for message in (b"a", b"b"):
                await call.write(message)
            await call.done_writing()
            if arity == "client_stream":
                return [await call]
            return [await call.read(), await call.read()]

    expected = [b"a b"] if arity == "client_stream" else [b"a", b"b"]
    assert expected == asyncio.run(main())


@pytest.mark.parametrize("status", ["OK", "NOT_FOUND"])
def test_caller_that_asks_for_the_code_alone(status: str) -> None:
    """A client-streaming call whose caller awaits its code alone has ended with that code."""
    client = Recorder()

    async def main() -> str:
        interceptors = aio_client_interceptors(*client.observers)
        async with aio_connected(client=interceptors, **aio_behaviors(status)) as channel:
            code: grpc.StatusCode = await method(channel, "client_stream")(requests("client_stream"), timeout=10).code()
            return code.name

    assert status == asyncio.run(main())
    gc.collect()
    client.wait_for()
    assert [[status]] * 4 == client.everywhere("client")
    assert [int(status == "OK")] == [outcome.received for outcome in client.outcomes]
