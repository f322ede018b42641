"""The existing service with five lines more: every call of it and by it is logged, measured and traced."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

from observability import HideExceptions, Telemetry, serve
from protos.echo_pb2 import HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import HealthServiceServicer, HealthServiceStub, add_HealthServiceServicer_to_server


class Gate(HealthServiceServicer):
    """Asks the service behind it."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._behind = HealthServiceStub(channel)

    def Check(self, request: HealthCheckRequest, _context: grpc.ServicerContext) -> HealthCheckResponse:  # noqa: N802 - an RPC
        """Answer what it answers."""
        return self._behind.Check(request, timeout=1)


def main(address: str, behind: str) -> int:
    """Serve on `address`; the service behind is at `behind`."""
    telemetry = Telemetry.start("gate", metrics_port=9466, services=["echo.v1.HealthService"])
    channel = telemetry.intercept_channel(grpc.insecure_channel(behind), target=behind)
    server = grpc.server(ThreadPoolExecutor(8), interceptors=[HideExceptions(), *telemetry.server_interceptors()])
    add_HealthServiceServicer_to_server(Gate(channel), server)
    return serve(server, address, telemetry)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
