"""Health for probes that have no TLS, as those of Kubernetes: a port of its own, at which nothing else is served."""

import contextlib
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import HealthServicer

from observability import ListenError
from observability.address import check_address

MOST = 16
"""How many questions there may be at once, each of which has a thread."""

_logger = logging.getLogger("observability")


@contextlib.contextmanager
def answering_probes(health: HealthServicer, address: str) -> Iterator[None]:
    """Answer by this health service at HOST:PORT, without TLS; raises ListenError where that cannot be had."""
    check_address(address)
    server = grpc.server(ThreadPoolExecutor(MOST), maximum_concurrent_rpcs=MOST, options=[("grpc.so_reuseport", 0)])
    health_pb2_grpc.add_HealthServicer_to_server(health, server)
    try:
        port = server.add_insecure_port(address)
    except RuntimeError as error:
        raise ListenError(address, OSError(str(error))) from error
    server.start()
    _logger.info("health without TLS", extra={"address": f"{address.rpartition(':')[0]}:{port}"})
    try:
        yield
    finally:
        server.stop(None)
