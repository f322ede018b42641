"""Asyncio interceptors before ours that await the chain, or the handler, in other tasks."""

import asyncio
import contextlib
import inspect
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import grpc.aio
import grpc.experimental
import pytest

from observability import AioHideExceptions, AioServerInterceptor, current_call
from tests.support.handlers import KINDS, Kind
from tests.support.outcomes import aio_behaviors, behaviors
from tests.support.recorder import Recorder
from tests.support.rpc import ARITIES, STREAMS, aio_connected, method, requests

wrap_handler: Any = grpc.experimental.wrap_server_method_handler  # it has no types
PATIENCE = 10.0


async def create_task(coroutine: Any) -> Any:
    """Await this in another task."""
    return await asyncio.create_task(coroutine)


async def in_time(coroutine: Any) -> Any:
    """Await this for a while: in another task on Python 3.11."""
    return await asyncio.wait_for(coroutine, PATIENCE)


async def late(coroutine: Any) -> Any:
    """Let the task end long before its result is asked for."""
    task = asyncio.create_task(coroutine)
    await asyncio.wait([task])
    for _ in range(5):
        await asyncio.sleep(0)
    return await task


class InTask(grpc.aio.ServerInterceptor):
    """Awaits the chain in some way."""

    def __init__(self, wait: Callable[[Any], Any]) -> None:
        self._wait = wait

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Await it."""
        return await self._wait(continuation(handler_call_details))


class Wrapping(grpc.aio.ServerInterceptor):
    """Wraps every async function, to await it in some way."""

    def __init__(self, wait: Callable[[Any], Any]) -> None:
        self._wait = wait

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wrap one."""
        return wrap_handler(self._wrap, await continuation(handler_call_details))

    def _wrap(self, behavior: Any) -> Any:
        if not inspect.iscoroutinefunction(behavior):
            return behavior

        async def run(request: Any, context: Any) -> Any:
            return await self._wait(behavior(request, context))

        return run


async def here(coroutine: Any) -> Any:
    """Await this in the same task."""
    return await coroutine


BEFORE: dict[str, Callable[[], list[Any]]] = {
    "create_task": lambda: [InTask(create_task)],
    "wait_for": lambda: [InTask(in_time)],
    "late": lambda: [InTask(late)],
    "and reads handlers": lambda: [InTask(create_task), Wrapping(here)],
    "handler too": lambda: [InTask(late), Wrapping(in_time)],
    "handler": lambda: [Wrapping(create_task)],
}
EACH_BEFORE = pytest.mark.parametrize("before", BEFORE)
AIO_KINDS = [kind for kind in KINDS if kind.stack == "aio"]


async def talk(kind: Kind, step: Callable[[], None], *interceptors: Any) -> None:
    """Make a call of a handler of this kind."""
    async with aio_connected(*interceptors, **{kind.arity: kind.make(step)}) as channel:
        call = method(channel, kind.arity)(requests(kind.arity), timeout=PATIENCE)
        _ = [response async for response in call] if kind.arity in STREAMS else await call


@pytest.mark.parametrize("kind", AIO_KINDS, ids=str)
@EACH_BEFORE
def test_call_behind_a_task(before: str, kind: Kind) -> None:
    """A call behind such an interceptor is reported as it ended, once, and is current in its handler."""
    recorder, seen = Recorder(), []
    interceptors = [*BEFORE[before](), AioServerInterceptor(*recorder.observers)]

    asyncio.run(talk(kind, lambda: seen.append(current_call()), *interceptors))
    recorder.wait_for()

    assert [["OK"]] * 4 == recorder.everywhere()
    assert set(recorder.calls) == set(seen)
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


@pytest.mark.expects_errors("ValueError: no bread")
@pytest.mark.parametrize("status", ["NOT_FOUND", "UNKNOWN"])
@pytest.mark.parametrize("hiding", [False, True])
@pytest.mark.parametrize("arity", ARITIES)
@EACH_BEFORE
def test_failure_behind_a_task(before: str, arity: str, hiding: bool, status: str) -> None:  # noqa: FBT001 - a parameter
    """A call that fails is reported as it ended, too."""
    recorder = Recorder()
    interceptors = [
        *BEFORE[before](),
        *([AioHideExceptions()] if hiding else []),
        AioServerInterceptor(*recorder.observers),
    ]

    async def ask() -> grpc.StatusCode:
        async with aio_connected(*interceptors, **{arity: aio_behaviors(status)[arity]}) as channel:
            call = method(channel, arity)(requests(arity), timeout=PATIENCE)
            with contextlib.suppress(grpc.aio.AioRpcError):
                _ = [response async for response in call] if arity in STREAMS else await call
            code: grpc.StatusCode = await call.code()
            return code

    assert status == asyncio.run(ask()).name
    recorder.wait_for()
    assert [["NOT_FOUND" if status == "NOT_FOUND" else "UNKNOWN"]] * 4 == recorder.everywhere()


@pytest.mark.parametrize("how", ["cancel", "deadline"])
@pytest.mark.parametrize("arity", ARITIES)
@EACH_BEFORE
def test_cut_off_behind_a_task(before: str, arity: str, how: str) -> None:
    """A call that its caller gives up is reported as that."""
    recorder = Recorder()

    async def ask() -> None:
        begun = asyncio.Event()
        interceptors = [*BEFORE[before](), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, **{arity: aio_behaviors("cancelled", begun)[arity]}) as channel:
            call = method(channel, arity)(requests(arity), timeout=PATIENCE if how == "cancel" else 0.3)
            if how == "cancel":
                waiting = asyncio.create_task(call.read()) if arity in STREAMS else asyncio.ensure_future(call.code())
                await begun.wait()
                call.cancel()
                await asyncio.wait([waiting])
                with contextlib.suppress(asyncio.CancelledError):
                    waiting.result()
            else:
                await call.code()
            await asyncio.to_thread(recorder.wait_for)

    asyncio.run(ask())

    assert [["CANCELLED" if how == "cancel" else "DEADLINE_EXCEEDED"]] * 4 == recorder.everywhere()


@pytest.mark.parametrize(
    ("before", "arity"), [("create_task", "unary"), ("late", "unary"), ("handler", "client_stream")]
)
def test_blocking_handler_cut_off_behind_a_task(before: str, arity: str) -> None:
    """
    A call with a blocking handler, which runs on, is reported as that, too.

    Where the chain was awaited in a task, and requests are a stream, such a call is over for us with its handler.
    """
    recorder, begun, leave = Recorder(), threading.Event(), threading.Event()

    async def ask() -> None:
        interceptors = [*BEFORE[before](), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, **{arity: behaviors("cancelled", leave, begun)[arity]}) as channel:
            call = method(channel, arity)(requests(arity), timeout=PATIENCE)
            await asyncio.to_thread(begun.wait, PATIENCE)
            call.cancel()
            await asyncio.to_thread(recorder.wait_for)
            leave.set()

    asyncio.run(ask())

    assert [["CANCELLED"]] * 4 == recorder.everywhere()
    assert 0 == recorder.total("grpc_server_in_flight") == recorder.total("grpc_server_handlers_running")


@pytest.mark.parametrize("before", ["create_task", "late"])
def test_limit_behind_a_task(before: str) -> None:
    """A call over the limit of concurrent calls is reported as that, there as well."""
    recorder = Recorder()

    async def ask() -> grpc.StatusCode:
        holding, leave = asyncio.Event(), asyncio.Event()

        async def hold(request: bytes, _context: Any) -> bytes:
            holding.set()
            await leave.wait()
            return request

        interceptors = [*BEFORE[before](), AioServerInterceptor(*recorder.observers)]
        async with aio_connected(*interceptors, limit=1, unary=hold) as channel:
            held = method(channel, "unary")(b"a", timeout=PATIENCE)
            await holding.wait()
            code: grpc.StatusCode = await method(channel, "unary")(b"a", timeout=PATIENCE).code()
            await asyncio.to_thread(recorder.wait_for)
            leave.set()
            await held
        return code

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is asyncio.run(ask())
    recorder.wait_for(2)
    assert ["RESOURCE_EXHAUSTED", "OK"] == recorder.codes


class Threads:
    """Records in which threads a blocking handler is called and iterated, and whether the loop runs there."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, bool, bool]] = []

    def record(self, step: str) -> None:
        """Record where this step is taken."""
        try:
            asyncio.get_running_loop()
            in_loop = True
        except RuntimeError:
            in_loop = False
        self.seen.append((step, in_loop, threading.current_thread() is threading.main_thread()))

    def responses(self) -> Iterator[bytes]:
        """Answer twice."""
        self.record("iterated")
        yield b"a"
        yield b"b"

    def function(self, request: Any, _context: Any) -> Any:
        """Return an iterator."""
        _ = request
        self.record("called")
        return self.responses()

    def generator(self, request: Any, context: Any) -> Any:
        """Yield the responses."""
        _ = request, context
        yield from self.responses()


def where(arity: str, kind: str, *interceptors: Any) -> tuple[list[bytes], list[tuple[str, bool, bool]]]:
    """Call a blocking handler of this kind, and return its responses and where its steps are taken."""
    threads = Threads()

    async def ask() -> list[bytes]:
        async with aio_connected(*interceptors, **{arity: getattr(threads, kind)}) as channel:
            return [response async for response in method(channel, arity)(requests(arity), timeout=PATIENCE)]

    return asyncio.run(ask()), threads.seen


@pytest.mark.parametrize("ours", ["observing", "hiding", "both"])
@pytest.mark.parametrize("kind", ["function", "generator"])
@pytest.mark.parametrize("arity", STREAMS)
def test_thread_of_a_blocking_stream(arity: str, kind: str, ours: str) -> None:
    """A blocking handler's function is called in the loop's thread; the iterator that it returns is used in another."""
    recorder = Recorder()
    parts = {"observing": AioServerInterceptor(*recorder.observers), "hiding": AioHideExceptions()}
    interceptors = [parts[ours]] if ours in parts else [parts["hiding"], parts["observing"]]

    alone = where(arity, kind)
    together = where(arity, kind, *interceptors)

    assert alone == together
    assert ["OK"] * (ours != "hiding") == recorder.codes


@pytest.mark.expects_errors("ValueError: secret")
@pytest.mark.parametrize("hiding", [False, True])
def test_blocking_handler_that_raises_in_the_loop(hiding: bool) -> None:  # noqa: FBT001 - a parameter
    """What a blocking handler raises there ends the call, with its text hidden if that is asked for."""
    recorder = Recorder()

    def behavior(_request: Any, _context: Any) -> Any:
        raise ValueError("secret")

    async def ask(*interceptors: Any) -> tuple[grpc.StatusCode, str]:
        async with aio_connected(*interceptors, server_stream=behavior) as channel:
            call = method(channel, "server_stream")(b"a", timeout=PATIENCE)
            with contextlib.suppress(grpc.aio.AioRpcError):
                _ = [response async for response in call]
            return await call.code(), await call.details()

    alone = asyncio.run(ask())
    ours = AioServerInterceptor(*recorder.observers)
    together = asyncio.run(ask(*([AioHideExceptions()] if hiding else []), ours))
    recorder.wait_for()

    assert ((grpc.StatusCode.UNKNOWN, "internal error") if hiding else alone) == together
    assert [("UNKNOWN", ValueError)] == [(outcome.code.name, type(outcome.error)) for outcome in recorder.outcomes]
    assert 0 == recorder.total("grpc_server_handlers_running")
