"""A service on real sockets: its messages are bytes, its handlers whatever a test needs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio

from tests.support.recorder import PATIENCE

SERVICE = "test.v1.Words"
ARITIES = ("unary", "client_stream", "server_stream", "bidi_stream")
STREAMS = ("server_stream", "bidi_stream")
"""The arities with many responses."""
NAMES = {
    "unary": "Unary",
    "client_stream": "ClientStream",
    "server_stream": "ServerStream",
    "bidi_stream": "BidiStream",
}
OLD_AIO = tuple(map(int, grpc.__version__.split(".")[:2])) < (1, 85)
"""Whether grpc.aio's channel does not know its calls, and so ends no stream when it is closed."""
LOCAL = "127.0.0.1:0"

HANDLERS: dict[str, Callable[..., Any]] = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "client_stream": grpc.stream_unary_rpc_method_handler,
    "server_stream": grpc.unary_stream_rpc_method_handler,
    "bidi_stream": grpc.stream_stream_rpc_method_handler,
}
_CALLABLES = {
    "unary": "unary_unary",
    "client_stream": "stream_unary",
    "server_stream": "unary_stream",
    "bidi_stream": "stream_stream",
}


def echo(request: Any, _context: grpc.ServicerContext) -> Any:
    """Answer with the request, or with each of the requests."""
    return request


def as_asked(request: bytes, context: grpc.ServicerContext) -> bytes:
    """End with the code that the request names; a request that names none makes this raise."""
    code = grpc.StatusCode[request.decode()]
    if code is not grpc.StatusCode.OK:
        context.abort(code, "as asked")
    return request


ECHOES: dict[str, Any] = {
    "unary": echo,
    "client_stream": lambda requests, _context: b" ".join(requests),
    "server_stream": lambda request, _context: iter([request] * 2),
    "bidi_stream": echo,
}
"""A behaviour for each arity; on an asyncio server they are blocking handlers."""


async def _aio_unary(request: bytes, _context: Any) -> bytes:
    return request


async def _aio_client_stream(requests: AsyncIterator[bytes], _context: Any) -> bytes:
    return b" ".join([request async for request in requests])


async def _aio_server_stream(request: bytes, _context: Any) -> AsyncIterator[bytes]:
    for _ in range(2):
        yield request


async def _aio_bidi_stream(requests: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
    async for request in requests:
        yield request


AIO_ECHOES: dict[str, Any] = {
    "unary": _aio_unary,
    "client_stream": _aio_client_stream,
    "server_stream": _aio_server_stream,
    "bidi_stream": _aio_bidi_stream,
}
"""The same for asyncio."""
RESPONSES = {
    "unary": [b"a"],
    "client_stream": [b"a b c"],
    "server_stream": [b"a", b"a"],
    "bidi_stream": [b"a", b"b", b"c"],
}
"""What they answer to `requests`."""


class CatchAll(grpc.GenericRpcHandler):
    """Serves a unary method under any name."""

    def __init__(self, behavior: Any) -> None:
        self._handler: Any = grpc.unary_unary_rpc_method_handler(behavior)

    def service(self, _handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the one handler."""
        return self._handler


def service(name: str = SERVICE, /, **behaviors: Any) -> grpc.GenericRpcHandler:
    """Return a service with one method per arity that has a behaviour here, such as unary=."""
    methods = {
        NAMES[arity]: HANDLERS[arity](behavior, response_serializer=bytes) for arity, behavior in behaviors.items()
    }
    return grpc.method_handlers_generic_handler(name, methods)


@contextlib.contextmanager
def serving(  # noqa: PLR0913 - each by name
    *interceptors: grpc.ServerInterceptor,
    address: str = LOCAL,
    workers: int = 4,
    pool: ThreadPoolExecutor | None = None,
    handlers: Sequence[Any] = (),
    limit: int | None = None,
    options: Sequence[tuple[str, int]] = (),
    credentials: grpc.ServerCredentials | None = None,
    **behaviors: Any,
) -> Iterator[str]:
    """Serve these behaviours behind these interceptors; gives the address, with the port that it got."""
    with pool or ThreadPoolExecutor(workers) as threads:
        server = grpc.server(
            threads, [service(**behaviors), *handlers], list(interceptors), options, maximum_concurrent_rpcs=limit
        )
        port = server.add_secure_port(address, credentials) if credentials else server.add_insecure_port(address)
        address = address.removesuffix(":0") + f":{port}" * address.endswith(":0")
        server.start()
        try:
            yield address
        finally:
            assert server.stop(None).wait(PATIENCE), "grpc.server keeps a call"


@contextlib.contextmanager
def connected(*interceptors: Any, client: Sequence[Any] = (), **options: Any) -> Iterator[grpc.Channel]:
    """Serve as `serving` does; gives a channel behind these interceptors of a client."""
    with serving(*interceptors, **options) as address, grpc.insecure_channel(address) as channel:
        yield grpc.intercept_channel(channel, *client)


@contextlib.asynccontextmanager
async def aio_connected(
    *interceptors: Any, client: Sequence[Any] = (), **behaviors: Any
) -> AsyncIterator[grpc.aio.Channel]:
    """Do the same on asyncio."""
    async with (
        aio_serving(*interceptors, **behaviors) as address,
        grpc.aio.insecure_channel(address, interceptors=list(client)) as channel,
    ):
        yield channel


@contextlib.asynccontextmanager
async def aio_serving(
    *interceptors: Any,
    handlers: Sequence[Any] = (),
    limit: int | None = None,
    options: Sequence[tuple[str, int]] = (),
    credentials: grpc.ServerCredentials | None = None,
    **behaviors: Any,
) -> AsyncIterator[str]:
    """Do the same on asyncio."""
    with ThreadPoolExecutor(4) as pool:  # for blocking handlers
        server = grpc.aio.server(
            pool, [service(**behaviors), *handlers], list(interceptors), options, maximum_concurrent_rpcs=limit
        )
        port = server.add_secure_port(LOCAL, credentials) if credentials else server.add_insecure_port(LOCAL)
        address = f"127.0.0.1:{port}"
        await server.start()
        try:
            yield address
        finally:
            await server.stop(None)


def method(channel: Any, arity: str, name: str | None = None) -> Any:
    """Return the callable of the service's method of this arity, on a channel of either kind."""
    path = name or f"/{SERVICE}/{NAMES[arity]}"
    return getattr(channel, _CALLABLES[arity])(path)


def requests(arity: str) -> Any:
    """Return a request for a method of this arity, three where it takes a stream."""
    return iter([b"a", b"b", b"c"]) if arity in ("client_stream", "bidi_stream") else b"a"


def talk(
    stack: str, arity: str, *, server: Sequence[Any] = (), client: Sequence[Any] = (), behavior: Any = None
) -> list[bytes]:
    """Make one call on this stack, behind these interceptors on each side; return its responses."""
    if stack == "sync":
        return _talk(arity, server, client, behavior or ECHOES[arity])
    return asyncio.run(_aio_talk(arity, server, client, behavior or AIO_ECHOES[arity]))


def _talk(arity: str, server: Sequence[Any], client: Sequence[Any], behavior: Any) -> list[bytes]:
    with connected(*server, client=client, **{arity: behavior}) as channel:
        answer = method(channel, arity)(requests(arity), timeout=10)
        return [answer] if arity not in STREAMS else list(answer)


async def _aio_talk(arity: str, server: Sequence[Any], client: Sequence[Any], behavior: Any) -> list[bytes]:
    async with aio_connected(*server, client=client, **{arity: behavior}) as channel:
        call = method(channel, arity)(requests(arity), timeout=10)
        return [await call] if arity not in STREAMS else [response async for response in call]
