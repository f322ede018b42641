"""
What grpc hides from a server's interceptors, where it takes more than a case of cases.py (HIDDEN) to see.

A call that grpc's core refuses, or that is cut off before its handler starts, has no context that would show its
deadline. One of these that ends within 25 ms is reported as CANCELLED, any other as DEADLINE_EXCEEDED (status.py,
status_before_handler).
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode

from observability import AioServerInterceptor, ServerInterceptor
from tests.support.h2 import dial
from tests.support.recorder import PATIENCE, Recorder
from tests.support.rpc import (
    AIO_ECHOES,
    ECHOES,
    NAMES,
    SERVICE,
    STREAMS,
    aio_connected,
    aio_serving,
    method,
    serving,
)
from tests.support.rpc import requests as some_requests

from . import expected
from .cases import BY_NAME, CASES, HIDDEN
from .clients import hold, requests, stub
from .messages import LARGE
from .play import play, staged
from .stage import UNSERVED
from .vocabulary import (
    ARITIES,
    ONE_REQUEST,
    Arity,
    Case,
    Environment,
    Messages,
    Way,
    agreed,
    requests_stream,
    responses_stream,
)
from .ways import ways

TOO_LARGE = Case(
    "request_too_large",
    "A request larger than the server accepts is refused by grpc's core, which says nothing of it.",
    client=StatusCode.RESOURCE_EXHAUSTED,
    server=StatusCode.CANCELLED,
    messages=Messages(request=LARGE),
    environment=Environment(server_options=(("grpc.max_receive_message_length", 100),)),
    arities=ONE_REQUEST,
)
AT_ONCE = 25.0
"""Milliseconds within which a call that ends before its handler starts has ended at once."""
UNSTEADY = [
    BY_NAME["request_of_stream_unserialisable"],
    BY_NAME["request_of_stream_too_large_to_send"],
    BY_NAME["request_of_stream_too_large"],
]


def assert_reported(recorder: Recorder, client: StatusCode, *server: StatusCode) -> None:
    """Assert that each side has reported its call once, with one code everywhere: the client's, one of the server's."""
    code = StatusCode[recorder.line("server")["code"]]

    assert code in server
    assert expected.side("client", client) == recorder.side("client")
    assert expected.side("server", code) == recorder.side("server")


def unserved(milliseconds: float) -> list[StatusCode]:
    """Say what is reported of a call that ended after so long, before its handler started; decided a bit before."""
    return [StatusCode.CANCELLED, *([StatusCode.DEADLINE_EXCEEDED] if milliseconds > AT_ONCE else [])]


@pytest.mark.parametrize("way", ways(TOO_LARGE), ids="-".join)
def test_request_too_large(way: Way) -> None:
    """A request larger than the server accepts is RESOURCE_EXHAUSTED for its caller, and cut off on the server."""
    recorder = play(TOO_LARGE, way).recorder

    cut_off = unserved(recorder.line("server")["latency_ms"])
    assert_reported(recorder, StatusCode.RESOURCE_EXHAUSTED, *cut_off)


def unsteady_ways(case: Case) -> list[Way]:
    """List the plainest ways to call an asyncio handler that answers a stream of requests once, for a case."""
    servers = ("aio_plain",) if case.name == "request_of_stream_too_large" else ("aio", "aio_context", "aio_plain")
    clients = ("call",) if case.name == "request_of_stream_unserialisable" else ("call", "aio_await")
    return [Way("client_stream", server, client) for server in servers for client in clients]


@pytest.mark.parametrize(
    ("case", "way"),
    [pytest.param(case, way, id=f"{case}-{'-'.join(way)}") for case in UNSTEADY for way in unsteady_ways(case)],
)
def test_stream_of_requests_cut_off(case: Case, way: Way) -> None:
    """An asyncio handler that answers a stream of requests once may see it end like others, and be reported as OK."""
    played = play(case, way)

    assert case.client
    assert_reported(played.recorder, case.client, StatusCode.CANCELLED, StatusCode.OK)


def test_caller_that_cancels_while_its_requests_are_read() -> None:
    """So may one whose caller cancels while it reads: it answers, and the answer goes nowhere."""
    recorder = Recorder()

    async def main() -> None:
        reading = asyncio.Event()

        async def join(messages: AsyncIterator[bytes], _context: Any) -> bytes:
            async for _ in messages:
                reading.set()
            return b"done"

        async with aio_connected(AioServerInterceptor(*recorder.observers), client_stream=join) as channel:
            call = method(channel, "client_stream")(timeout=10)
            await call.write(b"a")
            await reading.wait()
            call.cancel()
            await asyncio.to_thread(recorder.wait_for)

    for _ in range(5):
        asyncio.run(main())

    assert "OK" in recorder.codes
    assert {"OK", "CANCELLED"} >= set(recorder.codes)
    assert [sorted(recorder.codes)] * 4 == recorder.everywhere()


class Waiting(grpc.aio.ServerInterceptor):
    """Waits until the call is cancelled, and sets `waiting` when it does."""

    def __init__(self) -> None:
        self.waiting = asyncio.Event()

    async def intercept_service(self, *_call: Any) -> Any:
        """Wait."""
        self.waiting.set()
        await asyncio.Event().wait()


def test_cut_off_at_once() -> None:
    """A call that is cut off within 25 ms, before its handler starts, is CANCELLED."""
    recorder = Recorder()

    async def main(count: int) -> None:
        waiting = Waiting()
        async with aio_connected(AioServerInterceptor(*recorder.observers), waiting) as channel:
            call = method(channel, "unary")(b"a", timeout=10)
            await waiting.waiting.wait()
            call.cancel()
            await asyncio.to_thread(recorder.wait_for, count)

    for count in range(1, 20):
        asyncio.run(main(count))
        if recorder.outcomes[-1].seconds * 1000 <= AT_ONCE:  # on a busy machine it may take longer
            break

    assert "CANCELLED" == recorder.codes[-1]
    assert [sorted(recorder.codes)] * 4 == recorder.everywhere()


def _queue(arity: Arity, *, timeout: float | None) -> Recorder:
    """
    Let a call wait for a thread of grpc.server until its deadline, or until its caller cancels it without one.

    Return what has recorded it. grpc.server reports nothing before the pool has a thread for the call; it gets one when
    a later call on the same connection shows that the cut-off has arrived.
    """
    case = agreed("queued", "", StatusCode.CANCELLED, environment=Environment(obstacle="pool_busy"))
    with staged(case, Way(arity, "sync", "future")) as stage, grpc.insecure_channel(stage.address) as plain:
        method = stub(stage.telemetry.intercept_channel(plain), stage)
        start = getattr(method, "future", method)
        call = start(requests(stage) if requests_stream(arity) else case.messages.request, timeout=timeout)
        stage.arrived.wait(PATIENCE)
        stage.over.wait(UNSERVED)
        if timeout is None:
            call.cancel()
        with contextlib.suppress(grpc.RpcError, grpc.FutureCancelledError):
            list(call) if responses_stream(arity) else call.result()
        stage.arrived.clear()
        hold(plain)
        stage.arrived.wait(PATIENCE)
        stage.over.set()
        stage.recorder.wait_for_lines("client", "server")
    return stage.recorder


@pytest.mark.parametrize("arity", ARITIES)
def test_deadline_in_queue(arity: Arity) -> None:
    """A call whose deadline comes while it waits for a thread is DEADLINE_EXCEEDED on both sides."""
    assert_reported(_queue(arity, timeout=0.25), StatusCode.DEADLINE_EXCEEDED, StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("arity", ["unary", "server_stream"])
def test_unary_request_cancelled_in_queue(arity: Arity) -> None:
    """A call with one request that its caller cancels there looks the same to the server."""
    assert_reported(_queue(arity, timeout=None), StatusCode.CANCELLED, StatusCode.DEADLINE_EXCEEDED)


@pytest.mark.parametrize("arity", ["client_stream", "bidi_stream"])
def test_stream_of_requests_cancelled_in_queue(arity: Arity) -> None:
    """The handler of a stream of requests starts even then, and so the server knows better."""
    assert_reported(_queue(arity, timeout=None), StatusCode.CANCELLED, StatusCode.CANCELLED)


STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
NO_COMPRESSION = (("grpc.compression_enabled_algorithms_bitset", 1),)


def serve(stack: str, recorder: Recorder, arity: str, behavior: Any, ask: Callable[[str], Any], **how: Any) -> Any:
    """Serve this behaviour until this has asked it, by its address, and the call's end is reported."""
    if stack == "sync":
        with serving(ServerInterceptor(*recorder.observers), **{arity: behavior}, **how) as address:
            answer = ask(address)
            recorder.wait_for()
        return answer

    async def on_asyncio() -> Any:
        async with aio_serving(AioServerInterceptor(*recorder.observers), **{arity: behavior}, **how) as address:
            answer = await asyncio.to_thread(ask, address)
            await asyncio.to_thread(recorder.wait_for)
        return answer

    return asyncio.run(on_asyncio())


def code_of(address: str, arity: str, **how: Any) -> StatusCode:
    """Call a method of this arity, and return the code that its caller gets."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = method(channel, arity)(some_requests(arity), timeout=PATIENCE, **how)
            _ = list(answer) if arity in STREAMS else answer
        except grpc.RpcError as error:
            code: StatusCode = error.code()
            return code
    return StatusCode.OK


@STACKS
@pytest.mark.parametrize("arity", ["unary", "server_stream"])
def test_call_without_a_message(stack: str, arity: str) -> None:
    """
    A call that brings no message at all looks like one that its caller gave up at once.

    grpc.server answers it with UNIMPLEMENTED, grpc.aio.server leaves its caller waiting until the deadline.
    """
    recorder = Recorder()
    answer = "requires exactly one request message" if stack == "sync" else "Deadline Exceeded"

    def ask(address: str) -> str:
        with dial(address) as wire:
            stream = wire.call(f"/{SERVICE}/{NAMES[arity]}", ("grpc-timeout", "300m"), message=None)
            return wire.ending(stream, PATIENCE)["grpc-message"]

    assert answer in serve(stack, recorder, arity, (ECHOES if stack == "sync" else AIO_ECHOES)[arity], ask)
    assert {outcome.code for outcome in recorder.outcomes} <= {*unserved(recorder.outcomes[0].seconds * 1000)}
    assert [recorder.codes] * 4 == recorder.everywhere()


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_compression_that_is_disabled(stack: str, arity: Arity) -> None:
    """So does one with a compression that the server has disabled, which grpc's core answers with UNIMPLEMENTED."""
    recorder = Recorder()
    behavior = (ECHOES if stack == "sync" else AIO_ECHOES)[arity]
    got = serve(
        stack,
        recorder,
        arity,
        behavior,
        lambda address: code_of(address, arity, compression=grpc.Compression.Gzip),
        options=NO_COMPRESSION,
    )
    # The requests of a stream then end like any others for an asyncio handler, which may answer them.
    may_be_told = [*unserved(recorder.outcomes[0].seconds * 1000), *([StatusCode.OK] if requests_stream(arity) else [])]

    assert StatusCode.UNIMPLEMENTED is got
    assert {outcome.code for outcome in recorder.outcomes} <= {*may_be_told}
    assert [recorder.codes] * 4 == recorder.everywhere()


def sending_initially(arity: str) -> Any:
    """Return a blocking handler that sends initial metadata which grpc's core does not take."""

    def once(request: Any, context: grpc.ServicerContext) -> bytes:
        _ = request if isinstance(request, bytes) else list(request)
        context.send_initial_metadata((("KEY", "value"),))
        return b"done"

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield once(request, context)

    return stream if arity in STREAMS else once


def sending_initially_on_asyncio(arity: str) -> Any:
    """Return an async handler that does the same."""

    async def once(request: Any, context: Any) -> bytes:
        _ = request if isinstance(request, bytes) else [message async for message in request]
        await context.send_initial_metadata((("KEY", "value"),))
        return b"done"

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        yield await once(request, context)

    return stream if arity in STREAMS else once


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_initial_metadata_that_the_core_refuses(stack: str, arity: str) -> None:
    """A call whose initial metadata grpc's core does not take is INTERNAL; its handler is cut off, or has answered."""
    recorder = Recorder()
    behavior = (sending_initially if stack == "sync" else sending_initially_on_asyncio)(arity)
    got = serve(stack, recorder, arity, behavior, lambda address: code_of(address, arity))

    assert StatusCode.INTERNAL is got
    assert set(recorder.codes) <= {"CANCELLED", "OK"}
    assert [recorder.codes] * 4 == recorder.everywhere()


def test_table_of_what_grpc_hides() -> None:
    """docs/limitations.md names every hidden case, and only cases and tests that there are."""
    root = Path(__file__).parents[2]
    page = (root / "docs" / "limitations.md").read_text("utf-8")
    [table] = re.findall(r"^## What grpc hides$(.*?)^## ", f"{page}\n## ", re.MULTILINE | re.DOTALL)
    rows = [row.split(" | ") for row in table.splitlines() if row.startswith("| ")]
    named = [re.findall(r"`(\w+)`", row[-1]) for row in rows[1:]]
    tests = {
        name
        for path in (root / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE)
    }
    cases = {case.name for case in CASES}

    assert all(named)
    assert {case.name for case in HIDDEN} <= set(chain(*named)) <= cases | tests
