"""The service for callers with a token, on asyncio."""

import asyncio
import os
import sys
from typing import Any

import grpc
import grpc.aio

from examples.bearer_token import HANDLERS, Tokens
from observability import AioHideExceptions, Certificates, Telemetry, serve_aio
from protos.echo_pb2 import HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import HealthServiceServicer, add_HealthServiceServicer_to_server


class AioBearerToken(grpc.aio.ServerInterceptor):
    """Refuses calls without one of the tokens, before their requests are parsed."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the call's handler, or one of the same arity that refuses it."""
        handler = await continuation(handler_call_details)
        if handler is None or self._tokens.allow(handler_call_details):
            return handler
        return HANDLERS[handler.request_streaming, handler.response_streaming](refuse)


async def refuse(_request: Any, context: Any) -> None:
    """Say that there is no token, or a wrong one, and not which."""
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid bearer token is needed")


class Guarded(HealthServiceServicer):
    """Is well, and says so to those who may ask."""

    async def Check(self, _request: HealthCheckRequest, _context: Any) -> HealthCheckResponse:  # noqa: N802 - an RPC
        """Answer `ok`."""
        return HealthCheckResponse(status="ok")


async def main(address: str, certificate: str, key: str) -> int:
    """Serve on `address` with this certificate and key: tokens are secrets. The variable TOKENS has them."""
    tokens = Tokens(*os.environ["TOKENS"].split(","))
    certificates = Certificates(certificate_chain=certificate, private_key=key)
    telemetry = Telemetry.start("guarded", metrics_port=9467, services=["echo.v1.HealthService"])
    interceptors = [AioHideExceptions(), *telemetry.aio_server_interceptors(), AioBearerToken(tokens)]
    server = grpc.aio.server(interceptors=interceptors)
    add_HealthServiceServicer_to_server(Guarded(), server)
    return await serve_aio(server, address, telemetry, credentials=certificates.server_credentials())


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))
