"""Handlers of every arity that end with the status that a test asks for."""

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
"""What the handlers send as initial and as trailing metadata."""


def behaviors(
    status: str, leave: threading.Event | None = None, begun: threading.Event | None = None
) -> dict[str, Any]:
    """
    Return a handler of each arity that ends with this status: OK, NOT_FOUND or UNKNOWN, or waits to be `cancelled`.

    They read all requests, send metadata, and set `begun`. Streams then send a first response. Where the client is to
    cancel, they wait for `leave`.
    """

    def begin(request: Any, context: grpc.ServicerContext) -> None:
        _ = request if isinstance(request, bytes) else list(request)
        context.send_initial_metadata(METADATA)
        context.set_trailing_metadata(METADATA)
        if begun:
            begun.set()

    def end(context: grpc.ServicerContext) -> Response:
        if status == "NOT_FOUND":
            context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        if status == "UNKNOWN":
            raise ValueError("no bread")
        if status == "cancelled" and leave:
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
    """Return these handlers, which set `over` at the end of their call."""

    def reporting(behavior: Any) -> Any:
        def reported(request: Any, context: grpc.ServicerContext) -> Any:
            context.add_callback(over.set)
            return behavior(request, context)

        return reported

    return {arity: reporting(behavior) for arity, behavior in served.items()}


def aio_behaviors(status: str, begun: asyncio.Event | None = None) -> dict[str, Any]:
    """Do the same for asyncio."""

    async def begin(request: Any, context: Any) -> None:
        # All of it: grpc.aio may end a call that is still being written as INTERNAL.
        _ = request if isinstance(request, bytes) else [message async for message in request]
        await context.send_initial_metadata(METADATA)
        context.set_trailing_metadata(METADATA)
        if begun:
            begun.set()

    async def end(context: Any) -> Response:
        if status == "NOT_FOUND":
            await context.abort(grpc.StatusCode.NOT_FOUND, "as asked")
        if status == "UNKNOWN":
            raise ValueError("no bread")
        if status == "cancelled":
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
