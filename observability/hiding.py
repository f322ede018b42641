"""Keeps the text of a handler's uncaught exception from the caller, and leaves no caller waiting."""

from __future__ import annotations

import asyncio
import inspect
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from .handlers import PlainContext, WrappedHandler, each, is_abort

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from types import TracebackType

_DETAILS: Final = "internal error"


class HideExceptions(grpc.ServerInterceptor):
    """
    Answers what a handler does not catch with UNKNOWN and `internal error`, and keeps its text to the server.

    Put it first: the interceptors after it see the exception itself. It also answers a SystemExit, whose caller
    grpc would leave waiting.
    """

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Hide the exceptions of one call."""
        handler = continuation(handler_call_details)
        return handler and _HidingHandler(handler)


class _HidingHandler(WrappedHandler):
    __slots__ = ("_behavior",)

    def _wrapped(self, behavior: Any) -> Any:
        self._behavior = behavior
        wrapped = partial(self._stream if self._handler.response_streaming else self._call)
        for attribute in ("experimental_non_blocking", "experimental_thread_pool"):
            if hasattr(behavior, attribute):
                setattr(wrapped, attribute, getattr(behavior, attribute))
        return wrapped

    def _call(self, request: Any, context: grpc.ServicerContext, *send: Callable[[Any], None]) -> Any:
        with _Answering(context):
            return self._behavior(request, context, *send)

    def _stream(self, request: Any, context: grpc.ServicerContext, *send: Callable[[Any], None]) -> Any:
        responses = self._call(request, context, *send)
        return responses if send else _iterate(responses, context)


def _iterate(responses: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    with _Answering(context):
        yield from each(responses)


class _Answering:
    """Aborts a call from which an exception escapes, unless it is answered or nobody waits for it any more."""

    __slots__ = ("_context",)

    def __init__(self, context: grpc.ServicerContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        """Start what may raise."""

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Answer what it raised."""
        if error is None or isinstance(error, GeneratorExit) or not self._context.is_active():
            return
        if not is_abort(error, self._context):
            self._context.abort(grpc.StatusCode.UNKNOWN, _DETAILS)


class AioHideExceptions(grpc.aio.ServerInterceptor):
    """
    Does for grpc.aio.server what HideExceptions does for grpc.server.

    It also answers a CancelledError of the handler's own, whose caller grpc would leave waiting.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Hide the exceptions of one call."""
        handler = await continuation(handler_call_details)
        return handler and _AioHidingHandler(handler)


class _AioHidingHandler(WrappedHandler):
    __slots__ = ("_behavior",)

    def _wrapped(self, behavior: Any) -> Any:
        self._behavior = behavior
        if inspect.isasyncgenfunction(behavior):
            return self._generate
        if inspect.iscoroutinefunction(behavior):
            return self._await
        return self._plain_stream if self._handler.response_streaming else self._plain

    async def _await(self, request: Any, context: Any) -> Any:
        try:
            return await self._behavior(request, context)
        except BaseException as error:
            await _answer_aio(error, context)
            raise

    async def _generate(self, request: Any, context: Any) -> AsyncIterator[Any]:
        try:
            async for response in self._behavior(request, context):
                yield response
        except BaseException as error:
            await _answer_aio(error, context)
            raise

    def _plain(self, request: Any, context: Any) -> Any:
        with _AnsweringPlain(context) as remembering:
            return self._behavior(request, remembering)
        return None  # which grpc does not look at: the code is not OK

    def _plain_stream(self, request: Any, context: Any) -> Iterator[Any]:
        with _AnsweringPlain(context) as remembering:
            yield from self._behavior(request, remembering)


class _AnsweringPlain:
    """
    Ends a plain handler's call with a status in place of the exception that escapes from it.

    Not by an abort: beside a message that is still being written, grpc loses it, and the caller waits for ever.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = PlainContext.of(context)

    def __enter__(self) -> PlainContext:
        """Start what may raise, with this context."""
        return self._context

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Answer what it raised, and tell whether it is answered so."""
        if error is None or _is_answered(error):
            return False
        self._context.set_code(grpc.StatusCode.UNKNOWN)
        self._context.set_details(_DETAILS)
        return True


async def _answer_aio(error: BaseException, context: Any) -> None:
    if _is_answered(error) or context.done():
        return
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return
    await context.abort(grpc.StatusCode.UNKNOWN, _DETAILS)


def _is_answered(error: BaseException) -> bool:
    """Tell what needs no answer: an abort, a generator that is closed, and the interrupt that ends the process."""
    return isinstance(error, grpc.aio.AbortError | GeneratorExit | KeyboardInterrupt)
