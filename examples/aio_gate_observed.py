"""The same service on asyncio with five lines more."""

import asyncio
import sys
from typing import Any

import grpc.aio

from observability import AioHideExceptions, Telemetry, serve_aio
from protos.echo_pb2 import HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import HealthServiceServicer, HealthServiceStub, add_HealthServiceServicer_to_server


class Gate(HealthServiceServicer):
    """Asks the service behind it."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._behind = HealthServiceStub(channel)

    async def Check(self, request: HealthCheckRequest, _context: Any) -> HealthCheckResponse:  # noqa: N802 - an RPC
        """Answer what it answers."""
        return await self._behind.Check(request, timeout=1)


async def main(address: str, behind: str) -> int:
    """Serve on `address`; the service behind is at `behind`."""
    telemetry = Telemetry.start("gate", metrics_port=9466, services=["echo.v1.HealthService"])
    channel = telemetry.intercept_channel(grpc.aio.insecure_channel(behind), target=behind)
    server = grpc.aio.server(interceptors=[AioHideExceptions(), *telemetry.aio_server_interceptors()])
    add_HealthServiceServicer_to_server(Gate(channel), server)
    return await serve_aio(server, address, telemetry)


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
