"""
Serves calls whose handlers and streams only the garbage collector finds, on the stack that its argument names.

Its observers hold a plain lock, as prometheus_client's labels() does, and make garbage while they hold it; the
collector runs at every turn. Ends with what they have counted, as JSON; a watchdog ends it where a thread hangs.
"""

import asyncio
import faulthandler
import gc
import itertools
import json
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
from prometheus_client import CollectorRegistry

from observability import AioServerInterceptor, Call, Outcome, ServerInterceptor, measure_calls
from observability.calls.observer import LifecycleObserver
from observability.threads.finalizers import finalizers
from tests.support.rpc import CatchAll, aio_connected, connected, method

ROUNDS = 30
METHODS = 30
WATCHDOG = 60.0
"""Seconds after which the process ends, with the stack of every thread."""


kept: list[Any] = []


class Locked(LifecycleObserver):
    """Counts, under a lock that is not reentrant, and makes garbage of what is kept."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.counts = dict.fromkeys(("started", "entered", "left", "ended"), 0)

    def _count(self, moment: str) -> None:
        with self._lock:
            kept.clear()
            _ = [[] for _ in range(500)]
            self.counts[moment] += 1

    def on_start(self, _call: Call) -> None:
        """Count."""
        self._count("started")

    def on_handler_start(self, _call: Call, _state: None) -> None:
        """Count."""
        self._count("entered")

    def on_handler_end(self, _call: Call, _state: None) -> None:
        """Count."""
        self._count("left")

    def on_end(self, _call: Call, _state: None, _outcome: Outcome) -> None:
        """Count."""
        self._count("ended")


def keep(thing: Any) -> None:
    """Put this into a cycle, which becomes garbage when an observer holds its lock."""
    cycle = [thing]
    cycle.append(cycle)
    kept.append(cycle)


def forget_handler(handler: Any) -> Any:
    """Answer instead of a handler that is not even looked at."""
    keep(handler)
    return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


def forget_stream(handler: Any) -> Any:
    """Answer with the first of the handler's responses alone."""

    def behavior(request: bytes, context: Any) -> Iterator[bytes]:
        responses = handler.unary_stream(request, context)
        keep(responses)
        return itertools.islice(responses, 1)

    return grpc.unary_stream_rpc_method_handler(behavior, handler.request_deserializer, handler.response_serializer)


class Forgetting(grpc.ServerInterceptor):
    """Leaves handlers and streams to the collector."""

    def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Forget."""
        handler = continuation(handler_call_details)
        streams = handler_call_details.method.endswith("ServerStream")
        return forget_stream(handler) if streams else forget_handler(handler)


class AioForgetting(grpc.aio.ServerInterceptor):
    """The same for asyncio."""

    async def intercept_service(self, continuation: Any, handler_call_details: Any) -> Any:
        """Forget."""
        handler = await continuation(handler_call_details)
        streams = handler_call_details.method.endswith("ServerStream")
        return forget_stream(handler) if streams else forget_handler(handler)


def repeat(request: bytes, _context: Any) -> Iterator[bytes]:
    """Answer twice."""
    yield request
    yield request


def serve_sync(observers: list[Any]) -> None:
    """Make the calls on grpc.server."""
    behaviors: dict[str, Any] = {"server_stream": repeat, "handlers": [CatchAll(lambda request, _context: request)]}
    with connected(Forgetting(), ServerInterceptor(*observers), **behaviors) as channel:
        for round_ in range(ROUNDS):
            _ = list(method(channel, "server_stream")(b"a", timeout=WATCHDOG))
            method(channel, "unary", f"/kept.v1.Kept/Method{round_ % METHODS}")(b"a", timeout=WATCHDOG)


async def serve_aio(observers: list[Any]) -> None:
    """Make them on grpc.aio.server."""
    behaviors: dict[str, Any] = {"server_stream": repeat, "handlers": [CatchAll(lambda request, _context: request)]}
    async with aio_connected(AioForgetting(), AioServerInterceptor(*observers), **behaviors) as channel:
        for round_ in range(ROUNDS):
            _ = [response async for response in method(channel, "server_stream")(b"a", timeout=WATCHDOG)]
            await method(channel, "unary", f"/kept.v1.Kept/Method{round_ % METHODS}")(b"a", timeout=WATCHDOG)


def main() -> None:
    """Make the calls, and wait until all are reported."""
    faulthandler.dump_traceback_later(WATCHDOG, exit=True)
    gc.set_threshold(50, 1, 1)
    gc.freeze()  # so that full collections come soon, too: they wait until a quarter of all is new
    locked = Locked()
    observers = [measure_calls(CollectorRegistry()), locked]
    if sys.argv[1] == "sync":
        serve_sync(observers)
    else:
        asyncio.run(serve_aio(observers))
    counts = locked.counts
    while counts["ended"] < counts["started"] or counts["left"] < counts["entered"]:
        kept.clear()
        gc.collect()
        finalizers.flush(WATCHDOG)
        time.sleep(0.01)
    sys.stdout.write(json.dumps(counts))
    sys.stdout.flush()


if __name__ == "__main__":
    main()
