"""The commands that make a call."""

import io
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import click
import grpc

from client.answers import Answer, report, whole
from client.link import Link, at_jaeger
from observability import ClientInterceptor, Telemetry
from programs.options import TIMEOUT, Number, Text
from programs.tls import Target, target_options
from protos.echo_pb2 import (
    CallEchoRequest,
    CallEchoResponse,
    EchoRepeatRequest,
    EchoRequest,
    EchoResponse,
    HealthCheckRequest,
)
from protos.echo_pb2_grpc import CallEchoServiceStub, EchoServiceStub, HealthServiceStub

UNARY_TIMEOUT = 5.0  # seconds
CHANNEL_OPTIONS = (
    # No proxy stands between a person and their own services.
    ("grpc.enable_http_proxy", 0),
    # A service that lets each connection go at once would have a call tried again without end.
    ("grpc.enable_retries", 0),
)

# How a command begins that calls Service A, or B.
to_service_a = target_options("--service-a", "SERVICE_A_ADDRESS", "127.0.0.1:8080")
to_service_b = target_options("--service-b", "SERVICE_B_ADDRESS", "127.0.0.1:8081")
with_timeout = click.option(
    "--timeout", type=TIMEOUT, help="How long to wait. Unless given: 5 for one answer, without end for a stream."
)
with_verbose = click.option("--verbose", is_flag=True, help="Show the call's log line on stderr.")


@contextmanager
def channel_to(target: Target, *, verbose: bool = False, link: Link | None = None) -> Iterator[grpc.Channel]:
    """Open a channel whose calls are traced, and shown on stderr to those who ask for it."""
    with Telemetry.start(
        "client",
        log_name="client",
        log_stream=sys.stderr,
        log_level="info" if verbose else "critical",
        serve_metrics=False,
        flush_seconds=0.25,
    ) as telemetry:
        if telemetry.tracing.delivery is not None:
            telemetry.tracing.delivery.silent = True  # a missing collector is of no interest to the caller
        channel = target.channel(CHANNEL_OPTIONS)
        if link is not None:
            # Nearest to the wire, where it sees what is sent.
            channel = grpc.intercept_channel(channel, ClientInterceptor(link.watch))
        yield telemetry.intercept_channel(channel, target=target.address)
    if link is not None:
        link.show(telemetry)


@click.command()
@click.argument("msg", type=Text())
@to_service_b
@with_timeout
@at_jaeger
@with_verbose
def call_echo(msg: str, target: Target, timeout: float | None, jaeger: str, *, verbose: bool) -> int:
    """Send MSG to Service B, which asks Service A to echo it."""

    def answers(channel: grpc.Channel) -> Generator[Answer]:
        request = CallEchoRequest(msg=msg)
        yield called(CallEchoServiceStub(channel).CallEcho(request, timeout=timeout or UNARY_TIMEOUT))

    with channel_to(target, verbose=verbose, link=Link(jaeger)) as channel:
        return report(answers(channel), "service_b", target)


@click.command()
@click.argument("msg", type=Text(), nargs=-1, required=True)
@click.option("--repeat", type=Number("times", 0, 2**31 - 1), help="Have MSG echoed so many times.")
@click.option("--join", is_flag=True, help="Send several MSG and have them echoed as one.")
@to_service_a
@with_timeout
@with_verbose
def echo(  # noqa: PLR0913 - an argument per option
    msg: tuple[str, ...],
    target: Target,
    repeat: int | None,
    timeout: float | None,
    *,
    join: bool,
    verbose: bool,
) -> int:
    """Send MSG to Service A, which echoes it."""
    if join and repeat is not None:
        raise click.UsageError("--join and --repeat exclude each other.")
    if len(msg) > 1 and not join:
        raise click.UsageError("One MSG at a time; quote it if it has spaces, or --join several.")

    def answers(channel: grpc.Channel) -> Generator[Answer]:
        stub = EchoServiceStub(channel)
        if join:
            yield echoed(stub.EchoJoin((EchoRequest(msg=text) for text in msg), timeout=timeout))
        elif repeat is not None:
            stream = stub.EchoRepeat(EchoRepeatRequest(msg=msg[0], times=repeat), timeout=timeout)
            yield from each(stream, echoed)
        else:
            yield echoed(stub.Echo(EchoRequest(msg=msg[0]), timeout=timeout or UNARY_TIMEOUT))

    with channel_to(target, verbose=verbose) as channel:
        return report(answers(channel), "service_a", target)


@click.command()
@to_service_b
@with_timeout
@with_verbose
def chat(target: Target, timeout: float | None, *, verbose: bool) -> int:
    """
    Have each line of stdin echoed, by Service B and A.

    All lines share one stream; each is answered as it comes. Ctrl-D, or the end of the file, ends it.
    """

    def answers(channel: grpc.Channel) -> Generator[Answer]:
        requests = (CallEchoRequest(msg=line) for line in typed_lines())
        yield from each(CallEchoServiceStub(channel).CallEchoChat(requests, timeout=timeout), called)

    with channel_to(target, verbose=verbose) as channel:
        return report(answers(channel), "service_b", target)


@click.command()
@to_service_a
@with_timeout
@with_verbose
def health_a(target: Target, timeout: float | None, *, verbose: bool) -> int:
    """Ask Service A whether it is well."""
    return health(target, "service_a", timeout, verbose=verbose)


@click.command()
@to_service_b
@with_timeout
@with_verbose
def health_b(target: Target, timeout: float | None, *, verbose: bool) -> int:
    """Ask Service B whether it is well."""
    return health(target, "service_b", timeout, verbose=verbose)


def health(target: Target, service: str, timeout: float | None, *, verbose: bool) -> int:
    """Ask a service whether it is well."""

    def answers(channel: grpc.Channel) -> Generator[Answer]:
        response = HealthServiceStub(channel).Check(HealthCheckRequest(), timeout=timeout or UNARY_TIMEOUT)
        yield {"status": whole(response).status}

    with channel_to(target, verbose=verbose) as channel:
        return report(answers(channel), service, target)


def echoed(response: EchoResponse | None) -> Answer:
    """Return what Service A answered."""
    return {"echo": whole(response).echo}


def called(response: CallEchoResponse | None) -> Answer:
    """Return what Service B answered, with A's answer in it."""
    response = whole(response)
    return {"service_b": response.service_b, "service_a": echoed(response.service_a)}


def each(stream: Any, answer: Callable[[Any], Answer]) -> Generator[Answer]:
    """Yield the answers of a stream; end the call when nobody wants more."""
    try:
        yield from map(answer, stream)
    finally:
        if hasattr(stream, "cancel"):  # opentelemetry-instrumentation-grpc makes a mere generator of a stream
            stream.cancel()


def typed_lines() -> Iterable[str]:
    """Yield what is typed, or piped, line by line; what is no UTF-8 is replaced."""
    for line in io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace"):
        yield line.removesuffix("\n")
