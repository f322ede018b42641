"""Keeps the text of a handler's uncaught exception from the caller, and leaves no caller waiting."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import grpc
import grpc.aio

from .aio_ends import is_being_cancelled
from .behaviors import Guard, aio_guarded, guarded, is_blocking
from .context import ask, with_status
from .handler import HandlerProxy, standing_before
from .uncaught import aborted, chosen

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

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
        return guarded(behavior, _Answering.start, response_streaming=self._handler.response_streaming)


class _Hiding(Guard):
    """Answers in place of an exception that escapes from a handler."""

    __slots__ = ("_context",)

    def __init__(self, context: Any) -> None:
        self._context = context

    @classmethod
    def start(cls, _request: Any, context: Any) -> tuple[Guard, Any]:
        """Start a run of the handler, with a context that shows the status that the handler has set."""
        context = with_status(context)
        return cls(context), context

    def raised(self, error: BaseException) -> bool:
        """Return whether to answer: not after an abort, for a generator that is closed, or where the process ends."""
        return not (isinstance(error, GeneratorExit | KeyboardInterrupt) or aborted(error, self._context))

    def _status(self, *, accepts_int_codes: bool) -> tuple[grpc.StatusCode, str]:
        return chosen(self._context, accepts_int_codes=accepts_int_codes) or _HIDDEN


class _Answering(_Hiding):
    """Aborts a call, unless nobody waits for it any more."""

    __slots__ = ()

    def raised(self, error: BaseException) -> bool:
        """Return whether to answer: a KeyboardInterrupt too, which ends no process in a handler's thread."""
        if isinstance(error, GeneratorExit) or ask(self._context, "is_active") is False:
            return False
        return not aborted(error, self._context)

    def answer(self) -> Any:
        """Abort the call, which raises."""
        self._context.abort(*self._status(accepts_int_codes=False))


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
        start = (_BlockingAnswering if is_blocking(behavior) else _AioAnswering).start
        return aio_guarded(behavior, start, response_streaming=self._handler.response_streaming)


class _AioAnswering(_Hiding):
    """Aborts a call, unless it is over or being cancelled."""

    __slots__ = ()

    def raised(self, error: BaseException) -> bool:
        """Return whether to answer."""
        if not super().raised(error) or ask(self._context, "done"):
            return False
        return not (isinstance(error, asyncio.CancelledError) and is_being_cancelled())

    def answer(self) -> Any:
        """Abort the call, which raises when it is awaited."""
        return self._context.abort(*self._status(accepts_int_codes=True))


class _BlockingAnswering(_Hiding):
    """
    Ends a blocking handler's call with a status in place of the exception that escapes from it.

    Not by an abort: beside a message that is still being written, grpc loses it, and the caller waits for ever.
    """

    __slots__ = ()

    def answer(self) -> Any:
        """Set the status."""
        code, details = self._status(accepts_int_codes=True)
        self._context.set_code(code)
        self._context.set_details(details)
