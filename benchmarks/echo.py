"""
The service that every variant serves, and the calls that every client makes.

By its own handlers, not by the committed stubs: those demand a newer grpcio than grpcio-observability works with.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from protos import echo_pb2

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from .variants import Style

SERVICE: Final = "echo.v1.EchoService"
ECHO: Final = f"/{SERVICE}/Echo"
REPEAT: Final = f"/{SERVICE}/EchoRepeat"
MANY: Final = "benchmark.v1.Many"
"""A service with as many methods as it takes, each an Echo."""


def _echo(request: echo_pb2.EchoRequest, _context: grpc.ServicerContext) -> echo_pb2.EchoResponse:
    return echo_pb2.EchoResponse(echo=request.msg)


def _repeat(request: echo_pb2.EchoRepeatRequest, _context: grpc.ServicerContext) -> Iterator[echo_pb2.EchoResponse]:
    for _ in range(request.times):
        yield echo_pb2.EchoResponse(echo=request.msg)


async def _aio_echo(request: echo_pb2.EchoRequest, _context: Any) -> echo_pb2.EchoResponse:
    return echo_pb2.EchoResponse(echo=request.msg)


async def _aio_repeat(request: echo_pb2.EchoRepeatRequest, _context: Any) -> AsyncIterator[echo_pb2.EchoResponse]:
    for _ in range(request.times):
        yield echo_pb2.EchoResponse(echo=request.msg)


def method_path(number: int) -> str:
    """Return the path of one of the many methods."""
    return f"/{MANY}/Echo{number}"


def handlers(style: Style, methods: int = 0) -> tuple[grpc.GenericRpcHandler, ...]:
    """Build the service's handlers, and those of `methods` more."""
    unary = grpc.unary_unary_rpc_method_handler(
        _echo if style == "sync" else _aio_echo,
        request_deserializer=echo_pb2.EchoRequest.FromString,
        response_serializer=echo_pb2.EchoResponse.SerializeToString,
    )
    stream = grpc.unary_stream_rpc_method_handler(
        _repeat if style == "sync" else _aio_repeat,
        request_deserializer=echo_pb2.EchoRepeatRequest.FromString,
        response_serializer=echo_pb2.EchoResponse.SerializeToString,
    )
    many = {f"Echo{number}": unary for number in range(methods)}
    return (
        grpc.method_handlers_generic_handler(SERVICE, {"Echo": unary, "EchoRepeat": stream}),
        grpc.method_handlers_generic_handler(MANY, many),
    )


def echo_of(channel: Any) -> Any:
    """Make Echo callable on a channel, sync or asyncio."""
    return channel.unary_unary(
        ECHO,
        request_serializer=echo_pb2.EchoRequest.SerializeToString,
        response_deserializer=echo_pb2.EchoResponse.FromString,
    )


def repeat_of(channel: Any) -> Any:
    """Make EchoRepeat callable on a channel, sync or asyncio."""
    return channel.unary_stream(
        REPEAT,
        request_serializer=echo_pb2.EchoRepeatRequest.SerializeToString,
        response_deserializer=echo_pb2.EchoResponse.FromString,
    )
