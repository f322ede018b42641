"""A sync channel of our own: it makes a method's callable once, where grpc.intercept_channel does for every call."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self

import grpc

from .future import observe_future
from .responses import observe_responses
from .start import ClientObserving, ObservedCallable, callable_maker
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.observer import Observer
    from .call import ClientCall


def _given(
    timeout: float | None,
    metadata: Any,
    credentials: grpc.CallCredentials | None,
    wait_for_ready: bool | None,  # noqa: FBT001 - in grpc's own order
    compression: grpc.Compression | None,
) -> dict[str, Any]:
    """Return the options that were given, and no others: somebody else's callables may not know all of them."""
    options: dict[str, Any] = {}
    if timeout is not None:
        options["timeout"] = timeout
    if metadata is not None:
        options["metadata"] = metadata
    if credentials is not None:
        options["credentials"] = credentials
    if wait_for_ready is not None:
        options["wait_for_ready"] = wait_for_ready
    if compression is not None:
        options["compression"] = compression
    return options


class _MultiCallable(ObservedCallable):
    """What calls one method of a sync channel."""

    def __init_subclass__(cls) -> None:
        for way in ("__call__", "with_call", "future"):
            if way in vars(cls):
                vars(cls)[way].__qualname__ = f"{cls.__qualname__}.{way}"  # which a TypeError names

    def _make(  # noqa: PLR0913, PLR0917 - what grpc's own take, and how
        self,
        way: str,
        returned: Callable[[Any, ClientCall], Any],
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,  # noqa: FBT001 - as above
        compression: grpc.Compression | None,
    ) -> Any:
        """Make a call in this way, and return what the caller gets."""
        call: ClientCall | None = None
        if self._enabled():
            call, request = self._start(self._descriptor, request, metadata, timeout)
            if call.metadata or metadata is not None:
                metadata = call.metadata
        options = _given(timeout, metadata, credentials, wait_for_ready, compression)
        try:
            result = getattr(self._observed, way)(request, **options)
        except BaseException as error:
            if call is not None:
                call.raised(error, *carried_by(error))
            raise
        return result if call is None else returned(result, call)


def _of_request(way: str, returned: Callable[[Any, ClientCall], Any]) -> Any:
    """Make a way to call with one request: grpc's own of this name, its end seen by what it `returned`."""

    def method(  # noqa: PLR0913, PLR0917 - grpc's own signature
        self: _MultiCallable,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as above
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._make(way, returned, request, timeout, metadata, credentials, wait_for_ready, compression)

    method.__name__ = way
    method.__doc__ = "Make the call."
    return method


def _of_requests(way: str, returned: Callable[[Any, ClientCall], Any]) -> Any:
    """Make such a way with many, which grpc names otherwise."""

    def method(  # noqa: PLR0913, PLR0917 - grpc's own signature
        self: _MultiCallable,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,  # noqa: FBT001 - as above
        compression: grpc.Compression | None = None,
    ) -> Any:
        return self._make(way, returned, request_iterator, timeout, metadata, credentials, wait_for_ready, compression)

    method.__name__ = way
    method.__doc__ = "Make the call."
    return method


def _answered(result: Any, call: ClientCall) -> Any:
    call.answered()
    return result


class _UnaryUnaryMultiCallable(_MultiCallable, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a unary method."""

    __call__ = _of_request("__call__", _answered)
    with_call = _of_request("with_call", _answered)
    future = _of_request("future", observe_future)


class _UnaryStreamMultiCallable(_MultiCallable, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a server-streaming method."""

    __call__ = _of_request("__call__", observe_responses)


class _StreamUnaryMultiCallable(_MultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a client-streaming method."""

    __call__ = _of_requests("__call__", _answered)
    with_call = _of_requests("with_call", _answered)
    future = _of_requests("future", observe_future)


class _StreamStreamMultiCallable(_MultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a bidirectional method."""

    __call__ = _of_requests("__call__", observe_responses)


class ObservedChannel(ClientObserving, grpc.Channel):
    """
    Reports to these observers every call made through it, which this channel makes.

    `target` is the channel's address, which grpc does not show.
    """

    def __init__(self, channel: grpc.Channel, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers, target=target)
        self._observed = channel

    def __getattr__(self, name: str) -> Any:
        return getattr(self._observed, name)

    unary_unary = callable_maker("unary_unary", _UnaryUnaryMultiCallable, "unary")
    unary_stream = callable_maker("unary_stream", _UnaryStreamMultiCallable, "server_stream")
    stream_unary = callable_maker("stream_unary", _StreamUnaryMultiCallable, "client_stream")
    stream_stream = callable_maker("stream_stream", _StreamStreamMultiCallable, "bidi_stream")

    def subscribe(self, callback: Callable[[grpc.ChannelConnectivity], None], try_to_connect: bool = False) -> None:  # noqa: FBT001, FBT002 - grpc's own signature
        """Call this with the channel's states, as they change."""
        self._observed.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Callable[[grpc.ChannelConnectivity], None]) -> None:
        """Call it no more."""
        self._observed.unsubscribe(callback)

    def close(self) -> None:
        """Close the channel, and end its calls."""
        self._observed.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_error: object) -> None:
        """Close it."""
        self._observed.close()
