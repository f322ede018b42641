"""`AioObservedChannel` does what grpc.aio's channel does: each act below is done on both, and compared."""

import asyncio
import contextlib
import gc
import inspect
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Final, TypeAlias

import grpc
import grpc.aio
import pytest
from opentelemetry.instrumentation.utils import suppress_instrumentation
from opentelemetry.propagators.composite import CompositePropagator
from prometheus_client import CollectorRegistry

from observability import Telemetry
from observability.client.aio_channel import AioObservedChannel
from observability.settings import SettingError
from protos.echo_pb2 import EchoRequest, EchoResponse
from protos.echo_pb2_grpc import EchoServiceStub
from tests.support.aio_interceptors import THROUGH
from tests.support.aio_ways import EACH_WAY, aio_observed
from tests.support.outcomes import aio_behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ARITIES,
    NAMES,
    OLD_AIO,
    RESPONSES,
    SERVICE,
    STREAMS,
    aio_connected,
    method,
    requests,
)
from tests.support.seen import PATIENCE, read, seen

EVERY_ARITY: Final = pytest.mark.parametrize("arity", ARITIES)
KINDS: Final = {
    "unary": grpc.aio.UnaryUnaryMultiCallable,
    "client_stream": grpc.aio.StreamUnaryMultiCallable,
    "server_stream": grpc.aio.UnaryStreamMultiCallable,
    "bidi_stream": grpc.aio.StreamStreamMultiCallable,
}
SENT: Final = {"unary": 1, "client_stream": 3, "server_stream": 1, "bidi_stream": 3}

Act: TypeAlias = Callable[[grpc.aio.Channel, str], Awaitable[Any]]
"""What a caller does with a channel and a method's arity; returns all that can be seen of it."""


async def everything(call: Any) -> list[Any]:
    """Ask a call that is over all that it can be asked."""
    text, *_core = repr(call).split("debug_error")
    questions = (call.code, call.details, call.trailing_metadata, call.done, call.cancelled, call.time_remaining)
    return [text, str(call).startswith(text), *[await seen(question) for question in questions]]


async def read_to_the_end(channel: grpc.aio.Channel, arity: str) -> Any:
    """Make a call, and read it, twice."""
    call = method(channel, arity)(requests(arity))
    given: list[Any] = []
    call.add_done_callback(given.append)
    found = [await seen(lambda: read(call, arity)), await seen(lambda: read(call, arity))]
    call.add_done_callback(given.append)
    return [*found, [one is call for one in given], await seen(call.initial_metadata), await everything(call)]


async def read_by_hand(channel: grpc.aio.Channel, arity: str) -> Any:
    """Write the requests and read the responses one by one, and beyond the end."""
    callable_ = method(channel, arity)
    call = callable_() if SENT[arity] > 1 else callable_(requests(arity))
    found = [await seen(call.wait_for_connection)]
    if SENT[arity] > 1:
        found += [await seen(partial(call.write, request)) for request in requests(arity)]
        found.append(await seen(call.done_writing))
    if arity in STREAMS:
        found += [await seen(call.read) for _ in range(5)]
    return [*found, await seen(lambda: read(call, arity)), await everything(call)]


async def write_too_late(channel: grpc.aio.Channel, arity: str) -> Any:
    """Write after the end of writing, and after the end."""
    callable_ = method(channel, arity)
    call = callable_() if SENT[arity] > 1 else callable_(requests(arity))
    found = []
    if SENT[arity] > 1:
        found += [await seen(call.done_writing), await seen(call.done_writing), await seen(lambda: call.write(b"d"))]
    found.append(call.cancel())
    if SENT[arity] > 1:
        found += [await seen(call.done_writing), await seen(lambda: call.write(b"d"))]
    return [*found, await seen(lambda: read(call, arity)), await everything(call)]


async def mix_styles(channel: grpc.aio.Channel, arity: str) -> Any:
    """Write what is iterated, and read what is iterated; the call goes on."""
    call: Any = method(channel, arity)(requests(arity))
    found = []
    if SENT[arity] > 1:
        found += [await seen(lambda: call.write(b"d")), await seen(call.done_writing)]
    if arity in STREAMS:
        found += [await anext(aiter(call)), await seen(call.read)]
    return [*found, await seen(lambda: read(call, arity))]


async def read_and_iterate(channel: grpc.aio.Channel, arity: str) -> Any:
    """Iterate what is read; the call goes on."""
    call: Any = method(channel, arity)(requests(arity))
    if arity not in STREAMS:
        return [await seen(lambda: aiter(call)), await seen(lambda: call)]
    found = [await call.read(), await seen(lambda: aiter(call)), await call.read()]
    while found[-1] is not grpc.aio.EOF:
        found.append(await call.read())
    return found[:-1]


async def read_half_and_again(channel: grpc.aio.Channel, arity: str) -> Any:
    """Break out of reading, and go on with it; then close what reads, which ends nothing but the reading."""
    call: Any = method(channel, arity)(requests(arity))
    if arity not in STREAMS:
        return [await seen(lambda: anext(call)), await seen(lambda: call)]
    found = []
    async for response in call:
        found.append(response)
        break
    found += [await seen(lambda: anext(call)), await anext(aiter(call))]
    async with contextlib.aclosing(aiter(call)):
        pass
    return [*found, await seen(lambda: read(call, arity)), call.done()]


async def cancel_at_once(channel: grpc.aio.Channel, arity: str) -> Any:
    """Cancel a call before anything of it has happened."""
    call = method(channel, arity)(requests(arity))
    states = [call.done(), call.cancelled(), call.cancel(), call.cancel(), call.done(), call.cancelled()]
    return [*states, await seen(lambda: read(call, arity)), await seen(call.initial_metadata), await everything(call)]


async def cancel_in_the_middle(channel: grpc.aio.Channel, arity: str) -> Any:
    """Cancel a call that is under way."""
    call = method(channel, arity)(requests(arity), timeout=60)
    remaining = call.time_remaining()
    states = [0 < remaining <= 60, await seen(call.wait_for_connection) if arity != "unary" else None]
    states += [call.cancel(), call.cancel()]
    return [*states, await seen(lambda: read(call, arity)), (await everything(call))[:-1]]


async def cancel_who_waits(channel: grpc.aio.Channel, arity: str) -> Any:
    """Cancel the task that waits for a call."""
    call = method(channel, arity)(requests(arity))
    task = asyncio.ensure_future(read(call, arity))
    if arity != "unary":
        await call.wait_for_connection()
    await asyncio.sleep(0)
    task.cancel()
    return [await seen(lambda: task), await everything(call)]


async def run_out_of_time(channel: grpc.aio.Channel, arity: str) -> Any:
    """Let the deadline come."""
    call = method(channel, arity)(requests(arity), timeout=0.2)
    error, (code, _text) = await seen(lambda: read(call, arity))  # the core has two texts for it
    return [error, code, await seen(call.code), call.done(), call.cancelled(), call.time_remaining(), call.cancel()]


async def close_the_channel(channel: grpc.aio.Channel, arity: str) -> Any:
    """Close the channel under a call, and call again."""
    call = method(channel, arity)(requests(arity))
    if arity != "unary":
        await call.wait_for_connection()
    await channel.close()
    found = [await seen(lambda: read(call, arity)), await everything(call)]
    return [*found, await seen(lambda: method(channel, arity)(requests(arity))), await seen(channel.close)]


async def wait_and_close(channel: grpc.aio.Channel, arity: str) -> Any:
    """Close the channel when its calls are over."""
    call = method(channel, arity)(requests(arity))
    reading = asyncio.ensure_future(read(call, arity))
    await asyncio.sleep(0)
    await channel.close(PATIENCE)
    return [await seen(lambda: reading), await everything(call), await seen(lambda: channel.close(-1))]


ACTS: Final[tuple[tuple[Act, str, tuple[str, ...]], ...]] = (
    (read_to_the_end, "OK", ("OK",)),
    (read_to_the_end, "NOT_FOUND", ("NOT_FOUND",)),
    (read_by_hand, "OK", ("OK",)),
    (read_by_hand, "NOT_FOUND", ("NOT_FOUND",)),
    (write_too_late, "cancelled", ("CANCELLED",)),
    (mix_styles, "OK", ("OK",)),
    (read_and_iterate, "OK", ("OK",)),
    (cancel_at_once, "cancelled", ("CANCELLED",)),
    (cancel_in_the_middle, "cancelled", ("CANCELLED",)),
    (cancel_who_waits, "cancelled", ("CANCELLED",)),
    (run_out_of_time, "cancelled", ("DEADLINE_EXCEEDED",)),
    (close_the_channel, "cancelled", ("CANCELLED", "UNKNOWN")),
    (wait_and_close, "OK", ("OK",)),
)
"""What is done, to which end the handlers come by themselves, and what is reported of it."""


@EVERY_ARITY
@pytest.mark.parametrize(("act", "status", "codes"), ACTS, ids=[f"{act.__name__}-{end}" for act, end, _ in ACTS])
def test_act(act: Act, status: str, codes: tuple[str, ...], arity: str) -> None:
    """
    Whatever is done with a call, its caller sees what grpc's own channel shows, and it is reported once, as it was.
    """
    recorder = Recorder()

    async def do(way: str) -> Any:
        async with aio_observed(way, *recorder.observers, **aio_behaviors(status)) as channel:
            return await act(channel, arity)

    bare, observed = asyncio.run(do("bare")), asyncio.run(do("channel"))
    recorder.wait_for(len(codes))
    if act is wait_and_close:
        codes = (bare[1][2].name,)  # grpc.aio before 1.85 waits for no stream, and cancels it

    assert bare == observed
    assert [[*codes]] * 4 == recorder.everywhere("client")
    assert 0 == recorder.total("grpc_client_in_flight")


@pytest.mark.parametrize("arity", ARITIES)
def test_reading_on(arity: str) -> None:
    """
    A stream whose reading breaks off is read on where it was; closed, its reading is over, and the call goes on.
    """
    recorder = Recorder()

    async def do(way: str) -> Any:
        async with aio_observed(way, *recorder.observers, **AIO_ECHOES | dict.fromkeys(STREAMS, endless)) as channel:
            return await read_half_and_again(channel, arity)

    bare, observed = asyncio.run(do("bare")), asyncio.run(do("channel"))
    gc.collect()
    recorder.wait_for()

    assert bare == observed
    assert len(recorder.codes) == 1
    assert set(recorder.codes) <= ({"CANCELLED", *(["UNAVAILABLE"] if OLD_AIO else [])} if arity in STREAMS else {"OK"})


async def endless(_request: Any, _context: Any) -> AsyncIterator[bytes]:
    """Answer for ever."""
    for number in itertools.count():
        yield str(number).encode()
        await asyncio.sleep(0.001)


BAD_VALUES: Final[dict[str, dict[str, Any]]] = {
    "value of metadata": {"metadata": (("key", 5),)},
    "key of metadata": {"metadata": ((5, "value"),)},
    "name of metadata": {"metadata": [("Key", "value")]},
    "no metadata": {"metadata": 5},
    "no pairs": {"metadata": ("key", "value")},
    "a mapping": {"metadata": {"key": "value"}},
    "timeout": {"timeout": "soon"},
    "compression": {"compression": 5},
    "credentials": {"credentials": 5},
    "another argument": {"patience": 5},
}


def fails(recorder: Recorder, way: str, arity: str, request: Any, **options: Any) -> tuple[Any, Any]:
    """Make a call that is to fail, without us and with; return what is seen of both, while the call lives on."""

    async def do(this_way: str, others: list[Any]) -> list[Any]:
        async with aio_observed(this_way, *recorder.observers, client=others, **AIO_ECHOES) as channel:
            calls: list[Any] = []
            at_call = await seen(lambda: calls.append(method(channel, arity)(request, **options)))
            found = [at_call, *[await seen(partial(read, call, arity)) for call in calls]]
            if this_way == "channel" or (this_way == "interceptors" and calls):
                recorder.wait_for()
            return found

    alike = THROUGH if way == "interceptors" else []  # through which a call fails later
    return asyncio.run(do("bare", alike)), asyncio.run(do(way, []))


@EACH_WAY
@EVERY_ARITY
@pytest.mark.parametrize("bad", BAD_VALUES)
def test_invalid_value(bad: str, arity: str, way: str) -> None:
    """
    The caller gets what grpc raises for an invalid value, at the call or later; it is reported at once, as UNKNOWN.

    What the core refuses has a status, or in grpc.aio before 1.85 no end, until the channel is closed. Interceptors do
    not see a call that grpc refuses before them.
    """
    recorder = Recorder()
    bare, observed = fails(recorder, way, arity, requests(arity), **BAD_VALUES[bad])
    refused = bad == "name of metadata" and arity != "unary"
    endless = refused and bare[-1][0] is TimeoutError
    code = "CANCELLED" if endless else "INTERNAL" if refused else "UNKNOWN"
    unseen = way == "interceptors" and observed[0] is not None

    assert repr(bare).split(" at 0x")[0] == repr(observed).split(" at 0x")[0]
    assert [[] if unseen else [code]] * 4 == recorder.everywhere("client")
    assert unseen or refused or type(recorder.outcomes[0].error) is observed[-1][0]


@EACH_WAY
@EVERY_ARITY
def test_request_of_another_type(arity: str, way: str) -> None:
    """A request that is no bytes, without a serializer, is UNKNOWN at once; in a stream it cancels the call."""
    recorder = Recorder()
    bare, observed = fails(recorder, way, arity, [5] if SENT[arity] > 1 else 5)

    assert bare == observed
    assert [["CANCELLED" if SENT[arity] > 1 else "UNKNOWN"]] * 4 == recorder.everywhere("client")


@EVERY_ARITY
def test_arguments(arity: str) -> None:
    """
    The signature is grpc's: what does not fit it raises the same error, and is no call.
    """
    recorder = Recorder()
    fits_not: list[tuple[Any, ...]] = [
        ((b"a", 1, None, None, None, None, None), {}),
        ((b"a",), {"request" if SENT[arity] == 1 else "request_iterator": b"a"}),
    ]
    if SENT[arity] == 1:
        fits_not += [((), {}), ((), {"request_iterator": b"a"}), ((b"a", 1), {})]

    async def do(way: str) -> Any:
        async with aio_observed(way, *recorder.observers) as channel:
            callable_ = method(channel, arity)
            signature = inspect.signature(callable_)
            found = [await seen(partial(callable_, *placed, **named)) for placed, named in fits_not]
            return found, list(signature.parameters)

    bare, observed = asyncio.run(do("bare")), asyncio.run(do("channel"))

    assert bare == observed
    assert [TypeError] * len(fits_not) == [error for error, _text in observed[0]]
    assert [] == recorder.calls


@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_arguments_by_place(arity: str) -> None:
    """What grpc takes by place, ours does."""
    recorder = Recorder()

    async def main() -> Any:
        async with aio_observed("channel", *recorder.observers, **AIO_ECHOES) as channel:
            call = method(channel, arity)(requests(arity), 60, (("key", "value"),), None, True, grpc.Compression.Gzip)  # noqa: FBT003 - grpc's signature
            return 0 < call.time_remaining() <= 60, await seen(lambda: read(call, arity))

    expected: Any = RESPONSES[arity] if arity in STREAMS else RESPONSES[arity][0]
    assert (True, expected) == asyncio.run(main())
    assert [(60, ("key", "value"))] == [(call.deadline, call.metadata[0]) for call in recorder.calls]


@EVERY_ARITY
def test_kind_of_callable(arity: str) -> None:
    """A callable is of the one class of its arity, and of no other."""

    async def main() -> list[str]:
        async with aio_observed("channel", *Recorder().observers) as channel:
            return [kind for kind, class_ in KINDS.items() if isinstance(method(channel, arity), class_)]

    assert [arity] == asyncio.run(main())


@EVERY_ARITY
def test_attributes(arity: str) -> None:
    """A channel, a callable and a call have each attribute that grpc's own have, others' and private ones as well."""

    async def attributes(way: str) -> list[list[str]]:
        async with aio_observed(way, *Recorder().observers, **AIO_ECHOES) as channel:
            callable_ = method(channel, arity)
            callable_.__name__ = "somebody's"  # as google-api-core does
            call = callable_(requests(arity))
            await read(call, arity)
            return [
                [name for name in NEEDED[place] if not hasattr(thing, name)]
                for place, thing in enumerate((channel, callable_, call))
            ]

    async def needed() -> list[list[str]]:
        async with aio_connected(**AIO_ECHOES) as channel:
            callable_ = method(channel, arity)
            call = callable_(requests(arity))
            await read(call, arity)
            return [[*dir(thing), *vars(thing)] for thing in (channel, callable_, call)]

    NEEDED = asyncio.run(needed())  # noqa: N806
    assert [[], [], []] == asyncio.run(attributes("channel"))


def nobody() -> str:
    """Return an address where nobody listens."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{taken.getsockname()[1]}"


@EVERY_ARITY
@pytest.mark.parametrize("wait", [None, False, True])
def test_unreachable(wait: bool | None, arity: str) -> None:  # noqa: FBT001 - a parameter
    """A call of a server that is not there fails at once, or waits for it until its deadline, as it was asked to."""
    recorder, address = Recorder(), nobody()

    async def do(way: str) -> Any:
        async with grpc.aio.insecure_channel(address) as plain:
            channel = AioObservedChannel(plain, *recorder.observers) if way == "channel" else plain
            call = method(channel, arity)(requests(arity), timeout=0.3 if wait else PATIENCE, wait_for_ready=wait)
            return [(await seen(call.wait_for_connection))[1][0], (await seen(lambda: read(call, arity)))[1][0]]

    bare, observed = asyncio.run(do("bare")), asyncio.run(do("channel"))
    recorder.wait_for()
    code = grpc.StatusCode.DEADLINE_EXCEEDED if wait else grpc.StatusCode.UNAVAILABLE

    assert [code, code] == bare == observed
    assert [[code.name]] * 4 == recorder.everywhere("client")


@EVERY_ARITY
def test_call_made_before_the_loop_runs(arity: str) -> None:
    """A call may be made while no event loop runs, and awaited when one does."""
    recorder = Recorder()
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    stack = contextlib.AsyncExitStack()
    try:
        channel = loop.run_until_complete(
            stack.enter_async_context(aio_observed("channel", *recorder.observers, **AIO_ECHOES))
        )
        call = method(channel, arity)(requests(arity))
        found = loop.run_until_complete(seen(lambda: read(call, arity)))
        loop.run_until_complete(stack.aclose())
    finally:
        loop.close()
        asyncio.set_event_loop(None)

    assert (RESPONSES[arity] if arity in STREAMS else RESPONSES[arity][0]) == found
    assert ["OK"] == recorder.codes


class Recorded:
    """Another library's channel: its callables know what they are called with, and no more."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def _make(self, *_arguments: Any) -> Any:
        return self._call

    unary_unary = unary_stream = stream_unary = stream_stream = _make

    def _call(self, *arguments: Any, **named: Any) -> Any:
        self.given.append((len(arguments), sorted(named)))
        return ["a list"]


@EVERY_ARITY
def test_what_is_passed_on(arity: str) -> None:
    """What its caller has passed is passed on, and no more; what comes back, and is no call, as it is."""
    recorder, inner = Recorder(trace={"propagator": CompositePropagator([])}), Recorded()
    channel: Any = AioObservedChannel(inner, *recorder.observers)  # type: ignore[arg-type]  # it is somebody's
    callable_ = method(channel, arity)

    found = [callable_(requests(arity)), callable_(requests(arity), timeout=1), callable_(requests(arity), metadata=())]

    assert [["a list"]] * 3 == found
    assert [(1, []), (1, ["timeout"]), (1, ["metadata"])] == inner.given
    assert ["OK"] * 3 == recorder.codes


@EVERY_ARITY
def test_suppressed(arity: str) -> None:
    """Where instrumentation is suppressed, a call is grpc's own, and is not reported."""
    recorder = Recorder()

    async def main() -> Any:
        async with aio_observed("channel", *recorder.observers, **AIO_ECHOES) as channel:
            with suppress_instrumentation():
                call = method(channel, arity)(requests(arity))
            return type(call).__module__, await seen(lambda: read(call, arity))

    module, _answer = asyncio.run(main())

    assert "grpc.aio._call" == module
    assert [] == recorder.calls


@EVERY_ARITY
@pytest.mark.parametrize("status", ["OK", "NOT_FOUND"])
def test_with_interceptors(status: str, arity: str) -> None:
    """It stands around a channel with others' interceptors as well, and around another one of ours."""
    outer, inner = Recorder(), Recorder()

    async def main() -> Any:
        async with aio_observed("channel", *inner.observers, client=THROUGH, **aio_behaviors(status)) as channel:
            call = method(AioObservedChannel(channel, *outer.observers), arity)(requests(arity))
            return await seen(lambda: read(call, arity))

    asyncio.run(main())

    assert [[status]] * 4 == outer.everywhere("client") == inner.everywhere("client")
    assert [SENT[arity]] * 2 == [recorder.outcomes[0].sent for recorder in (outer, inner)]


def test_connectivity() -> None:
    """Its state is that of the channel inside."""

    async def main() -> list[Any]:
        async with aio_observed("channel", *Recorder().observers) as channel:
            states: list[Any] = [channel.get_state()]
            await asyncio.wait_for(channel.channel_ready(), PATIENCE)
            states.append(channel.get_state())
            await channel.close()
            async with channel as entered:
                states += [channel.get_state(), entered is channel]
            return states

    states = grpc.ChannelConnectivity

    assert [states.IDLE, states.READY, states.SHUTDOWN, True] == asyncio.run(main())


def test_generated_stub() -> None:
    """Generated code works on it, whose methods are registered."""
    recorder = Recorder()

    async def echo(request: bytes, _context: Any) -> bytes:
        return EchoResponse(echo=EchoRequest.FromString(request).msg).SerializeToString()

    async def main() -> str:
        handler: Any = grpc.unary_unary_rpc_method_handler(echo)
        handlers = [grpc.method_handlers_generic_handler("echo.v1.EchoService", {"Echo": handler})]
        async with aio_observed("channel", *recorder.observers, handlers=handlers) as channel:
            answer: Any = EchoServiceStub(channel).Echo(EchoRequest(msg="a"), timeout=10)
            return str((await answer).echo)

    assert "a" == asyncio.run(main())
    assert [("echo.v1.EchoService", "Echo", "OK")] == [
        (call.service, call.method, code) for call, code in zip(recorder.calls, recorder.codes, strict=True)
    ]


@EVERY_ARITY
def test_telemetry(arity: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Telemetry.intercept_channel puts it around a channel of grpc.aio, and names its target."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    registry = CollectorRegistry()

    async def main() -> Any:
        with Telemetry.start("test", registry=registry, serve_metrics=False, logging=False) as telemetry:
            async with aio_connected(**AIO_ECHOES) as plain:
                channel = telemetry.intercept_channel(plain, target="there:1")
                await seen(lambda: read(method(channel, arity)(requests(arity)), arity))
                return type(channel)

    labels = {"grpc_service": SERVICE, "grpc_method": NAMES[arity], "grpc_type": arity, "grpc_code": "OK"}

    assert asyncio.run(main()) is AioObservedChannel
    assert 1 == registry.get_sample_value("grpc_client_handled_total", labels)


def test_contrib(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the official interceptors, which a channel takes where it is made alone, it is refused, saying so."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OBSERVABILITY_TRACES", "contrib")

    async def main() -> None:
        with Telemetry.start("test", registry=CollectorRegistry(), serve_metrics=False, logging=False) as telemetry:
            async with aio_connected() as plain:
                telemetry.intercept_channel(plain)

    with pytest.raises(SettingError, match=r"OBSERVABILITY_TRACES='contrib' .* aio_client_interceptors"):
        asyncio.run(main())
