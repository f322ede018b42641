"""How the observation of a client's call starts, by an interceptor or by a callable of an observed channel."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, ClassVar

from ..calls.method import REQUEST_STREAMS, method_at
from ..calls.observation import Observing
from .call import AioClientCall, AioReportingCall, ClientCall, ReportingCall
from .requests import aio_count_sent, count_sent
from .status import carried_by

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..calls.method import Method, Type
    from ..calls.observer import Observer


class ClientObserving(Observing):
    """What reports a client's calls to these observers; `target` is the channel's address."""

    _call_classes: ClassVar[tuple[type[ClientCall], type[ClientCall]]] = (ClientCall, ReportingCall)
    """Those of calls whose messages nobody observes, or somebody does."""

    def __init__(self, *observers: Observer, target: str | None = None) -> None:
        super().__init__(*observers)
        self._target = target

    def _report_to(self, observers: Sequence[Observer]) -> None:
        super()._report_to(observers)
        self._call_class = self._call_classes[self._observers.see_messages]

    def _start(self, method: Method, request: Any, metadata: Any, timeout: float | None) -> tuple[ClientCall, Any]:
        """
        Start the observation of a call.

        Returns it, and its request, or its requests, counted as they are sent. What is no metadata is raised as grpc
        raises it, and reported.
        """
        started, started_ns = time.perf_counter(), time.time_ns()
        failure = None
        try:
            pairs = list(metadata or ())
        except Exception as error:  # noqa: BLE001 - it may be anything
            pairs, failure = [], error
        call = self._call_class(method, "client", pairs, self._observers, started, started_ns, timeout, self._target)
        if failure is not None and call.metadata_refused(failure, *carried_by(failure)):
            raise failure
        if method.type in REQUEST_STREAMS:
            return call, self._count_sent(call, request)
        call.sent = 1
        if call.reports_messages:
            call.message_sent(request)
        return call, request

    def _method(self, path: str | bytes, type_: Type) -> Method:
        """Return what is known of a method that is called."""
        known = self._methods.get((path, type_))
        if known is None:
            name = path.decode() if isinstance(path, bytes) else path
            known = self._methods.add((path, type_), method_at(name, type_))
        return known

    def _count_sent(self, call: ClientCall, requests: Any) -> Any:
        return count_sent(call, requests)


class AioClientObserving(ClientObserving):
    """The same for asyncio."""

    _call_classes = (AioClientCall, AioReportingCall)

    def _count_sent(self, call: ClientCall, requests: Any) -> Any:
        return aio_count_sent(call, requests)
