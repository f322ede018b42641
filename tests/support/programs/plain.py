"""
An application that has never heard of the package, but for what its first argument asks for.

It serves a method of each arity on both stacks, calls each, and writes what it has counted to stdout, as JSON. With
`explicit` it observes all of that by hand as well; with `provider` it has a tracer provider of its own; with
`experimental` it makes a call without a channel.
"""

import asyncio
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
import prometheus_client

SERVICE = "test.v1.Plain"
METHODS: dict[str, tuple[Any, str]] = {
    "Unary": (grpc.unary_unary_rpc_method_handler, "unary_unary"),
    "ClientStream": (grpc.stream_unary_rpc_method_handler, "stream_unary"),
    "ServerStream": (grpc.unary_stream_rpc_method_handler, "unary_stream"),
    "BidiStream": (grpc.stream_stream_rpc_method_handler, "stream_stream"),
}
TAKES_STREAM = ("ClientStream", "BidiStream")
GIVES_STREAM = ("ServerStream", "BidiStream")
BEHAVIORS = {
    "Unary": lambda request, _context: request,
    "ClientStream": lambda requests, _context: b"".join(requests),
    "ServerStream": lambda request, _context: iter([request]),
    "BidiStream": lambda requests, _context: requests,
}


async def aio_unary(request: bytes, _context: Any) -> bytes:
    """Echo."""
    return request


async def aio_client_stream(requests: Any, _context: Any) -> bytes:
    """Echo all at once."""
    return b"".join([request async for request in requests])


async def aio_server_stream(request: bytes, _context: Any) -> Any:
    """Echo."""
    yield request


async def aio_bidi_stream(requests: Any, _context: Any) -> Any:
    """Echo."""
    async for request in requests:
        yield request


AIO_BEHAVIORS = dict(zip(METHODS, (aio_unary, aio_client_stream, aio_server_stream, aio_bidi_stream), strict=True))


def handlers(behaviors: dict[str, Any]) -> list[grpc.GenericRpcHandler]:
    """Return the service."""
    methods = {name: METHODS[name][0](behavior) for name, behavior in behaviors.items()}
    return [grpc.method_handlers_generic_handler(SERVICE, methods)]


def callable_of(channel: Any, name: str) -> tuple[Any, Any]:
    """Return what calls a method, and a request for it."""
    made = getattr(channel, METHODS[name][1])(f"/{SERVICE}/{name}")
    return made, iter([b"a"]) if name in TAKES_STREAM else b"a"


def sync(telemetry: Any, *, experimental: bool) -> None:
    """Serve and call on grpc."""
    by_hand = [telemetry.server_interceptors()] if telemetry else []
    server = grpc.server(ThreadPoolExecutor(4), handlers(BEHAVIORS), *by_hand)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    channel = grpc.insecure_channel(address)
    if telemetry:
        channel = telemetry.intercept_channel(channel, target=address)
    server.start()
    for name in METHODS:
        call, request = callable_of(channel, name)
        answer = call(request, timeout=10)
        if name in GIVES_STREAM:
            list(answer)
    if experimental:
        from grpc.experimental import unary_unary  # noqa: PLC0415 - it warns

        unary_unary(b"a", address, f"/{SERVICE}/Unary", insecure=True, timeout=10)
    channel.close()
    server.stop(None).wait()


async def aio(telemetry: Any) -> None:
    """Do so on grpc.aio."""
    by_hand = [telemetry.aio_server_interceptors()] if telemetry else []
    server = grpc.aio.server(None, handlers(AIO_BEHAVIORS), *by_hand)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    interceptors = telemetry.aio_client_interceptors(target=address) if telemetry else None
    async with grpc.aio.insecure_channel(address, interceptors=interceptors) as channel:
        for name in METHODS:
            call, request = callable_of(channel, name)
            answer = call(request, timeout=10)
            _ = [each async for each in answer] if name in GIVES_STREAM else await answer
    await server.stop(None)


def own_provider() -> None:
    """Set up a tracer provider that sends spans, as many applications do."""
    from opentelemetry import trace  # noqa: PLC0415 - only where it is wanted
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
    from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

    exporter = OTLPSpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(exporter))
    trace.set_tracer_provider(provider)


def main(mode: str) -> None:
    """Do all of it."""
    telemetry: Any = None
    if mode == "explicit":
        from observability import Telemetry  # noqa: PLC0415 - it has never heard of it otherwise

        telemetry = Telemetry.start("explicit", serve_metrics=False, logging="calls", log_stream=sys.stderr)
    if mode == "provider":
        own_provider()
    sync(telemetry, experimental=mode == "experimental")
    asyncio.run(aio(telemetry))
    found = [
        [sample.name, sample.labels["grpc_type"], sample.value]
        for metric in prometheus_client.REGISTRY.collect()
        for sample in metric.samples
        if sample.name.endswith("_handled_total")
    ]
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1])
