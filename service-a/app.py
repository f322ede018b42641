"""Service A: echoes what it is sent, once, often, joined or message by message."""

# ruff: noqa: N802 - an RPC is a method under its own name

if __name__ == "__main__":
    from programs.start_up import end_at_signals, silence_core

    end_at_signals(0)  # until `serve` hears them: the imports alone take half a second
    silence_core()

import sys
from collections.abc import Iterator
from typing import Any

import click
import grpc
from google.rpc.error_details_pb2 import BadRequest  # type: ignore[import-untyped]  # it has no stubs

from observability import Telemetry, __version__
from programs.options import BYTES, option, run
from programs.server import ServerOptions, new_server, server_options
from programs.status import refuse
from protos.echo_pb2 import EchoRepeatRequest, EchoRequest, EchoResponse
from protos.echo_pb2_grpc import EchoServiceServicer, add_EchoServiceServicer_to_server

SERVICES = ("echo.v1.EchoService", "echo.v1.HealthService")


class EchoService(EchoServiceServicer):
    """
    Echoes text.

    A `msg` has at most `max_msg_bytes` bytes of UTF-8, and what EchoJoin makes of several at most
    `max_joined_bytes`. What is longer, or negative, is refused with INVALID_ARGUMENT and a BadRequest.
    """

    def __init__(self, *, max_msg_bytes: int, max_joined_bytes: int) -> None:
        self._max_msg_bytes = max_msg_bytes
        self._max_joined_bytes = max_joined_bytes

    def Echo(self, request: EchoRequest, context: grpc.ServicerContext) -> EchoResponse:
        """Answer with the message."""
        return EchoResponse(echo=self._checked(request.msg, context))

    def EchoRepeat(self, request: EchoRepeatRequest, context: grpc.ServicerContext) -> Iterator[EchoResponse]:
        """Answer with the message, as often as asked."""
        if request.times < 0:
            refuse_field(context, "times", f"{request.times} is negative")
        response = EchoResponse(echo=self._checked(request.msg, context))
        for _ in range(request.times):
            yield response

    def EchoJoin(self, request_iterator: Iterator[EchoRequest], context: grpc.ServicerContext) -> EchoResponse:
        """Answer once, with all messages joined by spaces."""
        messages: list[str] = []
        size = 0
        for request in request_iterator:
            messages.append(self._checked(request.msg, context))
            size += len(request.msg.encode()) + 1
            if size > self._max_joined_bytes:
                refuse_field(context, "msg", f"together longer than {self._max_joined_bytes} bytes")
        return EchoResponse(echo=" ".join(messages))

    def EchoChat(
        self, request_iterator: Iterator[EchoRequest], context: grpc.ServicerContext
    ) -> Iterator[EchoResponse]:
        """Answer each message as it arrives."""
        for request in request_iterator:
            yield EchoResponse(echo=self._checked(request.msg, context))

    def _checked(self, msg: str, context: grpc.ServicerContext) -> str:
        """Return the message if it is not too long."""
        if len(msg.encode()) > self._max_msg_bytes:
            refuse_field(context, "msg", f"longer than {self._max_msg_bytes} bytes")
        return msg


def refuse_field(context: grpc.ServicerContext, field: str, why: str) -> None:
    """End the call with INVALID_ARGUMENT and the field that is to blame."""
    violation = BadRequest.FieldViolation(field=field, description=why)
    refuse(context, grpc.StatusCode.INVALID_ARGUMENT, f"{field}: {why}", BadRequest(field_violations=[violation]))


@click.command()
@server_options("SERVICE_A", port=8080)
@option("--max-msg-bytes", "SERVICE_A_MAX_MSG_BYTES", BYTES, 64 * 1024, "Longest msg that is echoed.")
@option(
    "--max-joined-bytes",
    "SERVICE_A_MAX_JOINED_BYTES",
    BYTES,
    256 * 1024,
    "Longest text that EchoJoin makes of several.",
)
def main(max_msg_bytes: int, max_joined_bytes: int, **settings: Any) -> int:
    """Service A: EchoService and HealthService. Reads OTEL_* and LOG_* variables too."""
    options = ServerOptions(**settings)
    credentials = options.credentials()
    with Telemetry.start(
        "service-a",
        log_name="A",
        log_stream=sys.__stdout__,  # a line that a full disk does not take is no failure of ours
        version=__version__,
        metrics_port=9464,
        services=SERVICES,
    ) as telemetry:
        server = new_server(options, telemetry, SERVICES)
        echo = EchoService(max_msg_bytes=max_msg_bytes, max_joined_bytes=max_joined_bytes)
        add_EchoServiceServicer_to_server(echo, server)
        return options.serve(server, telemetry, credentials)


if __name__ == "__main__":
    run(main)
