"""Other libraries' interceptors, to stand beside ours."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import grpc
import grpc_interceptor
import py_grpc_prometheus.prometheus_client_interceptor as prom_client  # type: ignore[import-untyped]  # it has no types
import py_grpc_prometheus.prometheus_server_interceptor as prom_server  # type: ignore[import-untyped]  # it has no types
import sentry_sdk.integrations.grpc.aio.client as sentry_aio_client
import sentry_sdk.integrations.grpc.aio.server as sentry_aio_server
import sentry_sdk.integrations.grpc.client as sentry_client
import sentry_sdk.integrations.grpc.server as sentry_server
from opentelemetry.instrumentation import grpc as official_
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry

from observability import ClientInterceptor

official: Any = official_  # it has no types
PROVIDER = TracerProvider(shutdown_on_exit=False)


class Passing(grpc_interceptor.ServerInterceptor):
    """An interceptor of grpc-interceptor that changes nothing."""

    def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler."""
        del method_name
        return method(request_or_iterator, context)


class AioPassing(grpc_interceptor.AsyncServerInterceptor):
    """The same for asyncio."""

    async def intercept(self, method: Any, request_or_iterator: Any, context: Any, method_name: str) -> Any:
        """Call the handler."""
        del method_name
        response = method(request_or_iterator, context)
        return response if hasattr(response, "__aiter__") else await response


class PassingClient(grpc_interceptor.ClientInterceptor):
    """The same for a client."""

    def intercept(self, method: Any, request_or_iterator: Any, call_details: Any) -> Any:
        """Make the call."""
        return method(request_or_iterator, call_details)


@dataclass(frozen=True)
class Library:
    """A library's interceptors; None where it has none."""

    name: str
    server: Callable[[], Any]
    aio_server: Callable[[], Any] | None
    client: Callable[[grpc.Channel], grpc.Channel]
    aio_clients: Callable[[], list[Any]] | None

    def __str__(self) -> str:
        return self.name


LIBRARIES = [
    Library(
        "opentelemetry",
        lambda: official.server_interceptor(PROVIDER),
        lambda: official.aio_server_interceptor(PROVIDER),
        lambda channel: official.grpcext.intercept_channel(channel, official.client_interceptor(PROVIDER)),
        lambda: official.aio_client_interceptors(PROVIDER),
    ),
    Library(
        "grpc-interceptor",
        Passing,
        AioPassing,
        lambda channel: grpc.intercept_channel(channel, PassingClient()),
        None,
    ),
    Library(
        "grpc-interceptor's exceptions",
        grpc_interceptor.ExceptionToStatusInterceptor,
        grpc_interceptor.AsyncExceptionToStatusInterceptor,
        lambda channel: channel,
        None,
    ),
    Library(
        "py-grpc-prometheus",
        lambda: prom_server.PromServerInterceptor(registry=CollectorRegistry()),
        None,
        lambda channel: grpc.intercept_channel(
            channel, prom_client.PromClientInterceptor(registry=CollectorRegistry())
        ),
        None,
    ),
    Library(
        "sentry",
        sentry_server.ServerInterceptor,
        sentry_aio_server.ServerInterceptor,
        lambda channel: grpc.intercept_channel(channel, sentry_client.ClientInterceptor()),
        lambda: [
            sentry_aio_client.SentryUnaryUnaryClientInterceptor(),
            sentry_aio_client.SentryUnaryStreamClientInterceptor(),
        ],
    ),
]
OPENTELEMETRY, PASSING, EXCEPTIONS, PROMETHEUS, SENTRY = LIBRARIES


def intercepted(interceptor: ClientInterceptor, channel: grpc.Channel) -> grpc.Channel:
    """Return a channel through our interceptor."""
    return grpc.intercept_channel(channel, interceptor)
