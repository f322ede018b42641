"""
Makes asyncio calls whose streams are found by the garbage collector alone, which runs all the time.

    python -m tests.support.programs.collected_aio interceptors|channel SECONDS

For at least SECONDS, and one round at least: six channels make 150 pairs of calls each, under many names: a stream
that is read once and dropped in a reference cycle, then a unary call. Prints, as JSON, how many were made, and how many
the metrics say have started, have ended and are in flight. A process that stands still for half a minute shows its
stacks and ends with exit status 1.
"""

import asyncio
import faulthandler
import gc
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import structlog
from prometheus_client import CollectorRegistry

from observability import log_calls, measure_calls
from observability.threads.finalizers import finalizers
from tests.support.aio_ways import aio_channel

CHANNELS = 6
CALLS = 150
NAMES = 80
"""Of each channel: each makes metrics, under prometheus_client's lock; all together are no more than have their own."""
PATIENCE = 30.0


class Cycle:
    """Keeps itself, so that only the garbage collector finds it, and a call."""

    def __init__(self, call: Any) -> None:
        self.itself = self
        self.call = call


class Handlers(grpc.GenericRpcHandler):
    """Serves every method: what is called a stream as one."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the handler."""
        if "Stream" in handler_call_details.method:
            return grpc.unary_stream_rpc_method_handler(self._stream)
        return grpc.unary_unary_rpc_method_handler(self._unary)

    async def _unary(self, request: bytes, _context: Any) -> bytes:
        return request

    async def _stream(self, request: bytes, _context: Any) -> AsyncIterator[bytes]:
        for _ in range(100):
            yield request
            await asyncio.sleep(0.01)


async def call(channel: Any, prefix: int) -> None:
    """Make the pairs of calls, under names that begin so."""
    for number in range(CALLS):
        if not number % 100:
            faulthandler.dump_traceback_later(PATIENCE, exit=True)
        stream = channel.unary_stream(f"/test.v1.Words/Stream{prefix}_{number % NAMES}")(b"a")
        await stream.read()
        Cycle(stream)
        del stream
        await channel.unary_unary(f"/test.v1.Words/Unary{prefix}_{number % NAMES}")(b"a")


async def make_round(way: str, address: str) -> Counter[str]:
    """Make all calls once; return what was counted of them."""
    # A new registry: its first calls are those that make metrics, under prometheus_client's lock.
    registry = CollectorRegistry()
    observers = [measure_calls(registry), log_calls(structlog.wrap_logger(None, processors=[drop]))]
    channels = [aio_channel(way, address, *observers) for _ in range(CHANNELS)]
    await asyncio.gather(*map(call, channels, range(CHANNELS)))
    for channel in channels:
        await channel.close()
    gc.collect()
    await asyncio.to_thread(finalizers.flush, PATIENCE)
    counted = Counter({"made": 2 * CHANNELS * CALLS})
    for sample in (sample for metric in registry.collect() for sample in metric.samples):
        counted[sample.name] += int(sample.value)
    return counted


async def main(way: str, seconds: float) -> Counter[str]:
    """Make rounds of calls; return what was counted of them."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Handlers(),))
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    counted: Counter[str] = Counter()
    end = time.monotonic() + seconds
    while not counted or time.monotonic() < end:
        counted.update(await make_round(way, address))
    faulthandler.cancel_dump_traceback_later()
    await server.stop(None)
    return counted


def drop(*_args: Any) -> Any:
    """Log nothing."""
    raise structlog.DropEvent


if __name__ == "__main__":
    gc.set_threshold(50)
    counts = asyncio.run(main(sys.argv[1], float(sys.argv[2])))
    names = ("started_total", "handled_total", "in_flight")
    sys.stdout.write(json.dumps([counts["made"], *(counts[f"grpc_client_{name}"] for name in names)]))
