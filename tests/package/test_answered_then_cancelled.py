"""
A server that stops cancels the tasks of its calls, those of calls that it has answered just now too.

Here the task is cancelled at that very moment, by what runs in it between the handler's end and the sending.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest

from observability import AioServerInterceptor, Call, LifecycleObserver
from tests.support.recorder import Recorder
from tests.support.rpc import aio_connected, method, requests


def cancel() -> None:
    """Cancel the task that this runs in."""
    task = asyncio.current_task()
    assert task is not None
    task.cancel()


class Cancelling:
    """A response during whose serialising the task is cancelled."""

    def __bytes__(self) -> bytes:
        cancel()
        return b"done"


async def read(request: Any) -> None:
    """Read all requests: grpc.aio may call an end before that INTERNAL."""
    _ = request if isinstance(request, bytes) else [message async for message in request]


async def returning(request: Any, _context: Any) -> Any:
    """Answer."""
    await read(request)
    return Cancelling()


async def choosing(request: Any, context: Any) -> Any:
    """Answer with a code."""
    await read(request)
    context.set_code(grpc.StatusCode.OK)
    return Cancelling()


def blocking(request: Any, _context: Any) -> Any:
    """Answer, from a thread."""
    list(request)
    return Cancelling()


def blocking_with_code(request: Any, context: Any) -> Any:
    """Answer with a code, for which no response is serialised."""
    list(request)
    context.set_code(grpc.StatusCode.NOT_FOUND)
    context.add_callback(cancel)
    return b""


def blocking_abort(request: Any, context: Any) -> Any:
    """Abort, from a thread."""
    list(request)
    context.abort(grpc.StatusCode.NOT_FOUND, "as asked")


class CancellingAfterAbort(LifecycleObserver):
    """Cancels the call's task when its aborted handler has ended, before grpc gets to know that."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop

    def on_handler_end(self, _call: Call, _state: Any) -> None:
        """Cancel the task of the one call that there is, from the handler's thread."""
        [task] = [task for task in asyncio.all_tasks(self._loop) if task.get_name().startswith("HandleExceptions[")]
        self._loop.call_soon_threadsafe(task.cancel)


@pytest.mark.parametrize("arity", ["unary", "client_stream"])
@pytest.mark.parametrize(
    ("behavior", "code"),
    [
        (returning, "OK"),
        (choosing, "OK"),
        (blocking, "OK"),
        (blocking_with_code, "NOT_FOUND"),
        (blocking_abort, "NOT_FOUND"),
    ],
)
def test_answered_then_cancelled(behavior: Any, code: str, arity: str) -> None:
    """The call is reported as it was answered, which is what its caller got."""
    recorder = Recorder()

    async def ask() -> grpc.StatusCode:
        cancelling = [CancellingAfterAbort(asyncio.get_running_loop())] if behavior is blocking_abort else []
        interceptor = AioServerInterceptor(*cancelling, *recorder.observers)
        async with aio_connected(interceptor, **{arity: behavior}) as channel:
            got: grpc.StatusCode = await method(channel, arity)(requests(arity), timeout=10).code()
            await asyncio.to_thread(recorder.wait_for)
            return got

    assert code == asyncio.run(ask()).name
    assert [[code]] * 4 == recorder.everywhere()
