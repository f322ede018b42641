"""A call on grpc.server, which ends where grpc's callback says so, on the one thread that serves."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import grpc

from .call import deadline_of, status_code
from .handlers import each, is_abort
from .served import ServedCall

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SyncCall(ServedCall):
    """A call on grpc.server."""

    __slots__ = ("_requests", "_unsent")

    message_failure = grpc.StatusCode.INTERNAL
    none_fails = True
    numbers = False

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted, self._behavior = True, behavior
        wrapped: Any = self._stream if self._handler.response_streaming else self._unary
        if getattr(behavior, "experimental_non_blocking", False):
            wrapped = partial(self._non_blocking)
            wrapped.experimental_non_blocking = True
        pool = getattr(behavior, "experimental_thread_pool", None)
        if pool is not None:
            wrapped = wrapped if isinstance(wrapped, partial) else partial(wrapped)
            wrapped.experimental_thread_pool = pool
        return wrapped

    def _start(self, request: Any, context: Any) -> None:
        """Start the handler; its requests are kept where they are grpc's own stream."""
        self._requests = request if type(request).__module__ == "grpc._server" else None
        self._unsent: tuple[Any, Any] | None = None
        self._enter(context)
        if not context.add_callback(self._terminated):
            self._terminated()

    def _unary(self, request: Any, context: grpc.ServicerContext) -> Any:
        self._start(request, context)
        with self:
            return self._behavior(request, context)

    def _stream(self, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        self._start(request, context)
        try:
            responses = self._behavior(request, context)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._iterate(responses)

    def _iterate(self, responses: Iterator[Any]) -> Iterator[Any]:
        with self:
            for response in each(responses):
                if response is None:
                    self._completed()  # grpc takes it for the end of the stream
                yield response

    def _non_blocking(self, request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]) -> Any:
        def send_response(response: Any) -> None:
            if response is None:
                self._completed()
            send(response)

        self._start(request, context)
        try:
            return self._behavior(request, context, send_response)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._leave()

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # grpc answers an Exception only; whoever hides exceptions answers this as well, with a status of its own.
            self._error, self._unsent = error, self._status()
        elif self._alive():
            self._decide(grpc.StatusCode.UNKNOWN)
            self._error = None if is_abort(error, self._context) else error

    def _refuse_request(self) -> None:
        """End at once: where a handler answers all the same, grpc never tells of the call's end."""
        super()._refuse_request()
        if self._refusal is None:
            return
        if self._context is None:
            self._end_unserved(cut_off=False)
        else:
            self._end(self._refusal, None)

    def _alive(self) -> bool:
        context: Any = self._context
        alive: bool = context is None or context.is_active()
        return alive

    def _terminated(self) -> None:
        """Be called by grpc at the call's true end, on its serving thread."""
        answer = self._refusal or self._answer
        if self._requests is not None and self._caller_left():
            answer = None
        if answer is None and self._unsent is not None and self._unsent != self._status():
            answer = status_code(self._context.code(), numbers=self.numbers)
        self._end(answer, None if answer else deadline_of(self._context.time_remaining()))

    def _status(self) -> tuple[Any, Any]:
        """Tell the status that was set, whether it was sent or not."""
        return self._context.code(), self._context.details()

    def _caller_left(self) -> bool:
        """
        Tell whether the caller cancelled before it had the answer, which only its request stream knows.

        For the handler the stream of such a caller may end like any other. Once the call is over, grpc's own
        iterator raises at once for a caller that left, and stops at once for any other.
        """
        requests: Any = self._requests
        self._requests = None
        try:
            next(requests, None)
        except grpc.RpcError as error:
            error.__traceback__ = None  # grpc keeps the error, which with its frames would keep the call
            return True
        return False

    def __del__(self) -> None:
        """Be dropped: at once where the handler never ran."""
        self._leave()
        if self._context is None:
            self._end_unserved(cut_off=False)
