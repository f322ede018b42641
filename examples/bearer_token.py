"""A service for callers with a token: others are refused behind our interceptor, and reported as what they got."""

import hashlib
import hmac
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NoReturn

import grpc

from observability import Certificates, HideExceptions, Telemetry, serve
from protos.echo_pb2 import HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import HealthServiceServicer, add_HealthServiceServicer_to_server

OPEN = ("/grpc.health.v1.Health/",)  # an orchestrator has no token
HANDLERS: dict[tuple[bool, bool], Any] = {
    (False, False): grpc.unary_unary_rpc_method_handler,
    (True, False): grpc.stream_unary_rpc_method_handler,
    (False, True): grpc.unary_stream_rpc_method_handler,
    (True, True): grpc.stream_stream_rpc_method_handler,
}


class Tokens:
    """The tokens that are taken, as `authorization: Bearer …`; how long a comparison takes says nothing of them."""

    def __init__(self, *tokens: str) -> None:
        self._digests = [hashlib.sha256(token.encode()).digest() for token in tokens]

    def allow(self, call: grpc.HandlerCallDetails) -> bool:
        """Return whether this call may be served."""
        given = [value for key, value in call.invocation_metadata or () if key == "authorization"]
        scheme, _, token = str(given[0]).partition(" ") if len(given) == 1 else ("", "", "")
        digest = hashlib.sha256(token.encode()).digest()
        known = [hmac.compare_digest(digest, one) for one in self._digests]  # all of them, also behind the right one
        return call.method.startswith(OPEN) or (scheme.lower() == "bearer" and any(known))


class BearerToken(grpc.ServerInterceptor):
    """Refuses calls without one of the tokens, before their requests are parsed."""

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        """Return the call's handler, or one of the same arity that refuses it."""
        handler = continuation(handler_call_details)
        if handler is None or self._tokens.allow(handler_call_details):
            return handler
        return HANDLERS[handler.request_streaming, handler.response_streaming](refuse)


def refuse(_request: Any, context: grpc.ServicerContext) -> NoReturn:
    """Say that there is no token, or a wrong one, and not which."""
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "a valid bearer token is needed")


class Guarded(HealthServiceServicer):
    """Is well, and says so to those who may ask."""

    def Check(self, _request: HealthCheckRequest, _context: grpc.ServicerContext) -> HealthCheckResponse:  # noqa: N802 - an RPC
        """Answer `ok`."""
        return HealthCheckResponse(status="ok")


def main(address: str, certificate: str, key: str) -> int:
    """Serve on `address` with this certificate and key: tokens are secrets. The variable TOKENS has them."""
    tokens = Tokens(*os.environ["TOKENS"].split(","))
    certificates = Certificates(certificate_chain=certificate, private_key=key)
    telemetry = Telemetry.start("guarded", metrics_port=9467, services=["echo.v1.HealthService"])
    interceptors = [HideExceptions(), *telemetry.server_interceptors(), BearerToken(tokens)]
    server = grpc.server(ThreadPoolExecutor(8), interceptors=interceptors)
    add_HealthServiceServicer_to_server(Guarded(), server)
    return serve(server, address, telemetry, credentials=certificates.server_credentials())


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
