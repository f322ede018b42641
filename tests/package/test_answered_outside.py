"""
Calls that an interceptor before ours answers by itself: our handler never runs, and grpc does not say what was sent.

What can be known is reported; the rest is pinned here, and stands in docs/limitations.md under "What grpc hides".
"""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import grpc_interceptor
import pytest

from observability import AioServerInterceptor, ServerInterceptor
from tests.support.recorder import Recorder
from tests.support.rpc import AIO_ECHOES, ARITIES, ECHOES, STREAMS, aio_connected, connected, method, requests
from tests.support.third_party import AioPassing, Passing

STACKS = pytest.mark.parametrize("stack", ["sync", "aio"])
ELSEWHERE = "Ended before its handler started, by another interceptor"


class Aborting(grpc_interceptor.ServerInterceptor):
    """Refuses every call, late enough for it to look like one that waited for its deadline."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Refuse."""
        del method, request_or_iterator, method_name
        threading.Event().wait(0.03)
        context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


class AioAborting(grpc_interceptor.AsyncServerInterceptor):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Refuse, when there is nothing left to read: grpc.aio may call any other end INTERNAL."""
        del method, method_name
        if not isinstance(request_or_iterator, bytes):
            _ = [request async for request in request_or_iterator]
        await asyncio.sleep(0.03)
        await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


class Cached(grpc_interceptor.ServerInterceptor):
    """Answers every call from its memory."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Answer."""
        del method, request_or_iterator, context, method_name
        return b"remembered"


class AioCached(grpc_interceptor.AsyncServerInterceptor):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Answer."""
        del method, request_or_iterator, context, method_name
        return b"remembered"


class Failing(grpc_interceptor.ServerInterceptor):
    """Raises after every answer."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler, and raise."""
        del method_name
        answer = method(request_or_iterator, context)
        if hasattr(answer, "__next__"):
            return self._fail(answer)
        raise ValueError("no bread")

    def _fail(self, responses: Iterator[bytes]) -> Iterator[bytes]:
        yield from responses
        raise ValueError("no bread")


class AioFailing(grpc_interceptor.AsyncServerInterceptor):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler, and raise."""
        del method_name
        answer = method(request_or_iterator, context)
        if hasattr(answer, "__aiter__"):
            return self._fail(answer)
        await answer
        raise ValueError("no bread")

    async def _fail(self, responses: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
        async for response in responses:
            yield response
        raise ValueError("no bread")


def refuse(_request: bytes, context: grpc.ServicerContext) -> None:
    """Refuse a call."""
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


async def aio_refuse(_request: bytes, context: Any) -> None:
    """Refuse a call on asyncio."""
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "who are you?")


class Denying(grpc.ServerInterceptor):
    """Asks for the handler, and returns its own without a look at it."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Deny."""
        continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(refuse)


class AioDenying(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Deny."""
        await continuation(handler_call_details)
        return grpc.unary_unary_rpc_method_handler(aio_refuse)


OUTSIDE: dict[str, dict[str, Any]] = {
    "sync": {"aborting": Aborting, "cached": Cached, "denying": Denying, "failing": Failing},
    "aio": {"aborting": AioAborting, "cached": AioCached, "denying": AioDenying, "failing": AioFailing},
}


def call(stack: str, outside: str, arity: str, recorder: Recorder) -> str:
    """Make a call of a server with this interceptor before ours; return the code that its caller gets."""
    interceptor = OUTSIDE[stack][outside]()
    return (
        _call(interceptor, arity, recorder) if stack == "sync" else asyncio.run(_aio_call(interceptor, arity, recorder))
    )


def _call(outside: Any, arity: str, recorder: Recorder) -> str:
    with connected(outside, ServerInterceptor(*recorder.observers), **{arity: ECHOES[arity]}) as channel:
        try:
            answer = method(channel, arity)(requests(arity), timeout=10)
            _ = list(answer) if arity in STREAMS else answer
        except grpc.RpcError as error:
            code: grpc.StatusCode = error.code()
            return code.name
        finally:
            recorder.wait_for()
    return "OK"


async def _aio_call(outside: Any, arity: str, recorder: Recorder) -> str:
    interceptor = AioServerInterceptor(*recorder.observers)
    async with aio_connected(outside, interceptor, **{arity: AIO_ECHOES[arity]}) as channel:
        call = method(channel, arity)(requests(arity), timeout=10)
        try:
            _ = [response async for response in call] if arity in STREAMS else await call
        except grpc.aio.AioRpcError as error:
            return error.code().name
        finally:
            await asyncio.to_thread(recorder.wait_for)
    return "OK"


@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_abort_before_ours(stack: str, arity: str) -> None:
    """A call that an interceptor before ours aborts is CANCELLED, and says why; what was sent cannot be seen."""
    recorder = Recorder()

    assert "UNAUTHENTICATED" == call(stack, "aborting", arity, recorder)
    assert [("CANCELLED", ELSEWHERE)] == [(outcome.code.name, outcome.details) for outcome in recorder.outcomes]
    assert [["CANCELLED"]] * 4 == recorder.everywhere()


@STACKS
@pytest.mark.parametrize("arity", ["unary", "client_stream"])
def test_answer_before_ours(stack: str, arity: str) -> None:
    """A call to which an interceptor before ours gives the only response is OK: we see that response serialised."""
    recorder = Recorder()

    assert "OK" == call(stack, "cached", arity, recorder)
    assert [["OK"]] * 4 == recorder.everywhere()
    assert [1] == [outcome.sent for outcome in recorder.outcomes]


@pytest.mark.expects_errors("ValueError: no bread")
@STACKS
@pytest.mark.parametrize("arity", ARITIES)
def test_failure_after_the_handler(stack: str, arity: str) -> None:
    """
    A call that an interceptor before ours fails after the handler is UNKNOWN: its only response is not serialised.

    The end of a stream, after which nothing comes, looks like that of any other.
    """
    recorder = Recorder()

    assert "UNKNOWN" == call(stack, "failing", arity, recorder)
    assert [["OK" if arity in STREAMS else "UNKNOWN"]] * 4 == recorder.everywhere()


@STACKS
def test_denial_that_reads_no_handler(stack: str) -> None:
    """One that asks for the handler and drops it unread looks like grpc's own limit of concurrent calls."""
    recorder = Recorder()

    assert "UNAUTHENTICATED" == call(stack, "denying", "unary", recorder)
    assert [["RESOURCE_EXHAUSTED"]] * 4 == recorder.everywhere()


def test_limit_behind_a_reader() -> None:
    """The limit, behind an interceptor that reads handlers, looks like a caller who left."""
    recorder, holding, leave = Recorder(), threading.Event(), threading.Event()

    def hold(request: bytes, _context: Any) -> bytes:
        holding.set()
        leave.wait(10)
        return request

    with connected(Passing(), ServerInterceptor(*recorder.observers), limit=1, unary=hold) as channel:
        held = method(channel, "unary").future(b"a", timeout=10)
        holding.wait(10)
        refused = method(channel, "unary").future(b"a", timeout=10).exception()
        recorder.wait_for()
        leave.set()
        held.result()

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is refused.code()
    assert "CANCELLED" == recorder.codes[0]


def test_limit_behind_a_reader_on_asyncio() -> None:
    """On asyncio the limit behind such an interceptor looks the same."""
    recorder = Recorder()

    async def main() -> grpc.StatusCode:
        holding, leave = asyncio.Event(), asyncio.Event()

        async def hold(request: bytes, _context: Any) -> bytes:
            holding.set()
            await leave.wait()
            return request

        ours = AioServerInterceptor(*recorder.observers)
        async with aio_connected(AioPassing(), ours, limit=1, unary=hold) as channel:
            held = method(channel, "unary")(b"a", timeout=10)
            await holding.wait()
            refused = method(channel, "unary")(b"a", timeout=10)
            code: grpc.StatusCode = await refused.code()
            leave.set()
            await held
        return code

    assert grpc.StatusCode.RESOURCE_EXHAUSTED is asyncio.run(main())
    assert "CANCELLED" == recorder.codes[0]
