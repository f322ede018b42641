"""The client's side on asyncio: interceptors for grpc.aio's channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .aio_responses import StreamStreamCall, UnaryStreamCall
from .aio_single_response import InterceptedStreamUnaryCall, UnaryUnaryCall
from .details import aio_details_with, aio_metadata
from .start import AioClientObserving
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from ..calls.method import Type
    from ..calls.observer import Observer
    from .aio_call_proxy import AioCallProxy


class _AioIntercepting(AioClientObserving):
    """What the four asyncio interceptors share: an asyncio channel files each under one base only (grpc#43512)."""

    _type: Type
    _result: type[AioCallProxy]

    async def _call(self, continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any) -> Any:
        if not self._enabled():
            return await continuation(details, request)
        method = self._method(details.method, self._type)
        call, request = self._start(method, request, details.metadata, details.timeout)
        try:
            # Never awaited here: that would swallow the caller's cancellation (otel-contrib#3271).
            result = await continuation(aio_details_with(details, aio_metadata(call, details.metadata)), request)
        except GeneratorExit:  # nobody waits for it any more, which a garbage collection may have found
            call.dropped_deferred()
            raise
        except BaseException as error:
            call.raised(error, *carried_by(error))
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
