"""What grpc.server shows of a call, which ends where grpc's callback says so, on the one thread that serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from .behaviors import UNGUARDED, Guard, guarded
from .call import PARSE_DETAILS
from .context import OVER, status_in
from .counting import ReportingHandler, Unparsed
from .observed import ObservedHandler
from .uncaught import uncaught

if TYPE_CHECKING:
    from .call import ServerCall


class SyncObservedHandler(ObservedHandler):
    """
    A call on grpc.server.

    A run of its handler may end it, and on another thread a request that cannot be parsed: the one that takes the
    `_end_token` does, and `_ends` is whether the run has it. There is no token before the run, nor where an interceptor
    before us runs the handler for other calls.
    """

    __slots__ = ("_end_token", "_ends", "_requests")

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], call: ServerCall) -> None:
        super().__init__(handler, call)
        self._end_token: list[bool] | None = None

    def _wrapped(self, behavior: Any) -> Any:
        self.call.accepted = True
        return guarded(behavior, self._start, response_streaming=self._handler.response_streaming)

    def _start(self, request: Any, given: Any) -> tuple[Guard, Any]:
        """Start the handler; its requests are kept where they are grpc's own stream."""
        unparsed = type(request) is Unparsed
        if self._is_kept(given):
            self._end_token = None
            if unparsed:
                _abort(given)
            return UNGUARDED, given
        self._end_token, self._ends = [True], False
        self._requests = request if type(request).__module__ == "grpc._server" else None
        context = self._meet(given)
        if not unparsed:
            self.call.handler_started()
        try:
            watched = given.add_callback(self._terminated)
        except Exception:  # noqa: BLE001 - somebody's own context
            watched = None
        if watched is False:
            self._terminated()
        self._watched = watched is not None
        if unparsed:
            self._refuse(context)
        return self, context

    def _refuse(self, context: Any) -> None:
        """Abort a call whose only request could not be parsed, as grpc does; raises."""
        self.call.received = 0  # another interceptor of ours has let it pass
        self._reject(PARSE_DETAILS)
        try:
            _abort(context)
        finally:
            if not self._watched:
                self._conclude()

    def raised(self, error: BaseException) -> bool:
        """
        Report that the handler has raised this.

        What grpc raises for a caller that has left it also keeps, and with its frames it would keep the call: until a
        garbage collection the call counts among the streams that its connection may have. So grpc gets another one.
        """
        if type(error) is not grpc.RpcError or self._is_active():
            return super().raised(error)
        error.__traceback__ = None
        super().raised(error)
        raise _CallerLeft(error)

    def _raised(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            # grpc answers an Exception only; an interceptor that hides exceptions answers this as well.
            self.call.handler_died(error, *status_in(self._context)[:2])
        elif self._is_active():
            self.call.handler_raised(
                uncaught(error, self._context, accepts_int_codes=self.call.rules.accepts_int_codes)
            )

    def _refusal_of(self, error: Exception | None) -> str:
        del error
        return PARSE_DETAILS

    def _reject_request(self, error: BaseException | None) -> Any:
        """
        Have grpc abort the call for None: a stream, whose handler then sees its requests end.

        Reported at once: where an interceptor before us answers anyway, grpc never says that the call has ended.
        """
        if self._handler.request_streaming and not self._takes_end():
            return Unparsed(PARSE_DETAILS)  # for None grpc would end the call, which the handler has ended
        instead = super()._reject_request(error)
        if type(instead) is Unparsed:
            return instead
        if self._is_active():
            if self._context is None:
                self.call.unserved(cut_off=False)
                self._context = OVER
            else:
                self._conclude()
        return None if isinstance(error, Exception) else error

    def _reject_response(self, error: BaseException | None = None) -> bool:
        """Have grpc abort the call, unless something has ended it: what is then sent goes nowhere."""
        if not self._handler.response_streaming:
            return super()._reject_response(error)
        if not self._ends_call():
            return False
        super()._reject_response(error)
        if self._end_token is not None:
            self.settled()
        return True

    def _ends_call(self) -> bool:
        self._ends = self._ends or self._takes_end()
        return self._ends and (self.call.refusal is None or self._end_token is None)

    def _takes_end(self) -> bool:
        """Return True to the first caller alone, of whatever thread, where a run of the handler may end the call."""
        try:
            return self._end_token is None or self._end_token.pop()
        except IndexError:
            return False

    def _is_active(self) -> bool:
        context = self._context
        try:
            return context is None or context.is_active() is not False
        except Exception:  # noqa: BLE001 - somebody's own context
            return True

    def _terminated(self) -> None:
        """Be called by grpc at the call's true end, on its serving thread."""
        left = None if self._requests is None else self._caller_left()
        self.call.terminated(status_in(self._context), self._remaining, left=left)
        self._context = OVER

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


class SyncReportingHandler(ReportingHandler, SyncObservedHandler):
    """The same, for observers of messages."""

    __slots__ = ()


class _CallerLeft(grpc.RpcError):
    """In place of grpc's own error for a caller that has left, which it equals: grpc logs and answers any other."""

    def __init__(self, error: BaseException) -> None:
        super().__init__(*error.args)
        self._error = error

    def __eq__(self, other: object) -> bool:
        return other is self or other is self._error

    def __hash__(self) -> int:
        return hash(self._error)


def _abort(context: Any) -> None:
    """End the call with what grpc answers for a request that cannot be parsed; raises."""
    context.abort(grpc.StatusCode.INTERNAL, PARSE_DETAILS)
    raise ValueError(PARSE_DETAILS)  # somebody's own context, which has gone on
