# ruff: noqa: SIM117, T201 - a program that prints; telemetry, a server and a channel each begin a line
"""
A program whose own tracer provider, or the environment's, sees the spans of calls end; prints what it saw as JSON.

Its argument is the scenario.
"""

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import grpc
import grpc.aio
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from observability import Telemetry
from tests.support.rpc import ARITIES, ECHOES, STREAMS, aio_serving, method, requests, serving


class Ends(SpanProcessor):
    """Keeps the kinds of the spans that end, and the threads that end them."""

    def __init__(self) -> None:
        self.kinds: list[str] = []
        self.threads: set[str] = set()

    def on_end(self, span: ReadableSpan) -> None:
        """Keep one."""
        self.kinds.append(span.kind.name)
        self.threads.add(threading.current_thread().name)


def ways(channel: grpc.Channel) -> Iterator[tuple[str, Callable[[], object]]]:
    """Yield every way to make a call on a sync channel, each to the end that its caller sees."""
    for arity in ARITIES:
        call = method(channel, arity)
        if arity in STREAMS:
            yield f"{arity}.iterate", partial(read, call, arity)
        else:
            yield f"{arity}.call", partial(call, requests(arity))
            yield f"{arity}.with_call", partial(call.with_call, requests(arity))
            yield f"{arity}.future", partial(wait, call, arity)


def read(call: Any, arity: str) -> object:
    """Read a stream of responses to its end."""
    return list(call(requests(arity)))


def wait(call: Any, arity: str) -> object:
    """Wait for a future's result."""
    return call.future(requests(arity)).result()


def order() -> dict[str, Any]:
    """Make each call inside a span: what ends in which order, by the way of calling."""
    ends, seen = Ends(), {}
    provider = application(ends)
    tracer = provider.get_tracer("application")
    with Telemetry.start("order", serve_metrics=False, logging=False) as telemetry, serving(**ECHOES) as address:
        with grpc.insecure_channel(address) as bare:
            for name, call in ways(telemetry.intercept_channel(bare)):
                ends.kinds.clear()
                with tracer.start_as_current_span("job"):
                    call()
                seen[name] = [*ends.kinds]
        seen.update(asyncio.run(aio_order(telemetry, tracer, ends, address)))
    return seen


async def aio_order(telemetry: Telemetry, tracer: trace.Tracer, ends: Ends, address: str) -> dict[str, Any]:
    """Do the same on an asyncio channel, both kinds of ours."""
    seen = {}
    async with (
        grpc.aio.insecure_channel(address) as bare,
        grpc.aio.insecure_channel(address, interceptors=telemetry.aio_client_interceptors()) as intercepted,
    ):
        for kind, channel in (("channel", telemetry.intercept_channel(bare)), ("interceptors", intercepted)):
            for arity in ARITIES:
                ends.kinds.clear()
                with tracer.start_as_current_span("job"):
                    call = method(channel, arity)(requests(arity))
                    _ = [one async for one in call] if arity in STREAMS else await call
                seen[f"aio.{kind}.{arity}"] = [*ends.kinds]
    return seen


def flushed() -> int:
    """Return after how many of 50 calls a forced flush has brought the client's span to the provider's exporter."""
    exporter = InMemorySpanExporter()
    provider = application(BatchSpanProcessor(exporter))
    there = 0
    with Telemetry.start("flushed", serve_metrics=False, logging=False) as telemetry, serving(**ECHOES) as address:
        with grpc.insecure_channel(address) as bare:
            call = method(telemetry.intercept_channel(bare), "unary")
            for _ in range(50):
                call(b"")
                provider.force_flush()
                there += 1 == len(exporter.get_finished_spans())
                exporter.clear()
    return there


def served() -> list[str]:
    """Return the threads in which the spans of served calls end, of both stacks."""
    ends = Ends()
    application(ends)
    with Telemetry.start("served", serve_metrics=False, logging=False) as telemetry:
        with serving(*telemetry.server_interceptors(), **ECHOES) as address, grpc.insecure_channel(address) as channel:
            for _, call in ways(channel):
                call()
        asyncio.run(aio_served(telemetry))
    return sorted({name.rstrip("0123456789-_") for name in ends.threads})


async def aio_served(telemetry: Telemetry) -> None:
    """Serve a call of each arity on asyncio."""
    async with (
        aio_serving(*telemetry.aio_server_interceptors(), **ECHOES) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        for arity in ARITIES:
            call = method(channel, arity)(requests(arity))
            _ = [one async for one in call] if arity in STREAMS else await call


def console() -> None:
    """Print a line to stderr after each call; the environment sends spans there."""
    with Telemetry.start("console", serve_metrics=False, logging=False) as telemetry, serving(**ECHOES) as address:
        with grpc.insecure_channel(address) as bare:
            call = method(telemetry.intercept_channel(bare), "unary")
            for _ in range(3):
                call(b"")
                print("called", file=sys.stderr, flush=True)


def sentry() -> list[str]:
    """Return the spans of Sentry's transaction, in which calls are made."""
    import sentry_sdk  # noqa: PLC0415 - here alone
    from sentry_sdk.integrations.opentelemetry import SentrySpanProcessor  # noqa: PLC0415 - as above
    from sentry_sdk.transport import Transport  # noqa: PLC0415 - as above

    transactions: list[Any] = []

    class Keeping(Transport):
        def capture_envelope(self, envelope: Any) -> None:
            transactions.extend(item.payload.json for item in envelope.items if item.type == "transaction")

    sentry_sdk.init("http://key@localhost:1/1", instrumenter="otel", traces_sample_rate=1.0, transport=Keeping)
    provider = application(SentrySpanProcessor())
    with Telemetry.start("sentry", serve_metrics=False, logging=False) as telemetry, serving(**ECHOES) as address:
        with grpc.insecure_channel(address) as bare, provider.get_tracer("app").start_as_current_span("job"):
            for _, call in ways(telemetry.intercept_channel(bare)):
                call()
    [transaction] = transactions
    return sorted(span["description"] for span in transaction["spans"])


def application(processor: SpanProcessor) -> TracerProvider:
    """Set the application's own provider, with this processor."""
    provider = TracerProvider()
    provider.add_span_processor(processor)
    trace.set_tracer_provider(provider)
    return provider


SCENARIOS: dict[str, Callable[[], Any]] = {
    "order": order,
    "flushed": flushed,
    "served": served,
    "console": console,
    "sentry": sentry,
}


if __name__ == "__main__":
    print(json.dumps(SCENARIOS[sys.argv[1]]()))
