"""The client's side: the interceptor for grpc's sync channels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import grpc

from ..calls.method import RESPONSE_STREAMS
from .details import details_with
from .future import observe_future
from .responses import observe_responses
from .start import ClientObserving
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..calls.method import Type


class ClientInterceptor(
    ClientObserving,
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """
    Reports to these observers every call made through a channel of grpc.intercept_channel.

    `target` is the channel's address, which grpc does not show to interceptors.
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
        metadata = getattr(details, "metadata", None)
        method = self._method(details.method, type_)
        call, request = self._start(method, request, metadata, getattr(details, "timeout", None))
        try:
            result = continuation(details_with(details, call.metadata), request)
        except BaseException as error:
            call.raised(error, *carried_by(error))
            raise
        if isinstance(result, grpc.RpcError) and not hasattr(result, "result"):
            call.raised(result, *carried_by(result))
            raise result  # an interceptor after us has raised it: grpc returns it, and would ask it for its result
        return observe_responses(result, call) if type_ in RESPONSE_STREAMS else observe_future(result, call)
