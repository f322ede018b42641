"""One call on the server: the handler that grpc runs for it, and how it comes to an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import grpc

from .call import CUT_OFF_DETAILS, Observation, cut_off_code, deadline_of, status_code, unserved_code
from .handlers import WrappedHandler

if TYPE_CHECKING:
    from types import TracebackType

_ELSEWHERE_DETAILS: Final = "Ended before its handler started, by another interceptor"
_LIMIT_DETAILS: Final = "Concurrent RPC limit exceeded!"
PARSE_DETAILS: Final = "Exception deserializing request!"
_SERIALIZE_DETAILS: Final = "Failed to serialize response!"


class _OverContext:
    """Stands for grpc's context once a call is over, for a handler that outlives it."""

    def code(self) -> None:
        """Tell that no code can be chosen any more."""

    def is_active(self) -> bool:
        """Tell that nobody waits."""
        return False

    def done(self) -> bool:
        """Tell that it is over."""
        return True

    def time_remaining(self) -> float:
        """Tell that no time is left."""
        return 0.0


_OVER: Final = _OverContext()


class ServedCall(WrappedHandler):
    """
    One call on the server: the handler that grpc runs, and what it learns of the call's end while it does.

    `_answer` is the status that grpc sends by itself for how the handler ended, None until it has ended; `_returned`
    is the one for a handler that returns, UNKNOWN as long as an only response is not serialised: an interceptor
    before us may fail in between. `_refusal` is grpc's own status for a message that cannot be parsed or serialised.
    """

    __slots__ = (
        "_accepted",
        "_answer",
        "_behavior",
        "_context",
        "_deserializer",
        "_error",
        "_refusal",
        "_refusal_details",
        "_remaining",
        "_returned",
        "_running",
        "_seconds",
        "_serializer",
        "call",
    )

    message_failure: grpc.StatusCode
    """What grpc answers when a message cannot be parsed or serialised."""
    none_fails: bool
    """Whether grpc takes None for such a failure, from a function that parses or serialises."""
    numbers: bool
    """Whether grpc takes a number for a status code."""

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
        self._remaining: float | None = None
        self._running = False
        self._seconds: float | None = None

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # as in WrappedHandler
        """Whether requests are a stream; the first thing that grpc asks of a call that it does not refuse."""
        self._accepted = True
        streaming: bool = self._handler.request_streaming
        return streaming

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # as in WrappedHandler
        """Whether responses are a stream."""
        self._accepted = True
        streaming: bool = self._handler.response_streaming
        return streaming

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as in WrappedHandler
        """From bytes to a request, counted."""
        self._deserializer = self._handler.request_deserializer
        return self._deserialize

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as in WrappedHandler
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
        if request is None and self.none_fails:
            self._refuse_request()
        else:
            self.call.received += 1
        return request

    def _serialize(self, response: Any) -> Any:
        try:
            data = self._serializer(response) if self._serializer else response
        except BaseException as error:
            self._refuse(_SERIALIZE_DETAILS, error)
            raise
        if data is None and self.none_fails:
            self._refuse(_SERIALIZE_DETAILS)
        else:
            self.call.sent += 1
        return data

    def _serialize_only(self, response: Any) -> Any:
        """Serialise a call's only response, with which it ends."""
        data = self._serialize(response)
        if self._refusal is None and (self._answer is not None or self._alive()):
            # Even where the handler raised: an interceptor before us has turned that into a response.
            self._error = None
            self._decide(grpc.StatusCode.OK)
        return data

    def _decide(self, answer: grpc.StatusCode) -> None:
        """Note how grpc answers, and when: its callback comes later, as soon as its thread has a turn."""
        self._answer, self._seconds = answer, self.call.seconds

    def _refuse_request(self) -> None:
        self._refuse(PARSE_DETAILS)

    def _refuse(self, details: str, error: BaseException | None = None) -> None:
        if self._alive():
            self._refusal, self._refusal_details, self._error = self.message_failure, details, error

    def _enter(self, context: Any) -> None:
        """Learn what only the handler's context tells, and tell that the handler starts."""
        call = self.call
        self._context = context
        call.queue_seconds = waited = time.perf_counter() - call.started
        if (remaining := deadline_of(context.time_remaining())) is not None:
            call.deadline = remaining + waited
        call.peer = self._peer(context)
        self._running = True
        call.entered()

    def _peer(self, context: Any) -> str | None:
        """Tell who called."""
        peer: str = context.peer()
        return peer

    def _leave(self) -> None:
        if self._running:
            self._running = False
            self.call.left()

    def __enter__(self) -> None:
        """Start what runs in the handler; __exit__ sees how it ends, in every kind of function."""

    def __exit__(
        self, _type: type[BaseException] | None, error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        """Note how the handler ended."""
        if error is None:
            self._completed()
        elif not isinstance(error, GeneratorExit):
            self._failed(error)
        self._leave()

    def _completed(self) -> None:
        if self._alive():
            self._decide(self._returned)

    def _failed(self, error: BaseException) -> None:
        raise NotImplementedError

    def _alive(self) -> bool:
        """Whether a status can still be sent."""
        raise NotImplementedError

    def _end(self, answer: grpc.StatusCode | None, remaining: float | None) -> None:
        """End the observation, now that grpc has ended the call; an unparsable request has ended it before."""
        context = self._context
        if context is _OVER:
            return
        if answer is None:
            code = cut_off_code(self.call.deadline, remaining)
            details = CUT_OFF_DETAILS[code]
        else:
            code = status_code(context.code(), numbers=self.numbers) or answer
            details = _text(context.details()) or self._refusal_details
        error, self._error = self._error, None
        # grpc's context holds our deserialiser, and so this object: a cycle, which would keep the call open.
        self._context = _OVER
        self.call.end(code, details, error, None if answer is None else self._seconds)

    def _end_unserved(self, *, cut_off: bool) -> None:
        """
        End the observation of a call whose handler never started.

        Where a request was parsed, or requests are a stream, a handler has been called all the same: that of an
        interceptor before us, of whose answer nothing is seen but an only response.
        """
        if self._refusal is not None:
            self.call.end(self._refusal, self._refusal_details)
        elif self._answer is not None:
            self.call.end(self._answer, seconds=self._seconds)
        elif not cut_off and self._accepted and (self.call.received or self._handler.request_streaming):
            self.call.end(grpc.StatusCode.CANCELLED, _ELSEWHERE_DETAILS)
        elif cut_off or self._accepted:
            code = unserved_code(self.call.seconds)
            self.call.end(code, CUT_OFF_DETAILS[code])
        else:
            self.call.end(grpc.StatusCode.RESOURCE_EXHAUSTED, _LIMIT_DETAILS)


def _text(details: bytes | str | None) -> str:
    """Read a status message, which a sync server keeps as bytes."""
    return details.decode("utf-8", "replace") if isinstance(details, bytes) else details or ""
