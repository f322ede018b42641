"""
Runs a server of the stack that its first argument names, by `serve` or `serve_aio`, until SIGTERM or SIGINT.

Its second argument is the address, the third a JSON object: options of serve, and `secure` for a server with
credentials, `own_health` for one with its own health service.
"""

import asyncio
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from observability import AioHideExceptions, HideExceptions, ListenError, Telemetry, serve, serve_aio
from protos import echo_pb2
from tests.support.rpc import service

SERVICE = echo_pb2.DESCRIPTOR.services_by_name["EchoService"].full_name
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


def wait(request: bytes, _context: grpc.ServicerContext) -> bytes:
    """Take as many seconds as the request says."""
    time.sleep(float(request))
    return request


async def aio_wait(request: bytes, _context: Any) -> bytes:
    """Take as many seconds as the request says."""
    await asyncio.sleep(float(request))
    return request


def with_extras(server: Any, servicer: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Turn what is asked for into options of serve."""
    if options.pop("secure", False):
        options["credentials"] = grpc.local_server_credentials()
    if options.pop("own_health", False):
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        options["health"] = servicer
    return options


def run_sync(address: str, telemetry: Telemetry, options: dict[str, Any]) -> int:
    """Serve on grpc."""
    interceptors = [HideExceptions(), *telemetry.server_interceptors()]
    server = grpc.server(ThreadPoolExecutor(4), [service(unary=wait)], interceptors)
    servicer = health.HealthServicer()
    servicer.set("mine", NOT_SERVING)
    return serve(server, address, telemetry, **with_extras(server, servicer, options))


async def run_aio(address: str, telemetry: Telemetry, options: dict[str, Any]) -> int:
    """Serve on grpc.aio."""
    interceptors = [AioHideExceptions(), *telemetry.aio_server_interceptors()]
    server = grpc.aio.server(None, [service(unary=aio_wait)], interceptors)
    servicer = health.aio.HealthServicer()
    await servicer.set("mine", NOT_SERVING)
    return await serve_aio(server, address, telemetry, **with_extras(server, servicer, options))


def main(stack: str, address: str, options: str) -> int:
    """Serve until a signal."""
    with Telemetry.start("served", services=[SERVICE]) as telemetry:
        try:
            if stack == "sync":
                return run_sync(address, telemetry, json.loads(options))
            return asyncio.run(run_aio(address, telemetry, json.loads(options)))
        except ListenError as error:
            sys.stderr.write(f"{error}\n")
            sys.stderr.flush()
            return 1


if __name__ == "__main__":
    os._exit(main(*sys.argv[1:]))
