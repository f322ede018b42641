"""What calls a method through an observed sync channel: made once for each method, with grpc's own signatures."""
# ruff: noqa: FBT001, PLR0913, PLR0917 - those of grpc's own, whose words a TypeError has, names of classes included

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import grpc

from .channel_proxy import ObservedCallable
from .future import observe_future
from .responses import observe_responses
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..calls.method import Type
    from .call import ClientCall


class _MultiCallable(ObservedCallable):
    """What calls one method of a sync channel, in any way."""

    def _make(
        self,
        way: str,
        request: Any,
        timeout: float | None,
        metadata: Any,
        credentials: grpc.CallCredentials | None,
        wait_for_ready: bool | None,
        compression: grpc.Compression | None,
    ) -> tuple[Any, ClientCall | None]:
        """
        Make a call in this way of grpc's own callable.

        Returns what that returns, and the call that is to end by it, or None where instrumentation is suppressed.
        """
        call: ClientCall | None = None
        if self._enabled():
            call, request = self._start(self._descriptor, request, metadata, timeout)
            if call.metadata or metadata is not None:
                metadata = call.metadata
        options = _given(timeout, metadata, credentials, wait_for_ready, compression)
        try:
            return getattr(self._observed, way)(request, **options), call
        except BaseException as error:
            if call is not None:
                call.raised(error, *carried_by(error))
            raise


def _given(
    timeout: float | None,
    metadata: Any,
    credentials: grpc.CallCredentials | None,
    wait_for_ready: bool | None,
    compression: grpc.Compression | None,
) -> dict[str, Any]:
    """Return the options that were given, and no others: somebody else's callables may not know all of them."""
    options: dict[str, Any] = {}
    if timeout is not None:
        options["timeout"] = timeout
    if metadata is not None:
        options["metadata"] = metadata
    if credentials is not None:
        options["credentials"] = credentials
    if wait_for_ready is not None:
        options["wait_for_ready"] = wait_for_ready
    if compression is not None:
        options["compression"] = compression
    return options


def _response_in(answer: Any) -> Any:
    """Return the response of what with_call returns, which is of somebody else's callables, too."""
    return answer[0] if isinstance(answer, tuple) and answer else answer


class _UnaryUnaryMultiCallable(_MultiCallable, grpc.UnaryUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a unary method."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its response."""
        result, call = self._make("__call__", request, timeout, metadata, credentials, wait_for_ready, compression)
        if call is not None:
            call.answered(result)
        return result

    def with_call(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its response and the call."""
        result, call = self._make("with_call", request, timeout, metadata, credentials, wait_for_ready, compression)
        if call is not None:
            call.answered(_response_in(result) if call.reports_messages else None)
        return result

    def future(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its future."""
        result, call = self._make("future", request, timeout, metadata, credentials, wait_for_ready, compression)
        return result if call is None else observe_future(result, call)


class _UnaryStreamMultiCallable(_MultiCallable, grpc.UnaryStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a server-streaming method."""

    def __call__(
        self,
        request: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its responses."""
        result, call = self._make("__call__", request, timeout, metadata, credentials, wait_for_ready, compression)
        return result if call is None else observe_responses(result, call)


class _StreamUnaryMultiCallable(_MultiCallable, grpc.StreamUnaryMultiCallable):  # type: ignore[type-arg]
    """What calls a client-streaming method."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its response."""
        result, call = self._make(
            "__call__", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        if call is not None:
            call.answered(result)
        return result

    def with_call(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its response and the call."""
        result, call = self._make(
            "with_call", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        if call is not None:
            call.answered(_response_in(result) if call.reports_messages else None)
        return result

    def future(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its future."""
        result, call = self._make(
            "future", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return result if call is None else observe_future(result, call)


class _StreamStreamMultiCallable(_MultiCallable, grpc.StreamStreamMultiCallable):  # type: ignore[type-arg]
    """What calls a bidirectional method."""

    def __call__(
        self,
        request_iterator: Any,
        timeout: float | None = None,
        metadata: Any = None,
        credentials: grpc.CallCredentials | None = None,
        wait_for_ready: bool | None = None,
        compression: grpc.Compression | None = None,
    ) -> Any:
        """Make the call, and return its responses."""
        result, call = self._make(
            "__call__", request_iterator, timeout, metadata, credentials, wait_for_ready, compression
        )
        return result if call is None else observe_responses(result, call)


CALLABLES: Final[Mapping[Type, type[ObservedCallable]]] = {
    "unary": _UnaryUnaryMultiCallable,
    "server_stream": _UnaryStreamMultiCallable,
    "client_stream": _StreamUnaryMultiCallable,
    "bidi_stream": _StreamStreamMultiCallable,
}
"""What calls a method, by its arity."""
