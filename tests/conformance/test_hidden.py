"""
What grpc hides from a server's interceptors, where it takes more than a case of cases.py (HIDDEN) to see.

A call that grpc's core refuses, or that is cut off before its handler starts, has no context that would show its
deadline. It is reported as CANCELLED, unless it has waited for as long as the method's last caller gave (status.py,
status_before_handler).
"""

import asyncio
import contextlib
import re
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc import StatusCode
from hyperframe.frame import DataFrame

from observability import AioServerInterceptor, ServerInterceptor
from tests.support.h2 import dial, grpc_message
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
from tests.support.starting import wait_until

from . import expected
from .cases import BY_NAME, CASES, HIDDEN
from .play import play
from .stage import UNSERVED
from .vocabulary import (
    ARITIES,
    ONE_REQUEST,
    Arity,
    Case,
    Way,
    requests_stream,
)

OTHER = "test.v1.Other"
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


def queue(arity: Arity, *, usual: float | None, timeout: float | None) -> tuple[StatusCode, str]:
    """
    Let a call wait for the only thread of grpc.server until its deadline, or without one until its caller cancels it.

    Before, the method has had another caller, who gave `usual` seconds. Returns the code that the caller gets, and the
    one that is reported.
    """
    recorder, held, free = Recorder(), threading.Event(), threading.Event()

    def hold(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        held.set()
        free.wait(PATIENCE)
        return b""

    holding = grpc.method_handlers_generic_handler(OTHER, {"Hold": grpc.unary_unary_rpc_method_handler(hold)})
    with (
        serving(ServerInterceptor(*recorder.observers), workers=1, handlers=[holding], **{arity: ECHOES[arity]}) as at,
        grpc.insecure_channel(at) as channel,
    ):
        make = method(channel, arity)
        make = getattr(make, "future", make)
        answer = make(some_requests(arity), timeout=usual)
        _ = list(answer) if arity in STREAMS else answer.result()
        other = method(channel, "unary", f"/{OTHER}/Hold").future(b"")
        held.wait(PATIENCE)
        call = make(some_requests(arity), timeout=timeout)
        if timeout is None:
            wait_until(lambda: len(recorder.calls) > 2)
            free.wait(UNSERVED)
            call.cancel()
        code = call.code()
        # grpc.server reports nothing before it has a thread for the call, which it gets when another call on the
        # same connection, of a method that there is not, has shown that the cut-off has arrived.
        method(channel, "unary", f"/{OTHER}/Nothing").future(b"").exception()
        free.set()
        other.result()
        recorder.wait_for(4)
    [_, reported] = [line["code"] for line in recorder.lines if line["method"] == f"{SERVICE}/{NAMES[arity]}"]
    assert [sorted(recorder.codes)] * 4 == recorder.everywhere()
    return code, reported


@pytest.mark.parametrize("arity", ARITIES)
def test_deadline_in_queue(arity: Arity) -> None:
    """A deadline that comes while a call waits for a thread is seen where the method's last caller gave as long."""
    assert (StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED") == queue(arity, usual=0.25, timeout=0.25)


@pytest.mark.parametrize("usual", [None, 10.0])
@pytest.mark.parametrize("arity", ONE_REQUEST)
def test_unusual_deadline_in_queue(arity: Arity, usual: float | None) -> None:
    """One that is shorter than that caller's looks like a caller who left."""
    assert (StatusCode.DEADLINE_EXCEEDED, "CANCELLED") == queue(arity, usual=usual, timeout=0.25)


@pytest.mark.parametrize("usual", [None, 10.0])
@pytest.mark.parametrize("arity", ARITIES)
def test_cancelled_in_queue(arity: Arity, usual: float | None) -> None:
    """A caller who leaves is reported as one, but where he has waited for as long as the last one gave."""
    assert (StatusCode.CANCELLED, "CANCELLED") == queue(arity, usual=usual, timeout=None)


@pytest.mark.parametrize("arity", ONE_REQUEST)
def test_cancelled_late_in_queue(arity: Arity) -> None:
    """A caller of one request who leaves after that time looks like a deadline."""
    assert (StatusCode.CANCELLED, "DEADLINE_EXCEEDED") == queue(arity, usual=UNSERVED, timeout=None)


class Waiting(grpc.aio.ServerInterceptor):
    """Lets the first call pass, and keeps others."""

    def __init__(self) -> None:
        self._calls = 0

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Pass it, or wait."""
        self._calls += 1
        if self._calls > 1:
            await asyncio.Event().wait()
        return await continuation(handler_call_details)


def test_deadline_in_an_interceptor() -> None:
    """On asyncio, too, a deadline is seen that comes after the time that the method's last caller gave."""
    recorder = Recorder()

    async def main() -> None:
        observing = AioServerInterceptor(*recorder.observers)
        async with aio_connected(observing, Waiting(), unary=AIO_ECHOES["unary"]) as channel:
            call = method(channel, "unary")
            await call(b"a", timeout=0.25)
            with contextlib.suppress(grpc.RpcError):
                await call(b"a", timeout=0.25)
            await asyncio.to_thread(recorder.wait_for, 2)

    asyncio.run(main())

    assert [["DEADLINE_EXCEEDED", "OK"]] * 4 == recorder.everywhere()


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
@pytest.mark.parametrize("arity", ONE_REQUEST)
def test_caller_that_leaves_before_its_request_is_whole(stack: str, arity: str) -> None:
    """A caller who leaves before its only request is whole is CANCELLED, however long that took."""
    recorder = Recorder()

    def ask(address: str) -> None:
        with dial(address) as wire:
            stream = wire.call(f"/{SERVICE}/{NAMES[arity]}", message=None, end=False)
            wire.send(DataFrame(stream, grpc_message(b"half of it")[:-5]))
            wait_until(lambda: bool(recorder.calls))
            threading.Event().wait(UNSERVED)

    serve(stack, recorder, arity, (ECHOES if stack == "sync" else AIO_ECHOES)[arity], ask)

    assert [["CANCELLED"]] * 4 == recorder.everywhere()


@STACKS
@pytest.mark.parametrize("arity", ONE_REQUEST)
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
    assert [["CANCELLED"]] * 4 == recorder.everywhere()


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
    reported = {"CANCELLED", "OK"} if requests_stream(arity) else {"CANCELLED"}

    assert StatusCode.UNIMPLEMENTED is got
    assert {*recorder.codes} <= reported
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
