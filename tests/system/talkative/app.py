"""A Service A whose handler logs lines and makes a span; a program for the tests."""

import logging
import sys
from collections.abc import Iterator
from typing import Any

import click
import grpc
import structlog
from opentelemetry import trace

from observability import Telemetry, serve
from programs.options import run
from programs.server import ServerOptions, new_server, server_options
from protos.echo_pb2 import EchoRequest, EchoResponse
from protos.echo_pb2_grpc import EchoServiceServicer, add_EchoServiceServicer_to_server

SERVICES = ("echo.v1.EchoService",)


class TalkativeEcho(EchoServiceServicer):
    """Echoes, and logs and traces it; a message `fail` makes it fail."""

    def Echo(self, request: EchoRequest, _context: grpc.ServicerContext) -> EchoResponse:  # noqa: N802 - the RPC's name
        """Answer with the message."""
        logging.getLogger("talkative").info("looking it up", extra={"customer": "Ada"})
        with trace.get_tracer(__name__).start_as_current_span("look up"):
            structlog.get_logger().warning("not in the cache", key=request.msg)
        if request.msg == "fail":
            raise ValueError("the secret is 42")
        return EchoResponse(echo=request.msg)

    def EchoChat(  # noqa: N802 - the RPC's name
        self, request_iterator: Iterator[EchoRequest], context: grpc.ServicerContext
    ) -> Iterator[EchoResponse]:
        """Answer each message."""
        for request in request_iterator:
            with trace.get_tracer(__name__).start_as_current_span("one of many"):
                logging.getLogger("talkative").info("one of many")
            yield self.Echo(request, context)


@click.command()
@server_options("TALKATIVE", port=0)
def main(**settings: Any) -> int:
    """Serve until a signal."""
    options = ServerOptions(**settings)
    with Telemetry.start("service-a", log_name="A", log_stream=sys.__stdout__, services=SERVICES) as telemetry:
        server = new_server(options, telemetry, SERVICES)
        echo = TalkativeEcho()  # type: ignore[abstract]  # its other methods stay unimplemented
        add_EchoServiceServicer_to_server(echo, server)
        return serve(server, options.address, telemetry, grace=options.grace)


if __name__ == "__main__":
    run(main)
