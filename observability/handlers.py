"""What grpc runs for a call: method handlers, the contexts that they are given, and how they end a call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import grpc
import grpc.aio

if TYPE_CHECKING:
    from collections.abc import Iterator


class WrappedHandler(grpc.RpcMethodHandler):  # type: ignore[type-arg]  # generic in the stubs alone
    """
    A method handler that stands before another one and reads from it only what grpc reads, when grpc reads it.

    grpc looks at nothing of a handler whose call it refuses (maximum_concurrent_rpcs), which is how that is seen.
    """

    __slots__ = ("_handler",)

    def __init__(self, handler: grpc.RpcMethodHandler[Any, Any]) -> None:
        self._handler: Any = handler

    def _wrapped(self, behavior: Any) -> Any:
        """Return what grpc shall call instead of this behaviour; never called with None."""
        raise NotImplementedError

    @property
    def request_streaming(self) -> bool:  # type: ignore[override]  # read-only here, and nobody sets it
        """Whether requests are a stream."""
        return cast("bool", self._handler.request_streaming)

    @property
    def response_streaming(self) -> bool:  # type: ignore[override]  # read-only here, and nobody sets it
        """Whether responses are a stream."""
        return cast("bool", self._handler.response_streaming)

    @property
    def request_deserializer(self) -> Any:  # type: ignore[override]  # as above
        """From bytes to a request."""
        return self._handler.request_deserializer

    @property
    def response_serializer(self) -> Any:  # type: ignore[override]  # as above
        """From a response to bytes."""
        return self._handler.response_serializer

    @property
    def unary_unary(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a unary method, or None."""
        return self._handler.unary_unary and self._wrapped(self._handler.unary_unary)

    @property
    def unary_stream(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a server-streaming method, or None."""
        return self._handler.unary_stream and self._wrapped(self._handler.unary_stream)

    @property
    def stream_unary(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a client-streaming method, or None."""
        return self._handler.stream_unary and self._wrapped(self._handler.stream_unary)

    @property
    def stream_stream(self) -> Any:  # type: ignore[override]  # as above
        """The behaviour of a bidirectional method, or None."""
        return self._handler.stream_stream and self._wrapped(self._handler.stream_stream)


class PlainContext:
    """
    The context of a plain handler on an asyncio server, which remembers the status that the handler sets.

    grpc's own has neither code() nor details(). One serves all interceptors of a call, so that each knows what another
    has set.
    """

    __slots__ = ("_code", "_context", "_details")

    @classmethod
    def of(cls, context: Any) -> PlainContext:
        """Return such a context: this one, if it is one, else one around it."""
        return context if isinstance(context, cls) else cls(context)

    def __init__(self, context: Any) -> None:
        self._context = context
        self._code: Any = None
        self._details = ""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._context, name)

    def code(self) -> Any:
        """Return the status code that the handler set, or None."""
        return self._code

    def details(self) -> str:
        """Return the status message that the handler set."""
        return self._details

    def set_code(self, code: Any) -> None:
        """Set the status code."""
        self._code = code
        self._context.set_code(code)

    def set_details(self, details: str) -> None:
        """Set the status message."""
        self._details = details
        self._context.set_details(details)

    def abort(self, code: Any, details: str = "", trailing_metadata: Any = ()) -> None:
        """End the call with this status; always raises."""
        self._code, self._details = code, details
        self._context.abort(code, details, trailing_metadata)


def is_abort(error: BaseException, context: Any) -> bool:
    """Tell what context.abort raises from an uncaught exception: a bare Exception on a sync server."""
    if isinstance(error, grpc.aio.AbortError):
        return True
    return type(error) is Exception and not error.args and context.code() is not None


def each(responses: Iterator[Any]) -> Iterator[Any]:
    """Yield what grpc would get from these responses: it calls next alone, so no __iter__ is asked for."""
    while True:
        try:
            response = next(responses)
        except StopIteration:
            return
        yield response
