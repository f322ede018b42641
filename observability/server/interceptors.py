"""The server's side: interceptors that report every call that a server serves, refuses or does not know."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, ClassVar, Final

import grpc
import grpc.aio

from ..calls.method import arity, method_at
from ..calls.observation import Observation, Observing
from ..calls.status import CUT_OFF_DETAILS, status_before_handler
from .aio import AioObservedHandler, AioReportingHandler
from .call import AIO, SYNC, ServerCall
from .handler import standing_before
from .sync import SyncObservedHandler, SyncReportingHandler

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from ..calls.method import Method
    from ..calls.observer import Observer
    from .call import Rules

_UNKNOWN_METHOD_DETAILS: Final = "Method not found!"


def _parts(details: Any) -> tuple[str, tuple[Any, ...]]:
    """Return the method's path and the request metadata of these call details, which may be anybody's."""
    path, metadata = getattr(details, "method", None), getattr(details, "invocation_metadata", None)
    if type(metadata) is not tuple:  # as grpc's own are
        try:
            metadata = tuple((key, value) for key, value in metadata or ())
        except Exception:  # noqa: BLE001 - they may be anything
            metadata = ()
    return path if isinstance(path, str) else "", metadata


class _ServerObserving(Observing):
    """What both server interceptors share."""

    _rules: ClassVar[Rules]
    _handler_classes: ClassVar[tuple[Any, Any]]
    """Those of calls whose messages nobody observes, or somebody does."""

    def _report_to(self, observers: Sequence[Observer]) -> None:
        super()._report_to(observers)
        self._handler_class = self._handler_classes[self._observers.see_messages]

    def _observe(
        self,
        details: grpc.HandlerCallDetails,
        handler: grpc.RpcMethodHandler[Any, Any] | None,
        started: float,
        started_ns: int,
    ) -> ServerCall:
        """Start a call's observation; of an unknown method, end it too."""
        path, metadata = _parts(details)
        method = self._methods.get(path) or self._register(path, handler)
        call = ServerCall(self._rules, method, metadata, self._observers, started, started_ns)
        if handler is None:
            call.end(grpc.StatusCode.UNIMPLEMENTED, _UNKNOWN_METHOD_DETAILS)
        return call

    def _observe_failure(
        self, details: grpc.HandlerCallDetails, error: BaseException, started: float, started_ns: int
    ) -> None:
        """
        Report a call that has failed, or was cut off, in an interceptor after us, before there was a handler.

        Whether there is one is not known but from an earlier call: any caller can make up a name.
        """
        if not self._enabled():
            return
        path, metadata = _parts(details)
        method = self._methods.get(path) or method_at(path, "unary", registered=False)
        observation = Observation(method, "server", metadata, self._observers, started, started_ns)
        if isinstance(error, asyncio.CancelledError):
            code = status_before_handler(method.usual_deadline, observation.seconds)
            observation.end(code, CUT_OFF_DETAILS[code])
        else:
            observation.end(grpc.StatusCode.UNKNOWN, "", error)

    def _register(self, path: str, handler: grpc.RpcMethodHandler[Any, Any] | None) -> Method:
        """Take in a method at its first call; of too many, or unknown ones, nothing is kept."""
        if handler is None:
            return method_at(path, "unary", registered=False)
        type_ = arity(request_streaming=handler.request_streaming, response_streaming=handler.response_streaming)
        return self._methods.add(path, method_at(path, type_))


class ServerInterceptor(_ServerObserving, grpc.ServerInterceptor):
    """
    Reports to these observers every call that a grpc.server serves, refuses or does not know.

    Observers are started in the order given: trace_calls first, so that the others see its ids. Put it before
    other people's interceptors: how one that stands before it answers by itself cannot be seen.
    """

    _rules = SYNC
    _handler_class: type[SyncObservedHandler]
    _handler_classes = (SyncObservedHandler, SyncReportingHandler)

    def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], grpc.RpcMethodHandler[Any, Any] | None],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Observe one call; grpc calls this on its serving thread."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            handler = continuation(handler_call_details)
        except Exception as error:
            self._observe_failure(handler_call_details, error, started, started_ns)
            raise
        if not self._enabled():
            return handler
        call = self._observe(handler_call_details, handler, started, started_ns)
        return None if handler is None else standing_before(handler, self._handler_class)(handler, call)


class AioServerInterceptor(_ServerObserving, grpc.aio.ServerInterceptor):
    """Reports to these observers every call that a grpc.aio.server serves, refuses or does not know."""

    _rules = AIO
    _handler_class: type[AioObservedHandler]
    _handler_classes = (AioObservedHandler, AioReportingHandler)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any] | None:
        """Observe one call; grpc awaits this in the call's own task."""
        started, started_ns = time.perf_counter(), time.time_ns()
        try:
            handler = await continuation(handler_call_details)
        except (Exception, asyncio.CancelledError) as error:
            self._observe_failure(handler_call_details, error, started, started_ns)
            raise
        if not self._enabled():
            return handler
        call = self._observe(handler_call_details, handler, started, started_ns)
        if handler is None:
            return None
        observed = standing_before(handler, self._handler_class)(handler, call)
        observed.follow_task()
        return observed
