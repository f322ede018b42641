"""Other libraries' asyncio interceptors: one function for all arities, for each of which grpc wants its own class."""

from collections.abc import Awaitable, Callable
from typing import Any, Final, TypeAlias

import grpc.aio

Act: TypeAlias = Callable[[Any, Any, Any], Awaitable[Any]]
"""What an interceptor does with the continuation, the call's details and its request, or requests."""


class _Acting:
    def __init__(self, act: Act) -> None:
        self.act = act


class _UnaryUnary(_Acting, grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self.act(continuation, client_call_details, request)


class _UnaryStream(_Acting, grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return await self.act(continuation, client_call_details, request)


class _StreamUnary(_Acting, grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self.act(continuation, client_call_details, request_iterator)


class _StreamStream(_Acting, grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return await self.act(continuation, client_call_details, request_iterator)


_KINDS: Final[dict[str, type[_Acting]]] = {
    "unary": _UnaryUnary,
    "client_stream": _StreamUnary,
    "server_stream": _UnaryStream,
    "bidi_stream": _StreamStream,
}


def aio_interceptor(arity: str, act: Act) -> Any:
    """Return an interceptor of calls of this arity."""
    return _KINDS[arity](act)


async def _go_on(continuation: Any, details: Any, request: Any) -> Any:
    return await continuation(details, request)


THROUGH: Final = [aio_interceptor(arity, _go_on) for arity in _KINDS]
"""They change nothing: what grpc.aio returns through them is what it returns through any interceptor."""
