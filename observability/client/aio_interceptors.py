"""The client's side on asyncio: interceptors for grpc.aio's channels."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import AsyncIterable, AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from ..calls.method import REQUEST_STREAMS
from .aio import InterceptedStreamUnaryCall, StreamStreamCall, UnaryStreamCall, UnaryUnaryCall
from .call import DROPPED_DETAILS, end_raised
from .interceptors import Observing, count_sent

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..calls.method import Method, Type
    from ..calls.observation import Observation
    from ..calls.observer import Observer
    from .aio import AioCallProxy


class AioObserving(Observing):
    """What the asyncio interceptors and the asyncio channel share."""

    def _start(self, method: Method, request: Any, metadata: Any, timeout: float | None) -> tuple[Observation, Any]:
        """Begin a call; return it, and its request, or its requests, which are counted as they are taken."""
        try:
            pairs = list(metadata or ())
        except Exception:  # noqa: BLE001 - grpc says what is wrong with it
            pairs = []
        call = self._begin(method, pairs, timeout)
        if method.type in REQUEST_STREAMS:
            return call, _counted(call, request)
        call.sent = 1
        return call, request


def sendable(call: Observation, given: Any) -> Any:
    """Return a call's metadata as grpc takes it; what was `given`, where grpc is to say what is wrong with it."""
    if type(given) in (tuple, list):
        return type(given)(call.metadata)
    if given is None or isinstance(given, Iterable):
        with contextlib.suppress(TypeError, ValueError):
            return grpc.aio.Metadata(*call.metadata)
    return given


def _details_with(details: Any, metadata: Any) -> Any:
    """Return the same details with this metadata: of the same type, with all that somebody has added to them."""
    if type(details) is not grpc.aio.ClientCallDetails or vars(details):
        try:
            changed = _changed(details, metadata)
            if changed.metadata is metadata:
                return changed
        except Exception:  # noqa: BLE001, S110 - what cannot be changed is made anew
            pass
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


def _changed(details: Any, metadata: Any) -> Any:
    if isinstance(details, tuple):
        changed = details._replace(metadata=metadata)  # type: ignore[attr-defined]  # a named one, as grpc's own is
        vars(changed).update(vars(details))
        return changed
    changed = copy.copy(details)
    if changed is not details:
        object.__setattr__(changed, "metadata", metadata)  # it may be frozen
    return changed


def _counted(call: Observation, requests: Any) -> Any:
    """Return these requests, counted as sent; they can be iterated as often as before."""
    if isinstance(requests, AsyncIterator):
        return _aio_counted(call, requests)
    if isinstance(requests, AsyncIterable):
        return _AioRequests(call, requests)
    if isinstance(requests, Iterable):
        return count_sent(call, requests)
    return requests  # None is written by hand; grpc says what is wrong with others


async def _aio_counted(call: Observation, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        call.sent += 1
        yield request


class _AioRequests:
    """Requests that can be iterated again; what is not about iterating is as their owner made it."""

    def __init__(self, call: Observation, requests: Any) -> None:
        self._call = call
        self._requests = requests

    def __getattr__(self, name: str) -> Any:
        return getattr(self._requests, name)

    def __aiter__(self) -> AsyncIterator[Any]:
        return _aio_counted(self._call, self._requests)


class _AioIntercepting(AioObserving):
    """What the four asyncio interceptors share: an asyncio channel files each under one base only (grpc#43512)."""

    _type: Type
    _result: type[AioCallProxy]

    async def _call(self, continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any) -> Any:
        if not self._enabled():
            return await continuation(details, request)
        method = self._known(details.method, self._type)
        call, request = self._start(method, request, details.metadata, details.timeout)
        try:
            # Never awaited here: that would swallow the caller's cancellation (otel-contrib#3271).
            result = await continuation(_details_with(details, sendable(call, details.metadata)), request)
        except GeneratorExit:  # nobody waits for it any more, which a garbage collection may have found
            call.end_deferred(grpc.StatusCode.CANCELLED, DROPPED_DETAILS)
            raise
        except BaseException as error:
            end_raised(call, error)
            raise
        return self._result.of(result, call)


class _AioUnaryUnary(_AioIntercepting, grpc.aio.UnaryUnaryClientInterceptor):
    _type = "unary"
    _result = UnaryUnaryCall

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _AioUnaryStream(_AioIntercepting, grpc.aio.UnaryStreamClientInterceptor):
    _type = "server_stream"
    _result = UnaryStreamCall

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _AioStreamUnary(_AioIntercepting, grpc.aio.StreamUnaryClientInterceptor):
    _type = "client_stream"
    _result = InterceptedStreamUnaryCall

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _AioStreamStream(_AioIntercepting, grpc.aio.StreamStreamClientInterceptor):
    _type = "bidi_stream"
    _result = StreamStreamCall

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


def aio_client_interceptors(*observers: Observer, target: str | None = None) -> list[grpc.aio.ClientInterceptor]:
    """
    Return interceptors for grpc.aio channels that report every call made through them to these observers.

    `target` is the channel's address, which grpc does not show to interceptors. With any interceptor of grpc.aio, calls
    have no time_remaining(), and one that is cancelled at once is never made, nor seen: an observed channel has both.
    """
    kinds = (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)
    return [kind(*observers, target=target) for kind in kinds]
