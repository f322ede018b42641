"""Shows a container engine whether a gRPC server serves: exit status 0 if it says so, else 1."""

# ruff: noqa: INP001 - a program, not a package

import sys
from typing import Any

import grpc
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

TIMEOUT = 3.0  # seconds


def main() -> int:
    """Ask the standard health service about the server as a whole."""
    # The server is in this very container, past the proxy that Docker's client may have put into the environment.
    with grpc.insecure_channel(bracketed(sys.argv[1]), [("grpc.enable_http_proxy", 0)]) as channel:
        try:
            health: Any = HealthStub(channel)  # whose types do not know its methods
            status = health.Check(HealthCheckRequest(), timeout=TIMEOUT).status
        except grpc.RpcError as error:
            print(error.code(), error.details())  # noqa: T201 - docker inspect shows what a health check says
            return 1
    print(HealthCheckResponse.ServingStatus.Name(status))  # noqa: T201 - as above
    return int(status != HealthCheckResponse.SERVING)


def bracketed(address: str) -> str:
    """Return HOST:PORT with an IPv6 host in brackets, which a service takes without them as well."""
    host, _, port = address.rpartition(":")
    return f"[{host.strip('[]')}]:{port}" if ":" in host else address


if __name__ == "__main__":
    sys.exit(main())
