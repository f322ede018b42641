"""Handlers of every arity that come to the end that a test asks for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc


class Response:
    """A response that is no bytes, as a message is none: some take bytes for a stream."""

    def __bytes__(self) -> bytes:
        return b"done"


METADATA = (("key", "one"), ("key", "two"))
"""What they send as initial and as trailing metadata."""


def behaviors(
    ending: str, leave: threading.Event | None = None, begun: threading.Event | None = None
) -> dict[str, Any]:
    """
    Return a handler of each arity that comes to this end: OK, NOT_FOUND, UNKNOWN or cancelled.

    They read all requests, send metadata, and tell when they have begun. Streams send a first response before; where
    the client is to cancel, they wait until told to leave.
    """

    def begin(request: Any, context: grpc.ServicerContext) -> None:
        _ = request if isinstance(request, bytes) else list(request)
        context.send_initial_metadata(METADATA)
        context.set_trailing_metadata(METADATA)
        if begun:
            begun.set()

    def end(context: grpc.ServicerContext) -> Response:
        if ending == "NOT_FOUND":
            context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        if ending == "UNKNOWN":
            raise ValueError("no bread")
        if ending == "cancelled" and leave:
            leave.wait(10)
        return Response()

    def once(request: Any, context: grpc.ServicerContext) -> Response:
        begin(request, context)
        return end(context)

    def stream(request: Any, context: grpc.ServicerContext) -> Iterator[bytes | Response]:
        begin(request, context)
        yield b"first"
        yield end(context)

    return {"unary": once, "client_stream": once, "server_stream": stream, "bidi_stream": stream}


def reporter(over: threading.Event, served: dict[str, Any]) -> dict[str, Any]:
    """Return these handlers, which tell when their call is over."""

    def noting(behavior: Any) -> Any:
        def noted(request: Any, context: grpc.ServicerContext) -> Any:
            context.add_callback(over.set)
            return behavior(request, context)

        return noted

    return {arity: noting(behavior) for arity, behavior in served.items()}


def aio_behaviors(ending: str, begun: asyncio.Event | None = None) -> dict[str, Any]:
    """Do the same for asyncio; tells when they have begun."""

    async def begin(request: Any, context: Any) -> None:
        # All of it: grpc.aio may call the end of a call that is still being written INTERNAL.
        _ = request if isinstance(request, bytes) else [message async for message in request]
        await context.send_initial_metadata(METADATA)
        context.set_trailing_metadata(METADATA)
        if begun:
            begun.set()

    async def end(context: Any) -> Response:
        if ending == "NOT_FOUND":
            await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        if ending == "UNKNOWN":
            raise ValueError("no bread")
        if ending == "cancelled":
            await asyncio.sleep(10)
        return Response()

    async def once(request: Any, context: Any) -> Response:
        await begin(request, context)
        return await end(context)

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes | Response]:
        await begin(request, context)
        yield b"first"
        yield await end(context)

    return {"unary": once, "client_stream": once, "server_stream": stream, "bidi_stream": stream}
