"""The client's side on asyncio: interceptors for grpc.aio's channels."""

from __future__ import annotations

from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from .client import Observing, counted
from .method import REQUEST_STREAMS
from .results import end_raised
from .results_aio import AioStreamStream, AioStreamUnary, AioUnaryStream, follow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from .call import Observation, Observer
    from .method import Type


def _aio_details_with(details: Any, metadata: grpc.aio.Metadata) -> grpc.aio.ClientCallDetails:
    # grpc's own type, by which an interceptor after us may tell what it has: the official filters do.
    return grpc.aio.ClientCallDetails(
        details.method, details.timeout, metadata, details.credentials, details.wait_for_ready
    )


async def _aio_counted(call: Observation, requests: AsyncIterable[Any]) -> AsyncIterator[Any]:
    async for request in requests:
        call.sent += 1
        yield request


class _AioObserving(Observing):
    """What the four asyncio interceptors share: an asyncio channel files each under one base only (grpc#43512)."""

    _type: Type
    _result: Callable[[Any, Observation], Any]

    async def _call(self, continuation: Callable[[Any, Any], Awaitable[Any]], details: Any, request: Any) -> Any:
        if not self._enabled():
            return await continuation(details, request)
        call = self._begin(self._known(details.method, self._type), details.metadata, details.timeout)
        if self._type in REQUEST_STREAMS:
            count: Any = _aio_counted if isinstance(request, AsyncIterable) else counted
            request = count(call, request)
        else:
            call.sent = 1
        try:
            # Never awaited here: that would swallow the caller's cancellation (otel-contrib#3271).
            result = await continuation(_aio_details_with(details, grpc.aio.Metadata(*call.metadata)), request)
        except BaseException as error:
            end_raised(call, error)
            raise
        return self._result(result, call)


class _AioUnaryUnary(_AioObserving, grpc.aio.UnaryUnaryClientInterceptor):
    _type = "unary"
    _result = staticmethod(follow)

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _AioUnaryStream(_AioObserving, grpc.aio.UnaryStreamClientInterceptor):
    _type = "server_stream"
    _result = AioUnaryStream

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self._call(continuation, client_call_details, request)


class _AioStreamUnary(_AioObserving, grpc.aio.StreamUnaryClientInterceptor):
    _type = "client_stream"
    _result = AioStreamUnary

    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


class _AioStreamStream(_AioObserving, grpc.aio.StreamStreamClientInterceptor):
    _type = "bidi_stream"
    _result = AioStreamStream

    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self._call(continuation, client_call_details, request_iterator)


def aio_client_interceptors(*observers: Observer, target: str | None = None) -> list[grpc.aio.ClientInterceptor]:
    """
    Tell these observers of every call made through a channel of grpc.aio with these interceptors.

    `target` is the channel's address, which grpc does not tell interceptors.
    """
    kinds = (_AioUnaryUnary, _AioUnaryStream, _AioStreamUnary, _AioStreamStream)
    return [kind(*observers, target=target) for kind in kinds]
