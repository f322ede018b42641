"""Service B: answers with what Service A answers, and reports what happened to A when it does not."""

# ruff: noqa: N802 - an RPC is a method under its own name

if __name__ == "__main__":
    from programs.start_up import end_at_signals, silence_core

    end_at_signals(0)  # until `serve` hears them: the imports alone take half a second
    silence_core()

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn, TypeAlias

import click
import grpc
from google.protobuf.message import Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RequestInfo  # type: ignore[import-untyped]  # it has no stubs

from observability import Telemetry, __version__, current_call
from programs.addresses import is_one_address
from programs.options import COUNT, TIMEOUT, GrpcTarget, option, run
from programs.server import ServerOptions, new_server, server_options
from programs.status import details_of, refuse
from programs.tls import CA, Target, server_name_option, tls_files, tls_option
from protos.echo_pb2 import CallEchoRequest, CallEchoResponse, EchoRequest, EchoResponse
from protos.echo_pb2_grpc import (
    CallEchoServiceServicer,
    EchoServiceStub,
    add_CallEchoServiceServicer_to_server,
)

SERVICES = ("echo.v1.CallEchoService", "echo.v1.HealthService")
A_SERVICES = ("echo.v1.EchoService",)

FOREVER = 1e9  # seconds: 30 years
LAST_WORD = 0.02  # seconds
FAILED = "Service A failed"
LONGEST_REFUSAL = 1_000  # bytes: a status of many kB becomes another one on its way

CHANNEL_OPTIONS = (
    # B reaches A within a second of A's return, after an outage of any length (grpc waits up to 2 minutes).
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    # The time that an attempt to connect may take, so that one into the void makes way for the next.
    ("grpc.min_reconnect_backoff_ms", 500),
    # A connection on which nothing arrives any more is given up after a second: Linux is asked for that
    # (TCP_USER_TIMEOUT) when there is a keepalive time.
    ("grpc.keepalive_timeout_ms", 1_000),
    # A new address behind A's name is looked up at once, not after 30 seconds.
    ("grpc.dns_min_time_between_resolutions_ms", 500),
    # A call that a connection did not take is not tried on the next one: where A lets each go at once, that never ends.
    ("grpc.enable_retries", 0),
    # A connection takes no more calls than A lets it have; B opens another one for more.
    ("grpc.max_connections_per_subchannel_cap", 100),
    # A is an inner address: no proxy stands in between.
    ("grpc.enable_http_proxy", 0),
)
CONNECTION_SCALING = {"connectionScaling": {"maxConnectionsPerSubchannel": 100}}
ONE_COPY = (
    # So long that no server minds the pings.
    ("grpc.keepalive_time_ms", 600_000),
    ("grpc.service_config", json.dumps(CONNECTION_SCALING)),
)
COPIES = (
    # A copy is asked whether it is there when nothing has come from it for half a second, and is left if it does not
    # answer within a second: a frozen one does not, though its machine acknowledges what it is sent.
    ("grpc.keepalive_time_ms", 500),
    ("grpc.http2.ping_timeout_ms", 1_000),
    ("grpc.http2.max_pings_without_data", 0),
    # Each gets the same share of the calls, but for those that say that they are not serving.
    (
        "grpc.service_config",
        json.dumps(
            CONNECTION_SCALING
            | {"loadBalancingConfig": [{"round_robin": {}}], "healthCheckConfig": {"serviceName": A_SERVICES[0]}}
        ),
    ),
)
# Channels whose options differ share no connection. A refuses calls on one that is nearly full, since it counts those
# that have just ended: chats, which their callers may hold, are not to fill those of the calls that answer once.
APART = ("echo.chats", 1)
# How gRPC says that no copy is connected: there is none that another try could reach.
NO_COPY = ("connections to all backends failing", "failed to connect to all addresses", "DNS resolution failed")
# These codes mean that A did not answer. The caller reads so in fixed words: grpc's name inner addresses.
NO_ANSWER = {
    grpc.StatusCode.UNAVAILABLE: "failed to connect to all addresses",
    grpc.StatusCode.DEADLINE_EXCEEDED: "Service A did not answer in time",
}


Due: TypeAlias = "queue.SimpleQueue[CallEchoRequest | None]"
"""The messages to which A owes an answer; None where no more come, or A has ended."""


class CallEchoService(CallEchoServiceServicer):
    """Relays to Service A, and ends its calls there when its own callers leave."""

    def __init__(
        self, channel: grpc.Channel, chats: grpc.Channel, *, max_chats: int, timeout: float, tries: int = 1
    ) -> None:
        self._echo = EchoServiceStub(channel)
        self._chats = EchoServiceStub(chats)
        self._room = threading.BoundedSemaphore(max_chats)
        self._timeout = timeout
        self._tries = tries

    def CallEcho(self, request: CallEchoRequest, context: grpc.ServicerContext) -> CallEchoResponse:
        """Answer with A's Echo, within its time, by another copy where the first one was not reached."""
        until = time.monotonic() + self._budget(context)
        for left in reversed(range(self._tries)):
            answer = self._echo.Echo.future(EchoRequest(msg=request.msg), timeout=until - time.monotonic())
            at_end(context, answer.cancel)
            try:
                response = answer.result()
                break
            except grpc.FutureCancelledError:
                context.abort(grpc.StatusCode.CANCELLED, "the caller left")
            except grpc.RpcError as error:
                forget_frames(error)
                if not left or not may_reach_another(error) or time.monotonic() > until:
                    pass_on(error, context)
        if response is None:  # what grpc gives of an answer that is OK and has no message
            fail(context, grpc.StatusCode.INTERNAL)
        return CallEchoResponse(service_b="ok", service_a=response)

    def CallEchoChat(
        self, request_iterator: Iterator[CallEchoRequest], context: grpc.ServicerContext
    ) -> Iterator[CallEchoResponse]:
        """Answer each message with A's answer, at the pace of the slowest of the three; refuse a chat too many."""
        if not self._room.acquire(blocking=False):
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too many chats at once")
        at_end(context, self._room.release)
        over = threading.Event()
        due: Due = queue.SimpleQueue()
        answers = self._chats.EchoChat(relayed(request_iterator, over, due), timeout=time_left(context))
        at_end(context, answers.cancel)
        at_end(context, over.set)
        at_end(answers, lambda: due.put(None))
        try:
            for answer in when_due(answers, due):
                yield CallEchoResponse(service_b="ok", service_a=answer)
        except grpc.RpcError as error:
            forget_frames(error)
            pass_on(error, context)

    def _budget(self, context: grpc.ServicerContext) -> float:
        """Return A's time to answer in seconds: the caller's, less a little for B's own answer."""
        left = time_left(context)
        return self._timeout if left is None else min(self._timeout, left - min(left / 10, 0.05))


def time_left(context: grpc.ServicerContext) -> float | None:
    """Return how many seconds the caller still waits; None if it gave no deadline."""
    seconds = context.time_remaining()
    # Without a deadline grpc says 292 billion years: grpc#26236.
    return None if seconds is None or seconds > FOREVER else seconds


def at_end(call: grpc.RpcContext, act: Callable[[], Any]) -> None:
    """Act when the call is over, however it ends; at once if it is over already."""
    if not call.add_callback(act):
        act()


def relayed(requests: Iterable[CallEchoRequest], over: threading.Event, due: Due) -> Iterator[EchoRequest]:
    """Yield the messages for A as the caller sends them, each of which makes an answer due."""
    try:
        for request in requests:
            due.put(request)
            yield EchoRequest(msg=request.msg)
    except grpc.RpcError as error:
        forget_frames(error)
    due.put(None)
    # When the caller leaves, its messages end a moment before grpc says why: if they ended at once for A too, A would
    # take them for complete, and answer OK to what was cancelled.
    over.wait(LAST_WORD)


def when_due(answers: Iterator[EchoResponse], due: Due) -> Iterator[EchoResponse]:
    """
    Yield A's answers, without a look for the next before it is due: one that A does not owe waits for one that it does.

    grpc waits for an answer by looking ten times a second: a thousand chats in which nobody says anything would take a
    core.
    """
    while due.get() is not None:
        try:
            yield next(answers)
        except StopIteration:
            return
    yield from answers


def may_reach_another(error: grpc.RpcError) -> bool:
    """
    Return whether another copy of A may answer where this one has not.

    It may have been reached, and lost: to echo twice does no harm.
    """
    return error.code() is grpc.StatusCode.UNAVAILABLE and not (error.details() or "").startswith(NO_COPY)


def forget_frames(error: grpc.RpcError) -> None:
    """
    Let an error that a handler has caught forget where that was.

    It is A's call itself, which the handler's frame keeps, or what grpc keeps of a caller that has left. Through its
    traceback it would keep that frame, and so the caller's stream open, until the garbage collector runs; of too many
    streams grpc refuses those that follow.
    """
    error.__traceback__ = None


def pass_on(error: grpc.RpcError, context: grpc.ServicerContext) -> NoReturn:
    """End the call with what happened to A, and nothing that only the inside should know."""
    code = error.code()
    if code is grpc.StatusCode.CANCELLED and context.is_active():
        # Nobody here has cancelled: a server answers so while it stops, or has too many calls.
        code = grpc.StatusCode.UNAVAILABLE
    refusal = refusal_of(error)
    fail(context, code, *refusal, text=(error.details() or "") if refusal else FAILED)


def fail(context: grpc.ServicerContext, code: grpc.StatusCode, *refusal: Message, text: str = FAILED) -> NoReturn:
    """End the call with A's code, and with this text if A has answered."""
    reason = "SERVICE_A_ERROR"
    if code in NO_ANSWER:
        text, reason = NO_ANSWER[code], "SERVICE_A_UNAVAILABLE"
    call = current_call()
    refuse(
        context,
        code,
        text,
        ErrorInfo(domain="echo.v1", reason=reason),
        RequestInfo(request_id=call.trace_id or "" if call else ""),
        *refusal,
    )


def refusal_of(error: grpc.RpcError) -> list[Message]:
    """
    Return the BadRequest with which A refuses a message, in a list; nothing of any other failure.

    That is all that A's contract says of failures, and so all that B's caller may read in A's own words.
    """
    if error.code() is not grpc.StatusCode.INVALID_ARGUMENT or len((error.details() or "").encode()) > LONGEST_REFUSAL:
        return []
    return [detail for detail in details_of(error, BadRequest) if detail.ByteSize() <= LONGEST_REFUSAL][:1]


@click.command()
@server_options("SERVICE_B", port=8081)
@option(
    "--service-a",
    "SERVICE_A_ADDRESS",
    GrpcTarget(),
    "127.0.0.1:8080",
    "Where Service A listens: HOST:PORT, or a gRPC target of several copies.",
)
@option("--service-a-timeout", "SERVICE_A_TIMEOUT", TIMEOUT, 1.0, "How long A may take to answer, at most.")
@option("--max-chats", "SERVICE_B_MAX_CHATS", COUNT, 200, "Chats at once; one more is refused.")
@tls_option(CA, "SERVICE_B_TLS_CA", "File of the authority whose certificate Service A has; calls to it have TLS then.")
@server_name_option("SERVICE_B")
def main(
    service_a: str,
    service_a_timeout: float,
    max_chats: int,
    tls_ca: str | None,
    tls_server_name: str | None,
    **settings: Any,
) -> int:
    """Service B: CallEchoService and HealthService. Reads OTEL_* and LOG_* variables too."""
    options = ServerOptions(**settings)
    credentials = options.credentials()
    # The server's certificate is the one that A sees, if calls to A have TLS.
    files = tls_files(options.tls_cert, options.tls_key, tls_ca) if tls_ca else {}
    target = Target(service_a, files, tls_server_name)
    with Telemetry.start(
        "service-b",
        log_name="B",
        log_stream=sys.__stdout__,  # a line that a full disk does not take is no failure of ours
        version=__version__,
        metrics_port=9465,
        services=SERVICES,
        client_services=A_SERVICES,
    ) as telemetry:
        is_one = is_one_address(service_a)
        channel_options = [*CHANNEL_OPTIONS, *(ONE_COPY if is_one else COPIES)]
        channel, chats = (
            telemetry.intercept_channel(target.channel(each, follow=True), target=service_a)
            for each in (channel_options, [*channel_options, APART])
        )
        server = new_server(options, telemetry, SERVICES)
        call_echo = CallEchoService(
            channel, chats, max_chats=max_chats, timeout=service_a_timeout, tries=1 if is_one else 2
        )
        add_CallEchoServiceServicer_to_server(call_echo, server)
        return options.serve(server, telemetry, credentials)


if __name__ == "__main__":
    run(main)
