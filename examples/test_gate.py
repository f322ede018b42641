"""Tests of the gate as you would write them for a service of your own: what it reports, with the service running."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from opentelemetry.trace import SpanKind

from examples.aio_gate import Gate as AioGate
from examples.gate import Gate
from observability import AioHideExceptions, HideExceptions, Telemetry
from observability.testing import RecordedTelemetry
from protos.echo_pb2 import HealthCheckRequest
from protos.echo_pb2_grpc import HealthServiceStub, add_HealthServiceServicer_to_server

NOBODY = "127.0.0.1:1"


@pytest.fixture
def recorded() -> Iterator[RecordedTelemetry]:
    """Record what the service reports."""
    with RecordedTelemetry("gate") as recorded:
        yield recorded


@contextmanager
def serving(telemetry: Telemetry) -> Iterator[HealthServiceStub]:
    """Serve the gate, with nobody behind it; gives a stub of it."""
    with grpc.insecure_channel(NOBODY) as behind, ThreadPoolExecutor(4) as pool:
        server = grpc.server(pool, interceptors=[HideExceptions(), *telemetry.server_interceptors()])
        gate = Gate(telemetry.intercept_channel(behind, target=NOBODY))
        add_HealthServiceServicer_to_server(gate, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield HealthServiceStub(channel)
        server.stop(None).wait()


def test_gate_with_nobody_behind(recorded: RecordedTelemetry) -> None:
    """The gate's caller learns nothing of what is behind; its log, its counts and its trace have all of it."""
    with serving(recorded.telemetry) as stub:
        with pytest.raises(grpc.RpcError, match="internal error"):
            stub.Check(HealthCheckRequest(), timeout=10)

        [served] = recorded.lines(kind="server")
        [called] = recorded.lines(kind="client")

    assert ("UNKNOWN", "UNAVAILABLE") == (served["code"], called["code"])
    assert NOBODY in served["error"]
    assert 1 == recorded.total("grpc_server_handled_total", grpc_method="Check", grpc_code="UNKNOWN")
    assert 1 == recorded.total("grpc_client_handled_total", grpc_method="Check", grpc_code="UNAVAILABLE")
    spans = {span.kind: span for span in recorded.spans()}
    parent = spans[SpanKind.CLIENT].parent
    assert parent is not None
    assert spans[SpanKind.SERVER].context.span_id == parent.span_id


@asynccontextmanager
async def aio_serving(telemetry: Telemetry) -> AsyncIterator[Any]:
    """Do the same on asyncio."""
    async with grpc.aio.insecure_channel(NOBODY) as behind:
        server = grpc.aio.server(interceptors=[AioHideExceptions(), *telemetry.aio_server_interceptors()])
        gate = AioGate(telemetry.intercept_channel(behind, target=NOBODY))
        add_HealthServiceServicer_to_server(gate, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield HealthServiceStub(channel)
        await server.stop(None)


def test_gate_on_asyncio(recorded: RecordedTelemetry) -> None:
    """So it is on asyncio."""

    async def check() -> None:
        async with aio_serving(recorded.telemetry) as stub:
            with pytest.raises(grpc.RpcError, match="internal error"):
                await stub.Check(HealthCheckRequest(), timeout=10)

    asyncio.run(check())

    assert {("server", "UNKNOWN"), ("client", "UNAVAILABLE")} == {
        (line["kind"], line["code"]) for line in recorded.lines()
    }
