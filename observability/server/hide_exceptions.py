"""Keeps the text of a handler's uncaught exception from the caller, and leaves no caller waiting."""

from __future__ import annotations

import asyncio
import inspect
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from .handler import Behavior, HandlerProxy, RecordingContext, ask, iterate, standing_before, standing_for, with_status
from .uncaught import aborted, chosen

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
    from types import TracebackType

_HIDDEN: Final = (grpc.StatusCode.UNKNOWN, "internal error")


class HideExceptions(grpc.ServerInterceptor):
    """
    Answers what a handler does not catch with UNKNOWN and `internal error`, and keeps its text to the server.

    A status that was chosen stays, with its own text: one of which the handler has set both, a code other than OK and
    a text, before it raised, as the base of every generated servicer does; or that of an abort.

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
        return None if handler is None else standing_before(handler, _HidingHandler)(handler)


class _HidingHandler(HandlerProxy):
    __slots__ = ()

    def _wrapped(self, behavior: Any) -> Any:
        if not self._handler.response_streaming:
            return standing_for(behavior, _call)
        wrapped = standing_for(behavior, _stream)
        wrapped.experimental_non_blocking = getattr(behavior, "experimental_non_blocking", None)
        return wrapped


def _call(behavior: Any, request: Any, context: grpc.ServicerContext, *send: Callable[[Any], None]) -> Any:
    context = with_status(context)
    with _Answering(context):
        return behavior(request, context, *send)


def _stream(behavior: Any, request: Any, context: grpc.ServicerContext, *send: Callable[[Any], None]) -> Any:
    context = with_status(context)
    responses = _call(behavior, request, context, *send)
    return responses if send else _iterate(responses, context)


def _iterate(responses: Iterator[Any], context: grpc.ServicerContext) -> Iterator[Any]:
    with _Answering(context):
        yield from iterate(responses)


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
        if error is None or isinstance(error, GeneratorExit) or ask(self._context, "is_active") is False:
            return
        if not aborted(error, self._context):
            self._context.abort(*(chosen(self._context, accepts_int_codes=False) or _HIDDEN))


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
        return None if handler is None else standing_before(handler, _AioHidingHandler)(handler)


class _AioHidingHandler(HandlerProxy):
    __slots__ = ()

    def _wrapped(self, behavior: Any) -> Any:
        if inspect.isasyncgenfunction(behavior):
            return Behavior(_generate, behavior)
        if inspect.iscoroutinefunction(behavior):
            return Behavior(_await, behavior)
        return Behavior(_blocking_stream if self._handler.response_streaming else _blocking, behavior)


async def _await(behavior: Any, request: Any, context: Any) -> Any:
    context = with_status(context)
    try:
        return await behavior(request, context)
    except BaseException as error:
        await _answer_aio(error, context)
        raise


async def _generate(behavior: Any, request: Any, context: Any) -> AsyncIterator[Any]:
    context = with_status(context)
    try:
        async for response in behavior(request, context):
            yield response
    except BaseException as error:
        await _answer_aio(error, context)
        raise


def _blocking(behavior: Any, request: Any, context: Any) -> Any:
    context = RecordingContext.of(context)
    with _AnsweringBlocking(context):
        return behavior(request, context)
    return None  # which grpc does not look at: the code is not OK


def _blocking_stream(behavior: Any, request: Any, context: Any) -> Iterable[Any]:
    """Call a plain function, as grpc does, in the event loop's thread; what it returns is iterated in another."""
    context = RecordingContext.of(context)
    with _AnsweringBlocking(context):
        return _iterate_blocking(behavior(request, context), context)
    return ()


def _iterate_blocking(responses: Iterable[Any], context: RecordingContext) -> Iterator[Any]:
    with _AnsweringBlocking(context):
        yield from responses


class _AnsweringBlocking:
    """
    Ends a blocking handler's call with a status in place of the exception that escapes from it.

    Not by an abort: beside a message that is still being written, grpc loses it, and the caller waits for ever.
    """

    __slots__ = ("_context",)

    def __init__(self, context: RecordingContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        """Start what may raise."""

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Answer what it raised, and return whether it is answered so."""
        if error is None or _is_answered(error, self._context):
            return False
        code, details = chosen(self._context, accepts_int_codes=True) or _HIDDEN
        self._context.set_code(code)
        self._context.set_details(details)
        return True


async def _answer_aio(error: BaseException, context: Any) -> None:
    if _is_answered(error, context) or ask(context, "done"):
        return
    task = asyncio.current_task()
    if isinstance(error, asyncio.CancelledError) and task is not None and task.cancelling():
        return
    await context.abort(*(chosen(context, accepts_int_codes=True) or _HIDDEN))


def _is_answered(error: BaseException, context: Any) -> bool:
    """Return whether it needs no answer: after an abort, of a generator that is closed, or where the process ends."""
    return isinstance(error, GeneratorExit | KeyboardInterrupt) or aborted(error, context)
