"""
Drops streams for the garbage collector to find, on many channels at once, and writes what was counted as JSON.

Its first argument is the way to observe a channel, the second how many calls each channel makes, the third, if there
is one, for how many seconds it starts over. Where nothing moves for a minute, it ends with every thread's stack trace:

    python -m tests.support.programs.dropping interceptor 200 600
"""

import faulthandler
import gc
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import structlog
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from observability import Call, ClientInterceptor, Observer, Outcome, log_calls, measure_calls, trace_calls
from observability.client.channel import ObservedChannel
from observability.threads.finalizers import finalizers
from tests.support.rpc import LOCAL

CHANNELS: Final = 16
METHODS: Final = 450
COLLECT_EVERY: Final = 50
"""How many new objects start a collection; by default 700."""
STUCK_SECONDS: Final = 60


class AnyName(grpc.GenericRpcHandler):
    """Serves any method: one whose name begins with Stream answers with a stream."""

    def service(self, handler_call_details: Any) -> Any:
        """Return the handler of a method."""
        if handler_call_details.method.startswith("/test.v1.Dropped/Stream"):
            return grpc.unary_stream_rpc_method_handler(lambda request, _context: iter([request] * 20))
        return grpc.unary_unary_rpc_method_handler(lambda request, _context: request)


class Locking:
    """An observer with a plain lock, which makes what starts collections while it holds it, as `labels` does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, _call: Call) -> Callable[[Outcome], None]:
        """Take the lock at the start, and at the end."""
        self._work()
        return lambda _outcome: self._work()

    def _work(self) -> None:
        with self._lock:
            _ = [[number] for number in range(COLLECT_EVERY * 2)]


def observers(registry: CollectorRegistry) -> list[Observer]:
    """Return observers as one makes them by hand, each of which takes locks."""

    def drop(*_args: Any) -> Any:
        raise structlog.DropEvent

    provider = TracerProvider(shutdown_on_exit=False)
    logger = structlog.wrap_logger(None, processors=[drop])
    return [trace_calls(provider), measure_calls(registry), log_calls(logger), Locking()]


WAYS: Final[dict[str, Callable[[grpc.Channel, list[Observer]], grpc.Channel]]] = {
    "interceptor": lambda channel, observers: grpc.intercept_channel(channel, ClientInterceptor(*observers)),
    "channel": lambda channel, observers: ObservedChannel(channel, *observers),
}


def drop_streams(channel: Any, calls: int) -> None:
    """Read each stream once, and leave it in a cycle; after each make a unary call."""
    for number in range(calls):
        faulthandler.dump_traceback_later(STUCK_SECONDS, exit=True)  # unless there is another call before
        name = number % METHODS
        stream = channel.unary_stream(f"/test.v1.Dropped/Stream{name}")(b"a")
        next(stream)
        cycle = [stream]
        cycle.append(cycle)
        del stream, cycle
        channel.unary_unary(f"/test.v1.Dropped/Unary{name}")(b"a")


def run(way: str, address: str, calls: int, observed_by: list[Observer]) -> None:
    """Drop streams on all channels at once."""
    with ThreadPoolExecutor(CHANNELS) as pool:
        channels = [grpc.insecure_channel(address) for _ in range(CHANNELS)]
        for done in [pool.submit(drop_streams, WAYS[way](plain, observed_by), calls) for plain in channels]:
            done.result()
        gc.collect()
        for channel in channels:
            channel.close()


def totals(registry: CollectorRegistry) -> Iterator[tuple[str, float]]:
    """Return the sums of what was counted."""
    names = ("grpc_client_started_total", "grpc_client_handled_total", "grpc_client_in_flight")
    samples = [sample for metric in registry.collect() for sample in metric.samples]
    for name in names:
        yield name, sum(sample.value for sample in samples if sample.name == name)


def main(way: str, calls: str, seconds: str = "0") -> None:
    """Run it, over and over for this many seconds."""
    registry = CollectorRegistry()
    observed_by = observers(registry)
    until = time.monotonic() + float(seconds)
    rounds = 0
    with ThreadPoolExecutor(CHANNELS) as pool:
        server = grpc.server(pool, [AnyName()])
        port = server.add_insecure_port(LOCAL)
        server.start()
        gc.set_threshold(COLLECT_EVERY)
        while not rounds or time.monotonic() < until:
            run(way, f"127.0.0.1:{port}", int(calls), observed_by)
            rounds += 1
        server.stop(None).wait()
    reported = finalizers.flush(STUCK_SECONDS / 2)
    print(json.dumps({"made": rounds * int(calls) * CHANNELS * 2, "reported": reported, **dict(totals(registry))}))  # noqa: T201 - its result


if __name__ == "__main__":
    main(*sys.argv[1:])
