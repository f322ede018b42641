"""A sync channel of our own: it makes a method's callable once, where grpc.intercept_channel does for every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc

from .client import Observing, counted
from .handlers import each
from .method import REQUEST_STREAMS
from .results import end_raised
from .results_sync import Responses, future_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from .call import Observation, Observer
    from .method import Method, Type


class _MultiCallable:
    """What calls one method, around grpc's own callable."""

    def __init__(
        self, inner: Any, method: Method, type_: Type, enabled: Callable[[], bool], begin: Callable[..., Observation]
    ) -> None:
        self._inner = inner
        self._method = method
        self._streaming = type_ in REQUEST_STREAMS
        self._enabled = enabled
        self._begin = begin


def _calls(name: str, returns: Callable[[Any, Observation], Any]) -> Any:
    """Make a way to call: grpc's own of this name, which ends, or whose end is seen, by what it `returns`."""

    def method(  # noqa: PLR0913, PLR0917 - grpc's own signatures, of which a stream's names its first argument otherwise
        self: _MultiCallable,
        request: Any = None,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as above
        compression: grpc.Compression | None = None,
        *,
        request_iterator: Any = None,
    ) -> Any:
        call: Observation | None = None
        if request_iterator is not None:
            request = request_iterator
        if self._enabled():
            call = self._begin(self._method, metadata, timeout)
            metadata = call.metadata
            if self._streaming:
                request = counted(call, each(request))
            else:
                call.sent = 1
        try:
            result = getattr(self._inner, name)(
                request,
                timeout=timeout,
                metadata=metadata,
                credentials=credentials,
                wait_for_ready=wait_for_ready,
                compression=compression,
            )
        except BaseException as error:
            if call is not None:
                end_raised(call, error)
            raise
        return result if call is None else returns(result, call)

    method.__name__ = name
    method.__doc__ = "Make the call."
    return method


def _answered(result: Any, call: Observation) -> Any:
    call.received = 1
    call.end(grpc.StatusCode.OK)
    return result


class _Single(_MultiCallable, grpc.UnaryUnaryMultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a method with a single response."""

    __call__ = _calls("__call__", _answered)
    with_call = _calls("with_call", _answered)
    future = _calls("future", future_of)


class _Stream(_MultiCallable, grpc.UnaryStreamMultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a method with a stream of responses."""

    __call__ = _calls("__call__", Responses)


def _makes(name: str, class_: type[_MultiCallable], type_: Type) -> Any:
    """Make what makes the callables of one arity."""

    def method(
        self: ObservedChannel,
        method: str | bytes,
        request_serializer: Any = None,
        response_deserializer: Any = None,
        _registered_method: bool | None = False,  # noqa: FBT001, FBT002 - grpc's own signature
    ) -> Any:
        registered = (True,) if _registered_method else ()  # which other people's channels may not know
        inner = getattr(self._channel, name)(method, request_serializer, response_deserializer, *registered)
        return class_(inner, self._known(method, type_), type_, self._enabled, self._begin)

    method.__name__ = name
    method.__doc__ = f"Return the callable of a {name} method."
    return method


class ObservedChannel(Observing, grpc.Channel):
    """
    Tells these observers of every call made through it, which this channel makes.

    `target` is the channel's address, which grpc does not tell.
    """

    def __init__(self, channel: grpc.Channel, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers, target=target)
        self._channel = channel

    unary_unary = _makes("unary_unary", _Single, "unary")
    unary_stream = _makes("unary_stream", _Stream, "server_stream")
    stream_unary = _makes("stream_unary", _Single, "client_stream")
    stream_stream = _makes("stream_stream", _Stream, "bidi_stream")

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 - grpc's own signature
        """Tell this of the channel's states."""
        self._channel.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Tell it no more."""
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel, and end its calls."""
        self._channel.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self._channel.close()
