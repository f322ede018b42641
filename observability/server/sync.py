"""A call on grpc.server, which ends where grpc's callback says so, on the one thread that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc

from ..calls.status import normalize_code, terminated_status
from .call import ObservedHandler
from .handler import iterate, standing_for, status_in
from .trailers import fault_of
from .uncaught import uncaught

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class SyncObservedHandler(ObservedHandler):
    """A call on grpc.server."""

    __slots__ = ("_requests", "_unsent")

    codec_error_code = grpc.StatusCode.INTERNAL
    none_is_error = True
    accepts_int_codes = False
    ok_stands = True

    def _wrapped(self, behavior: Any) -> Any:
        self._accepted = True
        if not self._handler.response_streaming:
            return standing_for(behavior, SyncObservedHandler._unary, self)
        # grpc asks this of handlers with a stream of responses alone.
        if not getattr(behavior, "experimental_non_blocking", False):
            return standing_for(behavior, SyncObservedHandler._stream, self)
        wrapped = standing_for(behavior, SyncObservedHandler._non_blocking, self)
        wrapped.experimental_non_blocking = True
        return wrapped

    def _start(self, request: Any, given: Any) -> Any:
        """Start the handler; its requests are kept where they are grpc's own stream."""
        self._requests = request if type(request).__module__ == "grpc._server" else None
        self._unsent: tuple[Any, Any] | None = None
        context = self._enter(given)
        try:
            watched = given.add_callback(self._terminated)
        except Exception:  # noqa: BLE001 - somebody's own context
            watched = None
        if watched is False:
            self._terminated()
        self._watched = watched is not None
        return context

    def _unary(self, behavior: Any, request: Any, context: grpc.ServicerContext) -> Any:
        if self._context is not None and self._is_kept(context):
            return behavior(request, context)
        context = self._start(request, context)
        with self:
            return behavior(request, context)

    def _stream(self, behavior: Any, request: Any, context: grpc.ServicerContext) -> Iterator[Any]:
        if self._context is not None and self._is_kept(context):
            return cast("Iterator[Any]", behavior(request, context))
        context = self._start(request, context)
        try:
            responses = behavior(request, context)
        except BaseException as error:
            self.__exit__(type(error), error, None)
            raise
        return self._iterate(responses)

    def _iterate(self, responses: Iterator[Any]) -> Iterator[Any]:
        with self:
            for response in iterate(responses):
                if response is None:
                    self._completed()  # grpc takes it for the end of the stream
                yield response

    def _non_blocking(
        self, behavior: Any, request: Any, context: grpc.ServicerContext, send: Callable[[Any], None]
    ) -> Any:
        def send_response(response: Any) -> None:
            if response is None:
                self._completed()
            send(response)

        if self._context is not None and self._is_kept(context):
            return behavior(request, context, send)
        context = self._start(request, context)
        try:
            return behavior(request, context, send_response)
        except BaseException as error:
            self._failed(error)
            raise
        finally:
            self._leave()

    def _serialized_to_no_bytes(self) -> None:
        self._answer = None  # grpc forgets the caller

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # grpc answers an Exception only; an interceptor that hides exceptions answers this as well.
            self._error, self._unsent = error, self._status()
        elif self._alive():
            self._decide(grpc.StatusCode.UNKNOWN)
            self._error = uncaught(error, self._context, accepts_int_codes=self.accepts_int_codes)

    def _refuse_request(self) -> None:
        """End at once: where a handler answers anyway, grpc never says that the call has ended."""
        super()._refuse_request()
        if self._refusal is None:
            return
        if self._context is None:
            self._end_unserved(cut_off=False)
        else:
            self._end(self._refusal)

    def _alive(self) -> bool:
        context = self._context
        try:
            return context is None or context.is_active() is not False
        except Exception:  # noqa: BLE001 - somebody's own context
            return True

    def _terminated(self) -> None:
        """Be called by grpc at the call's true end, on its serving thread."""
        answer = self._refusal or self._answer
        if self._requests is not None:
            left = self._caller_left()
        else:
            left = self.call.deadline is not None and self._is_late(self.call.deadline)
        if left and not (answer is not None and self._is_refused()):
            answer = None
        if answer is None and self._unsent is not None and self._unsent != self._status():
            answer = normalize_code(self._status()[0], accepts_int_codes=self.accepts_int_codes)
        self._end(answer)

    def _end_unsent(self) -> None:
        self._cut_off()

    def _is_refused(self) -> bool:
        """Return whether grpc's core has not taken the status, and has cancelled the call for that."""
        _, details, metadata = status_in(self._context)
        return fault_of(details, metadata) == "refused"

    def _status(self) -> tuple[Any, Any]:
        """Return the status that was set, whether it was sent or not."""
        return status_in(self._context)[:2]

    def _is_late(self, deadline: float) -> bool:
        """
        Return whether the answer was never sent: the call ended at its deadline, long after its handler.

        So it is where grpc fails at what it would send, as with a compression that there is none of. At half of the
        time that the caller gave, no serving thread is so far behind.
        """
        if self._seconds is None or self.call.seconds - self._seconds < deadline / 2:
            return False
        return terminated_status(deadline, self._seconds_left()) is grpc.StatusCode.DEADLINE_EXCEEDED

    def _caller_left(self) -> bool:
        """
        Return whether the caller cancelled before it had the answer, which only its request stream knows.

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
