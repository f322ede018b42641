"""Every kind of handler that grpc runs, and one call of each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio

from observability import AioServerInterceptor, Observer, ServerInterceptor
from tests.support.rpc import STREAMS, aio_connected, connected, method, requests

Step = Callable[[], None]
"""What a handler does at each of its steps: at its start, and for each message."""


@dataclass(frozen=True)
class Kind:
    """A kind of handler: `make` makes one that takes this step again and again."""

    stack: str
    arity: str
    make: Callable[[Step], Any]
    variant: str = ""

    def __str__(self) -> str:
        return "-".join(filter(None, (self.stack, self.variant, self.arity)))

    def serve_once(self, step: Step, observers: list[Observer]) -> None:
        """Serve one call with such a handler, to its end."""
        if self.stack == "sync":
            self._serve_sync(step, observers)
        else:
            asyncio.run(self._serve_aio(step, observers))

    def _serve_sync(self, step: Step, observers: list[Observer]) -> None:
        interceptor = ServerInterceptor(*observers)
        with connected(interceptor, **{self.arity: self.make(step)}) as channel:
            answer = method(channel, self.arity)(requests(self.arity), timeout=10)
            _ = answer if isinstance(answer, bytes) else list(answer)

    async def _serve_aio(self, step: Step, observers: list[Observer]) -> None:
        interceptor = AioServerInterceptor(*observers)
        async with aio_connected(interceptor, **{self.arity: self.make(step)}) as channel:
            call = method(channel, self.arity)(requests(self.arity), timeout=10)
            if self.arity not in STREAMS:
                await call
            else:
                _ = [response async for response in call]


def _unary(step: Step) -> Any:
    def behavior(request: bytes, _context: Any) -> bytes:
        step()
        return request

    return behavior


def _client_stream(step: Step) -> Any:
    def behavior(messages: Iterator[bytes], _context: Any) -> bytes:
        step()
        for _ in messages:
            step()
        return b"done"

    return behavior


def _server_stream(step: Step) -> Any:
    def behavior(request: bytes, _context: Any) -> Iterator[bytes]:
        step()
        yield request
        step()
        yield request
        step()

    return behavior


def _bidi_stream(step: Step) -> Any:
    def behavior(messages: Iterator[bytes], _context: Any) -> Iterator[bytes]:
        step()
        for message in messages:
            step()
            yield message
        step()

    return behavior


def _function_returning_iterator(step: Step) -> Any:
    def behavior(request: bytes, _context: Any) -> Iterator[bytes]:
        step()
        return iter([request] * 2)

    return behavior


def _aio_unary(step: Step) -> Any:
    async def behavior(request: bytes, _context: Any) -> bytes:
        await asyncio.sleep(0)
        step()
        return request

    return behavior


def _aio_client_stream(step: Step) -> Any:
    async def behavior(messages: AsyncIterator[bytes], _context: Any) -> bytes:
        step()
        async for _ in messages:
            step()
        return b"done"

    return behavior


def _aio_server_stream(step: Step) -> Any:
    async def behavior(request: bytes, _context: Any) -> AsyncIterator[bytes]:
        step()
        yield request
        await asyncio.sleep(0)
        step()
        yield request

    return behavior


def _aio_bidi_stream(step: Step) -> Any:
    async def behavior(messages: AsyncIterator[bytes], _context: Any) -> AsyncIterator[bytes]:
        step()
        async for message in messages:
            step()
            yield message
        step()

    return behavior


def _aio_task(step: Step) -> Any:
    async def behavior(request: bytes, _context: Any) -> bytes:
        async def part() -> None:
            step()

        async with asyncio.TaskGroup() as group:
            group.create_task(part())
            group.create_task(asyncio.to_thread(step))
        return request

    return behavior


def _written(step: Step) -> Any:
    async def behavior(request: bytes, context: Any) -> None:
        step()
        await context.write(request)
        step()

    return behavior


def _read(step: Step) -> Any:
    async def behavior(_messages: Any, context: Any) -> bytes:
        while await context.read() is not grpc.aio.EOF:
            step()
        return b"done"

    return behavior


def _read_and_written(step: Step) -> Any:
    async def behavior(_messages: Any, context: Any) -> None:
        while (message := await context.read()) is not grpc.aio.EOF:
            step()
            await context.write(message)

    return behavior


PLAIN = {
    "unary": _unary,
    "client_stream": _client_stream,
    "server_stream": _server_stream,
    "bidi_stream": _bidi_stream,
}
KINDS = [
    *(Kind("sync", arity, make) for arity, make in PLAIN.items()),
    Kind("sync", "server_stream", _function_returning_iterator, "iterator"),
    Kind("aio", "unary", _aio_unary),
    Kind("aio", "unary", _aio_task, "tasks"),
    Kind("aio", "client_stream", _aio_client_stream),
    Kind("aio", "server_stream", _aio_server_stream),
    Kind("aio", "bidi_stream", _aio_bidi_stream),
    Kind("aio", "client_stream", _read, "read"),
    Kind("aio", "server_stream", _written, "written"),
    Kind("aio", "bidi_stream", _read_and_written, "read and written"),
    *(Kind("aio", arity, make, "plain") for arity, make in PLAIN.items()),
]
