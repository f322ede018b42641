"""Every public name as its users would use it: what mypy lets pass here, it lets pass there."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal, assert_type

import grpc
import grpc.aio
import structlog
from opentelemetry.baggage.propagation import W3CBaggagePropagator
from opentelemetry.instrumentation.grpc import filters
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from prometheus_client import CollectorRegistry

from observability import (
    AioHideExceptions,
    AioObservedChannel,
    AioServerInterceptor,
    Call,
    ClientInterceptor,
    HideExceptions,
    LifecycleObserver,
    ListenError,
    ObservedChannel,
    Observer,
    OnEnd,
    Outcome,
    ServerInterceptor,
    SettingError,
    Telemetry,
    aio_client_interceptors,
    current_call,
    log_calls,
    measure_calls,
    serve,
    serve_aio,
    trace_calls,
)
from observability.instrumentor import GrpcObservability
from observability.testing import RecordedTelemetry
from protos.echo_pb2 import EchoRequest, EchoResponse, HealthCheckRequest, HealthCheckResponse
from protos.echo_pb2_grpc import EchoServiceStub, HealthServiceServicer, add_HealthServiceServicer_to_server

ADDRESS = "localhost:8080"


class Service(HealthServiceServicer):
    """A service whose handler annotates its call."""

    def Check(self, request: HealthCheckRequest, context: grpc.ServicerContext) -> HealthCheckResponse:  # noqa: N802 - an RPC
        """Answer."""
        call = current_call()
        if call is not None:
            assert_type(call, Call)
            call.annotate(tenant="acme", cups=2)
        del request, context
        return HealthCheckResponse(status="ok")


def main() -> int:
    """Run a server, as docs/sync-server.md shows."""
    try:
        with Telemetry.start(
            "service-a",
            log_name="A",
            version="1.2.3",
            metrics_port=9464,
            services=["echo.v1.EchoService"],
            client_services=("echo.v1.EchoService",),
            filter_=filters.negate(filters.service_prefix("internal.")),
            registry=CollectorRegistry(),
            observers=[count_calls, SlowHandlers()],
            flush_seconds=0.5,
        ) as telemetry:
            assert_type(telemetry, Telemetry)
            assert_type(telemetry.metrics_address, str | None)
            interceptors = [HideExceptions(), *telemetry.server_interceptors()]
            server = grpc.server(ThreadPoolExecutor(4), interceptors=interceptors)
            add_HealthServiceServicer_to_server(Service(), server)
            channel = telemetry.intercept_channel(grpc.insecure_channel(ADDRESS), target=ADDRESS)
            assert_type(channel, grpc.Channel)
            EchoServiceStub(channel).Echo(EchoRequest(msg="hello"), timeout=1)
            return serve(server, ADDRESS, telemetry, grace=5, drain_delay=0.5)
    except SettingError as error:
        assert_type(error, SettingError)
        raise SystemExit(str(error)) from error
    except ListenError as error:
        raise SystemExit(str(error)) from error


async def aio_main() -> int:
    """Run a server on asyncio."""
    telemetry = Telemetry.start("service-a", logging=False)
    interceptors = [AioHideExceptions(), *telemetry.aio_server_interceptors()]
    server = grpc.aio.server(interceptors=interceptors)
    channel = grpc.aio.insecure_channel(ADDRESS, interceptors=telemetry.aio_client_interceptors(target=ADDRESS))
    assert_type(channel, grpc.aio.Channel)
    assert_type(telemetry.intercept_channel(grpc.aio.insecure_channel(ADDRESS), target=ADDRESS), grpc.aio.Channel)
    status = await serve_aio(server, ADDRESS, telemetry, credentials=grpc.local_server_credentials())
    telemetry.close()
    return status


def count_calls(call: Call) -> OnEnd:
    """Observe calls by a plain function."""
    assert_type(call.service, str)
    assert_type(call.method, str)
    assert_type(call.kind, Literal["server", "client"])
    assert_type(call.type, Literal["unary", "client_stream", "server_stream", "bidi_stream"])
    assert_type(call.peer, str | None)
    assert_type(call.peer_identity, str | None)
    assert_type(call.deadline, float | None)
    assert_type(call.sent, int)
    assert_type(call.received, int)
    assert_type(call.trace_id, str | None)
    assert_type(call.span_id, str | None)
    metadata: list[tuple[str, str | bytes]] = list(call.metadata)

    def finish(outcome: Outcome) -> None:
        assert_type(outcome.code, grpc.StatusCode)
        assert_type(outcome.details, str)
        assert_type(outcome.seconds, float)
        assert_type(outcome.error, BaseException | None)
        metadata.clear()

    return finish


class SlowHandlers(LifecycleObserver):
    """An observer of more than a call's start and end; a call's state is what on_start returns."""

    def on_start(self, call: Call) -> list[str]:
        """Return the state."""
        return [call.method]

    def on_handler_end(self, call: Call, state: list[str]) -> None:
        """Use the state."""
        state.append(call.service)

    def on_message_sent(self, call: Call, state: list[str], message: object) -> None:
        """Use the state."""
        state.append(f"{call.sent}: {message}")

    def on_message_received(self, call: Call, state: list[str], message: object) -> None:
        """Use the state."""
        state.append(f"{call.received}: {message}")

    def on_end(self, call: Call, state: list[str], outcome: Outcome) -> None:
        """Use the state again."""
        state.append(f"{call.kind} {outcome.code.name}")


def own_parts() -> None:
    """Build everything by hand: nothing global, everything an argument."""
    provider = TracerProvider()
    registry = CollectorRegistry()
    observers: list[Observer] = [
        trace_calls(provider, propagator=W3CBaggagePropagator(), filter_=filters.health_check()),
        measure_calls(registry, services=["echo.v1.EchoService"], buckets=(0.1, 1.0), client_services=()),
        log_calls(structlog.get_logger().bind(service="A"), only="failed", baggage_keys=["tenant"]),
        log_calls(structlog.get_logger(), only=250.0),
        count_calls,
        SlowHandlers(),
    ]
    server: grpc.ServerInterceptor = ServerInterceptor(*observers)
    aio_server: grpc.aio.ServerInterceptor = AioServerInterceptor(*observers)
    clients: list[grpc.aio.ClientInterceptor] = aio_client_interceptors(*observers, target=ADDRESS)
    channel = grpc.intercept_channel(grpc.insecure_channel(ADDRESS), ClientInterceptor(*observers, target=ADDRESS))
    assert_type(channel, grpc.Channel)
    observed: grpc.Channel = ObservedChannel(grpc.insecure_channel(ADDRESS), *observers, target=ADDRESS)
    aio_observed: grpc.aio.Channel = AioObservedChannel(grpc.aio.insecure_channel(ADDRESS), *observers, target=ADDRESS)
    del observed, aio_observed
    grpc.server(ThreadPoolExecutor(), interceptors=[HideExceptions(), server])
    grpc.aio.server(interceptors=[AioHideExceptions(), aio_server])
    grpc.aio.insecure_channel(ADDRESS, interceptors=clients)


def responses(channel: grpc.Channel) -> Iterator[EchoResponse]:
    """Keep a stub's own types on a channel that is intercepted."""
    answer: Any = EchoServiceStub(channel).EchoChat(iter([EchoRequest(msg="hello")]))
    yield from answer


def zero_code(telemetry: Telemetry) -> None:
    """Observe what grpc's functions make."""
    GrpcObservability().instrument()
    GrpcObservability().uninstrument()
    GrpcObservability().instrument(telemetry=telemetry)
    Telemetry.start("orders", logging="calls")


def recorded_parts() -> None:
    """Look at what a service reports, as its tests do."""
    with RecordedTelemetry(
        "orders", services=["echo.v1.EchoService"], observers=[count_calls], seconds=1.0
    ) as recorded:
        assert_type(recorded.telemetry, Telemetry)
        assert_type(recorded.lines(kind="server", code="OK"), list[dict[str, Any]])
        assert_type(recorded.spans(going_on=1), list[ReadableSpan])
        assert_type(recorded.total("grpc_server_handled_total", grpc_code="OK"), float)


if __name__ == "__main__":
    raise SystemExit(main() or asyncio.run(aio_main()))
