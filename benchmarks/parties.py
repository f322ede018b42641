"""The four parties to a call that are measured: servers to be called, and clients that call; sync and asyncio."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio

from protos import echo_pb2

from .echo import echo_of, handlers, repeat_of
from .plan import CONCURRENCY

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from .stacks import Instruments
    from .variants import Variant

    Answers = dict[str, Callable[..., object]]

_POOL = 10
"""Threads of a sync server."""
_HELLO = echo_pb2.EchoRequest(msg="hello")


class SyncServer:
    """A grpc.server."""

    def __init__(self, instruments: Instruments, methods: int) -> None:
        self._server = grpc.server(ThreadPoolExecutor(_POOL), interceptors=list(instruments.interceptors))
        self._server.add_generic_rpc_handlers(handlers("sync", methods))
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.answers: Answers = {}


class AioServer:
    """A grpc.aio.server."""

    def __init__(self, instruments: Instruments, methods: int) -> None:
        self.port: int = _Loop().run(self._start(instruments, methods))
        self.answers: Answers = {}

    async def _start(self, instruments: Instruments, methods: int) -> int:
        self._server = grpc.aio.server(interceptors=instruments.interceptors)
        self._server.add_generic_rpc_handlers(handlers("aio", methods))
        port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return port


class SyncClient:
    """One thread that makes blocking calls, one after another."""

    port = 0

    def __init__(self, instruments: Instruments, target: str) -> None:
        channel = instruments.intercept_channel(grpc.insecure_channel(target))
        self._echo, self._repeat = echo_of(channel), repeat_of(channel)
        self.answers: Answers = {"call": self._call, "read": self._read}

    def _call(self, calls: int) -> float:
        """Make so many calls, and return how many seconds they took."""
        started = time.perf_counter()
        for _ in range(calls):
            self._echo(_HELLO)
        return time.perf_counter() - started

    def _read(self, streams: int, messages: int, text: str) -> float:
        """Read so many streams to their end, and return how many seconds they took."""
        request = echo_pb2.EchoRepeatRequest(msg=text, times=messages)
        started = time.perf_counter()
        for _ in range(streams):
            for _message in self._repeat(request):
                pass
        return time.perf_counter() - started


class AioClient:
    """Tasks that make calls side by side, each one after another."""

    port = 0

    def __init__(self, instruments: Instruments, target: str) -> None:
        loop = _Loop()
        loop.run(self._connect(instruments, target))
        self.answers: Answers = {
            "call": lambda **asked: loop.run(self._call(**asked)),
            "read": lambda **asked: loop.run(self._read(**asked)),
        }

    async def _connect(self, instruments: Instruments, target: str) -> None:
        channel = grpc.aio.insecure_channel(target, interceptors=instruments.interceptors)
        self._echo, self._repeat = echo_of(channel), repeat_of(channel)

    async def _call(self, calls: int) -> float:
        left = iter(range(calls))

        async def caller() -> None:
            for _ in left:
                await self._echo(_HELLO)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CONCURRENCY)))
        return time.perf_counter() - started

    async def _read(self, streams: int, messages: int, text: str) -> float:
        request = echo_pb2.EchoRepeatRequest(msg=text, times=messages)
        started = time.perf_counter()
        for _ in range(streams):
            async for _message in self._repeat(request):
                pass
        return time.perf_counter() - started


class _Loop:
    """An event loop in a separate thread, while the main thread answers questions."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Do what there is to be done, and wait for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def party(
    variant: Variant, instruments: Instruments, target: str, methods: int
) -> SyncServer | AioServer | SyncClient | AioClient:
    """Start a server with so many methods more, or a client of the server at `target`."""
    if variant.side == "server":
        return (SyncServer if variant.style == "sync" else AioServer)(instruments, methods)
    return (SyncClient if variant.style == "sync" else AioClient)(instruments, target)
