"""Asyncio calls that are not read to their end have the status that grpc has, or CANCELLED where they are dropped."""

import asyncio
import gc
import logging
import sys
import threading
from typing import Any, Final

import grpc
import grpc.aio
import pytest

from observability.threads.finalizers import finalizers
from tests.package.test_lifetimes import Endless
from tests.support.aio_ways import EACH_WAY, aio_channel, aio_observed
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, RESPONSES, STREAMS, method, requests, serving

EACH_STREAM: Final = pytest.mark.parametrize("arity", STREAMS)
BEHAVIORS: Final = {"OK": AIO_ECHOES, "NOT_FOUND": aio_behaviors("NOT_FOUND"), "UNKNOWN": aio_behaviors("UNKNOWN")}
EXPECTED: Final = {
    "OK": {arity: len(RESPONSES[arity]) for arity in STREAMS},
    **dict.fromkeys(("NOT_FOUND", "UNKNOWN"), dict.fromkeys(STREAMS, 1)),
}
"""How many responses there are before the end."""


@pytest.mark.expects_errors("ValueError: no bread")
@EACH_WAY
@EACH_STREAM
@pytest.mark.parametrize("status", BEHAVIORS)
@pytest.mark.parametrize("ask", [True, False])
def test_stream_read_as_far_as_expected(ask: bool, status: str, arity: str, way: str) -> None:  # noqa: FBT001 - a parameter
    """
    A stream of which all responses are read, but not its end, has the status that grpc has, asked for or not.
    """
    recorder = Recorder()

    async def main() -> Any:
        async with aio_observed(way, *recorder.observers, **BEHAVIORS[status]) as channel:
            call = method(channel, arity)(requests(arity))
            over = asyncio.Event()
            call.add_done_callback(lambda _call: over.set())
            for _ in range(EXPECTED[status][arity]):
                await call.read()
            code = await call.code() if ask else None
            await over.wait()
            del call
            gc.collect()
            await asyncio.to_thread(recorder.wait_for)
            return code

    code = asyncio.run(main())

    assert not ask or code is grpc.StatusCode[status]
    assert [[status]] * 4 == recorder.everywhere("client")
    assert [EXPECTED[status][arity]] == [outcome.received for outcome in recorder.outcomes]


@EACH_WAY
@EACH_STREAM
def test_stream_whose_deadline_is_over(arity: str, way: str) -> None:
    """
    A stream that is dropped when its deadline is over has missed it.
    """
    recorder = Recorder()

    async def main() -> None:
        async with aio_observed(way, *recorder.observers, **aio_behaviors("cancelled")) as channel:
            call = method(channel, arity)(requests(arity), timeout=0.1)
            await call.read()
            assert grpc.StatusCode.DEADLINE_EXCEEDED is await call.code()

    asyncio.run(main())
    gc.collect()
    recorder.wait_for()

    assert [["DEADLINE_EXCEEDED"]] * 4 == recorder.everywhere("client")


@EACH_WAY
@EACH_STREAM
@pytest.mark.parametrize("read_first", [0, 1])
def test_dropped_stream_with_a_callback(read_first: int, arity: str, way: str) -> None:
    """
    A stream that is dropped while a done-callback waits for its end runs on, as without us, to its deadline here.
    """
    recorder, endless = Recorder(), Endless()
    behaviors: dict[str, Any] = dict.fromkeys(STREAMS, endless.aio)

    async def do(way: str) -> Any:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        given: list[Any] = []

        def on_done(call: Any) -> None:
            given.append(type(call).__name__)
            loop.call_soon(over.set)

        async with aio_observed(way, *recorder.observers, **behaviors) as channel:
            # Written to its end: grpc.aio may end a call that is still being written as INTERNAL.
            call = method(channel, arity)(iter(()) if arity == "bidi_stream" else b"a", timeout=0.5)
            await asyncio.to_thread(endless.begun.wait, 5)
            for _ in range(read_first):
                await call.read()
            call.add_done_callback(on_done)
            del call
            gc.collect()
            await asyncio.wait_for(over.wait(), 10)
            return given

    bare, observed = asyncio.run(do("bare")), asyncio.run(do(way))
    gc.collect()
    recorder.wait_for()

    assert [["DEADLINE_EXCEEDED"]] * 4 == recorder.everywhere("client")
    assert len(bare) == len(observed) == 1


@pytest.mark.parametrize("arity", ["unary", "client_stream"])
def test_dropped_call_runs_on(arity: str) -> None:
    """
    On a channel of our own a call that nobody awaits, with a single response, runs on, as on grpc's own.
    """
    recorder, begun, over = Recorder(), threading.Event(), threading.Event()
    leave: list[asyncio.Event] = []

    async def behavior(request: Any, _context: Any) -> Any:
        _ = request if arity == "unary" else [one async for one in request]
        begun.set()
        await leave[0].wait()
        over.set()
        return b"done"

    async def main() -> bool:
        leave.append(asyncio.Event())
        behaviors: dict[str, Any] = {arity: behavior}
        async with aio_observed("channel", *recorder.observers, **behaviors) as channel:
            method(channel, arity)(requests(arity))
            await asyncio.to_thread(begun.wait, 5)
            gc.collect()
            finalizers.flush(5)
            before = list(recorder.codes)
            leave[0].set()
            await asyncio.to_thread(recorder.wait_for)
            return before == [] and over.is_set()

    assert asyncio.run(main())
    assert [["OK"]] * 4 == recorder.everywhere("client")
    assert [1] == [outcome.received for outcome in recorder.outcomes]


@EACH_WAY
@pytest.mark.parametrize(
    ("arity", "closed"), [*((arity, True) for arity in ARITIES), *((arity, False) for arity in STREAMS)]
)
def test_event_loop_that_is_gone(
    arity: str,
    closed: bool,  # noqa: FBT001 - a parameter
    way: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """
    A call that is dropped when its event loop is closed, or runs no more, does not stay open.
    """
    # pytest's keeps what is raised when grpc's own tasks are destroyed, and so the frames that have the call.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    recorder, loop = Recorder(), asyncio.new_event_loop()
    leave, begun = threading.Event(), threading.Event()
    kept: list[Any] = []

    async def begin(address: str) -> None:
        channel = aio_channel(way, address, *recorder.observers)
        call = method(channel, arity)(requests(arity))
        kept.extend([channel, call])
        await (anext(aiter(call)) if arity in STREAMS else asyncio.to_thread(begun.wait, 5))

    with caplog.at_level(logging.CRITICAL), serving(**behaviors("cancelled", leave, begun)) as address:
        loop.run_until_complete(begin(address))
        if closed:
            loop.close()
        kept.clear()
        for _ in range(10):  # grpc's own calls are cycles of tasks, one of which releases the next
            gc.collect()
            finalizers.flush(5)
        recorder.wait_for()
        leave.set()
    loop.close()

    assert [["CANCELLED"]] * 4 == recorder.everywhere("client")
    assert 0 == recorder.total("grpc_client_in_flight")
