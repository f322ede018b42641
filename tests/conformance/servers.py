"""Servers that play a case: one script for four arities, in a blocking handler, an async one, one with a context."""

import inspect
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from observability import AioHideExceptions, HideExceptions
from tests.support.recorder import PATIENCE

from .loop import run
from .messages import parse, serialize
from .stage import Stage
from .vocabulary import Arity, requests_stream, responses_stream

SERVICE = "conformance.Service"
_OPTIONS = (("grpc.so_reuseport", 0),)
_THREADS = 2
_MAKERS: dict[Arity, Callable[..., Any]] = {
    "unary": grpc.unary_unary_rpc_method_handler,
    "client_stream": grpc.stream_unary_rpc_method_handler,
    "server_stream": grpc.unary_stream_rpc_method_handler,
    "bidi_stream": grpc.stream_stream_rpc_method_handler,
}


def _plain(stage: Stage) -> Callable[[Any, Any], Any]:
    case, arity = stage.case, stage.way.arity

    def responses(request: Any, context: Any) -> Iterator[Any]:
        if stage.over.is_set():
            return
        for _ in request if requests_stream(arity) else ():
            if case.messages.endless:
                break
        if case.messages.first:
            yield case.messages.first
        case.handler.act(context, stage.pause)
        if not stage.over.is_set():
            yield case.messages.last

    def response(request: Any, context: Any) -> Any:
        last = None
        for last in responses(request, context):  # noqa: B007 - all that counts is the last
            pass
        return last

    return responses if responses_stream(arity) else response


async def _act(stage: Stage, context: Any) -> None:
    result = stage.case.handler.act(context, stage.pause_aio)
    if inspect.isawaitable(result):
        await result


def _async(stage: Stage) -> Callable[[Any, Any], Any]:
    case, arity = stage.case, stage.way.arity

    async def responses(request: Any, context: Any) -> AsyncIterator[Any]:
        if requests_stream(arity):
            async for _ in request:
                if case.messages.endless:
                    break
        if case.messages.first:
            yield case.messages.first
        await _act(stage, context)
        yield case.messages.last

    async def response(request: Any, context: Any) -> Any:
        async for answer in responses(request, context):
            last = answer
        return last

    return responses if responses_stream(arity) else response


def _with_context(stage: Stage) -> Callable[[Any, Any], Any]:
    case, arity = stage.case, stage.way.arity

    async def response(_request: Any, context: Any) -> Any:
        while requests_stream(arity) and await context.read() is not grpc.aio.EOF:
            if case.messages.endless:
                break
        if case.messages.first and responses_stream(arity):
            await context.write(case.messages.first)
        await _act(stage, context)
        if responses_stream(arity):
            await context.write(case.messages.last)
            return None
        return case.messages.last

    return response


_STYLES = {"sync": _plain, "aio": _async, "aio_context": _with_context, "aio_plain": _plain}


def _handlers(stage: Stage) -> list[grpc.GenericRpcHandler]:
    serializer = serialize if stage.case.handler.serialises else None
    handler = _MAKERS[stage.way.arity](_STYLES[stage.way.server](stage), parse, serializer)
    return [grpc.method_handlers_generic_handler(SERVICE, {"Method": handler})]


class Gate(grpc.ServerInterceptor):
    """Notes that a call comes in; serves /hold by itself, to fill the server, unseen by the interceptors after it."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Serve /hold, and pass on what else comes."""
        self._stage.arrived.set()
        if handler_call_details.method == "/hold":
            return grpc.unary_unary_rpc_method_handler(lambda _request, _context: self._stage.pause())
        return continuation(handler_call_details)


class AioGate(grpc.aio.ServerInterceptor):
    """Does the same on grpc.aio.server."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Serve /hold, and pass on what else comes."""
        self._stage.arrived.set()
        if handler_call_details.method == "/hold":
            return grpc.unary_unary_rpc_method_handler(self._hold)
        return await continuation(handler_call_details)

    async def _hold(self, _request: Any, _context: Any) -> None:
        await self._stage.pause_aio()


class AioDelay(grpc.aio.ServerInterceptor):
    """Waits before there is a handler."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Wait, and go on."""
        await self._stage.pause_aio()
        return await continuation(handler_call_details)


@contextmanager
def serving(stage: Stage) -> Iterator[None]:
    """Serve the case."""
    serve = _serving_sync if stage.way.server == "sync" else _serving_aio
    with ThreadPoolExecutor(_THREADS) as pool:
        if stage.case.environment.obstacle == "pool_busy":
            for _ in range(_THREADS):
                pool.submit(stage.over.wait, PATIENCE)
        with serve(stage, pool):
            yield


@contextmanager
def _serving_sync(stage: Stage, pool: ThreadPoolExecutor) -> Iterator[None]:
    case = stage.case
    server = grpc.server(
        pool,
        _handlers(stage),
        [
            Gate(stage),
            *([HideExceptions()] if case.environment.hides_exceptions else []),
            *stage.telemetry.server_interceptors(),
        ],
        (*_OPTIONS, *case.environment.server_options),
        maximum_concurrent_rpcs=1 if case.environment.obstacle == "limited" else None,
    )
    stage.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"

    def stop() -> None:
        assert server.stop(0).wait(PATIENCE), "grpc.server keeps a call"

    stage.stop = stop
    server.start()
    try:
        yield
    finally:
        stage.over.set()
        stage.stop()


@contextmanager
def _serving_aio(stage: Stage, pool: ThreadPoolExecutor) -> Iterator[None]:
    server = run(_start_aio(stage, pool))
    stage.stop = lambda: run(server.stop(0))
    try:
        yield
    finally:
        stage.over.set()
        stage.stop()


async def _start_aio(stage: Stage, pool: ThreadPoolExecutor) -> grpc.aio.Server:
    case = stage.case
    server = grpc.aio.server(
        pool,
        _handlers(stage),
        [
            AioGate(stage),
            *([AioHideExceptions()] if case.environment.hides_exceptions else []),
            *stage.telemetry.aio_server_interceptors(),
            *([AioDelay(stage)] if case.environment.obstacle == "delayed" else []),
        ],
        (*_OPTIONS, *case.environment.server_options),
        maximum_concurrent_rpcs=1 if case.environment.obstacle == "limited" else None,
    )
    stage.address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    return server
