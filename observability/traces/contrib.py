"""The traces of opentelemetry-instrumentation-grpc in place of ours, and the ids that our log lines take from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from opentelemetry import trace

from .attributes import PEER_IDENTITY
from .observer import CallSpan, Spans, attach_span_context, filter_details

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc
    import grpc.aio
    from opentelemetry.trace import TracerProvider

    from ..calls.call import Call
    from ..calls.observer import Observer


class Contrib:
    """The traces of opentelemetry-instrumentation-grpc, in place of ours; `filter` is what it traces."""

    def __init__(self, provider: TracerProvider, filter_: Callable[[Any], bool]) -> None:
        from opentelemetry.instrumentation import grpc as official  # noqa: PLC0415 - only where it is wanted

        self._official: Any = official
        self._provider = provider
        self.filter = filter_

    def server(self) -> grpc.ServerInterceptor:
        """Return its interceptor for grpc.server."""
        return cast("grpc.ServerInterceptor", self._official.server_interceptor(self._provider, self.filter))

    def aio_server(self) -> grpc.aio.ServerInterceptor:
        """Return its interceptor for grpc.aio.server."""
        return cast("grpc.aio.ServerInterceptor", self._official.aio_server_interceptor(self._provider, self.filter))

    def intercept_channel(self, channel: grpc.Channel) -> grpc.Channel:
        """Return this channel, traced; its interceptor is none of grpc's, and needs another function."""
        interceptor = self._official.client_interceptor(self._provider, self.filter)
        return cast("grpc.Channel", self._official.grpcext.intercept_channel(channel, interceptor))

    def aio_clients(self) -> list[grpc.aio.ClientInterceptor]:
        """Return its interceptors for grpc.aio channels."""
        found: list[grpc.aio.ClientInterceptor]
        found = self._official.aio_client_interceptors(self._provider, self.filter)
        return found


def adopt_current_span(filter_: Callable[[Any], bool]) -> Observer:
    """Give calls the ids of the spans that another instrumentation makes further out, of the calls it wants."""
    return AdoptedSpanObserver(filter_)


class AdoptedSpanObserver(Spans):
    """Reads a call's ids from the current span where somebody else's interceptor has made it."""

    def __init__(self, filter_: Callable[[Any], bool]) -> None:
        self._filter = filter_

    def on_start(self, call: Call) -> CallSpan | None:
        """Return where to keep the call's span, if another instrumentation makes one."""
        if not self._filter(filter_details(call)):
            return None
        state = CallSpan()
        if call.kind == "client":
            self.on_handler_start(call, state)
        return state

    def on_handler_start(self, call: Call, state: CallSpan | None) -> None:
        """Read them: a server's are known around its handler alone."""
        if state is not None:
            state.span = trace.get_current_span()
            attach_span_context(call, state.span)
            if call.peer_identity is not None:
                state.span.set_attribute(PEER_IDENTITY, call.peer_identity)
