"""One call on the server: the handler that grpc runs for it, and how it comes to an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from ..calls.status import CUT_OFF_DETAILS, finite_deadline, normalize_code, status_before_handler, terminated_status
from .handler import HandlerProxy, ask, is_around, status_in, with_status
from .trailers import REFUSED_DETAILS, fault_of
from .uncaught import text

if TYPE_CHECKING:
    from types import TracebackType

    from ..calls.observation import Observation

_ELSEWHERE_DETAILS: Final = "Ended before its handler started, by another interceptor"
_LIMIT_DETAILS: Final = "Concurrent RPC limit exceeded!"
PARSE_DETAILS: Final = "Exception deserializing request!"
SERIALIZE_DETAILS: Final = "Failed to serialize response!"


def _seconds_left(context: Any) -> float | None:
    """Return how many seconds are left by this context, which may be anybody's, or None without a deadline."""
    remaining = ask(context, "time_remaining")
    return finite_deadline(remaining) if isinstance(remaining, int | float) else None


class PastContext:
    """Stands for grpc's context once there is nothing more to learn from it, for a handler that outlives it."""

    def __init__(self, context: Any = None) -> None:
        self._code, self._details, self._metadata = status_in(context)

    def code(self) -> Any:
        """Return the code that was chosen by then."""
        return self._code

    def details(self) -> Any:
        """Return the text that was chosen by then."""
        return self._details

    def trailing_metadata(self) -> Any:
        """Return the metadata that were set by then."""
        return self._metadata

    def is_active(self) -> bool:
        """Return that nobody waits."""
        return False

    def done(self) -> bool:
        """Return that it is over."""
        return True


_OVER: Final = PastContext()


class ObservedHandler(HandlerProxy):
    """
    One call on the server: the handler that grpc runs, and what it learns of the call's end while it does.

    `_answer` is the status that grpc sends by itself for how the handler ended, None until it has ended; `_returned`
    is the one for a handler that returns, UNKNOWN as long as an only response is not serialised: an interceptor
    before us may fail in between. `_refusal` is grpc's own status for a message that cannot be parsed or serialised.
    `_watched` is whether somebody will say when the call is over; if not, it is over for us with its handler.
    """

    __slots__ = (
        "_accepted",
        "_answer",
        "_context",
        "_deserializer",
        "_dropped",
        "_error",
        "_refusal",
        "_refusal_details",
        "_returned",
        "_running",
        "_seconds",
        "_serializer",
        "_watched",
        "call",
    )

    codec_error_code: grpc.StatusCode
    """What grpc answers when a message cannot be parsed or serialised."""
    none_is_error: bool
    """Whether grpc takes None for such a failure, from a function that parses or serialises."""
    accepts_int_codes: bool
    """Whether grpc takes a number for a status code."""
    ok_stands: bool
    """Whether grpc sends an OK that was set by a handler that raised."""

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any], observation: Observation) -> None:
        super().__init__(handler)
        self.call = observation
        self._accepted = False
        self._context: Any = None
        self._answer: grpc.StatusCode | None = None
        self._returned = grpc.StatusCode.OK
        self._refusal: grpc.StatusCode | None = None
        self._refusal_details = ""
        self._error: BaseException | None = None
        self._running = False
        self._seconds: float | None = None
        self._dropped = False
        self._watched = True

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # as in HandlerProxy
        """Whether requests are a stream; the first thing that grpc asks of a call that it does not refuse."""
        self._accepted = True
        streaming: bool = self._handler.request_streaming
        return streaming

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # as in HandlerProxy
        """Whether responses are a stream."""
        self._accepted = True
        streaming: bool = self._handler.response_streaming
        return streaming

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as in HandlerProxy
        """From bytes to a request, counted."""
        self._deserializer = self._handler.request_deserializer
        return self._deserialize

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as in HandlerProxy
        """From a response to bytes, counted."""
        self._serializer = self._handler.response_serializer
        if self._handler.response_streaming:
            return self._serialize
        self._returned = grpc.StatusCode.UNKNOWN
        return self._serialize_only

    def _deserialize(self, data: bytes) -> Any:
        try:
            request = self._deserializer(data) if self._deserializer else data
        except BaseException:
            self._refuse_request()
            raise
        if request is None and self.none_is_error:
            self._refuse_request()
        else:
            self.call.received += 1
        return request

    def _serialize(self, response: Any) -> Any:
        try:
            data = self._serializer(response) if self._serializer else response
        except BaseException as error:
            self._refuse(SERIALIZE_DETAILS, error)
            raise
        if type(data) is bytes or (data is None and not self.none_is_error):
            self.call.sent += 1
        elif data is None:
            self._refuse(SERIALIZE_DETAILS)
        else:
            self._serialized_to_no_bytes()
        return data

    def _serialized_to_no_bytes(self) -> None:
        """Note that what was made of a response, with a serializer or without, is nothing that grpc sends."""
        raise NotImplementedError

    def _serialize_only(self, response: Any) -> Any:
        """Serialise a call's only response, with which it ends."""
        sent = self.call.sent
        data = self._serialize(response)
        if self.call.sent > sent and (self._answer is not None or self._alive()):
            # Even where the handler raised: an interceptor before us has turned that into a response.
            self._error = None
            self._decide(grpc.StatusCode.OK)
        if not self._watched:
            self._end(self._refusal or self._answer)
        return data

    def _decide(self, answer: grpc.StatusCode) -> None:
        """Note how grpc answers, and when: its callback comes later, as soon as its thread has a turn."""
        self._answer, self._seconds = answer, self.call.seconds

    def _refuse_request(self) -> None:
        self._refuse(PARSE_DETAILS)

    def _refuse(self, details: str, error: BaseException | None = None) -> None:
        if self._alive():
            self._refusal, self._refusal_details, self._error = self.codec_error_code, details, error

    def _is_kept(self, context: Any) -> bool:
        """Whether an interceptor before us has kept this handler from an earlier call, and runs it for another."""
        return self.call.queue_seconds is not None and not is_around(self._context, context)

    def _meet(self, context: Any) -> Any:
        """Learn what only the handler's context shows, which may be anybody's; return the context to hand on."""
        call = self.call
        waited = time.perf_counter() - call.started
        try:
            context.code()
            remaining, peer = finite_deadline(context.time_remaining()), self._peer(context)
        except Exception:  # noqa: BLE001 - as in ask
            context = with_status(context)
            remaining, peer = _seconds_left(context), ask(self, "_peer", context)
        self._context = context
        call.deadline = None if remaining is None else remaining + waited
        call.peer = peer if isinstance(peer, str) else None
        return context

    def _begin(self) -> None:
        """Report that the handler starts, unless it is run again."""
        if not self._running:
            call = self.call
            self._running = True
            call.queue_seconds = time.perf_counter() - call.started
            call.handler_started()

    def _enter(self, context: Any) -> Any:
        """Meet the context, and begin."""
        context = self._meet(context)
        self._begin()
        return context

    def _peer(self, context: Any) -> Any:
        """Return who called."""
        return context.peer()

    def _seconds_left(self) -> float | None:
        """Return how many seconds are left until the caller's deadline, or None without one."""
        if type(self._context) is PastContext:
            return None if self.call.deadline is None else self.call.deadline - self.call.seconds
        return _seconds_left(self._context)

    def __enter__(self) -> None:
        """Start what runs in the handler; __exit__ sees how it ends, in every kind of function."""

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Note how the handler ended."""
        if isinstance(error, GeneratorExit):
            self._leave_deferred()  # it may be closed within a garbage collection
            return
        if error is None:
            self._completed()
        else:
            self._failed(error)
        if not self._watched:
            self._over_with_handler(is_answered=error is None and self._answer is self._returned)
        self._leave()

    def _over_with_handler(self, *, is_answered: bool) -> None:
        """Take the handler's end for the call's, or that of serialising its only response."""
        if is_answered and self._returned is grpc.StatusCode.UNKNOWN:
            self._context = PastContext(self._context)
        else:
            self._end(self._refusal or self._answer)

    def _leave(self) -> None:
        if self._running:
            self._running = False
            self.call.handler_ended()

    def _leave_deferred(self) -> None:
        if self._running:
            self._running = False
            self.call.handler_ended_deferred()

    def _completed(self) -> None:
        if self._alive():
            self._decide(self._returned)

    def _failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def _alive(self) -> bool:
        """Whether a status can still be sent."""
        raise NotImplementedError

    def _end(self, answer: grpc.StatusCode | None) -> None:
        """End the observation, now that grpc has ended the call: with this answer, or cut off where there is none."""
        if answer is None:
            self._cut_off()
            return
        code, details, metadata = status_in(self._context)
        fault = fault_of(details, metadata) if details or metadata else None  # nearly every call has neither
        if fault == "unsendable":
            self._end_unsent()
        elif fault == "refused":
            self._finish(grpc.StatusCode.INTERNAL, REFUSED_DETAILS)
        else:
            code = normalize_code(code, accepts_int_codes=self.accepts_int_codes)
            if code is None or (code is grpc.StatusCode.OK and not self.ok_stands):
                code = answer
            self._finish(code, text(details) or self._refusal_details)

    def _end_unsent(self) -> None:
        """End a call whose status could not be sent, and whose caller is left waiting."""
        raise NotImplementedError

    def _cut_off(self) -> None:
        """End a call that was cut off, about now."""
        self._seconds = None
        code = terminated_status(self.call.deadline, self._seconds_left())
        self._finish(code, CUT_OFF_DETAILS[code])

    def _finish(self, code: grpc.StatusCode, details: str) -> None:
        error, self._error = self._error, None
        # grpc's context holds our deserialiser, and so this object: a cycle, which would keep the call open.
        self._context = _OVER
        end = self.call.end_deferred if self._dropped else self.call.end
        end(code, details, error, self._seconds)

    def _end_unserved(self, *, cut_off: bool) -> None:
        """
        End the observation of a call whose handler never started.

        Where a request was parsed, or requests are a stream, a handler has been called anyway: that of an
        interceptor before us, of whose answer nothing is seen but an only response.
        """
        if self._refusal is not None:
            self._finish(self._refusal, self._refusal_details)
        elif self._answer is not None:
            self._finish(self._answer, "")
        elif not cut_off and self._accepted and (self.call.received or self._handler.request_streaming):
            self._finish(grpc.StatusCode.CANCELLED, _ELSEWHERE_DETAILS)
        elif cut_off or self._accepted:
            code = status_before_handler(self.call.seconds)
            self._finish(code, CUT_OFF_DETAILS[code])
        else:
            self._finish(grpc.StatusCode.RESOURCE_EXHAUSTED, _LIMIT_DETAILS)

    def _was_cut_off(self) -> bool:
        """Whether a call whose handler never started was cut off, as far as anything shows that."""
        return False

    def __del__(self) -> None:
        """Be dropped, perhaps within a garbage collection: at once where the handler never ran."""
        if self._context is _OVER and not self._running:  # of nearly every call
            return
        self._dropped = True
        self._leave_deferred()
        if self._context is None:
            self._end_unserved(cut_off=self._was_cut_off())
        elif self._context is not _OVER:  # nobody has said that it is over
            if type(self._context) is not PastContext:
                self._context = _OVER  # asking anybody else's may do anything
            self._end(self._refusal or self._answer)
