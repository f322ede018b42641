"""An existing service, as it was: it is well when the service behind it is."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc

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
    channel = grpc.insecure_channel(behind)
    server = grpc.server(ThreadPoolExecutor(8))
    add_HealthServiceServicer_to_server(Gate(channel), server)
    server.add_insecure_port(address)
    server.start()
    server.wait_for_termination()
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
