"""The client's side: from what a call's result shows to its Observation; the interceptor for grpc's channels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc

from .call import Observation, Observer, enabled_by
from .handlers import each
from .method import METHOD_LIMIT, REQUEST_STREAMS, RESPONSE_STREAMS, method_at
from .results import end_raised
from .results_sync import Responses, future_of
from .signals import Signals

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from .method import Method, Type


class _Fields(NamedTuple):
    """What a call of a sync channel is made with."""

    method: Any
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: Any


class _ClientCallDetails(_Fields, grpc.ClientCallDetails):
    """What a call is made with, changed."""


class Observing:
    """What the client interceptors of both stacks and the observed channel share."""

    def __init__(self, *observers: Observer, target: str | None = None) -> None:
        # Imported here: it reads OTEL_PROPAGATORS, and raises for a bad one that Telemetry.start leaves out.
        from opentelemetry.instrumentation.utils import is_instrumentation_enabled  # noqa: PLC0415

        self._enabled = enabled_by(is_instrumentation_enabled)
        self._signals = Signals.of(observers)
        self._target = target
        self._methods: dict[Any, Method] = {}

    def _begin(self, method: Method, metadata: Any, timeout: float | None) -> Observation:
        started, started_ns = time.perf_counter(), time.time_ns()
        metadata = list(metadata or ())
        return Observation(method, "client", metadata, self._signals, started, started_ns, timeout, self._target)

    def _known(self, path: str | bytes, type_: Type) -> Method:
        return self._methods.get(path) or self._learn(path, type_)

    def _learn(self, path: str | bytes, type_: Type) -> Method:
        method = method_at(path.decode() if isinstance(path, bytes) else path, type_)
        if len(self._methods) < METHOD_LIMIT:
            self._methods[path] = method
        return method


def _details_with(details: Any, metadata: Any) -> _ClientCallDetails:
    return _ClientCallDetails(
        details.method,
        details.timeout,
        metadata,
        details.credentials,
        details.wait_for_ready,
        getattr(details, "compression", None),
    )


def counted(call: Observation, requests: Iterable[Any]) -> Iterator[Any]:
    """Yield these requests, counted as sent."""
    for request in requests:
        call.sent += 1
        yield request


class ClientInterceptor(
    Observing,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """
    Tells these observers of every call made through a channel of grpc.intercept_channel.

    `target` is the channel's address, which grpc does not tell interceptors.
    """

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Observe a unary call."""
        return self._call(continuation, client_call_details, request, "unary")

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Observe a client-streaming call."""
        return self._call(continuation, client_call_details, request_iterator, "client_stream")

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Observe a server-streaming call."""
        return self._call(continuation, client_call_details, request, "server_stream")

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Observe a bidirectional call."""
        return self._call(continuation, client_call_details, request_iterator, "bidi_stream")

    def _call(self, continuation: Callable[[Any, Any], Any], details: Any, request: Any, type_: Type) -> Any:
        if not self._enabled():
            return continuation(details, request)
        call = self._begin(self._known(details.method, type_), details.metadata, details.timeout)
        if type_ in REQUEST_STREAMS:
            request = counted(call, each(request))
        else:
            call.sent = 1
        try:
            result = continuation(_details_with(details, call.metadata), request)
        except BaseException as error:
            end_raised(call, error)
            raise
        if type_ in RESPONSE_STREAMS:
            return Responses(result, call)
        return future_of(result, call)
